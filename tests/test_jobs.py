from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import impasto
from impasto import ImpastoError, Picture, Progress, Result
from impasto.jobs.run import Bench, Start
from impasto.losses import gram_matrix
from impasto.objectives import ContentTerm, Region, Styles, StyleTerm, make_objective
from impasto.options import ReconstructOptions, TextureOptions, TransferOptions
from impasto.pyramid import resample, working_size
from impasto.settings import (
    CONTENT_LAYERS,
    STYLE_LAYERS,
    Noise,
    TextureSettings,
    TransferSettings,
    make_settings,
)
from pictures import UNSMOOTHED, Array, painting, photo, psnr, save, transparency

# What the losses come to is compared with numbers below: these lean on no default.
TRANSFER = cast(TransferOptions, {"size": 40, "steps": 5, "threads": 1, **UNSMOOTHED})
WEIGHTED = TRANSFER | {"content_weight": 1.0, "style_weight": 20.0}
TEXTURE = cast(TextureOptions, {"out_size": (40, 36), "steps": 5, "threads": 1, **UNSMOOTHED})
RECONSTRUCT = cast(
    ReconstructOptions,
    {"size": 40, "steps": 5, "layers": "relu2_1", "threads": 1, **UNSMOOTHED},
)


@dataclass
class Folder:
    """A folder with a photo and a painting, and both as pixels."""

    path: Path
    photo: Array
    painting: Array


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    save(tmp_path / "photo.png", photo())
    save(tmp_path / "style.png", painting())
    return Folder(tmp_path, photo(), painting())


def steps_of(job: Generator[Progress, None, Result]) -> tuple[list[Progress], Result]:
    """All records of a job, and its result."""
    seen: list[Progress] = []
    while True:
        try:
            seen.append(next(job))
        except StopIteration as stop:
            result: Result = stop.value
            return seen, result


def alpha_of(picture: Picture) -> Array:
    assert picture.alpha is not None
    return picture.alpha


def jobs() -> dict[str, Callable[[], Generator[Progress, None, Result]]]:
    content, style = Picture(photo()), Picture(painting())
    return {
        "transfer": lambda: impasto.iter_transfer(content, style, **TRANSFER),
        "texture": lambda: impasto.iter_texture(style, **TEXTURE),
        "reconstruct": lambda: impasto.iter_reconstruct(content, **RECONSTRUCT),
    }


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Pictures this small are quicker on one thread than on two that share a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


every_job = pytest.mark.parametrize("job", ["transfer", "texture", "reconstruct"])


# --- what goes in

WAYS: dict[str, Callable[[Folder, str], Any]] = {
    "path as text": lambda folder, name: str(folder.path / f"{name}.png"),
    "path": lambda folder, name: folder.path / f"{name}.png",
    "Picture": lambda folder, name: impasto.open_image(folder.path / f"{name}.png"),
    "Pillow": lambda folder, name: Image.open(folder.path / f"{name}.png").copy(),
    "tensor": lambda folder, name: impasto.open_image(folder.path / f"{name}.png").tensor(),
}


@pytest.mark.parametrize("way", WAYS)
def test_pictures_in_every_way(way: str, folder: Folder) -> None:
    content, style = WAYS[way](folder, "photo"), WAYS[way](folder, "style")
    plain = impasto.transfer(Picture(folder.photo), Picture(folder.painting), **TRANSFER)
    result = impasto.transfer(content, style, **TRANSFER)
    assert isinstance(result.image, Picture)
    assert result.image.size == (40, 32)
    assert np.array_equal(result.image.pixels, plain.image.pixels)
    assert [entry["name"] for entry in result.settings["inputs"]] == (
        [None, None] if way in ("Pillow", "tensor") else ["photo.png", "style.png"]
    )
    texture = impasto.texture(style, **TEXTURE)
    assert texture.image.size == (40, 36)
    assert impasto.reconstruct(content, **RECONSTRUCT).image.size == (40, 32)


def test_samples(folder: Folder) -> None:
    result = impasto.transfer("sample:astronaut", "sample:strokes", **TRANSFER)
    assert result.image.size == (512, 512)
    names = [entry["name"] for entry in result.settings["inputs"]]
    assert names == ["astronaut.jpg", "strokes.jpg"]


