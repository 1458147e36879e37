"""Frames in one palette, and the GIF of them."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from impasto.gif import PALETTE, TOLERANCE, encode_gif, indexed
from pictures import Array, photo, psnr


def colored(count: int, width: int = 24, height: int = 16, seed: int = 0) -> Array:
    """A picture of so many colours, each at least once."""
    rng = np.random.default_rng(seed)
    colors = rng.permutation(1 << 16)[:count]
    colors = np.stack((colors >> 8, colors & 255, colors % 251), -1)
    places = np.concatenate((np.arange(count), rng.integers(0, count, width * height - count)))
    pixels = colors[rng.permutation(places)].reshape(height, width, 3)
    return np.asarray(pixels, np.uint8)


def images(*frames: Array) -> list[Image.Image]:
    return [Image.fromarray(frame) for frame in frames]


def shown(data: bytes) -> tuple[list[Array], list[int], int | None]:
    """The frames as Pillow shows them, RGBA, their durations, and the loops as they are stored."""
    with Image.open(io.BytesIO(data)) as image:
        frames, durations = [], []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.array(image.convert("RGBA")))
            durations.append(int(image.info["duration"]))
        return frames, durations, image.info.get("loop")


def test_few_colours_are_kept_to_the_last() -> None:
    frames = [colored(250), np.roll(colored(250), 3, axis=1), colored(9, seed=0)]
    assert len(np.unique(np.concatenate(frames).reshape(-1, 3), axis=0)) <= PALETTE
    made, durations, loops = shown(encode_gif(images(*frames), [50, 70, 2000]))
    assert durations == [50, 70, 2000]
    assert loops == 0
    for found, frame in zip(made, frames, strict=True):
        assert np.array_equal(found[..., :3], frame)
        assert (found[..., 3] == 255).all()


def test_many_colours_share_one_palette() -> None:
    frames = [photo(96, 64, seed) for seed in range(4)]
    changes, whole = indexed(images(*frames))
    assert not whole
    assert len({bytes(change.getpalette() or ()) for change in changes}) == 1
    made, _, _ = shown(encode_gif(images(*frames), [100] * 4))
    for found, frame in zip(made, frames, strict=True):
        assert psnr(found[..., :3], frame) > 27


def test_a_pixel_changes_only_when_it_is_wrong() -> None:
    frames = [photo(96, 64)]
    for step in range(1, 6):  # slower than the tolerance: nothing is to move
        frames.append(np.clip(frames[0].astype(int) + step, 0, 255).astype(np.uint8))
    changes, _ = indexed(images(*frames))
    moved = [(np.asarray(change) != PALETTE).mean() for change in changes]
    assert moved[0] == 1
    assert max(moved[1:]) < 0.2
    frames[1] = np.clip(frames[0].astype(int) + 3 * TOLERANCE, 0, 255).astype(np.uint8)
    changes, _ = indexed(images(*frames))
    assert (np.asarray(changes[1]) != PALETTE).mean() > 0.9


def test_equal_frames_stay_frames() -> None:
    made, durations, _ = shown(encode_gif(images(*[colored(9)] * 3), [30, 40, 50]))
    assert len(made) == 3
    assert durations == [30, 40, 50]


@pytest.mark.parametrize("many", [False, True])
def test_transparency_that_grows_needs_no_whole_frames(many: bool) -> None:
    frames = [with_alpha(many, left) for left in (20, 12, 4)]  # ever more is opaque
    assert not indexed(frames)[1]
    check(frames)


@pytest.mark.parametrize("many", [False, True])
def test_what_becomes_transparent_again(many: bool) -> None:
    frames = [with_alpha(many, left) for left in (4, 20, 24, 24, 12)]  # two without any pixel
    assert indexed(frames)[1]
    check(frames)


def with_alpha(many: bool, left: int) -> Image.Image:
    pixels = photo(24, 16) if many else colored(40)
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, left:] = 255
    alpha[:8, left:] = 128  # half is enough
    alpha[:, :left] = 127
    return Image.fromarray(np.dstack((pixels, alpha)))


def check(frames: Sequence[Image.Image]) -> None:
    made, durations, _ = shown(encode_gif(frames, [40] * len(frames)))
    assert durations == [40] * len(frames)
    for found, frame in zip(made, frames, strict=True):
        wanted = np.array(frame)
        opaque = wanted[..., 3] >= 128
        assert np.array_equal(found[..., 3] == 255, opaque)
        assert np.array_equal(found[..., 3] == 0, ~opaque)
        if opaque.any():
            assert psnr(found[opaque][:, :3], wanted[opaque][:, :3]) > 25


@pytest.mark.parametrize(("loops", "stored"), [(0, 0), (1, None), (2, 1), (9, 8), (70_000, 65_535)])
def test_loops(loops: int, stored: int | None) -> None:
    """A GIF says how often it is played again, and nothing if it is played once."""
    data = encode_gif(images(colored(5), colored(6)), [50, 50], loops=loops)
    assert shown(data)[2] == stored


def test_durations_are_rounded_to_hundredths_without_drifting() -> None:
    frames = images(*(colored(5, seed=seed) for seed in range(9)))
    _, durations, _ = shown(encode_gif(frames, [33] * 9))
    assert set(durations) == {30, 40}
    assert sum(durations) == 300
    _, durations, _ = shown(encode_gif(frames[:3], [11, 700_000, 100]))
    assert durations == [20, 655_350, 100]  # the least that is not taken for 100; the most there is


def test_a_comment_of_any_length() -> None:
    for length in (1, 255, 256, 5000):
        comment = (b"0123456789abcdef" * 400)[:length]
        data = encode_gif(images(colored(5), colored(6)), [50, 50], comment=comment)
        with Image.open(io.BytesIO(data)) as image:
            assert image.info["comment"] == comment


def test_the_smallest() -> None:
    pixel = Image.new("RGBA", (1, 1), (9, 8, 7, 0))
    made, _, _ = shown(encode_gif([pixel, pixel], [50, 50]))
    assert [frame.tolist()[0][0][3] for frame in made] == [0, 0]
