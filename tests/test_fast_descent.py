"""A draft's step downhill: its gradient is the objective's, and it does what it is for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.encoder import Encoder
from impasto.fast import frozen
from impasto.fast.decoder import CODE
from impasto.fast.descent import FARTHEST, KEPT, TAKEN, Descent, Seeds, energy, pulls, stride_of
from impasto.fast.drafts import Draft
from impasto.fast.network import HALF, MOMENTS, FastNetwork, StyleCode, halved
from impasto.fast.painting import Part, paint
from impasto.fast.statistics import Statistics, statistics
from impasto.fast.tiles import HALO, Tile
from impasto.losses import gram_matrix
from impasto.settings import STYLE_WEIGHT

CODES = [(torch.zeros(1, CODE), 1.0)]


@pytest.fixture(scope="module")
def net() -> FastNetwork:
    torch.manual_seed(0)
    return FastNetwork(Encoder.load("slim"), (4, 8, 12, 16)).eval().requires_grad_(False)


def smooth(side: int, seed: int) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, side // 12, side // 12, generator=drawn)
    fine = torch.rand(1, 3, side, side, generator=drawn)
    large = F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False)
    return (0.85 * large + 0.15 * fine).clamp(0, 1)


def of(features: Mapping[str, Tensor], names: object) -> dict[str, Statistics]:
    return {name: statistics(features[name]) for name in names}  # type: ignore[attr-defined]


def objective(draft: Tensor, photo: Tensor, style: Tensor) -> Tensor:
    """What the step goes down on, times the number of pixels; by the optimiser's own network."""
    encoder = Encoder.load("slim")
    layers = sorted({*TAKEN, *KEPT})
    x, p, s = (encoder(each, layers) for each in (draft, photo, style))
    total = torch.zeros(())
    for layer, share in TAKEN.items():
        A = gram_matrix(s[layer])
        error = (gram_matrix(x[layer]) - A).square().sum()
        total = total + STYLE_WEIGHT * share * error / (A.square().sum() + 0.01 * A[0].numel())
    for layer in KEPT:
        error, whole = (x[layer] - p[layer]).square().mean(), p[layer].square().mean()
        total = total + error / len(KEPT) / (whole + 0.01)
    return total * draft[0, 0].numel()


def gradient(net: FastNetwork, draft: Tensor, photo: Tensor, style: Tensor) -> Tensor:
    found, kept = net.encoder.everything(draft), net.encoder.layers(photo, KEPT)
    pulled = pulls(of(found, TAKEN), of(net.encoder.everything(style), TAKEN))
    everywhere = {name: [1.0] for name in TAKEN}
    return net.encoder.gradient(
        found, Seeds(kept, of({k: energy(v) for k, v in kept.items()}, KEPT), [pulled], everywhere)
    )


@pytest.mark.parametrize(("width", "most"), [(1e-9, 2e-3), (frozen.OPEN, 0.05)])
def test_the_gradient_is_the_objectives(
    net: FastNetwork, monkeypatch: pytest.MonkeyPatch, width: float, most: float
) -> None:
    monkeypatch.setattr(frozen, "OPEN", width)
    draft, photo, style = (smooth(224, seed) for seed in (1, 2, 3))
    found = gradient(net, draft, photo, style)
    draft.requires_grad_()
    (expected,) = torch.autograd.grad(objective(draft, photo, style), draft)
    middle = (..., slice(80, -80), slice(80, -80))  # borders are continued otherwise
    assert (found - expected)[middle].norm() < most * expected[middle].norm()
    near = F.cosine_similarity(found.flatten(), expected.flatten(), 0)
    assert near > 0.95


def test_content_and_style_both_pull(net: FastNetwork) -> None:
    photo, style = smooth(96, 4), smooth(96, 5)
    nothing = gradient(net, photo, photo, photo)
    assert nothing.abs().max() < 1e-3 * gradient(net, photo, photo, style).abs().max()
    assert gradient(net, style, photo, style).abs().max() > 100 * nothing.abs().max()


def test_a_step_goes_downhill(net: FastNetwork) -> None:
    for seed in (6, 7, 8):
        photo, style = smooth(128, seed), smooth(128, seed + 10)
        step = net.descent(gradient(net, photo, photo, style), CODES)
        before, after = (objective(x, photo, style) for x in (photo, photo + step))
        assert after < 0.9 * before


def test_steps_have_an_end_and_the_code_says_how_long_they_are() -> None:
    torch.manual_seed(0)
    descent, g = Descent().requires_grad_(False), torch.randn(1, 3, 32, 48)
    plain = descent(g, CODES)
    assert descent(1e9 * g, CODES).abs().max() <= FARTHEST
    assert torch.equal(descent(0 * g, CODES), torch.zeros_like(g))
    descent.lengths.weight[:, 0] = 1.0
    longer = [(torch.ones(1, CODE), 1.0)]
    assert descent(g / 1000, longer).norm() == pytest.approx(
        2.718 * descent(g / 1000, CODES).norm().item(), rel=1e-3
    )
    assert torch.equal(descent(g, CODES), plain)