@pytest.mark.parametrize("init", ["path", "Picture", "Pillow", "tensor"])
def test_picture_to_start_from(init: str, folder: Folder) -> None:
    begin: Any = WAYS[init](folder, "style")
    content = Picture(folder.photo)
    # One step is the evaluation of the start alone: the result is the start.
    start = impasto.transfer(content, content, init=begin, size=40, steps=1, threads=1)
    middle = Picture(folder.painting[5:43])  # the style, cut to the shape of the photo
    small = resample(middle.tensor(), (40, 32)).clamp(0, 1)
    assert psnr(start.image.pixels, Picture.from_tensor(small).pixels) > 30
    assert [entry["role"] for entry in start.settings["inputs"]] == ["content", "style", "init"]
    texture = impasto.texture(content, init=begin, out_size=(48, 48), steps=1, threads=1)
    assert np.array_equal(texture.image.pixels, folder.painting)
    back = impasto.reconstruct(content, init=begin, layers="relu1_1", size=40, steps=1, threads=1)
    assert psnr(back.image.pixels, Picture.from_tensor(small).pixels) > 30


def test_start_from_content_style_and_noise(folder: Folder) -> None:
    content, style = Picture(folder.photo), Picture(folder.painting)

    def start(init: str, seed: int = 0) -> Array:
        return impasto.transfer(
            content, style, init=init, seed=seed, size=40, steps=1, threads=1
        ).image.pixels

    assert np.array_equal(start("content"), folder.photo)
    middle = resample(Picture(folder.painting[5:43]).tensor(), (40, 32)).clamp(0, 1)
    assert psnr(start("style"), Picture.from_tensor(middle).pixels) > 30
    random = start("noise")
    assert random.std() == pytest.approx(255 / math.sqrt(12), rel=0.05)
    assert not np.array_equal(random, start("noise", seed=1))
    assert np.array_equal(random, start("noise"))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: impasto.transfer(np.zeros((8, 8, 3), np.uint8), "sample:strokes"), "ndarray"),  # type: ignore[arg-type]
        (lambda: impasto.transfer("no.png", "sample:strokes"), "cannot read no.png"),
        (lambda: impasto.transfer("sample:astronaut", []), "no style"),
        (lambda: impasto.transfer("sample:astronaut", ("sample:strokes", 0.0)), "above 0"),
        (lambda: impasto.transfer("sample:astronaut", ("sample:strokes", math.nan)), "above 0"),
        (lambda: impasto.transfer(torch.zeros(1, 4, 8, 8), "sample:strokes"), "(1, 3, H, W)"),
        (lambda: impasto.transfer(torch.full((1, 3, 8, 8), math.nan), "sample:strokes"), "finite"),
        (lambda: impasto.transfer("sample:astronaut", "sample:strokes", colour=1), "colour"),  # type: ignore[call-arg]
        (lambda: impasto.transfer("sample:astronaut", "sample:strokes", steps=True), "steps"),
        (lambda: impasto.texture("sample:strokes", init="content"), "noise, style"),
        (lambda: impasto.reconstruct("sample:astronaut", layers=()), "layers"),
        (lambda: impasto.reconstruct("sample:astronaut", layers="relu8_8"), "relu5_1"),
        (lambda: impasto.Encoder.load("vgg99"), "slim"),
    ],
    ids=range(13),
)
def test_what_is_wrong_is_said_in_one_line(call: Callable[[], object], words: str) -> None:
    with pytest.raises(ImpastoError) as error:
        call()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


# --- progress


@every_job
def test_progress(job: str) -> None:
    seen, result = steps_of(jobs()[job]())
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5]
    assert {progress.steps for progress in seen} == {5}
    assert {progress.job for progress in seen} == {job}
    done = [progress.done for progress in seen]
    assert done == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert done[-1] == 1
    assert seen[-1].seconds_left == 0
    for progress in seen:
        assert progress.seconds_left >= 0
        assert progress.loss == pytest.approx(sum(progress.parts.values()))
        assert progress.size == (40, 36 if job == "texture" else 32)
        assert (progress.scale, progress.scales) == (1, 1)
    seconds = [progress.seconds for progress in seen]
    assert seconds == sorted(seconds)
    told = [progress.record() | {"seconds": None} for progress in seen]
    assert [entry | {"seconds": None} for entry in result.history] == told
    assert result.partial is False
    assert result.settings["status"] == "complete"


