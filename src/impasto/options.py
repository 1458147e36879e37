"""The keyword arguments of the jobs, for type checkers: the settings, all of them optional.

They repeat the fields of `impasto.settings`, since Python has no way to derive one from the other;
a test holds them together. Layers may be text here, and a start may be any picture.
"""

from typing import Any, Literal, TypedDict

from impasto.settings import (
    Clip,
    Colors,
    DeviceName,
    Layers,
    Method,
    Noise,
    Normalization,
    OptimizerName,
    Padding,
    Pooling,
    Precision,
    Reduction,
)

__all__ = ["ReconstructOptions", "TextureOptions", "TransferOptions"]


class _Options(TypedDict, total=False):
    preset: str
    steps: int
    scales: int
    optimizer: OptimizerName
    memory: int
    rounds: int
    clip: Clip
    rate: float
    beta1: float
    beta2: float
    epsilon: float
    encoder: str
    pooling: Pooling
    padding: Padding
    normalize: Normalization
    pixel_range: int
    tv_weight: float
    tv_beta: float
    tv_reduction: Reduction
    ripple_weight: float
    noise: Noise
    seed: int
    device: DeviceName
    precision: Precision
    threads: int


class TransferOptions(_Options, total=False):
    """The keyword arguments of `transfer`, for type checkers; see `TransferSettings`."""

    method: Method
    size: int | Literal["full"]
    strength: float | None
    content_weight: float
    style_weight: float
    content_layers: Layers | str
    style_layers: Layers | str
    style_scale: float
    colors: Colors
    init: Any


class TextureOptions(_Options, total=False):
    """The keyword arguments of `texture`, for type checkers; see `TextureSettings`."""

    out_size: tuple[int, int]
    style_weight: float
    style_layers: Layers | str
    style_scale: float
    init: Any


class ReconstructOptions(_Options, total=False):
    """The keyword arguments of `reconstruct`, for type checkers; see `ReconstructSettings`."""

    size: int | Literal["full"]
    layers: tuple[str, ...] | str
    init: Any
