from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from impasto._version import __version__
from impasto.errors import ImageError
from impasto.images import Picture, open_image, save_image
from impasto.records import (
    RECORD_VERSION,
    describe_input,
    make_record,
    read_settings,
    same_request,
)
from pictures import painting, photo, save, transparency


def record(**changes: Any) -> dict[str, Any]:
    picture = Picture(photo(), source="photo.png", sha256="c" * 64)
    style = Picture(painting(), source="style.png", sha256="d" * 64)
    inputs = [describe_input("content", picture), describe_input("style", style, weight=2.0)]
    made = make_record("transfer", {"steps": 3, "layers": ("a", "b")}, inputs, ("slim-1", "e"))
    return made | changes


def test_file_is_named_and_summed(tmp_path: Path) -> None:
    path = save(tmp_path / "my photo.png", photo())
    told = describe_input("content", open_image(path), weight=0.5)
    assert told == {
        "role": "content",
        "name": "my photo.png",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "weight": 0.5,
    }


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photo.png", "photo.png"),
        ("/home/me/photo.png", "photo.png"),
        ("here/a:0.5.jpg", "a:0.5.jpg"),
        (None, None),
    ],
)
def test_name_is_the_base_name(source: str | None, name: str | None) -> None:
    assert describe_input("content", Picture(photo(), source=source))["name"] == name


def test_picture_without_a_file_is_known_by_its_pixels() -> None:
    def sha256(picture: Picture) -> str:
        told = describe_input("content", picture)
        assert told["name"] is None
        assert len(told["sha256"]) == 64
        return str(told["sha256"])

    plain = sha256(Picture(photo()))
    assert sha256(Picture(photo())) == plain
    assert sha256(Picture(photo(seed=1))) != plain
    # The same bytes in another shape, or under other transparency, are another picture.
    assert sha256(Picture(photo().reshape(40, 32, 3))) != plain
    assert sha256(Picture(photo(), transparency())) != plain


def test_record_says_what_made_it() -> None:
    made = record()
    assert made["record"] == RECORD_VERSION
    assert made["job"] == "transfer"
    assert made["encoder"] == {"name": "slim-1", "sha256": "e"}
    assert made["versions"]["impasto"] == __version__
    assert made["versions"].keys() == {"impasto", "torch", "numpy", "python"}
    assert [entry["role"] for entry in made["inputs"]] == ["content", "style"]


def test_same_request_through_a_file(tmp_path: Path) -> None:
    made = record(status="complete", seconds=3)
    save_image(Picture(photo()), tmp_path / "out.png", record=json.dumps(made))
    stored = read_settings(tmp_path / "out.png")
    assert stored
    assert stored["settings"]["layers"] == ["a", "b"]
    assert same_request(stored, record())
    assert same_request(record(), stored)


def test_same_request_does_not_mind() -> None:
    renamed = [entry | {"name": "other"} for entry in record()["inputs"]]
    for changes in (
        {"status": "partial"},
        {"versions": {"impasto": "99"}},
        {"threads": 64, "dtype": "bfloat16", "loss": 0.5},
        {"inputs": renamed},
    ):
        assert same_request(record(**changes), record()), changes


def test_same_request_minds() -> None:
    inputs = record()["inputs"]
    for changes in (
        {"job": "texture"},
        {"settings": record()["settings"] | {"steps": 4}},
        {"settings": {"steps": 3}},
        {"encoder": {"name": "slim-1", "sha256": "f"}},
        {"inputs": inputs[:1]},
        {"inputs": inputs[::-1]},
        {"inputs": [inputs[0], inputs[1] | {"weight": 3.0}]},
        {"inputs": [inputs[0] | {"sha256": "0" * 64}, inputs[1]]},
        {"inputs": [inputs[0] | {"role": "init"}, inputs[1]]},
    ):
        assert not same_request(record(**changes), record()), changes


@pytest.mark.parametrize(
    "text", [None, "", "not JSON", "null", "7", "[]", "{}", '{"record": 2}', '{"record": "1"}']
)
def test_what_is_no_record_of_ours(text: str | None, tmp_path: Path) -> None:
    save_image(Picture(photo()), tmp_path / "out.png", record=text)
    assert read_settings(tmp_path / "out.png") is None


@pytest.mark.parametrize(
    "inputs", ["photo.png", 7, ["photo.png"], {"role": "content"}, None], ids=repr
)
def test_record_that_someone_else_wrote_is_another_request(inputs: object) -> None:
    assert not same_request(record(inputs=inputs), record())


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    assert read_settings(tmp_path / "text.png") is None
    with pytest.raises(ImageError, match="no such file"):
        read_settings(tmp_path / "missing.png")


def test_a_network_given_by_its_path_is_named_without_it() -> None:
    record = make_record("transfer", {"encoder": "/home/me/mine.safetensors"}, [], ("mine", "0"))
    assert record["settings"]["encoder"] == "mine.safetensors"