def test_progress_over_scales() -> None:
    content = Picture(photo(151, 111))
    job = impasto.iter_transfer(
        content, Picture(painting()), size=96, scales=2, steps=12, threads=1
    )
    finest = working_size((151, 111), 96)
    steps: list[int] = []
    done: list[float] = []
    scales: list[int] = []
    for progress in job:  # `picture` and `result` hold until the next step
        steps.append(progress.step)
        done.append(progress.done)
        scales.append(progress.scale)
        assert progress.scales == 2
        assert progress.picture().size == finest
        so_far = progress.result()
        assert so_far.image.size == (151, 111)
        assert so_far.partial
        assert so_far.settings["status"] == "partial"
        assert so_far.settings["steps"] == len(so_far.history) == progress.step
    assert steps == list(range(1, 13))
    assert scales == sorted(scales)
    assert set(scales) == {1, 2}
    assert done == sorted(set(done))
    assert done[-1] == 1


@every_job
def test_what_is_called_on_progress(job: str) -> None:
    seen: list[Progress] = []
    content, style = Picture(photo()), Picture(painting())
    match job:
        case "transfer":
            impasto.transfer(content, style, on_progress=seen.append, **TRANSFER)
        case "texture":
            impasto.texture(style, on_progress=seen.append, **TEXTURE)
        case _:
            impasto.reconstruct(content, on_progress=seen.append, **RECONSTRUCT)
    assert [progress.step for progress in seen] == [1, 2, 3, 4, 5]


@every_job
def test_settings_are_json(job: str) -> None:
    _, result = steps_of(jobs()[job]())
    assert json.loads(json.dumps(result.settings)) == result.settings
    assert json.loads(json.dumps(result.history)) == result.history
    assert result.settings["job"] == job
    assert result.settings["steps"] == 5


def test_steps_are_the_total_however_few() -> None:
    for steps in (1, 2, 3):
        _, result = steps_of(
            impasto.iter_transfer(
                Picture(photo(80, 72)),
                Picture(painting()),
                size=80,
                scales=2,
                steps=steps,
                threads=1,
            )
        )
        assert len(result.history) == steps
        assert result.image.size == (80, 72)


# --- stopping, threads, memory


@every_job
def test_stopping_early(job: str) -> None:
    before = torch.get_num_threads()
    work = jobs()[job]()
    first = next(work)
    next(work)
    work.close()
    assert torch.get_num_threads() == before
    assert first.step == 1
    _, result = steps_of(jobs()[job]())
    assert not result.partial


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch says that it takes two threads, or as many as it was told."""
    count = 2

    def tell(number: int) -> None:
        nonlocal count
        count = number

    monkeypatch.setattr(torch, "set_num_threads", tell)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("count", [0, 1, 3])
def test_threads(count: int) -> None:
    inside: list[int] = []
    result = impasto.transfer(
        Picture(photo()),
        Picture(painting()),
        on_progress=lambda _: inside.append(torch.get_num_threads()),
        **(TRANSFER | {"threads": count}),
    )
    assert inside == [count or 2] * 5
    assert result.settings["threads"] == (count or 2)
    assert result.settings["settings"]["threads"] == count
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_an_error_of_the_caller_puts_the_threads_back() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        impasto.transfer(
            Picture(photo()), Picture(painting()), on_progress=lambda _: 1 // 0, **TRANSFER
        )
    assert error.value.__traceback__ is not None  # which keeps the job's frames
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    "where",
    [
        "impasto.composition.shrink",
        "impasto.jobs.transfer.guided_upsample",
        "impasto.jobs.run.Encoder.load",
        "impasto.guides.gram_matrix",
        "impasto.optimize._evaluate",
    ],
)
@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_memory_running_out(where: str, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(where, fail)
    with pytest.raises(ImpastoError, match="memory"):
        impasto.transfer(Picture(photo()), Picture(painting()), **TRANSFER)


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("impasto.optimize._evaluate", fail)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        impasto.transfer(Picture(photo()), Picture(painting()), **TRANSFER)


# --- transfer


def objective(content: Array, style: Array, settings: TransferSettings) -> Callable[[Array], float]:
    """The loss that `transfer` minimises at the photo's own size, in float32."""
    encoder = impasto.Encoder.load("slim", pooling=settings.pooling, padding=settings.padding)
    height, width, _ = content.shape
    size = width, height
    keep, take = settings.weights
    loss = make_objective(
        encoder,
        size,
        content=ContentTerm(Picture(content).tensor(), settings.content_layers, keep),
        style=StyleTerm(
            [Region(Styles([Picture(style).tensor()], [1]))], settings.style_layers, take, size
        ),
        settings=replace(settings, tv_weight=0.0, ripple_weight=0.0),
    )

    def evaluate(pixels: Array) -> float:
        with torch.no_grad():
            return sum(float(part) for part in loss(Picture(pixels).tensor()).values())

    return evaluate


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize(("init", "fall"), [("content", 0.6), ("noise", 0.4), ("style", 0.95)])
def test_loss_falls(init: str, fall: float, optimizer: Any, folder: Folder) -> None:
    result = impasto.transfer(
        Picture(folder.photo),
        Picture(folder.painting),
        **(WEIGHTED | {"init": init, "optimizer": optimizer, "steps": 30, "precision": "float32"}),
    )
    losses = [entry["loss"] for entry in result.history]
    assert min(losses) < fall * losses[0]
    # The picture that is given back has that loss, but for the rounding to 8 bit.
    loss = objective(folder.photo, folder.painting, make_settings(TransferSettings, WEIGHTED))
    assert loss(result.image.pixels) == pytest.approx(min(losses), rel=0.05)


