"""`--init fast`, and the network that comes with impasto: what only trained weights can show."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import impasto
import pictures
from impasto import weights
from impasto.errors import RunError, SettingsError, WeightsError
from impasto.fast.export import export_onnx
from impasto.fast.painting import Part, paint
from impasto.fast.style import FastStyle
from impasto.foreign import Weights, write_weights
from impasto.presets import PRESETS
from impasto.progress import Progress, Result
from impasto.records import read_settings
from impasto.settings import STYLE_WEIGHT, TransferSettings, make_settings
from impasto.sources import samples
from pictures import Program

FEW = ("--init", "fast", "--steps", "3", "--threads", "1")


@pytest.fixture(scope="module")
def fast() -> FastStyle:
    return FastStyle.load()


def sample(name: str, side: int = 256) -> torch.Tensor:
    """A picture of the package, from its middle."""
    x = impasto.open_image(samples()[name]).tensor()
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    return x[..., top : top + side, left : left + side]


def test_one_step_from_fast_is_what_fast_paints(fast: FastStyle) -> None:
    photo, style = sample("astronaut", 128), sample("strokes", 160)
    made = impasto.transfer(photo, style, init="fast", steps=1, scales=1)
    painted = fast.stylize(photo, fast.style(style, size=128))
    assert float((made.image.tensor() - painted).abs().max()) < 1.5 / 255
    assert made.settings["start"] == {"name": fast.name, "sha256": fast.sha256}
    assert made.settings["encoder"]["name"].startswith("slim-")


def test_it_is_the_default_but_not_of_a_paper() -> None:
    photo, style = sample("astronaut", 64), sample("strokes", 64)
    ways: list[dict[str, Any]] = [{}, {"init": "fast"}, {"init": "content"}]
    made = [impasto.transfer(photo, style, steps=2, **way).image.pixels for way in ways]
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    starts = {name: make_settings(TransferSettings, {"preset": name}).init for name in PRESETS}
    assert starts.pop("default") == "fast"
    assert set(starts.values()) == {"content", "noise"}


def test_the_start_has_as_much_style_as_the_weights_ask_for() -> None:
    def strength(**options: Any) -> float:
        return make_settings(TransferSettings, options).effective_strength

    assert strength() == 0.5
    assert strength(strength=0.3) == pytest.approx(0.3)
    assert strength(strength=1.0) == 1
    assert strength(style_weight=0) == 0
    assert strength(content_weight=9.0) == pytest.approx(0.25)
    assert strength(style_weight=4 * STYLE_WEIGHT) == pytest.approx(2 / 3)
    assert strength(preset="gatys", encoder="slim", init="fast") == 0.5
    photo, style = sample("astronaut", 64), sample("strokes", 64)
    made = impasto.transfer(photo, style, style_weight=0.0, steps=1)
    assert float((made.image.tensor() - photo).abs().max()) < 1 / 255


def test_where_there_is_no_float64_it_runs_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("impasto.fast.style.choose_device", lambda name: torch.device("mps"))
    assert FastStyle.load(device="mps").device.type == "cpu"


def test_masks_and_strength_hold_for_the_start(fast: FastStyle) -> None:
    photo, style = sample("astronaut", 128), sample("woodcut", 128)
    left = pictures.as_picture(np.zeros((128, 128, 3), np.uint8))
    left.pixels[:, :64] = 255
    made = impasto.transfer(photo, impasto.Style(style, mask=left), init="fast", steps=1, scales=1)
    moved = (made.image.tensor() - photo).abs().mean((0, 1, 2))
    assert moved[:48].mean() > 10 * moved[96:].mean()
    weak = impasto.transfer(photo, style, init="fast", steps=1, scales=1, strength=0.1)
    strong = impasto.transfer(photo, style, init="fast", steps=1, scales=1, strength=0.5)
    change = [float((each.image.tensor() - photo).abs().mean()) for each in (weak, strong)]
    assert 0 < 2 * change[0] < change[1]


def test_a_run_from_fast_is_recorded_redone_and_skipped(run: Program) -> None:
    run.good("transfer", "photo.png", "-s", "style.png", "-o", "out/", *FEW)
    record = read_settings(run.folder / "out" / "photo.png")
    assert record
    assert record["settings"]["init"] == "fast"
    assert record["start"]["sha256"] == FastStyle.load().sha256
    assert "skip" in run.good("transfer", "photo.png", "-s", "style.png", "-o", "out/", *FEW).err
    run.good("redo", "out/photo.png", "-o", "again.png")
    made, again = (pictures.load(run.folder / name) for name in ("out/photo.png", "again.png"))
    assert np.array_equal(made, again)


def test_a_start_by_another_network_is_told(
    run: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run.good("transfer", "photo.png", "-s", "style.png", "-o", "a.png", *FEW)
    newer = tmp_path / "models"
    shutil.copytree(weights.MODELS, newer)
    name = FastStyle.load().name
    with (newer / f"{name}.safetensors").open("ab") as file:
        file.write(b" ")
    monkeypatch.setattr(weights, "MODELS", newer)
    assert "the start of a.png was made with weights" in run.bad("redo", "a.png", "-o", "b.png")
    monkeypatch.undo()


def test_a_grid_compares_starts(run: Program) -> None:
    flags = ("--steps", "3", "--threads", "1", "-o", "sheet.png")
    run.good("grid", "photo.png", "-s", "style.png", "--vary", "init=content,fast", *flags)
    cells = sorted((run.folder / "sheet-cells").iterdir())
    records = [read_settings(cell) or {} for cell in cells]
    assert ["start" in record for record in records] == [False, True]
    before = [cell.stat().st_mtime_ns for cell in cells]
    run.good("grid", "photo.png", "-s", "style.png", "--vary", "init=content,fast", *flags)
    assert [cell.stat().st_mtime_ns for cell in cells] == before


def test_only_transfer_starts_from_fast(run: Program) -> None:
    assert "--init can be noise" in run.bad("texture", "style.png", "-o", "t.png", "--init", "fast")
    said = run.bad("reconstruct", "photo.png", "-o", "r.png", "--init", "fast")
    assert "--init noise" in said
    with pytest.raises(SettingsError, match="here it can be noise, style or a picture"):
        impasto.texture(sample("strokes"), init="fast")


def test_a_photo_in_its_own_style_is_nearly_itself(fast: FastStyle) -> None:
    x = sample("astronaut", 384)
    made = fast.stylize(x, fast.style(x))
    own = float((made - x).square().mean())
    other = float((fast.stylize(x, fast.style(sample("strokes", 384))) - x).square().mean())
    assert -10 * np.log10(own) > 23
    assert own < other / 10


def test_the_style_arrives(fast: FastStyle) -> None:
    """Gram matrices come near to the style's, beside the photo's own and beside other styles'."""
    from impasto.encoder import Encoder
    from impasto.losses import gram_matrix

    encoder = Encoder.load("slim")
    layers = ["relu1_2", "relu2_1", "relu3_1", "relu4_1"]
    photo = sample("astronaut")
    names = ("strokes", "woodcut", "inkwash")
    grams = {
        name: [gram_matrix(f) for f in encoder(sample(name), layers).values()] for name in names
    }

    def distance(x: torch.Tensor, name: str) -> float:
        found = [gram_matrix(f) for f in encoder(x, layers).values()]
        pairs = zip(found, grams[name], strict=True)
        return sum(float((a - b).square().sum() / b.square().sum()) for a, b in pairs)

    for name in names:
        painted = fast.stylize(photo, fast.style(sample(name)))
        assert distance(painted, name) < 0.5 * distance(photo, name)
        assert min(names, key=lambda other: distance(painted, other)) == name


