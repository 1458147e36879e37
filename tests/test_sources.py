"""The one grammar for pictures: samples, files with odd names, weights, masks, folders."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from impasto.errors import ImageError, ImpastoError, SettingsError
from impasto.images import open_image
from impasto.sources import find_photos, parse_style, resolve, samples


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to be in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names: str) -> None:
    """Files of these names, here; nothing looks inside them."""
    for name in names:
        Path(name).write_bytes(b"")


def parsed(text: str) -> tuple[str, float, str | None]:
    """File, weight and mask of a STYLE."""
    style = parse_style(text)
    return str(style.source.path), style.weight, str(style.mask) if style.mask else None


# PICTURE


def test_every_sample_is_a_picture_that_opens() -> None:
    assert "astronaut" in samples()
    assert len(samples()) >= 2
    for name, path in samples().items():
        source = resolve(f"sample:{name}")
        assert source.path == path
        assert source.text == f"sample:{name}"
        assert source.stem == name
        assert min(open_image(path).size) >= 32


def test_an_unknown_sample_is_refused_with_the_names_there_are(folder: Path) -> None:
    make("mona")
    for call in (resolve, parse_style):
        with pytest.raises(ImageError) as caught:
            call("sample:mona")
        assert "no sample" in str(caught.value)
        assert "mona" in str(caught.value)
        assert ", ".join(samples()) in str(caught.value)


def test_a_sample_is_not_looked_for_in_the_folder(folder: Path) -> None:
    make("sample:astronaut")
    assert resolve("sample:astronaut").path == samples()["astronaut"]
    assert resolve("./sample:astronaut").path == Path("sample:astronaut")


def test_a_file_that_is_called_like_a_sample_is_reached_by_its_path(folder: Path) -> None:
    make("sample:x")
    assert resolve("./sample:x").path.resolve() == folder / "sample:x"
    assert parsed("./sample:x:0.5") == ("sample:x", 0.5, None)
    with pytest.raises(ImageError):
        resolve("sample:x")


@pytest.mark.parametrize("text", ["", "none.jpg", "none/none.jpg", "a\0b", "x" * 5000, "sample:"])
def test_what_is_not_there_is_refused(folder: Path, text: str) -> None:
    for call in (resolve, parse_style):
        with pytest.raises(ImageError):
            call(text)


def test_a_picture_keeps_the_text_and_gives_a_name_for_results(folder: Path) -> None:
    Path("holiday").mkdir()
    make("holiday/sea.of.stars.jpg")
    source = resolve("holiday/sea.of.stars.jpg")
    assert source.text == "holiday/sea.of.stars.jpg"
    assert source.stem == "sea.of.stars"


# STYLE


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("a.jpg", 1.0),
        ("a.jpg:2", 2.0),
        ("a.jpg:0.5", 0.5),
        ("a.jpg:.25", 0.25),
        ("a.jpg:3.", 3.0),
        ("a.jpg:007", 7.0),
        ("a.jpg:1000000", 1e6),
    ],
)
def test_the_forms_of_a_weight(folder: Path, text: str, weight: float) -> None:
    make("a.jpg")
    assert parsed(text) == ("a.jpg", weight, None)
    assert parsed(f"{text}@m.png") == ("a.jpg", weight, "m.png")


@pytest.mark.parametrize(
    "rest",
    [":", ":x", ":-1", ":+1", ":1e3", ":.", ":1.2.3", ":nan", ":inf", ": 1", ":1 ", "@", ":1@",
     ":1:2", ":٣", "x", ":1,5"],
)  # fmt: skip
def test_what_is_no_weight_and_no_mask_is_refused(folder: Path, rest: str) -> None:
    make("a.jpg")
    with pytest.raises(ImageError, match="no such file"):
        parse_style(f"a.jpg{rest}")


@pytest.mark.parametrize("rest", [":0", ":0.0", ":.0", ":0@m.png", ":0." + 400 * "0" + "1"])
def test_a_weight_has_to_be_above_0(folder: Path, rest: str) -> None:
    make("a.jpg")
    with pytest.raises(SettingsError, match="above 0"):
        parse_style(f"a.jpg{rest}")


def test_a_weight_has_to_be_finite(folder: Path) -> None:
    make("a.jpg")
    with pytest.raises(SettingsError):
        parse_style("a.jpg:1" + 400 * "0")


def test_samples_take_weights_and_masks() -> None:
    path = str(samples()["astronaut"])
    assert parsed("sample:astronaut") == (path, 1.0, None)
    assert parsed("sample:astronaut:0.3") == (path, 0.3, None)
    assert parsed("sample:astronaut@m.png") == (path, 1.0, "m.png")
    assert parsed("sample:astronaut:0.3@m.png") == (path, 0.3, "m.png")


@pytest.mark.parametrize("name", ["photo@2x.png", "a:0.5.jpg", "a:0.5", "a@b", "@", ":", "a:2@b"])
def test_names_that_look_like_weights_and_masks_are_names(folder: Path, name: str) -> None:
    make(name)
    assert parsed(name) == (name, 1.0, None)
    assert parsed(f"{name}:0.7") == (name, 0.7, None)
    assert parsed(f"{name}@m.png") == (name, 1.0, "m.png")
    assert parsed(f"{name}:0.7@m@2x.png") == (name, 0.7, "m@2x.png")


def test_drives_are_not_weights(folder: Path) -> None:
    make(r"C:\a.jpg", r"D:\m.png")
    assert parsed(r"C:\a.jpg") == (r"C:\a.jpg", 1.0, None)
    assert parsed(r"C:\a.jpg:0.7@D:\m.png") == (r"C:\a.jpg", 0.7, r"D:\m.png")
    assert parsed(r"C:\a.jpg@D:\m.png") == (r"C:\a.jpg", 1.0, r"D:\m.png")
    with pytest.raises(ImageError):
        parse_style(r"E:\a.jpg:0.7")


def test_the_longest_prefix_that_is_a_file_wins(folder: Path) -> None:
    make("a.jpg")
    assert parsed("a.jpg:2@m.png:3") == ("a.jpg", 2.0, "m.png:3")
    make("a.jpg:2")
    assert parsed("a.jpg:2") == ("a.jpg:2", 1.0, None)
    assert parsed("a.jpg:2:3") == ("a.jpg:2", 3.0, None)
    assert parsed("a.jpg:5") == ("a.jpg", 5.0, None)
    make("a.jpg:2@m.png")
    assert parsed("a.jpg:2@m.png") == ("a.jpg:2@m.png", 1.0, None)
    assert parsed("a.jpg:2@m.png:3") == ("a.jpg:2@m.png", 3.0, None)


def test_a_prefix_counts_only_if_the_whole_rest_makes_sense(folder: Path) -> None:
    make("a", "a:b")
    assert parsed("a:b:2") == ("a:b", 2.0, None)
    with pytest.raises(ImageError):
        parse_style("a:c:2")  # `a` is there, but `:c:2` is no weight


def test_a_mask_need_not_be_there_yet(folder: Path) -> None:
    make("a.jpg")
    assert parsed("a.jpg@nowhere/m.png") == ("a.jpg", 1.0, "nowhere/m.png")


NAMES = st.text("ab:@.0 1\\é-", min_size=1, max_size=8)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, weight=st.none() | st.floats(0.001, 1e6), mask=st.none() | NAMES)
def test_what_is_written_is_what_is_read(
    folder: Path, name: str, weight: float | None, mask: str | None
) -> None:
    assume(name not in {".", ".."})
    text = name
    text += "" if weight is None else f":{weight:.6f}"
    text += "" if mask is None else f"@{mask}"
    file = folder / name
    file.write_bytes(b"")
    try:
        style = parse_style(text)
        assert style.source.path == Path(name)
        assert style.weight == (1 if weight is None else float(f"{weight:.6f}"))
        assert style.mask == (None if mask is None else Path(mask))
    finally:
        file.unlink()


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=20))
def test_any_text_is_a_style_or_an_error_of_ours(folder: Path, text: str) -> None:
    try:
        style = parse_style(text)
    except ImpastoError:
        return
    assert style.source.path.exists()
    assert style.weight > 0


# Photos


def test_a_folder_means_its_pictures_by_name(folder: Path) -> None:
    Path("in", "deeper").mkdir(parents=True)
    make("in/b.png", "in/a.JPG", "in/notes.txt", "in/.hidden.jpg", "in/deeper/c.jpg", "z.webp")
    found = find_photos(["z.webp", "in", "sample:astronaut"])
    assert [source.path for source in found] == [
        Path("z.webp"), Path("in/a.JPG"), Path("in/b.png"), samples()["astronaut"],
    ]  # fmt: skip
    assert [source.stem for source in found] == ["z", "a", "b", "astronaut"]
    assert found[1].text == str(Path("in/a.JPG"))


def test_photos_have_no_weights(folder: Path) -> None:
    make("a.jpg")
    with pytest.raises(ImageError):
        find_photos(["a.jpg:0.5"])


def test_a_folder_without_pictures_is_refused(folder: Path) -> None:
    Path("empty").mkdir()
    with pytest.raises(ImageError, match="no picture in the folder empty"):
        find_photos(["empty"])
    make("empty/readme.md")
    with pytest.raises(ImageError, match="no picture in the folder empty"):
        find_photos(["empty"])


def test_one_missing_photo_is_told(folder: Path) -> None:
    make("a.jpg")
    with pytest.raises(ImageError, match=r"b\.jpg"):
        find_photos(["a.jpg", "b.jpg"])
    assert find_photos([]) == []