def test_style_of_the_result_is_that_of_the_painting(folder: Folder) -> None:
    result = impasto.transfer(
        Picture(folder.photo),
        Picture(folder.painting),
        **(WEIGHTED | {"steps": 30, "init": "content"}),
    )
    parts = [entry["parts"] for entry in result.history]
    assert min(part["style"] for part in parts) < 0.5 * parts[0]["style"]
    assert parts[0]["content"] == pytest.approx(0, abs=1e-6)  # it starts from the photo
    assert parts[-1]["content"] > 0


def test_no_strength_and_full_strength(folder: Folder) -> None:
    content = Picture(folder.photo, transparency())
    style = Picture(folder.painting)
    none = impasto.transfer(content, style, **(TRANSFER | {"strength": 0, "init": "noise"}))
    assert np.array_equal(none.image.pixels, content.pixels)
    assert np.array_equal(alpha_of(none.image), transparency())
    assert none.history == []
    full = impasto.transfer(content, style, **(TRANSFER | {"strength": 1}))
    assert full.history[0]["parts"].keys() == {"style"}
    assert np.array_equal(alpha_of(full.image), transparency())


def test_weights_of_styles_blend_their_gram_matrices() -> None:
    a, b = Picture(painting(seed=1)).tensor(), Picture(painting(60, 40, seed=2)).tensor()
    encoder = impasto.Encoder.load("slim")
    layers = list(STYLE_LAYERS)

    def grams(pictures: list[Tensor], weights: list[float]) -> dict[str, Tensor]:
        return Styles(pictures, weights).grams(encoder, 64, 64, layers)

    first, second = grams([a], [5]), grams([b], [0.1])
    mixed, scaled = grams([a, b], [3, 1]), grams([a, b], [0.75, 0.25])
    for layer in layers:
        expected = 0.75 * first[layer] + 0.25 * second[layer]
        assert torch.allclose(mixed[layer], expected, rtol=1e-4, atol=1e-7)
        assert torch.equal(mixed[layer], scaled[layer])
        alone = gram_matrix(encoder(a, [layer])[layer])
        assert torch.allclose(first[layer], alone, rtol=1e-4, atol=1e-7)


def test_styles_with_weights() -> None:
    content, a, b = Picture(photo()), Picture(painting(seed=1)), Picture(painting(seed=2))

    def paint(*styles: tuple[Picture, float] | Picture) -> Array:
        return impasto.transfer(content, list(styles), **TRANSFER).image.pixels

    assert np.array_equal(paint((a, 3), (b, 1)), paint((a, 0.75), (b, 0.25)))
    assert np.array_equal(paint(a, b), paint((a, 1), (b, 1)))
    assert np.array_equal(paint(a), impasto.transfer(content, (a, 2), **TRANSFER).image.pixels)
    assert not np.array_equal(paint((a, 3), (b, 1)), paint((a, 1), (b, 3)))
    assert not np.array_equal(paint(a, b), paint(a))


