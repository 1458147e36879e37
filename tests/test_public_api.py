from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import impasto
from impasto import options as options_module
from impasto import settings

NAMES = [
    "Encoder",
    "FastStyle",
    "Generator",
    "ImpastoError",
    "Painter",
    "Picture",
    "Progress",
    "Result",
    "Style",
    "__version__",
    "grid",
    "iter_reconstruct",
    "iter_redo",
    "iter_texture",
    "iter_transfer",
    "open_image",
    "recolor",
    "reconstruct",
    "redo",
    "save_image",
    "texture",
    "transfer",
]
PACKAGE = Path(impasto.__file__).parent


def test_public_names_are_these() -> None:
    assert impasto.__all__ == NAMES
    assert dir(impasto) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_public_names_are_there_and_documented(name: str) -> None:
    found = getattr(impasto, name)
    if name == "__version__":
        assert found.count(".") == 2
        return
    assert found.__name__ == name
    assert found.__module__.startswith("impasto.")
    assert inspect.getdoc(found)


def test_other_names_are_not_there() -> None:
    assert not hasattr(impasto, "paint")
    with pytest.raises(AttributeError, match="paint"):
        getattr(impasto, "paint")  # noqa: B009 — mypy sees through the dot
    with pytest.raises(ImportError):
        exec("from impasto import paint")


def imported_for_type_checkers() -> dict[str, str]:
    """Each name of the TYPE_CHECKING block, with the module that it comes from."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.asname or alias.name: node.module or ""
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_what_is_there() -> None:
    """What is loaded when first used is what a type checker is told."""
    seen = imported_for_type_checkers()
    assert sorted([*seen, "__version__"]) == NAMES
    for name, module in seen.items():
        assert getattr(importlib.import_module(module), name) is getattr(impasto, name)
    assert (PACKAGE / "py.typed").is_file()


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_torch_waits_until_it_is_needed() -> None:
    sample = PACKAGE / "samples" / "strokes.jpg"
    run(
        "import sys, impasto\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        f"picture = impasto.open_image({str(sample)!r})\n"
        "assert picture.pil().size == picture.size\n"
        "assert issubclass(impasto.ImpastoError, Exception)\n"
        "assert 'torch' not in sys.modules\n"
    )


def test_functions_are_not_hidden_by_modules() -> None:
    run(
        "import impasto\n"
        "import impasto.jobs.transfer, impasto.jobs.texture, impasto.jobs.reconstruct\n"
        "import impasto.jobs.redo\n"
        "import impasto.settings, impasto.cli, impasto.commands, impasto.images\n"
        "for name in ('transfer', 'texture', 'reconstruct', 'redo', 'open_image'):\n"
        "    assert type(getattr(impasto, name)).__name__ == 'function', name\n"
        "from impasto import transfer\n"
        "assert transfer is impasto.transfer is impasto.jobs.transfer.transfer\n"
    )


@pytest.mark.parametrize("job", ["Transfer", "Texture", "Reconstruct"])
def test_options_for_type_checkers_are_the_settings(job: str) -> None:
    kind: Any = getattr(settings, f"{job}Settings")
    options: Any = getattr(options_module, f"{job}Options")
    hints, told = get_type_hints(kind), get_type_hints(options)
    wanted = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    assert told.keys() == wanted.keys()
    assert not options.__required_keys__
    for name, hint in wanted.items():
        # Layers may be text as well, and a start may be any picture.
        if name not in ("content_layers", "style_layers", "layers", "init"):
            assert told[name] == hint, name


@pytest.mark.parametrize("job", ["transfer", "texture", "reconstruct"])
def test_both_forms_of_a_job_take_the_same(job: str) -> None:
    once = inspect.signature(getattr(impasto, job)).parameters
    stepwise = inspect.signature(getattr(impasto, f"iter_{job}")).parameters
    assert [name for name in once if name != "on_progress"] == list(stepwise)
    assert once["on_progress"].default is None
    assert once["on_progress"].kind is inspect.Parameter.KEYWORD_ONLY
