"""Presets: the loss of each against its source's formula; and what is told of them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import pictures
from impasto.encoder import PLANS, Encoder
from impasto.errors import SettingsError
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.presets import PRESETS, Preset
from impasto.recipes import describe, overview
from impasto.settings import ReconstructSettings, TextureSettings, TransferSettings, make_settings

CLASSICS = [name for name in PRESETS if name != "default"]
H, W = 48, 64
RECIPES = Path(__file__).parents[1] / "docs" / "recipes.md"


@pytest.fixture(scope="module")
def networks() -> dict[str, Encoder]:
    """VGG-16 and VGG-19 with weights for pixels in 0..255, as the Oxford files have them."""
    made = {}
    for name in ("vgg16", "vgg19"):
        for pooling in ("max", "avg"):
            plan = PLANS[name]
            made[f"{name} {pooling}"] = Encoder.random(plan, pooling=pooling, padding="zero")
    return made


def drawn(seed: int) -> Tensor:
    """A picture, `(1, 3, H, W)`, sRGB in [0, 1]."""
    return torch.tensor(pictures.painting(W, H, seed)).permute(2, 0, 1)[None].float() / 255


PHOTO, STYLE, X = drawn(1), drawn(2), drawn(3)


def features(network: Encoder, x: Tensor, layers: list[str]) -> dict[str, Tensor]:
    """`{layer: (N, M)}`, float64."""
    with torch.no_grad():
        return {k: v[0].flatten(1).double() for k, v in network(x, layers).items()}


def parts(network: Encoder, settings: TransferSettings) -> dict[str, float]:
    """The parts of the loss of X, as `transfer` puts them together."""
    keep, take = settings.weights
    objective = make_objective(
        network,
        (W, H),
        content=ContentTerm(PHOTO, settings.content_layers, keep),
        style=StyleTerm([Region(Styles([STYLE], [1.0]))], settings.style_layers, take, (W, H)),
        settings=settings,
    )
    with torch.no_grad():
        return {name: float(part) for name, part in objective(X).items()}


def close(found: Mapping[str, float], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=2e-4), name


def test_gatys(networks: dict[str, Encoder]) -> None:
    """Gatys et al. 2015, eq. 1 to 7, sums over positions and all; α/β = 1e-3."""
    network = networks["vgg19 avg"]
    settings = make_settings(TransferSettings, {"preset": "gatys"})
    assert (settings.encoder, settings.pooling, settings.init) == ("vgg19", "avg", "noise")
    assert (settings.optimizer, settings.scales, settings.tv_weight) == ("lbfgs", 1, 0)
    layers = [f"relu{block}_1" for block in range(1, 6)]
    x, p, a = (features(network, y, [*layers, "relu4_2"]) for y in (X, PHOTO, STYLE))
    content = 0.5 * (x["relu4_2"] - p["relu4_2"]).square().sum()
    style = torch.zeros(())
    for layer in layers:
        N, M = x[layer].shape
        G, A = x[layer] @ x[layer].T, a[layer] @ a[layer].T
        style = style + 0.2 * (G - A).square().sum() / (4 * N**2 * M**2)
    close(parts(network, settings), {"content": content, "style": 1000 * style})


def test_keras_vgg16(networks: dict[str, Encoder]) -> None:
    """The article's formulas, the total variation in 0..255 units."""
    network = networks["vgg16 max"]
    settings = make_settings(TransferSettings, {"preset": "keras-vgg16"})
    assert (settings.encoder, settings.pooling, settings.size) == ("vgg16", "max", 450)
    assert (settings.rounds, settings.steps, settings.clip) == (10, 200, "end")
    assert (settings.init, settings.noise) == ("noise", "centred")
    layers = ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    x, p, a = (features(network, y, layers) for y in (X, PHOTO, STYLE))
    content = 0.05 * (x["relu2_2"] - p["relu2_2"]).square().sum()
    style = torch.zeros(())
    for layer in layers:
        S, C = a[layer] @ a[layer].T, x[layer] @ x[layer].T
        style = style + 4.0 / 5 * (S - C).square().sum() / (4 * 3**2 * (H * W) ** 2)
    y = X.double() * 255
    first = (y[..., : H - 1, : W - 1] - y[..., 1:, : W - 1]).square()
    second = (y[..., : H - 1, : W - 1] - y[..., : H - 1, 1:]).square()
    variation = 1.0 * (first + second).pow(1.25).sum()
    close(parts(network, settings), {"content": content, "style": style, "tv": variation})


def test_fastai(networks: dict[str, Encoder]) -> None:
    """Means everywhere, Grams over all their numbers, content over the factor 10."""
    network = networks["vgg16 avg"]
    settings = make_settings(TransferSettings, {"preset": "fastai"})
    assert (settings.encoder, settings.pooling, settings.noise) == ("vgg16", "avg", "faint")
    assert (settings.rounds, settings.steps, settings.clip) == (10, 200, "round")
    layers = [f"relu{block}_2" for block in range(1, 6)]
    x, p, a = (features(network, y, layers) for y in (X, PHOTO, STYLE))
    content = (x["relu4_2"] - p["relu4_2"]).square().mean() / 10
    style = torch.zeros(())
    for layer, weight in zip(layers, (0.05, 0.2, 0.2, 0.25, 0.3), strict=True):
        G, A = (f[layer] @ f[layer].T / f[layer].numel() for f in (x, a))
        style = style + weight * (G - A).square().mean()
    close(parts(network, settings), {"content": content, "style": style})