def test_both_precisions_come_to_the_same_loss(folder: Folder) -> None:
    loss = objective(folder.photo, folder.painting, make_settings(TransferSettings, WEIGHTED))
    losses: dict[str, float] = {}
    for precision in ("float32", "bfloat16"):
        result = impasto.transfer(
            Picture(folder.photo),
            Picture(folder.painting),
            **(WEIGHTED | {"precision": precision, "steps": 60}),
        )
        assert result.settings["dtype"] == precision
        losses[precision] = loss(result.image.pixels)
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    assert losses["float32"] < 0.5 * loss(folder.photo)


def test_notes_reach_the_user(monkeypatch: pytest.MonkeyPatch, folder: Folder) -> None:
    from impasto import optimize

    evaluate, calls = optimize._evaluate, 0

    def stumble(target: optimize.Objective, x: Tensor) -> tuple[dict[str, float], Tensor]:
        nonlocal calls
        calls += 1
        parts, gradient = evaluate(target, x)
        return (dict.fromkeys(parts, math.nan), gradient) if calls == 3 else (parts, gradient)

    monkeypatch.setattr(optimize, "_evaluate", stumble)
    seen, result = steps_of(jobs()["transfer"]())
    notes = {progress.step: progress.note for progress in seen if progress.note}
    assert list(notes) == [3]
    assert "step 3" in notes[3]
    assert "not finite" in notes[3]
    assert "\n" not in notes[3]
    assert json.loads(json.dumps(result.settings)) == result.settings


# --- texture


def gram_distance(pixels: Array, style: Array) -> float:
    """How far two pictures' Gram matrices are apart, relative to the second's."""
    encoder = impasto.Encoder.load("slim")
    layers = list(STYLE_LAYERS)
    a, b = (encoder(Picture(x).tensor(), layers) for x in (pixels, style))
    ratios = [
        float((gram_matrix(a[layer]) - gram_matrix(b[layer])).norm() / gram_matrix(b[layer]).norm())
        for layer in layers
    ]
    return sum(ratios) / len(ratios)


@pytest.mark.parametrize("size", [(33, 47), (47, 33), (16, 16), (1, 1), (90, 5)])
def test_texture_has_exactly_its_size(size: tuple[int, int]) -> None:
    seen, result = steps_of(
        impasto.iter_texture(Picture(painting()), out_size=size, steps=3, threads=1)
    )
    assert result.image.size == size
    assert seen[0].result().image.size == size


@pytest.mark.parametrize("init", ["noise", "sample:astronaut"])
def test_texture_takes_on_the_style(init: str) -> None:
    style = painting()
    options = TEXTURE | {"out_size": (48, 48), "init": init, "steps": 60}
    job = impasto.iter_texture(Picture(style), **options)
    start = next(job).picture().pixels
    _, result = steps_of(job)
    assert gram_distance(result.image.pixels, style) < 0.3 * gram_distance(start, style)


