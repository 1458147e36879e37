"""Where to compute and in which precision: read off the hardware, never off a clock."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from impasto.errors import RunError
from impasto.settings import DeviceName, Precision

__all__ = ["choose_device", "choose_dtype", "keep_memory", "memory_errors", "threads"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def choose_device(name: DeviceName) -> torch.device:
    """The device of this name; `auto` takes CUDA, then MPS, then the CPU.

    Raises:
        RunError: this machine or this build of torch does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = "cuda" if available["cuda"] else "mps" if available["mps"] else "cpu"
    if not available[name]:
        raise RunError(f"there is no {name} device here, or torch was built without it; use cpu")
    return torch.device(name)


def choose_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The dtype of the network's convolutions.

    `auto` takes bfloat16 only where the hardware computes in it: a CPU with AVX-512 BF16 or AMX,
    an NVIDIA GPU from Ampere on. Elsewhere it is emulated, and slower than float32.
    """
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    native = (device.type == "cpu" and _cpu_has_bfloat16()) or (
        device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    )
    return torch.bfloat16 if native else torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU's capability flags name bfloat16 arithmetic."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        check = getattr(torch.cpu, name, None)
        if check is not None and check():
            return True
    return False


def keep_memory() -> None:
    """Tells glibc to keep freed memory for the next step; elsewhere it does nothing.

    A step frees as many megabytes as it allocates. By default glibc gives each large block back to
    the system, and the next step pays to have it zeroed and mapped anew, a fifth of its time. This
    concerns the whole process, so programs call it and the library does not.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # absent from other C libraries
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def threads(count: int) -> Iterator[int]:
    """Computes with this many CPU threads (0: as it is) and puts the number back afterwards.

    Yields:
        The number in force.
    """
    before = torch.get_num_threads()
    if count:
        torch.set_num_threads(count)
    try:
        yield torch.get_num_threads()
    finally:
        if count:
            torch.set_num_threads(before)


@contextmanager
def memory_errors(doing: str) -> Iterator[None]:
    """Turns every way in which memory can run out into one RunError.

    Args:
        doing: what needed it, as in "painting at 4000×3000 px".
    """
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        pass
    except RuntimeError as error:  # the CPU's allocator has no exception of its own
        if "memory" not in str(error):
            raise
    else:
        return
    raise RunError(f"not enough memory for {doing}; choose a smaller size")
