"""Squares for a GAN: how pictures are cut, held out, kept, and put into batches."""

import errno
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pictures
from impasto.errors import ImageError, ImpastoError, SettingsError
from impasto.files import lock
from impasto.gan import cache as module
from impasto.gan.cache import Progress, prepare, reference_squares
from impasto.gan.collection import find, look
from impasto.gan.pictures import Box, Pictures, Views, boxes, closer, hold_out

VIEWS = Views(32)


def scene(width: int = 60, height: int = 48, seed: int = 0) -> pictures.Array:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(image)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, all different."""
    folder = tmp_path / "paintings"
    folder.mkdir()
    for seed in range(12):
        pictures.save(folder / f"{seed:02}.png", scene(seed=seed))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def get(folder: Path, cache: Path, views: Views = VIEWS, **options: Any) -> Pictures:
    return drive(prepare(find([folder]), views, cache=cache, **options))[1]


def drive(work: Any) -> tuple[list[Progress], Pictures]:
    steps = []
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            return steps, end.value


def age(folder: Path) -> None:
    """Makes files look as if they had not been touched for long."""
    for path in folder.iterdir():
        os.utime(path, ns=(10**18, 10**18))


def leftovers(cache: Path) -> list[str]:
    return sorted(p.name for p in cache.iterdir() if p.suffix != ".lock" and p.name != "index.json")


# --- cutting --------------------------------------------------------------------------------------


def test_one_square_from_the_centre() -> None:
    assert boxes((100, 60), VIEWS, 0) == [(20, 0, 60)]
    assert boxes((60, 101), VIEWS, 0) == [(0, 20, 60)]


@pytest.mark.parametrize("size", [(800, 32), (32, 800), (40, 40), (127, 127), (333, 129), (97, 96)])
def test_tiles_cover_a_picture_wholly_and_overlap_evenly(size: tuple[int, int]) -> None:
    cut = boxes(size, Views(32, tile=True), 0)
    seen = np.zeros(size[::-1], int)
    for left, top, side in cut:
        assert left >= 0
        assert top >= 0
        seen[top : top + side, left : left + side] += 1
    assert seen.shape == size[::-1]
    assert seen.min() == 1
    for along in (0, 1):
        starts = np.unique([box[along] for box in cut])
        assert np.ptp(np.diff(starts)) <= 1 if len(starts) > 1 else True


def test_a_scroll_becomes_a_row_and_a_large_picture_several() -> None:
    tiled = Views(32, tile=True)
    assert len(boxes((800, 32), tiled, 0)) == 25
    assert len(boxes((127, 127), tiled, 0)) == 1
    assert len(boxes((128, 128), tiled, 0)) == 4
    assert len(boxes((256, 256), tiled, 0)) == 9
    assert len(boxes((512, 1024), tiled, 0)) == 32


def test_crops_are_drawn_from_the_seed_and_never_enlarged() -> None:
    views = Views(32, "random", crops=200)
    cut = boxes((400, 300), views, 1)
    assert cut == boxes((400, 300), views, 1)
    assert cut != boxes((400, 300), views, 2)
    sides = [box.side for box in cut]
    assert 75 <= min(sides) < 90
    assert 270 < max(sides) <= 300
    assert all(0 <= left <= 400 - side and 0 <= top <= 300 - side for left, top, side in cut)
    assert {box.side for box in boxes((64, 33), views, 0)} == {33}
    assert min(box.side for box in boxes((90, 90), views, 0)) >= views.stored


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size is 4"),
        ({"size": 64, "crop": "left"}, "crop is 'left'"),
        ({"size": 64, "crops": -1}, "crops is -1"),
        ({"size": 64, "crops": 2, "tile": True}, "choose one"),
    ],
)
def test_views_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Views(**options)


def test_squares_are_the_parts_at_their_size(folder: Path, cache: Path) -> None:
    made = get(folder, cache, Views(48))
    assert made.train.dtype == np.uint8
    assert made.train.shape[1:] == (48, 48, 3)
    assert made.slack == 0
    originals = {pictures.load(path)[:, 6:54].tobytes() for path in folder.iterdir()}
    assert {square.tobytes() for square in (*made.train, *made.held)} == originals


def test_a_smaller_square_is_antialiased(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "lines"
    folder.mkdir()
    lines = np.zeros((256, 256, 3), np.uint8)
    lines[:, ::2] = 255
    pictures.save(folder / "lines.png", lines)
    pictures.save(folder / "other.png", scene())
    made = get(folder, cache)
    squares = [s for s in (*made.train, *made.held) if np.ptp(s.mean(axis=2)) < 8]
    assert len(squares) == 1
    assert abs(float(squares[0].mean()) - 127.5) < 2


def test_a_scroll_is_stored_in_tiles(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "scrolls"
    folder.mkdir()
    pictures.save(folder / "scroll.png", scene(800, 32))
    pictures.save(folder / "other.png", scene(32, 32, seed=1))
    made = get(folder, cache, Views(32, tile=True))
    scroll = made.train if len(made.train) > 1 else made.held
    assert np.array_equal(np.concatenate(list(scroll), axis=1), scene(800, 32))


# --- holding out ----------------------------------------------------------------------------------


def test_what_is_held_out_stays_so_when_others_come_and_go() -> None:
    names = [f"painting {i}" for i in range(500)]
    held = dict(zip(names, hold_out(names, 0.2, 0), strict=True))
    assert 70 < sum(held.values()) < 130
    for some in (names[::-1], names[100:], [*names, "another"]):
        again = dict(zip(some, hold_out(some, 0.2, 0), strict=True))
        assert all(again[name] == held[name] for name in some if name in held)
    assert hold_out(names, 0.2, 1) != list(held.values())
    more = hold_out(names, 0.4, 0)
    assert all(late or not early for early, late in zip(held.values(), more, strict=True))


def test_each_side_has_at_least_one_painting() -> None:
    for seed in range(20):
        for share in (0.001, 0.5, 0.999):
            assert sorted(hold_out(["a", "b"], share, seed)) == [False, True]
            assert 0 < sum(hold_out(["a", "b", "c"], share, seed)) < 3


def test_copies_of_a_painting_are_on_one_side(folder: Path, cache: Path) -> None:
    for path in find([folder]):
        image = Image.open(path)
        image.save(folder / f"{path.stem}-copy.tif")  # the same pixels
        image.resize((120, 96), Image.Resampling.BICUBIC).save(folder / f"{path.stem}-large.png")
        image.save(folder / f"{path.stem}-jpeg.jpg", quality=60)
    made = get(folder, cache, Views(32, crops=3), held_out=0.4)
    assert len(made.train) + len(made.held) == 12 * 3 * 3
    assert set(made.train_painting).isdisjoint(made.held_painting)
    counts = np.bincount(np.concatenate((made.train_painting, made.held_painting)))
    assert counts.tolist() == [9] * 12
    assert len(made.held) == len(made.held_painting) > 0


def test_new_pictures_do_not_move_the_others(folder: Path, cache: Path) -> None:
    before = {square.tobytes() for square in get(folder, cache, held_out=0.5).held}
    for seed in range(12, 20):
        pictures.save(folder / f"{seed}.png", scene(seed=seed))
    after = get(folder, cache, held_out=0.5)
    old = {look(folder / f"{seed:02}.png")[0].pixels.tobytes() for seed in range(12)}
    assert len(old) == 12
    assert before <= {square.tobytes() for square in after.held}
    assert before.isdisjoint({square.tobytes() for square in after.train})


def test_names_and_order_do_not_matter(folder: Path, cache: Path, tmp_path: Path) -> None:
    here = get(folder, cache, Views(32, crops=2))
    other = tmp_path / "renamed"
    other.mkdir()
    for number, path in enumerate(reversed(find([folder]))):
        (other / f"{number}.png").write_bytes(path.read_bytes())
    there = get(other, tmp_path / "other cache", Views(32, crops=2))
    assert there.key == here.key
    assert np.array_equal(there.train, here.train)
    assert np.array_equal(there.held_painting, here.held_painting)


@pytest.mark.parametrize("count", [0, 1])
def test_a_gan_needs_two_paintings(tmp_path: Path, cache: Path, count: int) -> None:
    paths = [pictures.save(tmp_path / f"{i}.png", scene()) for i in range(count)]
    torn = tmp_path / "torn.png"
    torn.write_bytes(b"")
    with pytest.raises(ImpastoError, match=f"{count} of {count + 1} pictures can be used"):
        drive(prepare([*paths, torn], VIEWS, cache=cache))
    assert leftovers(cache) == []


def test_two_copies_are_one_painting(tmp_path: Path, cache: Path) -> None:
    paths = [pictures.save(tmp_path / "a.png", scene())]
    paths.append(pictures.save(tmp_path / "b.jpg", scene(), quality=90))
    with pytest.raises(ImpastoError, match="different paintings"):
        drive(prepare(paths, VIEWS, cache=cache))


def test_the_share_is_checked(cache: Path) -> None:
    for share in (0, 1.5):
        with pytest.raises(SettingsError, match=f"held_out is {share}"):
            drive(prepare([], VIEWS, cache=cache, held_out=share))


# --- the cache ------------------------------------------------------------------------------------


def test_the_second_time_nothing_is_read(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(folder)
    (folder / "torn.png").write_bytes(b"")
    os.utime(folder / "torn.png", ns=(10**18, 10**18))
    steps, first = drive(prepare(find([folder]), VIEWS, cache=cache))
    assert [step.stage for step in steps] == ["checking"] * 13 + ["reading"] * 13
    assert (steps[-1].done, steps[-1].total) == (13, 13)
    assert [step.skipped for step in steps if step.skipped] == list(first.skipped)
    assert [(s.path, s.reason) for s in first.skipped] == [
        (folder / "torn.png", "the file is empty")
    ]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("look", "sha256_file", "lock"):
        monkeypatch.setattr(module, name, fail)
    steps, again = drive(prepare(find([folder]), VIEWS, cache=cache))
    assert {step.stage for step in steps} == {"checking"}
    assert np.array_equal(again.train, first.train)
    assert again.key == first.key
    assert again.skipped == first.skipped
    assert isinstance(again.train, np.memmap)


def test_another_setting_makes_another_folder(folder: Path, cache: Path) -> None:
    keys = {
        get(folder, cache, views, **options).key
        for views, options in (
            (VIEWS, {}),
            (Views(40), {}),
            (Views(32, "random"), {}),
            (Views(32, crops=1), {}),
            (Views(32, tile=True), {}),
            (VIEWS, {"seed": 1}),
            (VIEWS, {"held_out": 0.3}),
            (VIEWS, {"least_held": 30}),
            (VIEWS, {"max_pixels": 10_000}),
        )
    }
    assert len(keys) == 9
    assert leftovers(cache) == sorted(keys)


@pytest.mark.parametrize("index", [b"", b"[1]", b'{"a": 3, "b": [1]}', None])
def test_a_stale_index_only_costs_time(folder: Path, cache: Path, index: bytes | None) -> None:
    age(folder)
    first = get(folder, cache)
    if index is None:
        (cache / "index.json").unlink()
    else:
        (cache / "index.json").write_bytes(index)
    assert get(folder, cache).key == first.key
    known = json.loads((cache / "index.json").read_text())
    assert {str(path) for path in folder.iterdir()} <= set(known)


def test_a_changed_file_makes_the_squares_anew(folder: Path, cache: Path) -> None:
    age(folder)
    first = get(folder, cache)
    pictures.save(folder / "00.png", scene(seed=100))
    second = get(folder, cache)
    assert second.key != first.key
    pictures.save(folder / "00.png", scene(seed=0))
    assert get(folder, cache).key == first.key


def test_a_file_that_was_just_written_is_not_remembered(folder: Path, cache: Path) -> None:
    get(folder, cache)
    assert not (cache / "index.json").exists()


def test_the_index_forgets_files_that_are_gone(folder: Path, cache: Path) -> None:
    age(folder)
    get(folder, cache)
    (folder / "00.png").unlink()
    pictures.save(folder / "new.png", scene(seed=30))
    age(folder)
    get(folder, cache)
    known = json.loads((cache / "index.json").read_text())
    assert sorted(known) == sorted(str(path) for path in folder.iterdir())


def test_a_run_that_fails_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_text_atomic", fail)
        with pytest.raises(KeyboardInterrupt):
            get(folder, cache)
    assert leftovers(cache) == []
    work = prepare(find([folder]), VIEWS, cache=cache)
    for step in work:
        if step.stage == "reading":
            break
    assert len(leftovers(cache)) == 1
    work.close()
    assert leftovers(cache) == []
    assert len(get(folder, cache).train) > 0


def test_what_a_killed_process_left_is_removed_and_not_used(folder: Path, cache: Path) -> None:
    key = get(folder, cache).key
    (cache / key).rename(cache / f"{key}.part")
    (cache / f"{key}.part" / "meta.json").unlink()
    (cache / "abc.part").mkdir()
    (cache / "abc.part" / "squares").write_bytes(b"half")
    (cache / "busy.part").mkdir()
    with lock(cache / "busy"):
        assert get(folder, cache).key == key
    assert leftovers(cache) == sorted([key, "busy.part"])


@pytest.mark.parametrize("name", ["meta.json", "train.npy", "held.npy"])
@pytest.mark.parametrize("cut", [True, False])
def test_a_folder_that_is_not_whole_is_made_anew(
    folder: Path, cache: Path, name: str, cut: bool
) -> None:
    first = get(folder, cache)
    train = np.array(first.train)
    damaged = cache / first.key / name
    if cut:
        damaged.write_bytes(damaged.read_bytes()[:-5])
    else:
        damaged.unlink()
    again = get(folder, cache)
    assert np.array_equal(again.train, train)
    assert damaged.exists()


def test_squares_that_are_not_those_of_the_record_are_made_anew(folder: Path, cache: Path) -> None:
    first = get(folder, cache)
    for name, squares in (("train", np.array(first.train)), ("held", np.array(first.held))):
        np.save(cache / first.key / f"{name}.npy", squares[:-1])
        assert np.array_equal(getattr(get(folder, cache), name), squares)


def test_two_at_once_make_it_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []

    def counted(path: Path, **options: Any) -> Any:
        looked.append(path)
        return look(path, **options)

    monkeypatch.setattr(module, "look", counted)
    made: list[Pictures] = []
    threads = [threading.Thread(target=lambda: made.append(get(folder, cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 3
    assert len(looked) == 12
    assert np.array_equal(made[0].train, made[2].train)


def test_a_full_disk_is_told_and_leaves_nothing(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(ImpastoError, match="the disk is full; another folder") as caught:
            get(folder, cache)
    assert "\n" not in str(caught.value)
    assert leftovers(cache) == []
    assert len(get(folder, cache).train) > 0


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import test_gan_pictures as t
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    t.get(Path(sys.argv[1]), Path(sys.argv[2]))
except t.ImpastoError as error:
    print(error)
"""


