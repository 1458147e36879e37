"""Redo: the same pixels again from the record alone, and a clear refusal where that cannot be."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import impasto
from impasto import ImpastoError, Picture, Result
from impasto.gan.generator import Generator
from impasto.gan.networks import GeneratorNet
from impasto.images import open_image, save_image
from impasto.inputs import StyleLike
from impasto.jobs.redo import plan_redo, redo
from impasto.presets import PRESETS
from impasto.records import read_settings
from impasto.settings import TransferSettings, make_settings
from impasto.weights import weights_path
from pictures import Program, load, painting, photo, save

SMALL: dict[str, Any] = {"size": 40, "steps": 5, "threads": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a photo and two paintings."""
    save(tmp_path / "photo.png", photo())
    save(tmp_path / "a.png", painting())
    save(tmp_path / "b.png", painting(seed=1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def painted(folder: Path, name: str = "out.png", **options: Any) -> Path:
    result = impasto.transfer(folder / "photo.png", folder / "a.png", **{**SMALL, **options})
    result.save(folder / name)
    return folder / name


def again(path: Path, **where: Any) -> Result:
    """Redone, with the same pixels and record as the file."""
    result = redo(path, **where)
    found = open_image(path)
    assert np.array_equal(result.image.pixels, found.pixels)
    assert json.loads(json.dumps(result.settings)) == read_settings(path)
    return result


# The same again


OPTIONS: list[dict[str, Any]] = [
    {},
    {"strength": 0.7, "seed": 5, "init": "noise", "optimizer": "adam"},
    {"strength": 0.0},
    {"preset": "keras-vgg16", "encoder": "slim", "rounds": 2},
    {"content_layers": "relu2_1=2,relu1_1=1", "precision": "bfloat16", "tv_weight": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_transfer_comes_out_the_same(folder: Path, options: dict[str, Any]) -> None:
    out = painted(folder, **options)
    result = again(out)
    result.save(folder / "again.png")
    assert (folder / "again.png").read_bytes() == out.read_bytes()


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".jpg"])
def test_from_every_format_that_holds_a_record(folder: Path, suffix: str) -> None:
    out = painted(folder, f"out{suffix}")
    redo(out).save(folder / f"again{suffix}")
    assert (folder / f"again{suffix}").read_bytes() == out.read_bytes()


def test_several_styles_keep_their_weights_and_order(folder: Path) -> None:
    styles: list[StyleLike] = [(folder / "b.png", 3.0), (folder / "a.png", 1.0)]
    impasto.transfer(folder / "photo.png", styles, **SMALL).save(folder / "out.png")
    again(folder / "out.png")


def test_a_picture_to_start_from(folder: Path) -> None:
    out = painted(folder, init=folder / "b.png")
    assert plan_redo(out).record["settings"]["init"] == "b.png"
    again(out)


def test_a_texture(folder: Path) -> None:
    result = impasto.texture(folder / "a.png", out_size=(40, 36), steps=5, threads=1)
    result.save(folder / "out.png")
    again(folder / "out.png")


@pytest.mark.parametrize("layers", ["relu2_1", "relu1_1,relu2_1"])
def test_a_reconstruction(folder: Path, layers: str) -> None:
    result = impasto.reconstruct(folder / "photo.png", layers=layers, **SMALL)
    result.save(folder / "out.png")
    again(folder / "out.png")


@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "default"])
def test_the_halves_of_every_preset(folder: Path, preset: str) -> None:
    options: dict[str, Any] = {"preset": preset, "encoder": "slim", "steps": 2, "threads": 1}
    texture = impasto.texture(folder / "a.png", out_size=(32, 32), **options)
    texture.save(folder / "texture.png")
    assert again(folder / "texture.png").settings["settings"]["init"] == "noise"
    content = impasto.reconstruct(folder / "photo.png", size=32, layers="relu2_1", **options)
    content.save(folder / "content.png")
    assert again(folder / "content.png").settings["settings"]["init"] == "noise"


def test_samples_are_found_wherever_one_is(folder: Path) -> None:
    impasto.texture("sample:woodcut", out_size=(40, 36), steps=2).save(folder / "out.png")
    assert again(folder / "out.png").settings["inputs"][0]["name"] == "woodcut.jpg"


@pytest.mark.parametrize("layers", [None, "relu1_1,relu2_1"])
def test_a_result_that_was_stopped_stops_there_again(folder: Path, layers: str | None) -> None:
    job: Any = (
        impasto.iter_reconstruct(folder / "photo.png", layers=layers, **SMALL)
        if layers
        else impasto.iter_transfer(folder / "photo.png", folder / "a.png", **SMALL)
    )
    stopped = next(each for each in job if each.step == (7 if layers else 3)).result()
    stopped.save(folder / "out.png")
    result = again(folder / "out.png")
    assert result.partial
    assert result.settings["steps"] == (7 if layers else 3)


