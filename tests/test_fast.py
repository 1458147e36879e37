"""Any style in one pass: statistics, the network, tiles, files. The weights here are random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pictures
from impasto.encoder import Encoder
from impasto.errors import SettingsError, WeightsError
from impasto.fast.decoder import CODE, LEAST_GATE, MOST_GATE, Modulated, doubled
from impasto.fast.maps import Affine, mapped
from impasto.fast.network import (
    BESIDE,
    DEEP,
    DEPTHS,
    FORM,
    HALF,
    LOOKS,
    MOMENTS,
    PHOTO_SHARE,
    STRIDE,
    WHOLE,
    FastNetwork,
    StyleCode,
    by_depth,
    padded,
)
from impasto.fast.painting import Done, Part, paint
from impasto.fast.statistics import (
    LEAST,
    SHRINK,
    _polar,
    _roots,
    blend,
    moving_matrix,
    recolor_matrix,
    statistics,
    transfer_matrix,
)
from impasto.fast.style import TILE, FastStyle, amounts
from impasto.fast.tiles import HALO, tiles
from impasto.foreign import Weights, write_weights
from impasto.images import Picture
from impasto.weights import weights_path

WIDTHS = (4, 8, 12, 16)


def network(seed: int = 0) -> FastNetwork:
    """A small network whose style and decoder do something."""
    torch.manual_seed(seed)
    net = FastNetwork(Encoder.load("slim"), WIDTHS).eval().requires_grad_(False)
    for look in range(LOOKS):
        nn.init.normal_(net.decoder(look).out.conv.weight, std=0.004)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.05)
    for name, parameter in net.named_parameters():
        if ".gates." in name:
            nn.init.normal_(parameter, std=0.01)  # as large as they are learnt
        if ".take_beside." in name:
            nn.init.normal_(parameter, std=0.05)
        if "photo_shares." in name:
            nn.init.uniform_(parameter, 0.2, 0.6)
    return net


def about(net: FastNetwork) -> dict[str, str]:
    """The metadata of its file."""
    return {
        "kind": "fast",
        "widths": ",".join(map(str, WIDTHS)),
        "form": FORM,
        "encoder": net.encoder.name,
        "encoder_sha256": net.encoder.sha256,
    }


def smooth(height: int, width: int, seed: int = 0) -> Tensor:
    """A picture with large and small forms, `(1, 3, H, W)`."""
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 5 + height // 40, 5 + width // 40, generator=drawn)
    fine = torch.rand(1, 3, height, width, generator=drawn)
    large = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
    return (0.9 * large + 0.1 * fine).clamp(0, 1)


def painted(
    net: FastNetwork, x: Tensor, parts: list[Part], side: int | None, amount: float = 1.0
) -> Tensor:
    result = torch.full_like(x, float("nan"))

    def write(top: int, left: int, part: Tensor) -> None:
        h, w = part.shape[-2:]
        assert result[..., top : top + h, left : left + w].isnan().all()  # every pixel once
        result[..., top : top + h, left : left + w] = part

    def read(top: int, left: int, bottom: int, right: int) -> Tensor:
        assert bottom <= x.shape[-2]
        assert right <= x.shape[-1]
        return x[..., top:bottom, left:right]

    shares = list(
        paint(net, read, write, (x.shape[-2], x.shape[-1]), parts, amount=amount, side=side)
    )
    assert [each.step for each in shares] == list(range(1, shares[-1].steps + 1))
    assert shares == sorted(shares, key=lambda each: each.share)
    assert shares[-1].share == pytest.approx(1)
    return result


# --- statistics -----------------------------------------------------------------------------------


def test_statistics_are_mean_and_covariance() -> None:
    x = torch.randn(2, 5, 6, 7)
    found = statistics(x)
    for i in range(2):
        values = x[i].flatten(1)
        assert torch.allclose(found.mean[i], values.mean(1), atol=1e-6)
        assert torch.allclose(found.covariance[i], torch.cov(values, correction=0), atol=1e-6)
    half = torch.zeros(1, 1, 6, 7)
    half[..., :3] = 0.4
    left = statistics(x, half)
    alone = statistics(x[..., :3])
    assert torch.allclose(left.mean, alone.mean, atol=1e-6)
    assert torch.allclose(left.covariance, alone.covariance, atol=1e-5)
    both = blend([found, found], [1.0, 3.0])
    assert torch.allclose(both.covariance, found.covariance)


def test_the_transform_gives_features_the_styles_covariance() -> None:
    torch.manual_seed(2)
    mix = torch.randn(2, 24, 24)
    x = torch.einsum("nij,njhw->nihw", mix[:1], torch.randn(1, 24, 40, 40))
    y = torch.einsum("nij,njhw->nihw", mix[1:], torch.randn(1, 24, 40, 40)) + 3
    own, aim = statistics(x), statistics(y)
    room = 0.02
    matrix = transfer_matrix(own, aim, room=room)
    turned = statistics(Affine(matrix, own.mean, aim.mean)(x))
    assert torch.allclose(turned.mean, aim.mean, atol=1e-3)
    least, raised = (
        room * sum(each.covariance[0].trace() for each in some) / (24 * len(some)) * torch.eye(24)
        for some in ((own, aim), (aim,))
    )
    C, S = (
        (1 - SHRINK) * each.covariance + SHRINK * torch.diag_embed(each.covariance[0].diag())[None]
        for each in (own, aim)
    )
    reached = matrix @ (C + least) @ matrix.mT
    assert (reached - S - raised).norm() < 1e-3 * S.norm()
    assert (turned.covariance - aim.covariance).norm() < 0.5 * aim.covariance.norm()
    itself = transfer_matrix(own, own)
    assert torch.allclose(itself, torch.eye(24)[None], atol=2e-3)


def test_features_get_the_styles_second_moments_and_move_least() -> None:
    torch.manual_seed(2)
    mix, shift = torch.randn(2, 24, 24), 3 * torch.rand(2, 24, 1, 1)
    x, y = (
        torch.einsum("ij,njhw->nihw", m, torch.randn(1, 24, 40, 40)) + s
        for m, s in zip(mix, shift, strict=True)
    )
    own, aim = statistics(x), statistics(y)
    M = moving_matrix(own, aim, shrink=0.0, room=1e-4)
    reached, gram = (
        torch.einsum("nihw,njhw->ij", each, each) / 1600
        for each in (Affine.between(own, aim)(x), y)
    )
    exact = Affine(M, torch.zeros(1, 24), torch.zeros(1, 24))(x)
    assert (torch.einsum("nihw,njhw->ij", exact, exact) / 1600 - gram).norm() < 2e-3 * gram.norm()
    assert (reached - gram).norm() < 0.5 * gram.norm()  # as far as room and shrink let it
    assert torch.allclose(M, M.mT, atol=5e-3 * float(M.abs().max()))
    assert torch.linalg.eigvalsh((M[0] + M[0].mT) / 2).min() > 0  # Monge's map: no turning
    colored = Affine(transfer_matrix(own, aim, shrink=0.0, room=1e-4), own.mean, aim.mean)(x)
    assert (exact - x).square().mean() < 0.95 * (colored - x).square().mean()
    assert torch.allclose(moving_matrix(own, own), torch.eye(24)[None], atol=5e-3)


def test_features_of_a_flat_place_move_less() -> None:
    encoder = Encoder.load("slim")
    photo = smooth(96, 96)
    photo[..., :48] = 0.5
    x, y = (encoder(each, ["relu3_1"])["relu3_1"] for each in (photo, smooth(96, 96, seed=1)))
    own, aim = statistics(x), statistics(y)
    moved = Affine.between(own, aim)(x)
    colored = Affine(transfer_matrix(own, aim), own.mean, aim.mean)(x)
    flat = slice(2, 10)
    least, most = ((each - x)[..., flat].square().mean() for each in (moved, colored))
    assert least < 0.9 * most


def test_the_orthogonal_factor_is_that_of_singular_values() -> None:
    torch.manual_seed(3)
    U, V = torch.linalg.qr(torch.randn(2, 64, 64, dtype=torch.float64))[0]
    values = torch.logspace(-4, 0, 64, dtype=torch.float64)
    found = _polar((U * values @ V.mT)[None].float())[0].double()
    assert (found - U @ V.mT).abs().max() < 2e-3
    for n in (64, 128, 256):  # nearly one direction: rounding brings it above the norm
        a, b = torch.rand(2, 60, n, 1)
        one = _polar(a @ b.mT / n + 1e-7 * torch.eye(n))
        assert torch.linalg.matrix_norm(one, 2).max() < 1.01


def test_flat_features_and_single_ones_have_finite_maps() -> None:
    torch.manual_seed(5)
    level = torch.rand(40, 64, 1, 1)
    flat, lively = level.expand(-1, -1, 3, 3), torch.rand(40, 64, 9, 9)
    for x, y in ((level, level), (flat, lively), (lively, flat), (flat, flat.flip(0))):
        own, aim = statistics(x), statistics(y)
        M = moving_matrix(own, aim)
        assert M.isfinite().all()
        assert torch.linalg.matrix_norm(M, 2).max() < 60
        reached = Affine.between(own, aim)(x)
        assert reached.abs().max() < 3 * y.abs().max()


def test_roots_are_those_of_eigenvalues() -> None:
    torch.manual_seed(3)
    basis, _ = torch.linalg.qr(torch.randn(2, 64, 64, dtype=torch.float64))
    values = torch.logspace(-4, 0, 64, dtype=torch.float64)
    assert values[0] > LEAST**2 * values.norm()
    A = basis * values @ basis.mT
    root, inverse = (each.double() for each in _roots(A.float()))
    assert (root @ root - A).norm() < 1e-3 * A.norm()
    assert (inverse @ A @ inverse - torch.eye(64)).abs().max() < 1e-3


def test_flat_pictures_are_amplified_no_further_than_said() -> None:
    flat, lively = torch.full((1, 3, 8, 8), 0.5), torch.rand(1, 3, 32, 32)
    own, aim = statistics(flat), statistics(lively)
    gains = torch.linalg.svdvals(recolor_matrix(own, aim)[0])
    assert gains.max() <= 15  # √(3 · (1 + 2 / room)), 3 being the share of the first direction
    assert torch.isfinite(gains).all()
    back = torch.linalg.svdvals(recolor_matrix(aim, own)[0])
    assert back.max() < 1
    assert torch.isfinite(recolor_matrix(own, own)).all()


def test_a_map_and_the_convolution_after_it_are_one() -> None:
    torch.manual_seed(4)
    conv = nn.Conv2d(12, 5, 1)
    for photos, styles in ((1, 1), (3, 1), (3, 3)):
        x = torch.randn(photos, 12, 7, 9)
        one, other = (
            Affine(torch.randn(styles, 12, 12), torch.randn(photos, 12), torch.randn(styles, 12))
            for _ in range(2)
        )
        moved = torch.einsum("nij,njhw->nihw", one.matrix.expand(photos, -1, -1), x - _at(one[1]))
        assert torch.allclose(one(x), moved + _at(one.after), atol=1e-4)
        assert torch.allclose(one.then(conv)(x), conv(one(x)), atol=1e-4)
        share = torch.rand(1, 1, 7, 9) / 2  # the two leave something over
        both = mapped(x, [one.then(conv), other.then(conv)], [share, 0.3], conv)
        expected = conv(x + share * (one(x) - x) + 0.3 * (other(x) - x))
        assert torch.allclose(both, expected, atol=1e-4)
    with pytest.raises(RuntimeError):
        one(torch.randn(1, 12, 7, 9))  # three maps, one picture


def _at(values: Tensor) -> Tensor:
    return values[..., None, None]


def test_the_root_of_a_style_is_found_once() -> None:
    found = statistics(torch.rand(1, 8, 9, 9))
    with torch.inference_mode():
        quick = found.root(0.02, 0.25, centred=True)
        assert found.root(0.02, 0.25, centred=True) is quick
    usual = found.root(0.02, 0.25, centred=True)
    assert not usual.is_inference()
    assert torch.equal(usual, quick)
    assert not torch.allclose(found.root(0.02, 0.0, centred=True), usual)
    assert not torch.allclose(found.root(0.02, 0.25, centred=False), usual)
    learnt = statistics(torch.rand(1, 8, 9, 9, requires_grad=True))
    first, second = (learnt.root(0.02, 0.25, centred=False) for _ in range(2))
    assert first is not second  # its graph serves once


def test_a_grey_style_takes_colour_away() -> None:
    grey = torch.rand(1, 1, 32, 32).expand(1, 3, 32, 32)
    colored = smooth(64, 64)
    own, aim = statistics(colored), statistics(grey)
    turned = Affine.recoloring(own, aim)(colored)
    chroma, before = (x.std(dim=1).mean() for x in (turned, colored))
    assert chroma < 0.35 * before


# --- the network and its tiles --------------------------------------------------------------------


def test_forward_is_what_painting_in_one_tile_gives() -> None:
    net, x = network(), smooth(96, 128)
    style = net.style(smooth(64, 80, seed=1))
    forward = net(x, style)
    assert forward.shape == x.shape
    assert (forward - x).abs().mean() > 0.02
    assert torch.allclose(painted(net, x, [Part(style)], None), forward, atol=1e-5)
    odd = smooth(63, 95)
    whole, inside = padded(odd)
    forward = net(whole, style, inside)[..., :63, :95]
    assert torch.allclose(painted(net, odd, [Part(style)], None), forward, atol=1e-5)


def test_photos_in_a_batch_are_painted_as_alone() -> None:
    net, photos = network(), torch.cat([smooth(64, 96, seed=seed) for seed in (2, 3)])
    styles = torch.cat([smooth(64, 64, seed=seed) for seed in (4, 5)])
    one, two = net.style(styles[:1]), net.style(styles)
    alone = [net(photo[None], one) for photo in photos]
    assert torch.allclose(net(photos, one), torch.cat(alone), atol=1e-4)
    second = net(photos[1:], net.style(styles[1:]))
    assert torch.allclose(net(photos, two), torch.cat((alone[0], second)), atol=1e-4)


def test_the_first_look_sees_the_photo_the_second_the_draft() -> None:
    net, x = network(), smooth(64, 96)
    style = net.style(smooth(64, 80, seed=1))
    seen: list[Tensor] = []
    layers = net.encoder.layers

    def watched(pixels: Tensor, wanted: Any) -> dict[str, Tensor]:
        seen.append(pixels)
        return layers(pixels, wanted)

    net.encoder.layers = watched  # type: ignore[method-assign, assignment]
    calls: list[tuple[Any, ...]] = []
    net.decoder(1).register_forward_pre_hook(lambda _, given: calls.append(given))
    for work in (lambda: net(x, style), lambda: painted(net, x, [Part(style)], None)):
        seen.clear()
        work()
        assert len(seen) == 3  # between the looks the draft is looked at
        assert torch.allclose(seen[0], F.avg_pool2d(x, 2))
        assert seen[1].shape == seen[0].shape
        assert (seen[1] - seen[0]).abs().mean() > 0.02
        assert seen[2].shape == x.shape
        assert (seen[2] - x).abs().mean() > 0.02
        _, features, _, _, beside = calls[-1]
        assert list(features) == list(DEPTHS)
        for name, layer in WHOLE.items():
            assert torch.allclose(features[name], layers(seen[2], {layer})[layer], atol=1e-5)
        for name, layer in DEEP.items():  # of the draft and of the photo
            photo, drafted = (layers(each, {layer})[layer] for each in seen[:2])
            share = net.photo_shares[name][:, None, None]
            assert torch.allclose(features[name], torch.lerp(drafted, photo, share), atol=1e-5)
        assert beside.keys() == BESIDE.keys()
        for name, layer in BESIDE.items():
            assert torch.allclose(beside[name], layers(seen[0], {layer})[layer], atol=1e-5)


@pytest.mark.parametrize("size", [(230, 341), (63, 95), (48, 48)])  # 63 ends in half a pixel
def test_a_picture_in_tiles_is_the_picture_at_once(size: tuple[int, int]) -> None:
    net, x = network(), smooth(*size)
    first, second = (net.style(smooth(64, 80, seed=seed)) for seed in (1, 2))
    mask = torch.zeros(1, 1, *size)
    mask[..., size[1] // 4 :] = torch.rand(1, 1, size[0], 1)
    cases = [
        ([Part(first)], 1.0),
        ([Part(first)], 0.3),
        ([Part(first, mask), Part(second, 0.7 * (1 - mask))], 0.8),
    ]
    for parts, amount in cases:
        whole = painted(net, x, parts, None, amount)
        assert whole.isfinite().all()
        for side in (32, 128):
            assert (painted(net, x, parts, side, amount) - whole).abs().max() < 0.05 / 255


def test_a_flat_photo_in_tiles_is_the_photo_at_once() -> None:
    net, style = network(), network().style(smooth(64, 80, seed=1))
    sky = torch.linspace(0.9, 0.3, 96).view(1, 1, 96, 1).expand(1, 3, 96, 160)
    for photo in (sky, torch.full((1, 3, 96, 160), 0.6)):
        whole = painted(net, photo, [Part(style)], None)
        assert (painted(net, photo, [Part(style)], 32) - whole).abs().max() < 0.05 / 255


def test_what_is_faint_is_painted_less() -> None:
    torch.manual_seed(0)
    block = Modulated(16, 4).requires_grad_(False)
    x = torch.randn(1, 16, 32, 32)
    x[..., 16:] *= 0.1
    noise = torch.randn(1, 1, 32, 32)
    nn.init.ones_(block.noise.bias)
    change = block(x, x[:, :4], [(torch.zeros(1, CODE), 1.0)], noise) - x
    left, right = change[..., :14], change[..., 18:]
    assert 0.01 < right.square().mean() / left.square().mean() < 0.1
    nn.init.constant_(block.level.bias, -20.0)  # as if nothing were expected
    change = block(x, x[:, :4], [(torch.zeros(1, CODE), 1.0)], noise) - x
    left, right = change[..., :14], change[..., 18:]
    assert right.square().mean() / left.square().mean() == pytest.approx(1, abs=0.2)


def test_a_block_gives_the_same_whether_it_learns_or_not() -> None:
    torch.manual_seed(0)
    block = Modulated(16, 4)
    for layer in [*block.gates, block.noise]:
        nn.init.normal_(layer.bias)
    x, seen = torch.randn(2, 16, 8, 8), torch.randn(2, 4, 8, 8)
    noise = torch.randn(1, 1, 8, 8)
    given = x.clone(), seen.clone(), noise.clone()
    whole = [(torch.randn(1, CODE), 1.0)]
    masked = [(code, torch.rand(1, 1, 8, 8)) for code, _ in (*whole, *whole)]
    for styles in (whole, masked):
        learning = block(x, seen, styles, noise)
        assert learning.requires_grad
        with torch.inference_mode():
            plain = block(x, seen, styles, noise)
        assert torch.allclose(plain, learning, atol=1e-5)
        for now, before in zip((x, seen, noise), given, strict=True):
            assert torch.equal(now, before)


def test_gates_multiply_channels_where_features_say_so() -> None:
    torch.manual_seed(0)
    block = Modulated(16, 4).requires_grad_(False)
    nn.init.normal_(block.shifts[1].bias)  # type: ignore[arg-type]
    x, noise = torch.randn(1, 16, 8, 8), torch.zeros(1, 1, 8, 8)
    seen = torch.zeros(1, 4, 8, 8)
    seen[:, 0, :, 4:] = 1  # the right half alone
    styles = [(torch.zeros(1, CODE), 1.0)]
    first, second = (cast("nn.Conv2d", gate).weight for gate in block.gates)
    plain = block(x, seen, styles, noise) - x
    assert torch.equal(block(x, 0 * seen, styles, noise) - x, plain)  # gates begin at 1
    others = [channel for channel in range(16) if channel != 3]
    for weight, factor in ((1.0, 2.0), (9.0, MOST_GATE), (-0.5, 0.5), (-9.0, LEAST_GATE)):
        second[3, 0] = weight
        change = block(x, seen, styles, noise) - x
        assert torch.equal(change[..., :4], plain[..., :4])
        assert torch.equal(change[:, others], plain[:, others])
        assert torch.allclose(change[:, 3, :, 4:], factor * plain[:, 3, :, 4:], atol=1e-5)
    nn.init.zeros_(second)
    nn.init.zeros_(block.shifts[1].bias)  # type: ignore[arg-type]
    first[:, 0] = -9.0  # what the second convolution gets is a tenth
    change = block(x, seen, styles, noise) - x
    assert change[..., 5:].square().mean() < 0.05 * change[..., :3].square().mean()


def test_a_look_is_gated_by_what_it_sees_and_the_second_by_the_photo_too() -> None:
    net, x = network(), smooth(64, 96)
    style = net.style(smooth(64, 80, seed=1))
    calls: list[tuple[Any, ...]] = []
    for look in range(LOOKS):
        net.decoder(look).register_forward_pre_hook(lambda _, given: calls.append(given))
    mask = torch.full((1, 1, 64, 96), 0.5)
    painted(net, x, [Part(style, mask)], None)
    assert len(calls) == 4  # of each look: in the style, then in the photo's own
    half = net.encoder.layers(F.avg_pool2d(x, 2), {*MOMENTS, *BESIDE.values()})
    first, photo = by_depth(DEPTHS, half), by_depth(BESIDE, half)
    second = {**net.seen_whole(x), "eighth": half["relu3_2"]}
    for number, seen in ((0, first), (1, first), (3, second)):
        for name, features in calls[number][1].items():
            assert torch.allclose(features, seen[name], atol=1e-5)
    for name, features in calls[2][1].items():  # of the draft
        assert not torch.allclose(calls[3][1][name], features, atol=1e-2)
    for number, told in enumerate(({}, {}, photo, photo)):
        beside = calls[number][4]
        assert beside.keys() == told.keys()
        for name, features in beside.items():
            assert torch.allclose(features, told[name], atol=1e-5)
    for look in range(LOOKS):
        taken, features, shades, noise, beside = calls[2 * look]
        decoder = net.decoder(look)
        change = decoder(taken, features, shades, noise, beside)
        for name in DEPTHS:
            without = features | {name: 0 * features[name]}
            other = decoder(taken, without, shades, noise, beside)
            assert (other - change).abs().max() > 1e-4
        for name in beside:
            without = beside | {name: 0 * beside[name]}
            other = decoder(taken, features, shades, noise, without)
            assert (other - change).abs().max() > 1e-4
        for name, conv in decoder.take_beside.items():
            moved = taken | {name: taken[name] + conv(beside[name])}
            nn.init.zeros_(conv.weight)  # type: ignore[arg-type]
            gated = decoder(taken, features, shades, noise, beside)
            assert (gated - change).abs().max() > 1e-4
            other = decoder(moved, features, shades, noise, beside)
            assert torch.allclose(other, change, atol=1e-6)
            without = beside | {name: 0 * beside[name]}
            other = decoder(taken, features, shades, noise, without)
            assert (other - gated).abs().max() > 1e-5
            change = gated


@pytest.mark.parametrize("height", [16, 128, 144, 256, 272])
def test_the_first_block_in_bands_is_the_one_at_once(height: int) -> None:
    net, x = network(), torch.rand(2, 3, height, 48, requires_grad=True)
    found = net.encoder.layers(x, {"relu2_1", "relu3_1"})  # in bands: the block is not asked for
    whole = net.encoder.layers(x, {"relu1_2", "relu2_1", "relu3_1"})
    expected = Encoder.load("slim")(x, ["relu2_1", "relu3_1"])
    gradient, other = (
        torch.autograd.grad(each["relu3_1"].sum(), x)[0] for each in (found, expected)
    )
    for name in found:
        assert torch.allclose(found[name], expected[name], atol=1e-4)
        assert torch.allclose(whole[name], expected[name], atol=1e-4)
    assert torch.allclose(gradient, other, atol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_the_last_layers_in_bands_are_those_at_once(
    monkeypatch: pytest.MonkeyPatch, masked: bool
) -> None:
    net, size = network(), (96, 64)
    photo, style = smooth(*size), net.style(smooth(64, 64, seed=1))
    mask = torch.linspace(0, 1, size[0]).view(1, 1, -1, 1).expand(1, 1, *size)
    parts = [Part(style, mask if masked else None)]
    expected = painted(net, photo, parts, None)
    both = torch.cat([photo, photo.flip(2)])
    batch = net(both, style)
    for rows in (6, 20, 46):  # of the 48 at 1/2, which are one band otherwise
        monkeypatch.setattr("impasto.fast.decoder.BAND", rows)
        assert torch.allclose(painted(net, photo, parts, None), expected, atol=1e-5)
        assert torch.allclose(net(both, style), batch, atol=1e-5)
    monkeypatch.setattr("impasto.fast.decoder.SEEN", 4)
    assert not torch.allclose(net(both, style), batch, atol=1e-5)


def test_what_is_taken_of_the_photo_begins_at_0() -> None:
    fresh = FastNetwork(Encoder.load("slim"), WIDTHS)
    assert not list(fresh.decoder(0).take_beside)
    assert sorted(fresh.decoder(1).take_beside) == sorted(BESIDE)
    assert all(not weight.any() for weight in fresh.decoder(1).take_beside.parameters())
    assert all(bool((share == PHOTO_SHARE).all()) for share in fresh.photo_shares.values())


def test_the_code_is_fitted_to_photo_and_draft() -> None:
    net, style = network(), network().style(smooth(64, 80, seed=1))
    first, seen = (net.style(smooth(64, 64, seed=seed)).half for seed in (2, 3))
    plain = FastNetwork(Encoder.load("slim"), WIDTHS).eval().requires_grad_(False)
    for look in range(LOOKS):
        code = net.modulation(style, look, first, seen)
        assert (net.modulation(style, look, first, first) - code).abs().max() > 1e-3
        assert (net.modulation(style, look, seen, seen) - code).abs().max() > 1e-3
        unfitted = plain.modulation(style, look, first, seen)
        assert torch.equal(unfitted, plain.modulation(style, look, seen, first))


def test_only_the_second_look_knows_the_style_in_full() -> None:
    net = network()
    one, other = (net.style(smooth(64, 80, seed=seed)) for seed in (1, 2))
    mixed = replace(one, whole=other.whole)
    codes, mixed_codes = (
        [net.modulation(style, look, one.half, one.half) for look in range(LOOKS)]
        for style in (one, mixed)
    )
    assert torch.equal(codes[0], mixed_codes[0])
    assert (codes[1] - mixed_codes[1]).abs().max() > 1e-3
    assert mixed.aims(0) == one.aims(0)
    for name, layer in WHOLE.items():
        assert mixed.aims(1)[name] is other.whole[layer]
    for name, layer in DEEP.items():
        assert mixed.aims(1)[name] is one.half[layer]


def test_every_part_has_a_code_of_its_own() -> None:
    net, x = network(), smooth(64, 96)
    left = torch.zeros(1, 1, 64, 96)
    left[..., :32] = 1
    parts = [
        Part(net.style(smooth(64, 80, seed=seed)), mask)
        for seed, mask in ((1, left), (2, 0.5 * (1 - left)))
    ]
    calls: list[tuple[object, ...]] = []
    modulation = net.modulation

    def watched(*given: object) -> Tensor:
        calls.append(given)
        return modulation(*given)  # type: ignore[arg-type]

    net.modulation = watched  # type: ignore[method-assign, assignment]
    whole = painted(net, x, parts, None)
    assert len(calls) == 6  # of each look: the photo's own, then each part's
    for before, now in zip(calls[:3], calls[3:], strict=True):
        assert before[2] is before[3]  # there is no draft yet
        assert now[2] is before[3]
    for part, now in zip(parts, calls[4:], strict=True):
        assert now[0] is part.style
        assert now[3] is not now[2]
    for look in (0, 3):
        assert calls[look][3] is calls[look][0].half  # type: ignore[attr-defined]
    for name, features in net.encoder.layers(F.avg_pool2d(x, 2), MOMENTS).items():
        for part, call in zip(parts, calls[1:3], strict=True):
            assert part.mask is not None
            weight = F.adaptive_avg_pool2d(part.mask, (features.shape[-2], features.shape[-1]))
            expected = statistics(features, weight)
            assert torch.allclose(call[3][name].mean, expected.mean, atol=1e-5)  # type: ignore[index]
    assert whole.isfinite().all()


def test_four_megapixels_in_tiles_are_those_at_once() -> None:
    net, x = network(), smooth(2000, 2003)
    style = net.style(smooth(64, 80, seed=1))
    whole = painted(net, x, [Part(style)], None)
    assert (painted(net, x, [Part(style)], TILE) - whole).abs().max() < 2 / 255


@pytest.mark.parametrize("look", range(LOOKS))
def test_nothing_beyond_the_halo_is_seen(look: int) -> None:
    net, x = network(), smooth(288, 288)
    style = net.style(smooth(64, 80, seed=1))
    code = net.modulation(style, look, style.half, style.half)
    shades = {name: [(code, 1.0)] for name in DEPTHS}
    x.requires_grad_()
    if look == 0:
        features, beside = by_depth(DEPTHS, net.encoder.layers(x, MOMENTS)), {}
    else:
        small = net.encoder.layers(F.avg_pool2d(x, 2), BESIDE.values())
        beside = by_depth(BESIDE, small)
        features = {**net.seen_whole(x), **by_depth(DEEP, small)}
    decoder = net.decoder(look)
    taken = {name: decoder.take(name, each) for name, each in features.items()}
    change = decoder(taken, features, shades, net.noises(taken), beside)
    change[0, :, 144, 144].sum().backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad.abs().sum((0, 1)))
    assert (seen - 144).abs().max() <= HALO
    assert (seen - 144).abs().max() > HALO / 2


def test_tiles_cover_every_pixel_once() -> None:
    for height, width, side in ((1, 1, None), (50, 70, 32), (64, 64, 32), (3, 300, 64)):
        covered = np.zeros((height, width), int)
        for tile in tiles(height, width, side):
            covered[tile.top : tile.bottom, tile.left : tile.right] += 1
            assert all(edge % STRIDE == 0 for edge in tile.seen)
        assert (covered == 1).all()


def test_a_masked_part_is_painted_and_the_rest_stays() -> None:
    net, x = network(), smooth(64, 352)
    style = net.style(smooth(64, 80, seed=1))
    left = torch.zeros(1, 1, 64, 352)
    left[..., :40] = 1
    change = (painted(net, x, [Part(style, left)], None) - x).abs().mean((0, 1, 2))
    assert change[:32].mean() > 20 * change[120:].mean()
    assert change[100:].max() < 1 / 255
    assert change[40 + 3 * HALO :].max() < 1e-5  # the draft's halo counts twice
    for nothing in (0.0, 1e-44):
        with pytest.raises(SettingsError, match="a mask is 0 everywhere"):
            painted(net, x, [Part(style, torch.full_like(left, nothing))], None)


# --- FastStyle ------------------------------------------------------------------------------------


def test_a_tensor_for_a_tensor_and_a_picture_for_a_picture() -> None:
    fast = FastStyle(network())
    style = fast.style(Picture(pictures.painting(80, 64)))
    alpha = pictures.transparency(96, 64)
    photo = Picture(pictures.photo(96, 64), alpha)
    made = fast.stylize(photo, style)
    assert isinstance(made, Picture)
    assert made.size == photo.size
    assert made.alpha is alpha
    same = fast.stylize(photo.tensor(), style)
    assert isinstance(same, Tensor)
    levels = same[0].mul(255).round().permute(1, 2, 0).numpy()
    assert np.abs(levels - made.pixels).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 8000), (17, 5), (64, 31)])
def test_any_size_comes_back(size: tuple[int, int]) -> None:
    fast = FastStyle(network())
    style = fast.style(Picture(pictures.painting(40, 33)))
    for strength in (0.2, 0.5, 0.8, 1):
        found = fast.stylize(torch.rand(1, 3, *size), style, strength=strength)
        assert found.shape == (1, 3, *size)
        assert found.isfinite().all()


def test_strength_goes_from_the_picture_itself_on() -> None:
    fast, x = FastStyle(network()), smooth(64, 96)
    style = fast.style(Picture(pictures.painting(80, 64)))
    kept = fast.stylize(x, style, strength=0)
    assert torch.equal(kept, x)
    assert kept is not x
    photo = Picture(pictures.photo(96, 64))
    unchanged = fast.stylize(photo, style, strength=0)
    assert np.array_equal(unchanged.pixels, photo.pixels)
    assert amounts(0.25) == [0.5]
    assert amounts(0.5) == [1.0]
    assert amounts(0.75) == [1.0, 0.5]
    changes = [float((fast.stylize(x, style, strength=s) - x).abs().mean()) for s in (0.1, 0.5)]
    assert changes[0] < changes[1]
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(SettingsError, match="from 0 to 1"):
            fast.stylize(x, style, strength=wrong)
    with pytest.raises(SettingsError, match="a picture is floats"):
        fast.stylize(torch.rand(3, 8, 8), style)


def test_large_pictures_are_painted_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x = FastStyle(network()), smooth(100, 150)
    style = fast.style(Picture(pictures.painting(80, 64)))
    whole = fast.stylize(x, style)
    assert TILE > 32
    monkeypatch.setattr("impasto.fast.style.TILE", 32)
    monkeypatch.setattr("impasto.fast.style.WHOLE", 64)
    sides: list[int | None] = []

    def watched(*given: Any, side: int | None, **named: Any) -> Iterator[Done]:
        sides.append(side)
        return paint(*given, side=side, **named)

    monkeypatch.setattr("impasto.fast.style.paint", watched)
    assert (fast.stylize(x, style) - whole).abs().max() < 0.2 / 255
    assert set(sides) == {32}


def test_a_style_is_taken_from_its_mask_alone() -> None:
    fast = FastStyle(network())
    pixels = pictures.painting(128, 64)
    pixels[:, 64:] = 255
    left = torch.zeros(1, 1, 64, 128)
    left[..., :64] = 1
    found = fast.style(Picture(pixels), mask=left)
    own = fast.style(Picture(np.ascontiguousarray(pixels[:, :64])))
    whole = fast.style(Picture(pixels))
    near, far = (float((each.colors.mean - own.colors.mean).norm()) for each in (found, whole))
    assert near < 1e-3 < far


def test_styles_blend_and_lend_their_strokes() -> None:
    fast = FastStyle(network())
    first, second = (fast.style(Picture(pictures.painting(80, 64, seed))) for seed in (1, 2))
    both = StyleCode.blended([first, second], [3.0, 1.0])
    for mixed, one, other in (
        (both.half, first.half, second.half),
        (both.whole, first.whole, second.whole),
    ):
        for name in mixed:
            mean = 0.75 * one[name].mean + 0.25 * other[name].mean
            assert torch.allclose(mixed[name].mean, mean, atol=1e-6)
    assert torch.allclose(both.deep, 0.75 * first.deep + 0.25 * second.deep, atol=1e-6)
    alone = StyleCode.blended([first], [0.2])
    x = smooth(48, 64)
    assert torch.allclose(fast.stylize(x, alone), fast.stylize(x, first), atol=1e-5)
    assert set(first.half) == set(HALF)
    assert set(first.whole) == set(MOMENTS)
    lent = first.with_coarse(second)
    assert lent.colors is first.colors
    assert lent.deep is second.deep
    for name in DEPTHS:
        assert lent.aims(0)[name] is second.aims(0)[name]
        assert lent.aims(1)[name] is (first if name == "half" else second).aims(1)[name]
    assert lent.whole["relu4_1"] is second.whole["relu4_1"]


def test_the_network_in_the_package_is_small() -> None:
    assert weights_path("fast").stat().st_size < 8e6


def test_the_first_look_learns_from_what_the_second_sees_in_its_draft(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = network().requires_grad_()
    photo, painting = smooth(64, 64), Picture(pictures.painting(64, 64)).tensor()
    weight = net.decoder(0).out.conv.weight

    def learnt() -> Tensor:
        return torch.autograd.grad(net(photo, net.style(painting)).square().sum(), weight)[0]

    whole = learnt()
    monkeypatch.setattr("impasto.fast.network.doubled", lambda x: doubled(x).detach())
    deep = learnt()  # not by pixels, which the second look changes
    assert float(deep.abs().max()) > 0
    assert not torch.allclose(whole, deep)


def test_files_are_read_back_and_foreign_ones_refused(tmp_path: Path) -> None:
    net = network()
    path = tmp_path / "own.safetensors"
    state = {name: value for name, value in net.state_dict().items() if name != "noise"}
    metadata = about(net)
    write_weights(path, Weights(state, metadata))
    fast = FastStyle.load(path)
    assert fast.name == "own"
    assert len(fast.sha256) == 64
    x = smooth(48, 64)
    style = fast.style(Picture(pictures.painting(40, 40)))
    mine, theirs = fast.stylize(x, style), FastStyle(net).stylize(x, style)
    assert torch.allclose(mine, theirs, atol=1e-5)
    with pytest.raises(WeightsError, match="holds no network that paints in one pass"):
        FastStyle.load(Path(pictures.__file__).parents[1] / "src/impasto/models/slim-1.safetensors")
    with pytest.raises(WeightsError, match="there is no weight file"):
        FastStyle.load(tmp_path / "missing.safetensors")
    for name, said, message in (
        ("gone", {"encoder": "slim-999"}, "there is no encoder 'slim-999'"),
        ("other", {"encoder_sha256": 64 * "0"}, "was made with weights of SHA-256 0000"),
    ):
        write_weights(tmp_path / f"{name}.safetensors", Weights(state, metadata | said))
        with pytest.raises(WeightsError, match=message):
            FastStyle.load(tmp_path / f"{name}.safetensors")
    for name, broken, said in (
        ("few", dict(list(state.items())[3:]), metadata),
        ("odd", state, metadata | {"widths": "4,8,12,20"}),
        ("none", state, {"kind": "fast", "form": FORM}),
    ):
        write_weights(tmp_path / f"{name}.safetensors", Weights(broken, said))
        with pytest.raises(WeightsError, match="is damaged"):
            FastStyle.load(tmp_path / f"{name}.safetensors")
    older = {key: value for key, value in metadata.items() if key != "form"} | {"looks": "2"}
    for said in (older, metadata | {"form": "4"}):
        write_weights(tmp_path / "old.safetensors", Weights(state, said))
        with pytest.raises(WeightsError, match="is of another version of impasto"):
            FastStyle.load(tmp_path / "old.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:500])
    with pytest.raises(WeightsError, match="cannot read"):
        FastStyle.load(tmp_path / "cut.safetensors")