def test_a_draft_is_taken_downhill(net: FastNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    photo, picture = smooth(160, 20), smooth(160, 21)
    style = net.style(picture)
    after, _ = net.looks(photo, style)
    monkeypatch.setattr(net.descent, "forward", lambda gradient, _: 0 * gradient)
    before, _ = net.looks(photo, style)
    assert 1e-3 < (after - before).abs().max() <= FARTHEST
    values = [objective(x, halved(photo), halved(picture)) for x in (before, after)]
    assert values[1] < values[0]


def test_styles_bring_what_a_step_needs(net: FastNetwork) -> None:
    one, other = (net.style(smooth(64, seed)) for seed in (30, 31))
    assert set(TAKEN) <= set(one.half) == set(HALF)
    assert set(one.whole) == set(MOMENTS)
    half = halved(smooth(64, 30))
    for name, found in of(net.encoder.everything(half), TAKEN).items():
        assert torch.allclose(one.half[name].covariance, found.covariance, atol=1e-4)
    both = StyleCode.blended([one, other], [1.0, 1.0])
    for name in TAKEN:
        mean = (one.half[name].mean + other.half[name].mean) / 2
        assert torch.allclose(both.half[name].mean, mean, atol=1e-5)
    mixed = one.with_coarse(other).half
    for name, whose in (("relu1_2", one), ("relu2_2", other), ("relu4_1", other)):
        assert mixed[name] is whose.half[name]


def test_strides_are_those_of_blocks() -> None:
    assert [stride_of(name) for name in ("relu1_2", "relu2_1", "relu4_2")] == [1, 2, 8]


@pytest.mark.parametrize("height", [16, 32, 128, 144, 160, 272])
def test_the_first_block_in_bands_is_the_one_at_once(net: FastNetwork, height: int) -> None:
    x = torch.rand(2, 3, height, 48, requires_grad=True)
    found = net.encoder.layers(
        x, {"relu2_1", "relu3_1"}
    )  # in bands, as the first block is not asked for
    (gradient,) = torch.autograd.grad(found["relu3_1"].sum(), x)
    expected = Encoder.load("slim")(x, ["relu2_1", "relu3_1"])
    whole = net.encoder.everything(x)
    (other,) = torch.autograd.grad(expected["relu3_1"].sum(), x)
    for name in found:
        assert torch.allclose(found[name], expected[name], atol=1e-4)
        assert torch.allclose(whole[name], expected[name], atol=1e-4)
    assert torch.allclose(gradient, other, atol=1e-3)


def step(net: FastNetwork, parts: list[Part], amount: float = 1.0) -> Tensor:
    """What painting adds to a draft: the draft after the step, less that before."""
    x, changes = smooth(64, 40), []
    put = Draft.put

    def watched(self: Draft, tile: Tile, change: Tensor) -> None:
        changes.append(change.clone())
        put(self, tile, change)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Draft, "put", watched)
        list(
            paint(
                net,
                lambda top, left, bottom, right: x[..., top:bottom, left:right],
                lambda *_: None,
                (64, 64),
                parts,
                amount=amount,
            )
        )
    before, after = changes
    return after - before


def test_masks_say_where_a_step_is_taken(net: FastNetwork) -> None:
    style = net.style(smooth(64, 41))
    whole = step(net, [Part(style)])
    assert whole.abs().max() > 1e-3
    left = torch.zeros(1, 1, 64, 64)
    left[..., :20] = 1
    ones = torch.ones_like(left)
    assert torch.allclose(step(net, [Part(style, ones)]), whole, atol=1e-5)
    alone = step(net, [Part(style, left)])
    assert torch.equal(alone[..., 10:], torch.zeros_like(alone[..., 10:]))
    assert alone[..., :10].abs().max() > 1e-3
    half = step(net, [Part(style, 0.5 * ones)])
    assert torch.allclose(half, step(net, [Part(style)], 0.5), atol=1e-4)
    assert step(net, [Part(style)], 0.001).abs().max() < 1e-3


def test_a_step_sees_no_further_than_a_tile_does(net: FastNetwork) -> None:
    photo, style, draft = (smooth(256, seed) for seed in (50, 51, 52))
    found, kept = net.encoder.everything(draft), net.encoder.layers(photo, KEPT)
    pulled = pulls(of(found, TAKEN), of(net.encoder.everything(style), TAKEN))
    seeds = Seeds(
        kept,
        of({k: energy(v) for k, v in kept.items()}, KEPT),
        [pulled],
        {name: [1.0] for name in TAKEN},
    )
    other = draft.clone()
    other[..., 128, 128] = 1 - other[..., 128, 128]
    one, two = (
        net.descent(net.encoder.gradient(net.encoder.everything(x), seeds), CODES)
        for x in (draft, other)
    )
    seen = torch.nonzero((one - two).abs().sum((0, 1)) > 1e-9)
    assert HALO / 3 < (seen - 128).abs().max() <= HALO
