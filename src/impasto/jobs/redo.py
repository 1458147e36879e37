"""Makes a result again from the record that is stored inside it.

The record names the inputs and remembers their SHA-256; the files are looked for beside the result,
in the working folder and among the samples, or are given. Whatever is found has to be the very
file. On the same machine and versions the pixels come out the same.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from impasto.animation import Animation, open_animation
from impasto.classics import CLASSICS, is_file
from impasto.errors import ImpastoError, RunError, SettingsError
from impasto.files import sha256_file
from impasto.gan.builtin import BUILTIN
from impasto.images import MAX_PIXELS, Picture, open_image
from impasto.inputs import Style
from impasto.progress import OnProgress, Progress, Result, drive
from impasto.records import describe_input, read_settings, versions
from impasto.settings import (
    STARTS,
    DeviceName,
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from impasto.sources import Source, resolve, samples

if TYPE_CHECKING:
    from impasto.files import StrPath

__all__ = ["Plan", "is_animated", "iter_redo", "plan_redo", "read_steps", "redo"]

ALONE: Final = ("content", "init", "protect", "regions")
"""The roles of inputs that there is one of at most."""

OF_STYLES: Final = ("mask", "style-regions")
"""The roles of inputs that belong to a style."""

KINDS: Final[Mapping[str, type[Settings]]] = {
    kind.job: kind for kind in (TransferSettings, TextureSettings, ReconstructSettings)
}


@dataclass(frozen=True)
class Plan:
    """What is to be done again.

    Attributes:
        record: the record of the result.
        inputs: the pictures that it names, in its order.
        options: every option of the job.
        warnings: why the pixels might differ, one line each.
        animation: all frames of the photo, if all were painted; else None.
    """

    record: Mapping[str, Any]
    inputs: list[Picture]
    options: dict[str, Any]
    warnings: list[str] = field(default_factory=list)
    animation: Animation | None = None

    @property
    def photo(self) -> Picture | None:
        """The picture whose content it is; None for a texture."""
        return next((picture for role, picture in self._roles() if role == "content"), None)

    def steps(self) -> Generator[Progress, None, Result]:
        """The job, step by step. It ends where the result had been stopped, if it was."""
        job = self._job()
        stop = self.record["steps"] if _is_partial(self.record) else None
        while True:
            try:
                progress = next(job)
            except StopIteration as end:
                return self._as_asked(end.value)
            yield progress
            if progress.step == stop:
                return self._as_asked(progress.result())

    def _as_asked(self, result: Result) -> Result:
        """The result with the options as they had been given, not as they were decided."""
        return replace(result, settings=result.settings | {"settings": self.record["settings"]})

    def _roles(self) -> Iterator[tuple[str, Picture]]:
        yield from zip((e["role"] for e in self.record["inputs"]), self.inputs, strict=True)

    def _job(self) -> Generator[Progress, None, Result]:
        from impasto.jobs.frames import iter_frames
        from impasto.jobs.reconstruct import iter_reconstruct
        from impasto.jobs.texture import iter_texture
        from impasto.jobs.transfer import Painter

        options = dict(self.options)
        alone = {role: picture for role, picture in self._roles() if role in ALONE}
        if "init" in alone:
            options["init"] = alone["init"]
        if self.record["job"] == "texture":
            return iter_texture(self._styles("style"), **options)
        if self.record["job"] == "transfer":
            painter = Painter(
                self._styles("style"),
                coarse_from=self._styles("coarse"),
                protect=alone.get("protect"),
                regions=alone.get("regions"),
                **options,
            )
            if self.animation:
                return iter_frames(painter, self.animation)
            return painter.iter(alone["content"])
        return iter_reconstruct(alone["content"], **options)

    def _styles(self, role: str) -> list[Style]:
        """The styles of this role, each with its weight, mask and map."""
        entries = list(zip(self.record["inputs"], self.inputs, strict=True))
        drawings = {
            (entry["role"], entry["of"]): picture for entry, picture in entries if "of" in entry
        }
        chosen = [pair for pair in entries if pair[0]["role"] == role]
        return [
            Style(
                picture,
                entry.get("weight", 1.0),
                *(drawings.get((kind, number)) if role == "style" else None for kind in OF_STYLES),
            )
            for number, (entry, picture) in enumerate(chosen)
        ]


def plan_redo(
    result: "StrPath",
    *,
    content: "StrPath | None" = None,
    styles: Sequence["StrPath"] = (),
    init: "StrPath | None" = None,
    masks: Sequence["StrPath"] = (),
    encoder: "StrPath | None" = None,
    max_pixels: int = MAX_PIXELS,
) -> Plan:
    """Reads the record of a result and finds everything that it needs.

    Args:
        result: a picture that impasto made.
        content: the photo, where it is not to be found by its name.
        styles: the style pictures, all of them in any order, likewise; coarse ones too.
        init: the picture that it started from, likewise.
        masks: masks and maps, all of them in any order, likewise.
        encoder: the weight file, where the network is not here under its name.
        max_pixels: the largest input to read.

    Raises:
        ImpastoError: it has no record, or an input or the network is missing or another one.
    """
    path = Path(result)
    record = _checked(read_settings(path), path)
    given = {role: [file] if file else [] for role, file in (("content", content), ("init", init))}
    given |= {"style": list(styles), "mask": list(masks)}
    flags = {entry["role"]: _flag(entry["role"]) for entry in record["inputs"]}
    for flag, files in given.items():
        if files and flag not in flags.values():
            raise SettingsError(f"{path} was made without --{flag}; leave it out")
    inputs = [
        _found(entry, [str(file) for file in given[flags[entry["role"]]]], path, max_pixels)
        for entry in record["inputs"]
    ]
    options = _options(record, path)
    total = options["steps"] * len(options.get("layers", "1"))
    if options.get("method") == "fast" or "frames" in record:
        total = record["steps"]  # so many tiles or frames, which no setting says
    if not 0 <= record["steps"] <= total or (_is_partial(record) and not record["steps"]):
        raise ImpastoError(f"the record in {path} is damaged: it tells of {record['steps']} steps")
    options["encoder"] = _encoder(record, encoder, path)
    _check_start(record, path)
    here = versions()
    warnings = [
        f"made with {name} {then}, here is {here.get(name)}: pixels may differ"
        for name, then in record["versions"].items()
        if here.get(name) != then
    ]
    if not _has_device(options["device"]):
        warnings.append(f"made on {options['device']}, which is not here: pixels may differ")
        options["device"] = "auto"
    made = Plan(record, inputs, options, warnings)
    if "frames" in record and made.photo and made.photo.source:
        animation = open_animation(made.photo.source, max_pixels=max_pixels)
        count, whole = record["frames"], len(animation.durations)
        if count not in range(1, whole + 1) or (count < whole and not _is_partial(record)):
            raise ImpastoError(
                f"the record in {path} is damaged: it tells of {count!r} of {whole} frames"
            )
        return replace(made, animation=animation)
    return made


def read_steps(result: "StrPath") -> int:
    """How many steps a result took.

    Raises:
        ImpastoError: it has no record, or a damaged one.
    """
    steps: int = _checked(read_settings(Path(result)), Path(result))["steps"]
    return steps


def is_animated(result: "StrPath") -> bool:
    """Whether a result has all frames of an animation, by its record."""
    return "frames" in (read_settings(Path(result)) or {})


def iter_redo(result: "StrPath", **where: Any) -> Generator[Progress, None, Result]:
    """As `redo`, step by step."""
    return (yield from plan_redo(result, **where).steps())


def redo(result: "StrPath", *, on_progress: OnProgress | None = None, **where: Any) -> Result:
    """Makes a result again: the same pixels on the same machine and versions.

    Args:
        result: a picture that impasto made, with its record.
        on_progress: called after every step.
        **where: `content`, `styles`, `init`, `masks`, `encoder`: as for `plan_redo`.

    Raises:
        ImpastoError: as for `plan_redo`.
    """
    return drive(iter_redo(result, **where), on_progress)


def _checked(record: Mapping[str, Any] | None, path: Path) -> Mapping[str, Any]:
    """The record, if it is one of a result."""
    if record is None:
        raise ImpastoError(
            f"{path} has no record of impasto's in it; only a result of impasto's, saved with its "
            "record and not edited since, can be redone"
        )
    if record.get("status") == "preview":
        raise ImpastoError(f"{path} is a preview; redo the result itself")
    if record.get("status") == "sheet":
        raise ImpastoError(f"{path} is a sheet; redo the pictures in {path.stem}-cells")
    if str(record.get("job")).startswith("gan "):
        seed = f" with --seed {record['seed']}" if isinstance(record.get("seed"), int) else ""
        raise ImpastoError(f"{path} was painted by impasto {record['job']}: run that again{seed}")
    if record.get("job") == "recolor":
        raise ImpastoError(f"{path} was made by impasto recolor, which is quick: run that again")
    encoder = record.get("encoder")
    sound = (
        isinstance(record.get("job"), str)
        and record["job"] in KINDS
        and isinstance(record.get("settings"), dict)
        and isinstance(record.get("versions"), dict)
        and isinstance(record.get("steps"), int)
        and isinstance(encoder, dict)
        and all(isinstance(encoder.get(key), str) for key in ("name", "sha256"))
        and _sound_inputs(record["job"], record.get("inputs"))
        and _sound_start(record)
    )
    if not sound:
        raise ImpastoError(f"the record in {path} is damaged, or of another version of impasto")
    return record


def _sound_inputs(job: str, inputs: Any) -> bool:
    """Whether these are the inputs of such a job."""
    entries: list[Any] = inputs if isinstance(inputs, list) else [None]
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("sha256"), str):
            return False
        if not isinstance(entry.get("name"), str | None):
            return False
        if not isinstance(entry.get("role"), str):
            return False
        weight = entry.get("weight", 1.0)
        if not isinstance(weight, int | float) or not 0 < weight < 1e30:
            return False
    roles = [entry.get("role") for entry in entries]
    return (
        set(roles) <= {*ALONE, "style", *(("coarse", *OF_STYLES) if job == "transfer" else ())}
        and roles.count("content") == (job != "texture")
        and (roles.count("style") > 0) == (job != "reconstruct")
        and all(roles.count(role) <= 1 for role in ALONE)
        and all(
            ("of" in entry) == (entry["role"] in OF_STYLES)
            and entry.get("of", 0) in range(roles.count("style") or 1)
            for entry in entries
        )
    )


def _begun_in_one_pass(record: Mapping[str, Any]) -> bool:
    """Whether the optimiser started from what one pass made."""
    settings = record["settings"]
    return bool(settings.get("init") == "fast" and settings.get("method") != "fast")


def _sound_start(record: Mapping[str, Any]) -> bool:
    """Whether it started from a word, or from one of its inputs, and from no other file."""
    if _begun_in_one_pass(record):
        start = record.get("start")
        return isinstance(start, dict) and isinstance(start.get("sha256"), str)
    return any(entry["role"] == "init" for entry in record["inputs"]) or (
        record["settings"].get("init", "noise") in STARTS["transfer"]
    )


def _found(
    entry: Mapping[str, Any], given: Sequence[str], result: Path, max_pixels: int
) -> Picture:
    """The input that an entry of the record means: the file whose SHA-256 it has."""
    role, name, wanted = entry["role"], entry.get("name"), entry["sha256"]
    others: list[str] = []
    for source in _candidates(name, given, result):
        if source.seed is None and sha256_file(source.path) == wanted:
            return open_image(source.path, max_pixels=max_pixels)
        with suppress(ImpastoError):  # the record may have the sum of pixels that were no file
            picture = source.open(max_pixels=max_pixels)
            pixels = Picture(picture.pixels, picture.alpha)
            sums = {describe_input(role, each)["sha256"] for each in (picture, pixels)}
            if wanted in sums:
                return picture
        others.append(source.text)
    what = f"the {role} picture" + (f" {name}" if name else "")
    if len(others) > 1 and given:
        raise ImpastoError(
            f"none of {', '.join(others)} is {what} that {result.name} was made from "
            f"(SHA-256 {wanted[:12]}…)"
        )
    if others:
        raise ImpastoError(
            f"{others[0]} is not {what} that {result.name} was made from (its SHA-256 is not "
            f"{wanted[:12]}…); give the right one with --{_flag(role)}"
        )
    raise ImpastoError(
        f"cannot find {what} that {result.name} was made from; give it with --{_flag(role)} FILE"
    )


def _flag(role: str) -> str:
    """The flag that gives a picture of this role."""
    if role in ("content", "init"):
        return role
    return "style" if role in ("style", "coarse") else "mask"


def _candidates(name: str | None, given: Sequence[str], result: Path) -> Iterator[Source]:
    """Where an input may be: what is given, or beside the result, here, among the samples."""
    if given:
        for source in map(resolve, given):
            if source.seed is None and not is_file(source.path):
                raise ImpastoError(f"cannot read {source.path}: it is not a file")
            yield source
    elif name and name.startswith("gan:"):
        run = name.removeprefix("gan:")
        if run.startswith(BUILTIN):
            with suppress(ImpastoError):
                yield resolve(name)
            return
        for folder in (result.parent, Path()) if Path(run).name == run else ():
            with suppress(ImpastoError):
                yield resolve(f"gan:{folder / run}")
    elif name and Path(name).name == name:
        for path in chain((result.parent / name, Path(name)), _sample(name)):
            if is_file(path) and not path.samefile(result):  # results may be called as photos are
                yield Source(str(path), path)


def _is_partial(record: Mapping[str, Any]) -> bool:
    return record.get("status") == "partial"


def _sample(name: str) -> list[Path]:
    return [path for path in samples().values() if path.name == name]


def _options(record: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Every option as it was: what had been left to the machine as it was decided then."""
    kind = KINDS[record["job"]]
    stored = dict(record["settings"])
    unknown = stored.keys() - kind().record().keys()
    if unknown:
        raise ImpastoError(
            f"{path} was made by an impasto that knows {', '.join(sorted(unknown))}, "
            "which this one does not; update impasto"
        )
    options = kind().record() | stored
    decided = {"device": "device", "precision": "dtype", "threads": "threads"}
    options |= {name: record[key] for name, key in decided.items() if key in record}
    settings = make_settings(kind, options)  # a damaged one is found before the work
    return {name: getattr(settings, name) for name in options}


