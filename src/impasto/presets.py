"""The presets: what well-known papers and articles did, as changes to the defaults.

A preset holds the source's own figures. Those that the source does not give, or that we had to
change, are ours, and `Preset.ours` names them. A weight means something only together with the
network that it was chosen for; on our small network, whose features are normalised, every preset
therefore has layers and weights of its own (`Preset.slim`), all of them ours.
`docs/recipes.md` compares each preset with its source, number by number.

Nothing here imports torch. The values are those of `impasto.settings`, layers as on the command
line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings to begin with.

    Attributes:
        summary: what it is, in one line.
        source: whom it follows.
        values: what it changes of the defaults, for every job that has such a setting.
        jobs: what it changes further for one job, by the job's name, on every network.
        slim: what takes the place of these values on our small network.
        ours: the names among `values` and `jobs` whose figures the source does not give.
        film: whether the source shows the picture coming into being, so that we keep a film too.
    """

    summary: str
    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    slim: Mapping[str, Any] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()
    film: bool = False

    def settings(self, job: str, *, slim: bool) -> dict[str, Any]:
        """What it changes of the defaults.

        Args:
            job: `transfer`, `texture` or `reconstruct`.
            slim: whether the network is our small one.
        """
        return {**self.values, **(self.slim if slim else {}), **self.jobs.get(job, {})}


_CLASSIC: Final[Mapping[str, Any]] = {"scales": 1, "padding": "zero", "ripple_weight": 0.0}
"""What every source has in common: one scale, convolutions padded with zeros, no such term."""

_UNSAID: Final = frozenset(
    {"content_layers", "style_layers", "content_weight", "style_weight", "pooling"}
    | {"optimizer", "memory", "size", "steps"}
)
"""What the `pytorch` preset's source leaves open."""

_FIVE_FIRST: Final = "relu1_1=0.2,relu2_1=0.2,relu3_1=0.2,relu4_1=0.2,relu5_1=0.2"

PRESETS: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        "default": Preset(
            summary="coarse to fine, from what one pass makes of the photo, on our networks",
            source="ours",
        ),
        "gatys": Preset(
            summary="the original: VGG-19 with average pooling, L-BFGS from white noise",
            source="Gatys, Ecker & Bethge 2015 (arXiv:1508.06576) and 2016 (CVPR)",
            values={
                **_CLASSIC,
                "encoder": "vgg19",
                "pooling": "avg",
                "normalize": "gatys",
                "content_layers": "relu4_2",
                "style_layers": _FIVE_FIRST,
                "content_weight": 1.0,
                "style_weight": 1000.0,
                "init": "noise",
                "optimizer": "lbfgs",
                "memory": 20,
                "size": 512,
                "steps": 500,
            },
            ours=frozenset({"memory", "steps"}),
            slim={"padding": "replicate", "style_weight": 2e7},
        ),
        "keras-vgg16": Preset(
            summary="VGG-16, sums instead of means, total variation, ten rounds of L-BFGS",
            source="an article with Keras code, after Johnson, Alahi & Fei-Fei 2016",
            values={
                **_CLASSIC,
                "encoder": "vgg16",
                "pooling": "max",
                "normalize": "keras",
                "content_layers": "relu2_2",
                "style_layers": "relu1_2=0.2,relu2_2=0.2,relu3_3=0.2,relu4_3=0.2,relu5_3=0.2",
                "content_weight": 0.05,
                "style_weight": 4.0,
                "tv_weight": 1.0,
                "tv_beta": 2.5,
                "tv_reduction": "sum",
                "pixel_range": 255,
                "init": "noise",
                "noise": "centred",
                "optimizer": "lbfgs",
                "memory": 10,
                "rounds": 10,
                "clip": "end",
                "size": 450,
                "steps": 200,
            },
            jobs={"texture": {"out_size": (450, 450)}},
            ours=frozenset({"memory"}),
            slim={
                "padding": "replicate",
                "pooling": "avg",
                "style_layers": "relu1_2=0.2,relu2_2=0.2,relu3_2=0.2,relu4_2=0.2,relu5_1=0.2",
                "style_weight": 3e5,
                "tv_weight": 1e-4,
            },
        ),
        "fastai": Preset(
            summary="VGG-16 with average pooling, weighted layers, a film of ten rounds",
            source="a lesson of the fast.ai course with Keras code",
            values={
                **_CLASSIC,
                "encoder": "vgg16",
                "pooling": "avg",
                "normalize": "fastai",
                "content_layers": "relu4_2",
                "style_layers": "relu1_2=0.05,relu2_2=0.2,relu3_2=0.2,relu4_2=0.25,relu5_2=0.3",
                "content_weight": 0.1,
                "style_weight": 1.0,
                "init": "noise",
                "noise": "faint",
                "optimizer": "lbfgs",
                "memory": 10,
                "rounds": 10,
                "clip": "round",
                "size": 512,
                "steps": 200,
            },
            jobs={
                "texture": {"style_layers": "relu1_1,relu2_1", "style_weight": 2.0},
                "reconstruct": {"layers": "relu5_1", "size": 256},
            },
            ours=frozenset({"memory", "size"}),
            slim={
                "padding": "replicate",
                "style_layers": "relu1_2=0.05,relu2_2=0.2,relu3_2=0.2,relu4_2=0.25,relu5_1=0.3",
                "style_weight": 6000.0,
            },
            film=True,
        ),
        "tensorflow": Preset(
            summary="VGG-19, Adam on the pixels, from the photo, the lowest loss is kept",
            source="the TensorFlow team's article on neural style transfer with eager execution",
            values={
                **_CLASSIC,
                "encoder": "vgg19",
                "pooling": "max",
                "normalize": "mean",
                "content_layers": "relu5_2",
                "style_layers": _FIVE_FIRST,
                "content_weight": 1000.0,
                "style_weight": 0.01,
                "optimizer": "adam",
                "pixel_range": 255,
                "rate": 5.0,
                "beta1": 0.99,
                "beta2": 0.999,
                "epsilon": 0.1,
                "size": 512,
                "steps": 1000,
            },
            jobs={"transfer": {"init": "content"}},
            slim={
                "padding": "replicate",
                "pooling": "avg",
                "content_layers": "relu5_1",
                "content_weight": 1.0,
                "style_weight": 100.0,
                "epsilon": 1e-12,
            },
        ),
        "pytorch": Preset(
            summary="VGG-19, several content layers, from the photo or from white noise",
            source="an article with PyTorch code",
            values={
                **_CLASSIC,
                "encoder": "vgg19-tv",
                "pooling": "max",
                "normalize": "gatys",
                "content_layers": "relu3_2,relu4_2",
                "style_layers": _FIVE_FIRST,
                "content_weight": 2.0,
                "style_weight": 1e7,
                "optimizer": "lbfgs",
                "memory": 20,
                "size": 512,
                "steps": 300,
            },
            jobs={"transfer": {"init": "content"}},
            ours=_UNSAID,
            slim={"padding": "replicate", "pooling": "avg", "style_weight": 2e8},
        ),
    }
)
"""The presets by name, `default` first."""