def test_a_write_that_the_system_refuses_is_told(folder: Path, cache: Path) -> None:
    # In a process of its own: the limit would hold for this one's output as well.
    code = [sys.executable, "-c", LIMITED, str(folder), str(cache), str(Path(__file__).parent)]
    done = subprocess.run(code, check=True, capture_output=True, text=True)
    assert re.match(r"cannot write .*: the file would be larger", done.stdout)
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_made_is_told(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImpastoError, match="cannot make the folder"):
        get(folder, tmp_path / "file" / "cache")


def test_the_cache_is_where_the_user_says(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMPASTO_CACHE", str(tmp_path / "mine"))
    made = drive(prepare(find([folder]), VIEWS))[1]
    assert (tmp_path / "mine" / "gan-data" / made.key / "meta.json").exists()


def test_a_failure_that_may_pass_is_not_remembered(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(path: Path, **_: object) -> None:
        raise ImageError(f"cannot read {path}: not enough memory") from MemoryError()

    with monkeypatch.context() as patch:
        patch.setattr(module, "look", no_memory)
        with pytest.raises(ImageError, match="not enough memory"):
            get(folder, cache)
    assert get(folder, cache).skipped == ()


def test_a_file_that_changes_under_our_hands_is_an_error(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(folder)
    work = prepare(find([folder]), VIEWS, cache=cache)
    while next(work).path.name != "11.png":
        pass
    pictures.save(folder / "03.png", scene(seed=200))
    with pytest.raises(ImpastoError, match=r"03\.png was changed while it was read"):
        drive(work)


def test_a_file_that_is_gone_is_skipped(folder: Path, cache: Path) -> None:
    paths = [*find([folder]), folder / "gone.png", folder]
    made = drive(prepare(paths, VIEWS, cache=cache))[1]
    assert [(s.path, s.reason) for s in made.skipped] == [
        (folder / "gone.png", "no such file or folder"),
        (folder, "it is not a regular file"),
    ]


# --- batches --------------------------------------------------------------------------------------


@pytest.fixture
def made() -> Pictures:
    """Three squares of 10 px to learn from, two held out; 8 px are seen of each."""
    levels = np.random.default_rng(0).integers(0, 256, (5, 10, 10, 3), dtype=np.uint8)
    levels[0, 1, 1:3, 0] = 0, 255
    numbers = np.array([0, 0, 1]), np.array([2, 3])
    return Pictures(levels[:3], levels[3:], *numbers, side=8, key="")


def test_levels_become_numbers_from_minus_1_to_1(made: Pictures) -> None:
    x = made.batch(torch.tensor([2, 0]))
    assert x.shape == (2, 3, 8, 8)
    assert x.dtype == torch.float32
    seen = torch.from_numpy(made.train[[2, 0], 1:9, 1:9]).permute(0, 3, 1, 2)
    assert torch.equal(x, seen.float() / 127.5 - 1)
    assert x[1, 0, 0, :2].tolist() == [-1, 1]
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1


def test_pictures_are_mirrored_as_told(made: Pictures) -> None:
    indices = torch.tensor([0, 1, 2])
    plain = made.batch(indices, held=False)
    x = made.batch(indices, flips=torch.tensor([True, False, True]))
    assert torch.equal(x[0], plain[0].flip(-1))
    assert torch.equal(x[1], plain[1])
    assert torch.equal(x[2], plain[2].flip(-1))


def test_squares_are_cut_where_told(made: Pictures) -> None:
    x = made.batch(torch.tensor([1, 1]), offsets=torch.tensor([[0, 2], [2, 0]]), held=True)
    for row, (top, left) in zip(x, ((0, 2), (2, 0)), strict=True):
        part = torch.from_numpy(made.held[1, top : top + 8, left : left + 8]).permute(2, 0, 1)
        assert torch.equal(row, part.float() / 127.5 - 1)


def test_draws_follow_from_the_generator_and_stay_within_the_square(made: Pictures) -> None:
    flips, offsets = made.draw(1000, torch.Generator().manual_seed(1))
    again = made.draw(1000, torch.Generator().manual_seed(1))
    assert torch.equal(flips, again[0])
    assert torch.equal(offsets, again[1])
    assert offsets.shape == (1000, 2)
    assert sorted(set(offsets.flatten().tolist())) == [0, 1, 2]
    assert 400 < int(flips.sum()) < 600


def test_a_shared_batch_is_the_whole_one_in_parts(made: Pictures) -> None:
    indices = torch.tensor([0, 1, 2, 1])
    flips, offsets = made.draw(4, torch.Generator().manual_seed(0))
    whole = made.batch(indices, flips=flips, offsets=offsets)
    parts = [
        made.batch(indices[rows], flips=flips[rows], offsets=offsets[rows])
        for rows in (slice(0, 2), slice(2, 4))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_random_crops_have_room(folder: Path, cache: Path) -> None:
    made = get(folder, cache, Views(32, "random"))
    assert made.train.shape[1:] == (37, 37, 3)
    assert made.slack == 5
    offsets = torch.tensor([[5, 0]])
    assert made.batch(torch.tensor([0]), offsets=offsets).shape == (1, 3, 32, 32)


def test_the_reference_is_of_what_is_held_out(made: Pictures) -> None:
    squares, painting = made.reference(7)
    assert squares.shape == (8, 8, 8, 3)
    assert painting.tolist() == [2] * 4 + [3] * 4
    first = made.held[0]
    places = [first[i : i + 8, j : j + 8].tobytes() for i in range(3) for j in range(3)]
    assert all(square.tobytes() in places for square in squares[:4])
    assert np.array_equal(squares, made.reference(7)[0])


def test_a_reference_without_room_has_each_square_once(folder: Path, cache: Path) -> None:
    made = get(folder, cache)
    squares, painting = made.reference(1000)
    assert np.array_equal(squares, made.held)
    assert np.array_equal(painting, made.held_painting)
    assert len(made.reference(1)[0]) == 1


def test_what_is_held_out_is_seen_often_enough(folder: Path, cache: Path) -> None:
    plain, more = get(folder, cache, held_out=0.4), get(folder, cache, held_out=0.4, least_held=50)
    assert np.array_equal(more.train, plain.train)
    copies = -(-50 // len(plain.held))
    assert np.array_equal(more.held_painting, np.repeat(plain.held_painting, copies))
    assert np.array_equal(more.held[::copies], plain.held)
    for place, square in enumerate(plain.held):
        seen = more.held[place * copies : (place + 1) * copies]
        assert len({one.tobytes() for one in seen}) >= copies - 3
        others = np.delete(plain.held, place, axis=0)
        for one in seen:
            nearest_other = min(distance(one, other) for other in others)
            assert distance(one, square) < nearest_other
    assert len(more.reference(50)[0]) == 50


def distance(a: pictures.Array, b: pictures.Array) -> float:
    return float(np.abs(a.astype(float) - b).mean())


def test_closer_squares_lie_within_and_are_little_smaller() -> None:
    box = Box(10, 20, 100)
    cut = closer(box, 300, 1)
    assert cut == closer(box, 300, 1) != closer(box, 300, 2)
    sides = [side for _, _, side in cut]
    assert 87 <= min(sides) <= 88
    assert max(sides) == 100
    assert all(left >= 10 and left + side <= 110 for left, _, side in cut)
    assert all(top >= 20 and top + side <= 120 for _, top, side in cut)
    assert closer(Box(0, 0, 1), 1, 0) == [Box(0, 0, 1)]


def test_a_picture_that_changes_before_its_second_look_is_an_error(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Path] = []

    def change(path: Path, **options: Any) -> Any:
        looks.append(path)
        if len(looks) == 13:
            pictures.save(path, scene(seed=300))
        return look(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, "look", change)
        with pytest.raises(ImpastoError, match="was changed while it was read"):
            get(folder, cache, least_held=100)
    assert leftovers(cache) == []


def test_the_reference_of_folders_has_all_that_is_in_them(folder: Path, cache: Path) -> None:
    squares, painting = reference_squares([folder], 48, 12, cache=cache)
    assert sorted(painting.tolist()) == list(range(12))
    originals = {pictures.load(path)[:, 6:54].tobytes() for path in folder.iterdir()}
    assert {square.tobytes() for square in squares} == originals
    assert len(reference_squares([folder], 48, 5, cache=cache)[0]) == 5
    many, painting = reference_squares([folder], 48, 100, cache=cache)
    assert many.shape == (100, 48, 48, 3)
    assert set(painting.tolist()) == set(range(12))