def _has_device(name: DeviceName) -> bool:
    from impasto.compute import choose_device

    try:
        choose_device(name)
    except RunError:
        return False
    return True


def _check_start(record: Mapping[str, Any], path: Path) -> None:
    """Refuses a result whose start was painted by a network that is not here."""
    if not _begun_in_one_pass(record):
        return
    from impasto.weights import check_sha256, weights_path

    check_sha256(
        f"the start of {path.name}", record["start"]["sha256"], sha256_file(weights_path("fast"))
    )


def _encoder(record: Mapping[str, Any], given: "StrPath | None", path: Path) -> str:
    """The name or path of the very network; refused if it is not here."""
    from impasto.weights import weights_path

    name, wanted = record["encoder"]["name"], record["encoder"]["sha256"]
    names = [str(each) for each in (record["settings"].get("encoder", name), name)]
    for candidate in [given] if given else [each for each in names if Path(each).name == each]:
        try:
            file = weights_path(str(candidate))
        except ImpastoError:
            if given:
                raise
            continue
        if sha256_file(file) == wanted:
            return str(candidate)
        if given:
            raise ImpastoError(
                f"{given} is not the network {name} that {path.name} was made with "
                f"(its SHA-256 is not {wanted[:12]}…)"
            )
    fetch = f", or fetch them: impasto weights fetch {name}" if name in CLASSICS else ""
    raise ImpastoError(
        f"{path.name} was made with the weights {name} (SHA-256 {wanted[:12]}…), which are not "
        f"here; give their file with --encoder PATH{fetch}"
    )