# --- What a second reader found -------------------------------------------------------------------


def test_inference_mode_ends_with_each_step() -> None:
    def job() -> Generator[Progress, None, Result]:
        return impasto.iter_transfer(sample("astronaut", 64), sample("strokes", 64), method="fast")

    one, other = job(), job()
    next(one)
    next(other)
    assert not torch.is_inference_mode_enabled()
    for each in (*one, *other):
        assert not torch.is_inference_mode_enabled()
        each.record()
    made = impasto.transfer(sample("astronaut", 64), sample("strokes", 64), steps=2, scales=1)
    assert made.settings["steps"] == 2


def test_features_are_mixed_and_not_pixels(fast: FastStyle) -> None:
    photo, style = sample("astronaut"), fast.style(sample("strokes"))
    half, whole = (fast.stylize(photo, style, strength=s) for s in (0.25, 0.5))
    towards = whole - photo
    share = float(((half - photo) * towards).sum() / towards.square().sum())
    blend = photo + share * towards
    assert 0.1 < share < 0.9
    assert float((half - blend).square().mean()) > 0.05 * float((half - photo).square().mean())


def test_tiles_agree_where_a_photo_is_flat(fast: FastStyle) -> None:
    photo = sample("astronaut", 384).clone()
    photo[..., :150, :] = torch.linspace(0.6, 0.4, 150)[:, None]
    part = Part(fast.style(sample("strokes")))

    def painted(side: int | None) -> torch.Tensor:
        result = torch.empty_like(photo)

        def read(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
            return photo[..., top:bottom, left:right]

        def write(top: int, left: int, x: torch.Tensor) -> None:
            result[..., top : top + x.shape[-2], left : left + x.shape[-1]] = x

        for _ in paint(fast.network, read, write, (384, 384), [part], side=side):
            pass
        return result

    assert float((painted(64) - painted(None)).abs().max()) < 1e-3


@pytest.mark.timeout(900)  # it exports twice, each time in 140 s of a slow core
def test_the_file_for_onnx_agrees_where_features_are_flat(fast: FastStyle, tmp_path: Path) -> None:
    assert 0 < export_onnx(fast, tmp_path / "fast.onnx") < 1e-3
    broken = FastStyle.load()
    broken.network.decoder(1).out.conv.bias[0] = torch.nan  # type: ignore[index]
    with pytest.raises(RunError, match="differs from torch"):
        export_onnx(broken, tmp_path / "broken.onnx")
    assert not (tmp_path / "broken.onnx").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda f, x, s: f.stylize(x * 255, s), "is in"),
        (lambda f, x, s: f.stylize(x * torch.nan, s), "is in"),
        (lambda f, x, s: f.stylize(x, "painting.jpg"), "make one with"),
        (lambda f, x, s: f.stylize(x, s, strength="0.5"), "strength is"),
        (lambda f, x, s: f.stylize(x, s, strength=torch.nan), "strength is"),
        (lambda f, x, s: f.style(x, size=0), "size is 0"),
        (lambda f, x, s: f.style(x, size="full"), "size is 'full'"),
        (lambda f, x, s: f.style(x, mask=torch.zeros_like(x[:, :1])), "not all 0"),
        (lambda f, x, s: f.style(x, mask=torch.ones(64, 64)), "a mask is"),
        (lambda f, x, s: FastStyle.load(device="quark"), "device is 'quark'"),
    ],
)
def test_what_the_library_refuses(
    fast: FastStyle, wrong: Callable[..., object], message: str
) -> None:
    x = sample("astronaut", 64)
    with pytest.raises(SettingsError, match=message):
        wrong(fast, x, fast.style(x))