def test_the_photos_exif_and_transparency_come_along(folder: Path) -> None:
    alpha = np.linspace(0, 255, 40 * 32).astype(np.uint8).reshape(32, 40)
    save(folder / "photo.png", photo(), alpha)
    out = painted(folder)
    result = again(out)
    assert result.image.alpha is not None
    assert np.array_equal(result.image.alpha, alpha)


# Where inputs are looked for


def test_inputs_are_found_beside_the_result_and_here(folder: Path) -> None:
    there = folder / "there"
    there.mkdir()
    out = painted(folder).rename(there / "out.png")
    again(out)  # in the working folder
    for name in ("photo.png", "a.png"):
        (folder / name).rename(there / name)
    again(out)  # beside it


def test_inputs_may_be_given_under_other_names(folder: Path) -> None:
    styles: list[StyleLike] = [folder / "a.png", folder / "b.png"]
    impasto.transfer(folder / "photo.png", styles, **SMALL).save(folder / "out.png")
    moved = [shutil.move(folder / name, folder / f"x{name}") for name in ("b.png", "a.png")]
    shutil.move(folder / "photo.png", folder / "y.png")
    result = redo(folder / "out.png", content=folder / "y.png", styles=moved)  # in any order
    assert np.array_equal(result.image.pixels, open_image(folder / "out.png").pixels)
    assert [entry["name"] for entry in result.settings["inputs"]] == ["y.png", "xa.png", "xb.png"]


def test_pictures_that_were_no_files_can_be_given_as_files(folder: Path) -> None:
    result = impasto.transfer(Picture(photo()), Picture(painting()), **SMALL)
    result.save(folder / "out.png")
    with pytest.raises(ImpastoError, match=r"cannot find the content picture that out\.png"):
        redo(folder / "out.png")
    found = redo(folder / "out.png", content=folder / "photo.png", styles=[folder / "a.png"])
    assert np.array_equal(found.image.pixels, result.image.pixels)


# Refusals


def refused(path: Path, **where: Any) -> str:
    with pytest.raises(ImpastoError) as caught:
        plan_redo(path, **where)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_generated_style_is_painted_again(folder: Path) -> None:
    export_generator(folder / "runs" / "g.safetensors", seed=0)
    out = folder / "out.png"
    style = f"gan:{folder}/runs/g.safetensors?seed=7"
    impasto.transfer("photo.png", style, **SMALL).save(out)
    record = read_settings(out)
    assert record is not None
    assert record["inputs"][1]["name"] == "gan:g.safetensors?seed=7"
    with pytest.raises(ImpastoError, match=r"cannot find the style picture gan:g\.safetensors"):
        redo(out)
    again(out, styles=[style])
    with pytest.raises(ImpastoError, match="is not the style picture"):
        redo(out, styles=[style.replace("seed=7", "seed=8")])
    shutil.move(folder / "runs" / "g.safetensors", folder)
    again(out)
    export_generator(folder / "g.safetensors", seed=1)
    with pytest.raises(ImpastoError, match="is not the style picture"):
        redo(out)


def test_a_style_by_the_painter_in_the_package_is_painted_again(folder: Path) -> None:
    out = folder / "out.png"
    impasto.transfer("photo.png", "gan:builtin:landscapes?seed=7", **SMALL).save(out)
    record = read_settings(out)
    assert record is not None
    # Its very version, so that a newer one in the package changes nothing.
    assert record["inputs"][1]["name"] == "gan:builtin:landscapes-1?seed=7"
    again(out)
    with pytest.raises(ImpastoError, match="is not the style picture"):
        redo(out, styles=["gan:builtin:landscapes?seed=8"])


def test_a_generated_style_is_known_by_who_painted_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "out.png"
    impasto.transfer("photo.png", "gan:builtin:landscapes?seed=7", **SMALL).save(out)
    whole = Generator.sample

    def rounded(self: Generator, count: int, **options: Any) -> torch.Tensor:
        return (whole(self, count, **options) + 1 / 255).clamp(0, 1)  # as on another machine

    monkeypatch.setattr(Generator, "sample", rounded)
    redo(out)


@pytest.mark.parametrize("command", ["sample", "mix"])
def test_what_gan_painted_is_no_result_to_redo(folder: Path, command: str) -> None:
    out = folder / "out.png"
    made = {"record": 1, "job": f"gan {command}", "seed": 3}
    save_image(impasto.open_image(folder / "photo.png"), out, record=json.dumps(made))
    assert refused(out).endswith(
        f"was painted by impasto gan {command}: run that again with --seed 3"
    )