def test_texture_of_the_same_seed_is_the_same() -> None:
    style = Picture(painting())
    a, b = (impasto.texture(style, **(TEXTURE | {"seed": 4})).image.pixels for _ in range(2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, impasto.texture(style, **(TEXTURE | {"seed": 5})).image.pixels)


# --- reconstruct


def test_shallow_layer_gives_the_picture_back() -> None:
    original = photo(40, 34)
    options = RECONSTRUCT | {"layers": "relu1_1", "steps": 80, "precision": "float32"}
    result = impasto.reconstruct(Picture(original), **options)
    assert result.image.size == (40, 34)
    assert psnr(result.image.pixels, original) > 25
    losses = [entry["loss"] for entry in result.history]
    assert min(losses) < 0.01 * losses[0]


def test_deep_layer_keeps_less() -> None:
    original = Picture(photo())
    kept = []
    for layer in ("relu1_1", "relu3_1", "relu5_1"):
        options = RECONSTRUCT | {"layers": layer, "steps": 40}
        result = impasto.reconstruct(original, **options)
        kept.append(psnr(result.image.pixels, original.pixels))
    assert kept[0] > kept[1] > kept[2]


def test_reconstruction_of_a_larger_picture_has_its_size() -> None:
    result = impasto.reconstruct(Picture(photo(91, 67), transparency(91, 67)), **RECONSTRUCT)
    assert result.image.size == (91, 67)
    assert np.array_equal(alpha_of(result.image), transparency(91, 67))


def test_sheet_of_layers() -> None:
    layers = ("relu1_1", "relu2_1", "relu3_1")
    seen, result = steps_of(
        impasto.iter_reconstruct(Picture(photo()), layers=layers, size=40, steps=4, threads=1)
    )
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert {progress.steps for progress in seen} == {12}
    done = [progress.done for progress in seen]
    assert done == pytest.approx([i / 12 for i in range(1, 13)])
    assert done[-1] == 1
    assert result.image.width > 3 * 40
    assert result.image.height > 32
    assert result.image.width > result.image.height
    assert not result.partial
    assert result.settings["status"] == "complete"
    assert list(result.settings["settings"]["layers"]) == list(layers)
    # Each cell holds what its layer alone gives; the captions stand above them.
    alone = [
        impasto.reconstruct(Picture(photo()), layers=layer, size=40, steps=4, threads=1)
        for layer in layers
    ]
    for single in alone:
        assert contains(result.image.pixels, single.image.pixels)
    assert (result.image.pixels[: result.image.height - 32] < 100).all(axis=-1).any()


def contains(sheet: Array, cell: Array) -> bool:
    """Whether a picture lies somewhere in a sheet, pixel by pixel."""
    h, w, _ = cell.shape
    ys, xs = np.nonzero((sheet == cell[0, 0]).all(axis=-1))
    return any(
        np.array_equal(sheet[y : y + h, x : x + w], cell) for y, x in zip(ys, xs, strict=True)
    )


def test_history_of_a_sheet_is_that_of_its_steps() -> None:
    seen, result = steps_of(
        impasto.iter_reconstruct(
            Picture(photo()), layers="relu1_1,relu2_1", size=40, steps=3, threads=1
        )
    )
    assert [entry["step"] for entry in result.history] == [progress.step for progress in seen]
    seconds = [entry["seconds"] for entry in result.history]
    assert seconds == sorted(seconds)


def test_unfinished_sheet() -> None:
    job = impasto.iter_reconstruct(
        Picture(photo()), layers="relu1_1,relu2_1", size=40, steps=3, threads=1
    )
    widths = []
    for progress in job:
        so_far = progress.result()
        widths.append(so_far.image.width)
        assert so_far.partial
        assert so_far.settings["status"] == "partial"
        assert so_far.settings["steps"] == progress.step
    assert widths[0] == widths[2] < widths[3] == widths[5]


# --- the encoder's public face


def test_encoder_of_the_public_interface(folder: Folder) -> None:
    encoder = impasto.Encoder.load("slim")
    x = Picture(folder.photo).tensor().requires_grad_()
    layers = [*CONTENT_LAYERS, "relu1_1"]
    features = encoder(x, layers)
    assert list(features) == layers
    assert features["relu1_1"].shape[-2:] == (32, 40)
    assert features["relu4_2"].shape[-2:] == (4, 5)
    sum(feature.sum() for feature in features.values()).backward()  # type: ignore[union-attr]
    assert x.grad is not None
    assert bool(x.grad.abs().sum() > 0)


def test_a_little_strength_changes_the_photo_a_little() -> None:
    content = Picture(photo(80, 64))
    moved = []
    for strength in (0.001, 0.03, 0.2, 0.5):
        result = impasto.transfer(
            content, Picture(painting()), size=80, steps=24, strength=strength, precision="float32"
        )
        change = result.image.pixels.astype(float) - content.pixels
        moved.append(float(np.abs(change).mean()))
    assert moved[0] < 1
    assert moved == sorted(moved)


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 12])
def test_no_result_is_worse_than_the_photo(steps: int) -> None:
    options: Any = {"size": 128, "steps": steps, "precision": "float32"}
    content, style = Picture(photo(128, 96)), Picture(painting())
    result = impasto.transfer(content, style, **options)
    start = impasto.transfer(content, style, **options | {"steps": 1}).history[0]["loss"]
    assert result.settings["working_size"] == [128, 96]
    assert result.settings["loss"] <= start * (1 + 1e-6)