def test_weights_that_are_no_numbers_are_refused(fast: FastStyle, tmp_path: Path) -> None:
    file = weights.read_weights(weights.weights_path("fast"))
    tensors = {name: tensor.clone() for name, tensor in file.tensors.items()}
    next(iter(tensors.values())).view(-1)[0] = torch.inf
    write_weights(tmp_path / "bad.safetensors", Weights(tensors, file.metadata))
    with pytest.raises(WeightsError, match="no finite numbers"):
        FastStyle.load(tmp_path / "bad.safetensors")


def test_flags_of_losses_are_refused(run: Program) -> None:
    fast = ("transfer", "photo.png", "-s", "style.png", "-o", "o.png", "--method", "fast")
    assert "--plot shows losses" in run.bad(*fast, "--plot", "p.png")
    said = run.bad("transfer", "photo.png", "-s", "style.png", "-o", "o.png", "--encoder", "fast")
    assert "--method fast" in said


def test_a_still_picture_can_become_a_gif_of_one_frame(run: Program) -> None:
    run.good("transfer", "photo.png", "-s", "style.png", "-o", "o.gif", "--method", "fast")
    assert pictures.load(run.folder / "o.gif").shape[:2] == (32, 40)
    pictures.save(run.folder / "still.jpg", pictures.photo())
    said = run.bad("transfer", "still.jpg", "-s", "style.png", "-o", "p.gif", "--method", "fast")
    assert "another suffix than .gif" in said
