"""What `impasto export` does with its arguments."""

from pathlib import Path

from impasto.desk import DONE
from impasto.errors import ImpastoError, SettingsError
from impasto.terminal import Reporter

__all__ = ["run_export"]


def run_export(out: str, network: str, overwrite: bool, quiet: bool) -> int:
    """`impasto export`. Returns the exit code."""
    path = Path(out)
    if path.suffix != ".onnx":
        raise SettingsError(f"{out} has to end in .onnx")
    if not path.parent.is_dir():
        raise ImpastoError(f"cannot write {out}: there is no folder {path.parent}; make it first")
    if path.exists() and not overwrite:
        raise ImpastoError(f"{out} is there; choose another name, or replace it with --overwrite")
    with Reporter(quiet) as reporter:
        reporter.begin(f"exporting to {path.name}")
        from impasto.fast.export import export_onnx
        from impasto.fast.style import FastStyle

        error = export_onnx(FastStyle.load(network), path)
        size = path.stat().st_size / 1e6
        reporter.result(path, f"({size:.1f} MB; at most {error:.1g} from torch)")
    return DONE