def test_fastai_has_halves_of_its_own() -> None:
    alone = make_settings(ReconstructSettings, {"preset": "fastai"})
    assert (alone.layers, alone.normalize, alone.rounds) == (("relu5_1",), "fastai", 10)
    texture = make_settings(TextureSettings, {"preset": "fastai"})
    assert texture.style_layers == {"relu1_1": 1, "relu2_1": 1}
    assert PRESETS["fastai"].film


def test_tensorflow(networks: dict[str, Encoder]) -> None:
    """Means everywhere, Grams over positions, Adam's figures in 0..255 units."""
    network = networks["vgg19 max"]
    settings = make_settings(TransferSettings, {"preset": "tensorflow"})
    assert (settings.encoder, settings.optimizer, settings.init) == ("vgg19", "adam", "content")
    assert (settings.pixel_range, settings.rate, settings.beta1) == (255, 5, 0.99)
    assert (settings.epsilon, settings.steps) == (0.1, 1000)
    layers = [f"relu{block}_1" for block in range(1, 6)]
    x, p, a = (features(network, y, [*layers, "relu5_2"]) for y in (X, PHOTO, STYLE))
    content = 1e3 * (x["relu5_2"] - p["relu5_2"]).square().mean()
    style = torch.zeros(())
    for layer in layers:
        G, A = (f[layer] @ f[layer].T / f[layer].shape[1] for f in (x, a))
        style = style + 1e-2 * 0.2 * (G - A).square().mean()
    close(parts(network, settings), {"content": content, "style": style})


def test_pytorch(networks: dict[str, Encoder]) -> None:
    """½Σ and 1/(4N²M²), the content of several layers added up, a·content + b·style."""
    network = networks["vgg19 max"]
    settings = make_settings(TransferSettings, {"preset": "pytorch"})
    assert (settings.encoder, settings.init) == ("vgg19-tv", "content")
    layers, kept = [f"relu{block}_1" for block in range(1, 6)], ["relu3_2", "relu4_2"]
    x, p, a = (features(network, y, [*layers, *kept]) for y in (X, PHOTO, STYLE))
    content = torch.stack([0.5 * (x[k] - p[k]).square().sum() for k in kept]).sum()
    style = torch.zeros(())
    for layer in layers:
        N, M = x[layer].shape
        G, A = x[layer] @ x[layer].T, a[layer] @ a[layer].T
        style = style + (G - A).square().sum() / (4 * N**2 * M**2) / len(layers)
    close(parts(network, settings), {"content": 1.0 * content, "style": 1e7 * style})


@pytest.mark.parametrize("name", CLASSICS)
def test_on_slim_every_layer_is_one_of_its_own(name: str) -> None:
    for kind in (TransferSettings, TextureSettings, ReconstructSettings):
        made = make_settings(kind, {"preset": name, "encoder": "slim"})
        used: set[str] = set()
        for field in ("content_layers", "style_layers", "layers"):
            used |= set(getattr(made, field, ()))
        assert used <= set(PLANS["slim"].layers)


@pytest.mark.parametrize("name", CLASSICS)
def test_a_presets_layers_are_those_of_its_network(name: str) -> None:
    made = make_settings(TransferSettings, {"preset": name})
    layers = PLANS[made.encoder.removesuffix("-tv")].layers
    assert {*made.content_layers, *made.style_layers} <= set(layers)
    assert sum(made.style_layers.values()) == pytest.approx(1)


# What is told of them


def test_the_overview_begins_with_the_default() -> None:
    lines = overview().splitlines()
    assert lines[0].startswith("default ")
    assert [line.split()[0] for line in lines[: len(PRESETS)]] == list(PRESETS)


@pytest.mark.parametrize("name", CLASSICS)
def test_a_description_has_every_figure_and_marks_ours(name: str) -> None:
    text, preset = describe(name), PRESETS[name]
    literal, _, small = text.partition("instead, with --encoder slim:")
    for key in preset.values:
        assert re.search(rf"^  {key} +\S", literal, re.MULTILINE)
        marked = re.search(rf"^  {key} .* \*$", literal, re.MULTILINE)
        assert bool(marked) == (key in preset.ours), key
    for key in preset.slim:
        assert re.search(rf"^  {key} .* \*$", small, re.MULTILINE)


def test_an_unknown_preset_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="no preset 'monet'; there are default, gatys"):
        describe("monet")


@pytest.mark.parametrize("name", CLASSICS)
def test_the_recipes_name_every_figure(name: str) -> None:
    """docs/recipes.md compares number by number: what a preset sets must be told there."""
    text = RECIPES.read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (found,) = [part for part in section if part.startswith(f"`{name}`")]
    preset: Preset = PRESETS[name]
    told: list[tuple[str, Any]] = [*preset.values.items(), *preset.slim.items()]
    told += [pair for job in preset.jobs.values() for pair in job.items()]
    for key, value in told:
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        shown = "x".join(map(str, value)) if isinstance(value, tuple) else shown
        assert f"`{key} = {shown}`" in found, f"{key} = {shown}"