def export_generator(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    card = {"size": 32, "latent": 8, "width": 4}
    Generator(GeneratorNet(32, 8, 4), card).export(path)


def test_a_missing_input_is_named(folder: Path) -> None:
    out = painted(folder)
    (folder / "a.png").unlink()
    assert "the style picture a.png" in (text := refused(out))
    assert "--style FILE" in text


def test_an_input_that_has_changed_is_refused(folder: Path) -> None:
    out = painted(folder)
    save(folder / "photo.png", photo(seed=9))
    text = refused(out)
    assert "photo.png is not the content picture" in text
    assert "SHA-256" in text
    assert "--content" in text
    save(folder / "other.png", photo(seed=7))
    assert "other.png is not" in refused(out, content=folder / "other.png")


def test_of_several_given_styles_none_is_blamed_alone(folder: Path) -> None:
    out = painted(folder)
    save(folder / "c.png", painting(seed=3))
    text = refused(out, styles=[folder / "b.png", folder / "c.png"])
    assert "none of" in text
    assert "b.png" in text
    assert "c.png" in text
    assert "it is not a file" in refused(out, content=folder)


def test_a_picture_without_a_record(folder: Path) -> None:
    assert "no record" in refused(folder / "photo.png")
    result = impasto.transfer(folder / "photo.png", folder / "a.png", **SMALL)
    result.save(folder / "out.png", metadata=False)
    assert "no record" in refused(folder / "out.png")


def test_a_preview_is_no_result(folder: Path) -> None:
    record = json.dumps({"record": 1, "status": "preview"})
    save_image(Picture(photo()), folder / "look.png", record=record)
    assert "look.png is a preview" in refused(folder / "look.png")


def edited(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The result with another record."""
    out = painted(folder)
    record = read_settings(out)
    assert record is not None
    change(record)
    save_image(open_image(out), out, record=json.dumps(record))
    return out


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(job="sculpt"),
        lambda r: r.update(settings=3),
        lambda r: r.update(inputs={}),
        lambda r: r["inputs"].append({"role": "frame", "sha256": "00"}),
        lambda r: r["inputs"][0].pop("sha256"),
        lambda r: r["inputs"][0].update(name=5),
        lambda r: r["inputs"].append(r["inputs"][0]),
        lambda r: r.pop("inputs"),
        lambda r: r.pop("encoder"),
        lambda r: r.pop("versions"),
        lambda r: r.pop("steps"),
        lambda r: r.update(steps=-5),
        lambda r: r.update(steps=10**12),
        lambda r: r.update(steps=0, status="partial"),
        lambda r: r.update(steps=99, status="partial"),
        lambda r: r["settings"].update(steps=-3),
        lambda r: r["settings"].update(steps="many"),
        lambda r: r["settings"].update(style_layers=7),
        lambda r: r["inputs"][1].update(weight="heavy"),
        lambda r: r["inputs"].pop(0),
        lambda r: r["inputs"].pop(1),
        lambda r: r.update(threads="all"),
        lambda r: r.update(job=["transfer"]),
        lambda r: r["inputs"][0].update(role={}),
        lambda r: r["inputs"][1].update(weight=float("nan")),
        lambda r: r["inputs"][1].update(weight=0),
        lambda r: r["inputs"][0].update(name="a" * 300),
        lambda r: r["settings"].update(preset=[]),
        lambda r: r["settings"].update(init="a.png"),  # a file, of which no sum is known
        lambda r: r["encoder"].update(name="a" * 300 + ".pth", sha256="ab" * 32),
    ],
)
def test_a_damaged_record_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    out = edited(folder, change)
    with pytest.raises(ImpastoError) as caught:
        redo(out)
    assert "\n" not in str(caught.value)


def test_a_record_of_a_later_version_with_more_settings(folder: Path) -> None:
    out = edited(folder, lambda r: r["settings"].update(varnish=3))
    assert "varnish" in (text := refused(out))
    assert "update impasto" in text


def test_a_record_of_an_earlier_version_with_fewer_settings(folder: Path) -> None:
    out = edited(folder, lambda r: [r["settings"].pop(k) for k in ("rounds", "clip", "noise")])
    assert np.array_equal(redo(out).image.pixels, open_image(out).pixels)


def test_a_name_in_the_record_never_leads_elsewhere(folder: Path) -> None:
    (folder / "deep").mkdir()
    out = edited(folder, lambda r: r["inputs"][0].update(name="../photo.png"))
    moved = out.rename(folder / "deep" / "out.png")
    assert "cannot find the content picture" in refused(moved)


def test_a_network_in_the_record_never_leads_elsewhere(folder: Path) -> None:
    (folder / "nets").mkdir()
    shutil.copy(weights_path("slim"), folder / "nets" / "mine.safetensors")
    path = str(folder / "nets" / "mine.safetensors")
    out = edited(
        folder, lambda r: (r["encoder"].update(name=path), r["settings"].update(encoder=path))
    )
    assert "--encoder PATH" in refused(out)


def test_a_record_that_is_nested_without_end(folder: Path) -> None:
    text = '{"record": 1, "job": ' + "[" * 100_000 + "]" * 100_000 + "}"
    save_image(Picture(photo()), folder / "out.png", record=text)
    assert "no record" in refused(folder / "out.png")


def test_a_result_called_like_its_photo_is_not_taken_for_it(folder: Path) -> None:
    (folder / "there").mkdir()
    out = painted(folder, "there/photo.png")
    again(out)
    (folder / "photo.png").unlink()
    assert "cannot find the content picture photo.png" in refused(out)


def test_a_device_that_is_not_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    out = edited(folder, lambda r: r.update(device="mps"))
    (warning,) = plan_redo(out).warnings
    assert warning == "made on mps, which is not here: pixels may differ"
    assert redo(out).settings["device"] != "mps"


def test_other_versions_are_told(folder: Path) -> None:
    out = edited(folder, lambda r: r["versions"].update(torch="1.0", impasto="0.0.1"))
    warnings = plan_redo(out).warnings
    assert len(warnings) == 2
    assert any("torch 1.0" in warning and "may differ" in warning for warning in warnings)
    assert plan_redo(painted(folder)).warnings == []


def test_weights_that_are_no_longer_here(folder: Path) -> None:
    out = edited(folder, lambda r: r["encoder"].update(name="slim-7", sha256="ab" * 32))
    text = refused(out)
    assert "the weights slim-7 (SHA-256 abababababab…)" in text
    assert "--encoder PATH" in text
    assert "weights fetch" not in text
    text = refused(out, encoder=weights_path("slim"))
    assert "is not the network slim-7" in text
    out = edited(folder, lambda r: r["encoder"].update(name="vgg19", sha256="ab" * 32))
    assert "impasto weights fetch vgg19" in refused(out)


def test_weights_from_a_path(folder: Path) -> None:
    mine = folder / "nets" / "mine.safetensors"
    mine.parent.mkdir()
    shutil.copy(weights_path("slim"), mine)
    out = painted(folder, encoder=str(mine))
    assert "the weights mine" in refused(out)  # the record holds no path
    result = redo(out, encoder=mine)
    assert np.array_equal(result.image.pixels, open_image(out).pixels)
    shutil.move(mine, folder / "mine.safetensors")
    again(out)  # found here, by its name


def test_a_newer_network_of_the_family_does_not_take_its_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = painted(folder)
    first = weights_path("slim")
    newer = folder / "models"
    newer.mkdir()
    for known in (first, weights_path("fast")):
        shutil.copy(known, newer / known.name)
    data = bytearray(first.read_bytes())
    data[-1] ^= 1
    (newer / "slim-99.safetensors").write_bytes(data)
    monkeypatch.setattr("impasto.weights.MODELS", newer)
    assert weights_path("slim").stem == "slim-99"
    result = redo(out)
    assert np.array_equal(result.image.pixels, open_image(out).pixels)
    assert result.settings["encoder"]["name"] == first.stem


def test_a_complete_set_of_options_decides_nothing_anew() -> None:
    whole = make_settings(TransferSettings, {"strength": 0.3}).record()
    assert whole["strength"] == 0.3  # beside style_weight, which alone would be refused
    assert make_settings(TransferSettings, whole).record() == whole


# The command


def test_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Program(folder, monkeypatch, capsys)
    out = painted(folder)
    done = run.good("redo", "out.png", "-o", "again.png")
    assert done.out.startswith("again.png")
    assert (folder / "again.png").read_bytes() == out.read_bytes()
    assert "no record" in run.bad("redo", "out.png", "-o", "photo.png")
    replaced = run.bad("redo", "out.png", "-o", "photo.png", "--overwrite")
    assert "photo.png is an input too" in replaced
    assert "out.png is an input too" in run.bad("redo", "out.png", "-o", "out.png")
    (folder / "a.png").rename(folder / "moved.png")
    assert "--style FILE" in run.bad("redo", "out.png", "-o", "no.png")
    assert not (folder / "no.png").exists()
    run.good("redo", "out.png", "-o", "third.png", "--style", "moved.png")
    assert np.array_equal(load(folder / "third.png"), load(out))
    assert "cannot read nowhere.png" in run.bad("redo", "nowhere.png", "-o", "x.png")


def test_the_command_warns_of_other_versions(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Program(folder, monkeypatch, capsys)
    edited(folder, lambda r: r["versions"].update(numpy="0.1"))
    done = run.good("redo", "out.png", "-o", "again.png")
    assert "warning: made with numpy 0.1, here is" in done.err
