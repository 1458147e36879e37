"""Masks and guides: where a style holds, and that it holds there alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import impasto
import pictures
from impasto import Picture, Style
from impasto.composition import Composition
from impasto.encoder import PLANS, Encoder
from impasto.errors import SettingsError
from impasto.guides import guide, guided_gram, reach, shares
from impasto.inputs import as_styles
from impasto.losses import gram_matrix
from impasto.masks import mask_of, protected, region_masks, size_note
from impasto.objectives import Region, Styles, StyleTerm, make_objective
from impasto.settings import TransferSettings

SLIM = PLANS["slim"]
SKEWED = "resized, its sides by different factors"
QUICK: dict[str, Any] = {"size": 64, "steps": 6, "threads": 1}


def flat(color: tuple[int, int, int], width: int = 64, height: int = 48) -> Picture:
    return Picture(np.full((height, width, 3), color, np.uint8))


def left_half(width: int = 64, height: int = 48) -> Picture:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 255
    return Picture(pixels)


def inverted(drawing: Picture) -> Picture:
    return Picture(255 - drawing.pixels)


# --- guides ---------------------------------------------------------------------------------------


def test_a_position_sees_what_changes_it() -> None:
    encoder = Encoder.random("slim")
    for layer in ("relu1_2", "relu2_1", "relu3_2", "relu4_1"):
        x = torch.rand(1, 3, 256, 256, requires_grad=True)
        features = encoder(x, [layer])[layer]
        middle = features.shape[-1] // 2
        features[0, :, middle, middle].sum().backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        columns = torch.nonzero(x.grad.abs().sum((0, 1, 2)))
        seen = int(columns.max() - columns.min()) + 1
        assert seen <= 2 * reach(SLIM, layer) + 2
        assert seen >= 2 * reach(SLIM, layer) - 2


def test_a_guide_is_the_mask_less_a_border() -> None:
    mask = mask_of(left_half(256, 128))
    whole = torch.ones(1, 1, 128, 256)
    before = 128.0
    for layer in SLIM.layers:
        found = guide(mask, SLIM, layer)
        stride = SLIM.stride(layer)
        assert found.shape == (1, 1, 128 // stride, 256 // stride)
        wide = float(found[0, 0, 0].sum()) * stride
        assert 128 - 0.5 * reach(SLIM, layer) - 1 <= wide <= before
        before = wide
        assert torch.equal(guide(whole, SLIM, layer), torch.ones_like(found))
    assert before < 110


def test_what_is_small_keeps_more_and_a_soft_mask_stays_soft() -> None:
    speck = torch.zeros(1, 1, 128, 128)
    speck[..., 60:68, 60:68] = 1
    for layer in SLIM.layers:
        assert guide(speck, SLIM, layer).sum() * SLIM.stride(layer) ** 2 >= 16
    soft = torch.full((1, 1, 64, 64), 0.3)
    assert torch.allclose(guide(soft, SLIM, "relu4_1"), torch.full((1, 1, 8, 8), 0.3))


@pytest.mark.parametrize("side", [47, 71, 127])
def test_a_mask_in_the_last_pixels_is_not_lost(side: int) -> None:
    """A layer's positions leave a rest at the right and the bottom, which none of them sees."""
    mask = torch.zeros(1, 1, side, side)
    mask[..., -(side % 16) :] = 1
    for layer in SLIM.layers:
        found = guide(mask, SLIM, layer)
        assert found.shape[-1] == side // SLIM.stride(layer)
        assert found.sum() > 0
        assert found[..., : found.shape[-1] // 2].sum() == 0
    photo, style = flat((90, 80, 200), side, side), Picture(pictures.painting(side, side))
    edge = Picture((mask[0, 0, :, :, None].expand(-1, -1, 3) * 255).byte().numpy())
    drawn = Style(style, regions=edge)
    for options in ({"regions": edge}, {"regions": edge, "style_layers": "relu5_1"}):
        result = impasto.transfer(photo, drawn, **{**QUICK, "size": side}, **options)
        assert np.isfinite(result.settings["loss"])
    last = impasto.transfer(
        photo, Style(style, mask=edge), **{**QUICK, "size": side}, style_layers="relu5_1"
    )
    assert np.isfinite(last.settings["loss"])


def test_odd_sizes_have_the_layers_size() -> None:
    x = torch.rand(1, 3, 101, 67)
    found = Encoder.random("slim")(x, SLIM.layers)
    mask = torch.rand(1, 1, 101, 67)
    for layer, features in found.items():
        assert guide(mask, SLIM, layer).shape[-2:] == features.shape[-2:]


def test_a_guided_gram_is_that_of_the_region() -> None:
    features = torch.randn(1, 5, 6, 8)
    half = torch.zeros(1, 1, 6, 8)
    half[..., :4] = 1
    assert torch.allclose(
        guided_gram(features, half), gram_matrix(features[..., :4].contiguous()), atol=1e-6
    )
    assert torch.allclose(guided_gram(features, half / 3), guided_gram(features, half), atol=1e-6)
    assert torch.equal(guided_gram(features, None), gram_matrix(features))
    weights = torch.rand(1, 1, 6, 8)
    f = features.flatten(2)
    expected = (f * weights.flatten(2)) @ f.mT / weights.sum()
    assert torch.allclose(guided_gram(features, weights), expected, atol=1e-6)


def test_styles_share_what_masks_leave_and_overlap() -> None:
    size = (8, 4)
    left = torch.zeros(1, 1, 4, 8)
    left[..., :4] = 1
    wide = torch.zeros(1, 1, 4, 8)
    wide[..., :6] = 1
    a, rest = shares([left, None], [1.0, 5.0], size)
    assert torch.equal(a, left)
    assert torch.equal(rest, 1 - left)
    a, b = shares([left, wide], [3.0, 1.0], size)
    assert torch.allclose(a[..., :4], torch.tensor(0.75))
    assert torch.allclose(b[..., :4], torch.tensor(0.25))
    assert torch.equal(b[..., 4:6], torch.ones(1, 1, 4, 2))
    assert not b[..., 6:].any()
    (faint,) = shares([left * 0.4], [1.0], size)
    assert torch.allclose(faint, left * 0.4)


# --- masks ----------------------------------------------------------------------------------------


def test_light_is_meant_and_transparency_is_not() -> None:
    drawing = flat((255, 255, 255), 4, 2)
    assert torch.equal(mask_of(drawing), torch.ones(1, 1, 2, 4))
    alpha = np.array([[255, 0, 51, 255]] * 2, np.uint8)
    assert torch.allclose(
        mask_of(Picture(drawing.pixels, alpha))[0, 0, 0, :3], torch.tensor([1, 0, 0.2])
    )
    for empty in (flat((0, 0, 0), 4, 2), Picture(drawing.pixels, np.zeros((2, 4), np.uint8))):
        with pytest.raises(SettingsError, match="empty: what it means has to be white"):
            mask_of(empty)


def test_another_size_is_told() -> None:
    assert size_note(flat((9, 9, 9), 64, 48), (64, 48)) is None
    told = size_note(Picture(flat((9, 9, 9), 32, 24).pixels, source="m.png"), (64, 48))
    assert told == "warning: m.png has 32×24 px, the photo 64×48: resized"
    skewed = size_note(flat((9, 9, 9), 32, 32), (64, 48))
    assert skewed
    assert skewed.endswith("resized, its sides by different factors")


@pytest.mark.parametrize("size", [(200, 100), (3000, 40), (1, 1), (5, 400)])
def test_what_is_protected_stays_and_its_edge_is_soft(size: tuple[int, int]) -> None:
    w, h = size
    mask = torch.zeros(1, 1, 100, 200)
    mask[..., 80:120] = 1
    found = protected(mask, size)
    assert found.shape == (h, w)
    if w >= 200:
        assert (found[:, w * 80 // 200 : w * 120 // 200] == 255).all()
        assert (found[:, : w * 60 // 200] == 0).all()
        assert ((found > 0) & (found < 255)).any()
    assert (protected(torch.ones(1, 1, 7, 7), size) == 255).all()


def test_maps_say_which_part_is_which() -> None:
    photo = np.zeros((40, 300, 3), np.uint8)
    photo[:, 100:] = (250, 20, 10)
    photo[:, 200:] = (20, 30, 240)
    photo[:, 199] = (130, 25, 125)  # an edge between two
    style = np.full((30, 30, 3), (20, 30, 240), np.uint8)
    style[:10] = (240, 30, 20)
    other = np.full((8, 8, 3), (5, 5, 5), np.uint8)
    found = region_masks(Picture(photo), [Picture(style), Picture(other)])
    assert len(found) == 3
    areas = sorted(float(mask.mean()) for mask, _ in found)
    assert areas == pytest.approx([1 / 3] * 3, abs=0.004)
    assert sum(mask for mask, _ in found).eq(1).all()  # type: ignore[union-attr]
    by_color = {tuple(photo[mask[0, 0].numpy() > 0][50].tolist()): where for mask, where in found}
    red, blue, black = by_color[250, 20, 10], by_color[20, 30, 240], by_color[0, 0, 0]
    assert [w is None for w in (*red, *blue, *black)] == [False, True, False, True, True, False]
    assert isinstance(red[0], Tensor)
    assert red[0][0, 0, :10].all()
    assert not red[0][0, 0, 10:].any()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with pytest.raises(SettingsError, match="is no map: paint every part"):
        region_masks(Picture(noise), [Picture(noise)])
    with pytest.raises(SettingsError, match="has the colour #000000, and no style"):
        region_masks(Picture(photo), [Picture(style)])
    with pytest.raises(SettingsError, match="give --regions"):
        region_masks(None, [Picture(style)])
    with pytest.raises(SettingsError, match="for every style"):
        region_masks(Picture(photo), [Picture(style), None])


def test_labels_are_told_apart_and_small_parts_are_parts() -> None:
    labels = np.zeros((200, 200, 3), np.uint8)
    labels[:, 100:] = 1
    labels[150:] = 2
    labels[3:16, 3:16] = (250, 0, 0)  # 0.4 %
    found = region_masks(Picture(labels), [Picture(labels)])
    assert sorted(int(mask.sum()) for mask, _ in found) == [169, 10_000, 14_831, 15_000]
    for mask, (where,) in found:
        assert isinstance(where, Tensor)
        assert torch.equal(mask, where)


# --- the objective --------------------------------------------------------------------------------


def parts(x: Tensor, regions: list[Region]) -> Mapping[str, Tensor]:
    settings = TransferSettings(tv_weight=0.0, ripple_weight=0.0)
    size = (x.shape[-1], x.shape[-2])
    term = StyleTerm(regions, settings.style_layers, 1.0, size)
    return make_objective(Encoder.load("slim"), size, style=term, settings=settings)(x)


def test_each_half_has_its_own_statistics() -> None:
    """Either style's loss is 0 where the other's picture stands, and high if they are swapped."""
    a, b = (Picture(pictures.painting(128, 128, seed=s)).tensor() for s in (1, 2))
    left = mask_of(left_half(256, 128))
    sides = [Region(Styles([a], [1]), left), Region(Styles([b], [1]), 1 - left)]
    right_way, wrong_way = torch.cat((a, b), -1), torch.cat((b, a), -1)
    good, bad = (float(parts(x, sides)["style"]) for x in (right_way, wrong_way))
    assert good < 0.1 * bad


def test_regions_count_by_area_and_by_what_is_well_inside() -> None:
    a, b = (Picture(pictures.painting(64, 64, seed=s)).tensor() for s in (1, 2))
    x = torch.rand(1, 3, 64, 128)
    quarter = torch.zeros(1, 1, 64, 128)
    quarter[..., :32] = 1
    first, second = Region(Styles([a], [1]), quarter), Region(Styles([b], [1]), 1 - quarter)
    together = float(parts(x, [first, second])["style"])
    settings, encoder = TransferSettings(), Encoder.load("slim")
    expected = 0.0
    for region, area in ((first, 0.25), (second, 0.75)):
        assert region.mask is not None
        for layer, weight in settings.style_layers.items():
            features = encoder(x, [layer])[layer]
            own = guided_gram(features, guide(region.mask, SLIM, layer))
            aim = region.styles.grams(encoder, 128, 128, [layer])[layer]
            error = float((own - aim).square().sum() / aim.square().sum())
            expected += area * weight * error / sum(settings.style_layers.values())
    assert together == pytest.approx(expected, rel=1e-4)


def test_a_region_of_all_is_no_region() -> None:
    style, x = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 96)
    styles = Styles([style], [1])
    whole = parts(x, [Region(styles)])["style"]
    masked = parts(x, [Region(styles, torch.ones(1, 1, 64, 96))])["style"]
    assert float(masked) == pytest.approx(float(whole), rel=1e-5)


def test_a_region_pulls_at_its_own_pixels_only() -> None:
    x = torch.rand(1, 3, 96, 192, requires_grad=True)
    left = mask_of(left_half(192, 96))
    parts(x, [Region(Styles([torch.rand(1, 3, 64, 64)], [1]), left)])["style"].backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    pull = x.grad.abs().mean((0, 1, 2))
    assert pull[:96].mean() > 50 * pull[96 + 8 :].mean()
    assert not pull[160:].any()


def test_coarse_strokes_come_from_the_deep_layers() -> None:
    fine, coarse = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64) ** 2
    encoder = Encoder.load("slim")
    layers = encoder.layers
    mixed = Styles([fine], [1], coarse=Styles([coarse], [1])).grams(encoder, 64, 64, layers)
    for layer in layers:
        own = coarse if layer[4] in "345" else fine
        assert torch.equal(mixed[layer], Styles([own], [1]).grams(encoder, 64, 64, [layer])[layer])


def test_strokes_scale_with_the_style_picture() -> None:
    encoder = Encoder.load("slim")
    style = Picture(pictures.painting(256, 256)).tensor()
    small = torch.nn.functional.interpolate(style, (64, 64), mode="bicubic", antialias=True)
    half = Styles([style], [1], scale=0.5).grams(encoder, 128, 128, ["relu2_1"])["relu2_1"]
    expected = gram_matrix(encoder(small.clamp(0, 1), ["relu2_1"])["relu2_1"])
    assert torch.allclose(half, expected, rtol=1e-4, atol=1e-5)
    largest = [
        Styles([style], [1], scale=s).grams(encoder, 128, 128, ["relu2_1"])["relu2_1"]
        for s in (2, 4)
    ]
    assert torch.equal(*largest)  # a style picture is never enlarged


# --- what is painted ------------------------------------------------------------------------------


def test_luminance_and_content_keep_the_photos_chroma() -> None:
    from impasto.color import to_oklab, with_chroma_of

    photo = Picture(pictures.photo(64, 48))
    for colors in ("content", "luminance"):
        made = impasto.transfer(photo, flat((200, 40, 90)), colors=colors, **QUICK).image
        exact = with_chroma_of(made.tensor(), photo.tensor())
        assert (exact - made.tensor()).abs().max() <= 2 / 255  # rounding, at the edge of sRGB
        light = to_oklab(made.tensor())[:, 0] - to_oklab(photo.tensor())[:, 0]
        assert light.abs().max() > 0.01


@pytest.mark.parametrize("colors", ["histogram", "linear"])
def test_recoloured_styles_have_the_photos_colours(colors: Any) -> None:
    photo = Picture(pictures.photo(64, 48))
    style = Picture(pictures.painting(64, 64))
    plan = Composition(as_styles([style]), colors=colors).layout(photo, (64, 48))
    (picture,) = plan.regions[0].styles.pictures
    own = (style.tensor().mean((0, 2, 3)) - photo.tensor().mean((0, 2, 3))).abs().max()
    theirs = (picture.mean((0, 2, 3)) - photo.tensor().mean((0, 2, 3))).abs().max()
    assert theirs < 0.35 * own
    same = Composition(as_styles([photo]), colors=colors).layout(photo, (64, 48))
    assert torch.equal(same.regions[0].styles.pictures[0], photo.tensor())


@pytest.mark.parametrize("colors", ["style", "content", "luminance", "histogram", "linear"])
@pytest.mark.parametrize("color", [(0, 0, 0), (255, 255, 255), (128, 128, 128), (250, 3, 9)])
def test_flat_and_grey_pictures_are_safe(colors: Any, color: tuple[int, int, int]) -> None:
    grey = np.repeat(pictures.photo(48, 40).mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    for photo, style in ((Picture(grey), flat(color)), (flat(color), Picture(grey))):
        made = impasto.transfer(photo, style, colors=colors, **{**QUICK, "steps": 2})
        assert made.image.size == photo.size
        assert made.settings["loss"] is None or np.isfinite(made.settings["loss"])


def test_what_is_protected_is_the_photo_to_the_bit() -> None:
    photo = Picture(pictures.photo(64, 48))
    style = Picture(pictures.painting(48, 48))
    made = impasto.transfer(photo, style, protect=left_half(), **QUICK).image
    free = impasto.transfer(photo, style, **QUICK).image
    assert np.array_equal(made.pixels[:, :32], photo.pixels[:, :32])
    assert np.array_equal(made.pixels[:, 40:], free.pixels[:, 40:])
    assert not np.array_equal(free.pixels[:, :32], photo.pixels[:, :32])


def test_masked_styles_are_painted_and_recorded(tmp_path: Path) -> None:
    photo = Picture(pictures.photo(64, 48))
    a, b = (Picture(pictures.painting(48, 48, seed=s)) for s in (1, 2))
    result = impasto.transfer(photo, [Style(a, mask=left_half(32, 32)), b], **QUICK)
    roles = [(entry["role"], entry.get("of")) for entry in result.settings["inputs"]]
    assert roles == [("content", None), ("style", None), ("style", None), ("mask", 0)]
    plain = impasto.transfer(photo, [a, b], **QUICK)
    assert not np.array_equal(plain.image.pixels, result.image.pixels)
    notes = [
        p.note for p in impasto.iter_transfer(photo, Style(a, mask=left_half(32, 32)), **QUICK)
    ]
    assert notes[0]
    assert "32×32 px, the photo 64×48" in notes[0]
    assert not any(notes[1:])
    del tmp_path


def test_each_half_is_painted_in_its_own_style() -> None:
    """Seen in the result: each half is nearer to its own style's statistics than to the other's."""
    photo = Picture(pictures.photo(128, 64))
    a, b = (Picture(pictures.painting(64, 64, seed=s)) for s in (1, 2))
    left, right = left_half(128, 64), inverted(left_half(128, 64))
    made = impasto.transfer(
        photo, [Style(a, mask=left), Style(b, mask=right)], size=128, steps=40, threads=1
    ).image.tensor()
    encoder = Encoder.load("slim")

    def distance(x: Tensor, style: Picture) -> float:
        pairs = (encoder(y, ["relu1_1", "relu2_1", "relu3_1"]) for y in (x, style.tensor()))
        mine, theirs = ({n: gram_matrix(f) for n, f in found.items()} for found in pairs)
        return sum(float((mine[n] - theirs[n]).norm() / theirs[n].norm()) for n in mine)

    for half, own, other in ((made[..., :56], a, b), (made[..., 72:], b, a)):
        assert distance(half, own) < 0.5 * distance(half, other)


def test_a_composition_hands_on_what_styles_ask_for() -> None:
    photo = Picture(pictures.photo(64, 48))
    a, b, c = (Picture(pictures.painting(48, 48, seed=s)) for s in (1, 2, 3))
    masks = (left_half(), flat((255, 255, 255)))
    styles = as_styles([Style(a, 3.0, mask=masks[0]), Style(b, 1.0, mask=masks[1])])
    found = Composition(styles, scale=0.5, coarse=as_styles(c)).layout(photo, (64, 48)).regions
    for region, picture, shares_of in zip(found, (a, b), ((0.75, 0.0), (0.25, 1.0)), strict=True):
        assert torch.equal(region.styles.pictures[0], picture.tensor())
        assert region.styles.scale == 0.5
        assert region.styles.coarse
        assert torch.equal(region.styles.coarse.pictures[0], c.tensor())
        assert region.styles.coarse.scale == 0.5
        assert region.mask is not None
        assert torch.allclose(region.mask[..., :30], torch.tensor(shares_of[0]), atol=1e-4)
        assert torch.allclose(region.mask[..., 34:], torch.tensor(shares_of[1]), atol=1e-4)


def test_luminance_is_painted_in_grey_with_the_photos_light() -> None:
    from impasto.color import luminance, to_oklab

    photo, style = Picture(pictures.photo(64, 48)), Picture(pictures.painting(64, 64))
    layout = Composition(as_styles(style), colors="luminance").layout(photo, (64, 48))
    assert torch.allclose(layout.content, luminance(photo.tensor()), atol=1e-6)
    (painted,) = layout.regions[0].styles.pictures
    assert torch.equal(painted[:, 0], painted[:, 2])
    light, own = to_oklab(painted)[:, 0], to_oklab(photo.tensor())[:, 0]
    assert float(light.mean()) == pytest.approx(float(own.mean()), abs=5e-3)
    assert float(light.std()) == pytest.approx(float(own.std()), rel=0.05)


def test_what_does_not_fit_is_told() -> None:
    photo, style = Picture(pictures.photo(64, 48)), Picture(pictures.painting(48, 48))
    drawn = Style(style, regions=left_half(32, 16))
    told = Composition(as_styles(drawn), regions=left_half()).layout(photo, (64, 48)).notes
    assert told == ["warning: mask has 32×16 px, its painting 48×48: " + SKEWED]
    everywhere = [Style(style, mask=flat((255, 255, 255))), Style(style)]
    told = Composition(as_styles(everywhere)).layout(photo, (64, 48)).notes
    assert told == ["warning: the masks leave nothing of the photo to one of the styles"]
    with pytest.raises(SettingsError, match="coarse strokes are for the whole photo"):
        impasto.transfer(photo, style, coarse_from=Style(style, mask=left_half()), **QUICK)


def test_masks_and_maps_exclude_each_other() -> None:
    style = Style(flat((1, 2, 3)), mask=left_half(), regions=left_half())
    with pytest.raises(SettingsError, match="masks or from a map"):
        impasto.transfer(flat((5, 5, 5)), style, regions=left_half(), **QUICK)
    with pytest.raises(SettingsError, match="leave its masks out"):
        impasto.texture(Style(flat((1, 2, 3)), mask=left_half()), out_size=(40, 40), steps=2)


def test_a_map_gives_every_part_the_style_of_its_colour() -> None:
    photo = Picture(pictures.photo(64, 48))
    style = np.zeros((48, 64, 3), np.uint8)
    style[:, 32:] = 255
    layout = Composition(
        as_styles([Style(Picture(style), regions=inverted(left_half()))]), regions=left_half()
    ).layout(photo, (64, 48))
    assert len(layout.regions) == 2
    encoder = Encoder.load("slim")
    for region in layout.regions:
        assert region.mask is not None
        where = "left" if region.mask[..., :32].mean() > 0.5 else "right"
        target = region.styles.grams(encoder, 64, 64, ["relu1_1"])["relu1_1"]
        # White is the style's right half; its map is white on the right, the photo's on the left.
        side = Picture(style[:, 32:] if where == "left" else style[:, :32]).tensor()
        own = gram_matrix(encoder(side, ["relu1_1"])["relu1_1"])
        other = gram_matrix(encoder(1 - side, ["relu1_1"])["relu1_1"])
        assert (target - own).norm() < 0.2 * (target - other).norm()