def test_what_is_hidden_does_not_show() -> None:
    visible = photo(64, 48)
    alpha = np.full((48, 64), 255, np.uint8)
    alpha[:, 32:] = 0
    results = []
    for hidden in (0, 200):
        pixels = visible.copy()
        pixels[:, 32:] = hidden
        result = impasto.transfer(
            Picture(pixels, alpha), Picture(painting()), size=64, steps=6, precision="float32"
        )
        results.append(result.image.pixels[:, :30])
    assert np.array_equal(results[0], results[1])


def test_kept_progress_keeps_its_meaning() -> None:
    steps = list(impasto.iter_transfer(Picture(photo()), Picture(painting()), size=48, steps=9))
    kept = steps[2].result()
    assert kept.settings["steps"] == len(kept.history) == 3


@pytest.mark.parametrize("style", [[("sample:strokes", 1, 2)], [("sample:strokes", "x")]])
def test_odd_styles_are_refused(style: Any) -> None:
    with pytest.raises(impasto.ImpastoError, match="above 0"):
        impasto.transfer(Picture(photo()), style, size=48, steps=1)


@pytest.mark.parametrize(("strength", "dtype"), [(0.5, "bfloat16"), (0.9, "float32")])
def test_auto_precision_is_where_the_hardware_and_the_settings_agree(
    strength: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.compute._cpu_has_bfloat16", lambda: True)
    options: Any = {"size": 48, "steps": 1, "device": "cpu", "strength": strength}
    result = impasto.transfer(Picture(photo()), Picture(painting()), **options)
    assert result.settings["dtype"] == dtype


def test_every_start_is_put_on_the_device() -> None:
    bench = Bench(TransferSettings())
    elsewhere = torch.device("meta")  # a device that every machine has
    for picture in (None, torch.rand(1, 3, 8, 8)):
        bench.device = elsewhere
        assert Start(picture, bench)((8, 8), None).device == elsewhere


# Noise starts


@pytest.mark.parametrize(
    ("noise", "low", "high"),
    [("uniform", [0.0] * 3, [1.0] * 3), ("centred", None, None), ("faint", None, None)],
)
def test_how_a_noise_start_is_drawn(noise: Noise, low: Any, high: Any) -> None:
    bench = Bench(TextureSettings(noise=noise, clip="end", seed=3))
    mean = np.array(bench.encoder.plan.mean)
    if noise == "centred":  # [0, 255) − 128, around what the network takes for zero
        low, high = mean - 128 / 255, mean + 127 / 255
    elif noise == "faint":
        low, high = mean - 0.025 / 255, mean + 0.025 / 255
    x = Start(None, bench)((64, 48), None)
    assert x.shape == (1, 3, 48, 64)
    for channel in range(3):
        values = x[0, channel].double().numpy()
        width = high[channel] - low[channel]
        assert low[channel] - 1e-6 <= values.min() <= low[channel] + 0.02 * width
        assert high[channel] - 0.02 * width <= values.max() <= high[channel] + 0.005
        assert abs(values.mean() - (low[channel] + high[channel]) / 2) < 0.02 * width + 0.002
    assert torch.equal(x, Start(None, bench)((64, 48), None))


def test_a_centred_start_is_a_picture_where_every_trial_is_one() -> None:
    x = Start(None, Bench(TextureSettings(noise="centred")))((64, 48), None)
    assert float(x.min()) == 0
    assert float(x.max()) <= 1


def test_a_round_tells_its_loss_and_seconds() -> None:
    options: Any = {"out_size": (32, 32), "steps": 6, "rounds": 3, "scales": 1}
    notes = [each.note for each in impasto.iter_texture(Picture(painting()), **options)]
    assert [note is not None for note in notes] == [False, True] * 3
    for number, note in enumerate(notes[1::2], 1):
        assert re.fullmatch(rf"round {number}: loss [\d.e+-]+, \d+\.\d s", note or "")
