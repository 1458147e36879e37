"""What the command lines of the recipes share."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import torch

from impasto.compute import choose_device, choose_dtype, keep_memory
from impasto.errors import ImpastoError
from impasto.settings import Precision

T = TypeVar("T")


class Place(NamedTuple):
    """Where a recipe runs, and for how long."""

    device: torch.device
    dtype: torch.dtype
    cache: Path
    stop: Callable[[], bool]


def make_parser(doc: str | None, options: type[Any]) -> argparse.ArgumentParser:
    """A command line with what all recipes have, and a flag for each of a dataclass's fields.

    Args:
        doc: the recipe's docstring, whose first line is shown.
        options: the dataclass; every field has a default.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of this run")
    parser.add_argument("--cache", type=Path, help="folder of decoded pictures; else OUT/cache")
    parser.add_argument("--resume", action="store_true", help="go on with the run in OUT")
    parser.add_argument("--time", type=float, default=math.inf, help="stop after so many minutes")
    parser.add_argument("--log-every", type=int, default=50, help="steps between lines of the log")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all")
    parser.add_argument("--precision", choices=get_args(Precision), default="auto")
    for field in dataclasses.fields(options):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(flag, type=type(field.default), default=field.default)
    return parser


def chosen(given: argparse.Namespace, options: type[T]) -> T:
    """The dataclass with what was given."""
    names = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]
    return options(**{name: getattr(given, name) for name in names})


@contextmanager
def in_one_line(parser: argparse.ArgumentParser) -> Iterator[None]:
    """Where what the user can mend ends in one line and exit code 2."""
    try:
        yield
    except ImpastoError as error:
        parser.error(str(error))


def begin(given: argparse.Namespace) -> Place:
    """Sets threads and memory; the clock starts."""
    began = time.monotonic()
    keep_memory()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = choose_device("auto")
    return Place(
        device,
        choose_dtype(device, given.precision),
        given.cache or given.out / "cache",
        lambda: time.monotonic() - began > given.time * 60,
    )
