"""Options: who beats whom, what is refused and in what words, layers and sizes as text."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impasto import settings as settings_module
from impasto.checks import MAX_SIDE
from impasto.errors import SettingsError
from impasto.options import ReconstructOptions, TextureOptions, TransferOptions
from impasto.presets import PRESETS, Preset
from impasto.settings import (
    ReconstructSettings,
    Settings,
    TextureSettings,
    TransferSettings,
    make_settings,
    parse_layers,
    parse_out_size,
    parse_size,
)

KINDS: list[tuple[type[Settings], Any]] = [
    (TransferSettings, TransferOptions),
    (TextureSettings, TextureOptions),
    (ReconstructSettings, ReconstructOptions),
]
JOBS = [kind for kind, _ in KINDS]


def preset(**values: Any) -> Preset:
    return Preset(summary="", source="", values=values)


@pytest.fixture
def presets(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Preset]:
    """Three presets of our own beside `default`."""
    table = {
        "default": preset(),
        "quick": preset(steps=7, size=100, style_layers={"relu2_1": 1.0}),
        "odd": preset(memory=3, optimizer="adam"),
        "jobs": Preset(
            summary="",
            source="",
            values={"encoder": "vgg19", "steps": 5, "style_layers": "relu5_4"},
            jobs={"texture": {"steps": 6}},
            slim={"style_layers": "relu5_1", "tv_weight": 2.0},
        ),
    }
    monkeypatch.setattr(settings_module, "PRESETS", MappingProxyType(table))
    return table


# Who beats whom


@pytest.mark.parametrize("kind", JOBS)
def test_without_options_everything_is_the_default(kind: type[Settings]) -> None:
    assert make_settings(kind, {}) == kind()
    assert make_settings(kind, {"preset": "default"}) == kind()


@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("slim", [False, True])
@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_makes_sound_settings_for_every_job(
    kind: type[Settings], preset: str, slim: bool
) -> None:
    options = {"preset": preset} | ({"encoder": "slim"} if slim else {})
    made = make_settings(kind, options)
    assert made.preset == preset
    names = {field.name for each in JOBS for field in dataclasses.fields(each)} - {"preset"}
    found = PRESETS[preset]
    assert found.ours <= found.values.keys() | {k for job in found.jobs.values() for k in job}
    for values in (found.values, found.slim, *found.jobs.values()):
        assert values.keys() <= names
    expected = found.settings(kind.job, slim=made.encoder == "slim")
    for name, value in expected.items():
        if hasattr(made, name) and name != "encoder":
            parsed = parse_layers(value) if isinstance(value, str) and "relu" in value else value
            got = getattr(made, name)
            assert got == (tuple(parsed) if name == "layers" else parsed)


def test_a_preset_may_differ_by_job_and_by_network(presets: object) -> None:
    options: dict[str, Any] = {"preset": "jobs"}
    literal = make_settings(TransferSettings, options)
    assert (literal.encoder, literal.steps, literal.tv_weight) == ("vgg19", 5, 0)
    assert literal.style_layers == {"relu5_4": 1.0}
    for name in ("slim", "slim-v0", "slim-1"):
        small = make_settings(TextureSettings, options | {"encoder": name})
        assert (small.encoder, small.steps, small.tv_weight) == (name, 6, 2)
        assert small.style_layers == {"relu5_1": 1.0}
    mine = make_settings(TransferSettings, options | {"encoder": "a/slim.safetensors"})
    assert mine.style_layers == {"relu5_4": 1.0}
    given = make_settings(TransferSettings, options | {"encoder": "slim", "tv_weight": 1.0})
    assert given.tv_weight == 1


def test_an_option_beats_the_preset_which_beats_the_default(presets: object) -> None:
    default = make_settings(TransferSettings, {})
    assert default.steps != 7
    assert default.size != 100
    preset = make_settings(TransferSettings, {"preset": "quick"})
    assert (preset.steps, preset.size, preset.style_layers) == (7, 100, {"relu2_1": 1.0})
    assert preset.memory == default.memory
    given = make_settings(TransferSettings, {"preset": "quick", "steps": 9})
    assert (given.steps, given.size) == (9, 100)
    back = make_settings(TransferSettings, {"preset": "quick", "steps": default.steps})
    assert back.steps == default.steps


def test_a_preset_leaves_out_what_a_job_does_not_have(presets: object) -> None:
    made = make_settings(TextureSettings, {"preset": "quick"})
    assert made.steps == 7
    assert not hasattr(made, "size")


def test_the_options_are_not_changed() -> None:
    options = {"style_layers": "relu1_1=2", "steps": 4}
    make_settings(TransferSettings, options)
    assert options == {"style_layers": "relu1_1=2", "steps": 4}


def test_settings_cannot_be_changed() -> None:
    made = TransferSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.steps = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        made.style_layers["relu1_1"] = 9.0  # type: ignore[index]


def test_settings_can_be_stored(presets: object) -> None:
    for kind in JOBS:
        made = make_settings(kind, {"preset": "odd", "steps": 11})
        stored = json.loads(json.dumps(made.record()))
        assert stored.keys() == {field.name for field in dataclasses.fields(kind)}
        assert (stored["steps"], stored["memory"], stored["preset"]) == (11, 3, "odd")
    record = TransferSettings(style_layers={"relu3_1": 0.5}).record()
    assert record["style_layers"] == {"relu3_1": 0.5}


# Names


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_keyword_arguments_are_the_fields(kind: type[Settings], options: Any) -> None:
    names = {field.name for field in dataclasses.fields(kind)}
    assert typing.get_type_hints(options).keys() == names
    assert not options.__required_keys__


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_the_keyword_arguments_take_what_the_fields_take(
    kind: type[Settings], options: Any
) -> None:
    hints, keywords = typing.get_type_hints(kind), typing.get_type_hints(options)
    for name in (field.name for field in dataclasses.fields(kind)):
        hint = hints[name]
        if name not in {"init", "layers", "content_layers", "style_layers"}:  # these take more
            assert keywords[name] == hint, name


@pytest.mark.parametrize("kind", JOBS)
def test_every_field_is_explained(kind: type[Settings]) -> None:
    text = f"{Settings.__doc__}{kind.__doc__}"
    for field in dataclasses.fields(kind):
        assert f"        {field.name}: " in text


@pytest.mark.parametrize("kind", JOBS)
def test_an_unknown_option_is_refused_with_the_names_there_are(kind: type[Settings]) -> None:
    with pytest.raises(SettingsError) as caught:
        make_settings(kind, {"stepz": 3})
    assert "'stepz'" in str(caught.value)
    for field in dataclasses.fields(kind):
        assert field.name in str(caught.value)


def test_an_unknown_preset_is_refused_with_the_names_there_are(presets: object) -> None:
    with pytest.raises(SettingsError, match=r"no preset 'x'; there are default, quick, odd"):
        make_settings(TransferSettings, {"preset": "x"})


# Ranges


@pytest.mark.parametrize(
    "name", ["rate", "tv_weight", "ripple_weight", "content_weight", "style_weight"]
)
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), float("-inf"), -0.1, -1, True, False, "1", None]
)
def test_what_is_no_weight_is_refused(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=f"^{name} is "):
        make_settings(TransferSettings, {name: value})


@pytest.mark.parametrize("name", ["tv_weight", "ripple_weight", "content_weight", "style_weight"])
def test_a_weight_can_be_any_number_from_0(name: str) -> None:
    for value in (0, 0.0, 1e-9, 3, 1e9):
        assert getattr(make_settings(TransferSettings, {name: value}), name) == value


def test_a_whole_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(SettingsError):
        make_settings(TransferSettings, {"style_weight": 10**400})


def test_the_rate_has_to_be_above_0() -> None:
    with pytest.raises(SettingsError, match=r"rate is 0; .* positive"):
        make_settings(TransferSettings, {"rate": 0})
    assert make_settings(TransferSettings, {"rate": 0.001}).rate == 0.001


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("steps", 1, 1_000_000), ("scales", 0, 12), ("memory", 1, 1000), ("threads", 0, 1024),
     ("seed", 0, 2**63 - 1), ("size", 1, MAX_SIDE)],
)  # fmt: skip
def test_whole_numbers_have_a_range(name: str, low: int, high: int) -> None:
    for good in (low, high):
        assert getattr(make_settings(TransferSettings, {name: good}), name) == good
    for bad in (low - 1, high + 1, low + 0.5, float(high), True, "3", None, float("nan")):
        with pytest.raises(SettingsError, match=f"^{name} is .* from {low} to {high}"):
            make_settings(TransferSettings, {name: bad})


@pytest.mark.parametrize(
    "name", ["optimizer", "pooling", "padding", "normalize", "device", "precision"]
)
def test_choices_are_listed(name: str) -> None:
    choices = typing.get_args(typing.get_type_hints(TransferSettings)[name])
    assert len(choices) >= 2
    for choice in choices:
        assert getattr(make_settings(TransferSettings, {name: choice}), name) == choice
    for bad in ("x", "", None, 1, choices[0].upper()):
        with pytest.raises(SettingsError) as caught:
            make_settings(TransferSettings, {name: bad})
        assert str(caught.value).startswith(f"{name} is {bad!r}")
        assert ", ".join(choices) in str(caught.value)


@pytest.mark.parametrize("kind", [TransferSettings, ReconstructSettings])
def test_the_size_can_be_full(kind: type[Settings]) -> None:
    assert make_settings(kind, {"size": "full"}).record()["size"] == "full"
    with pytest.raises(SettingsError, match=r"^size is 'half'"):
        make_settings(kind, {"size": "half"})


@pytest.mark.parametrize(
    "value", [(0, 5), (5, 0), (-1, 5), (5, MAX_SIDE + 1), (5.0, 5), (True, 5), (5,), (5, 5, 5), ()]
)
def test_an_out_size_is_two_whole_numbers(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^out_size "):
        make_settings(TextureSettings, {"out_size": value})


def test_an_out_size_keeps_its_order() -> None:
    assert make_settings(TextureSettings, {"out_size": (640, 480)}).out_size == (640, 480)


# Strength


@pytest.mark.parametrize("value", [-0.1, 1.01, float("nan"), float("inf"), True, "0.5"])
def test_the_strength_goes_from_0_to_1(value: object) -> None:
    with pytest.raises(SettingsError, match=r"^strength is "):
        make_settings(TransferSettings, {"strength": value})


def test_strength_and_style_weight_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match="either strength or style_weight"):
        make_settings(TransferSettings, {"strength": 0.5, "style_weight": 3})
    assert make_settings(TransferSettings, {"strength": None, "style_weight": 3}).style_weight == 3
    assert make_settings(TransferSettings, {"strength": 0.5, "content_weight": 3}).strength == 0.5


def test_the_ends_and_the_middle_of_the_strength() -> None:
    plain = TransferSettings(content_weight=3, style_weight=7)
    assert plain.weights == (3.0, 7.0)
    for strength, weights in ((0.5, (3, 7)), (0, (3, 0)), (1, (0, 7)), (0.75, (3, 63))):
        assert dataclasses.replace(plain, strength=strength).weights == weights


@given(st.floats(0, 1), st.floats(0, 1))
def test_more_strength_is_never_less_style(one: float, other: float) -> None:
    less, more = sorted((one, other))
    ratios = []
    for strength in (less, more):
        content, style = TransferSettings(strength=strength).weights
        assert content + style > 0
        ratios.append(style / (content + style))
    assert ratios[0] <= ratios[1]


# Layers


def test_layers_are_read_from_text() -> None:
    assert parse_layers("relu1_1") == {"relu1_1": 1}
    assert parse_layers("relu1_1=0.5,relu2_1") == {"relu1_1": 0.5, "relu2_1": 1}
    assert parse_layers(" relu1_1 = 2 , relu2_1=1e-3 ") == {"relu1_1": 2, "relu2_1": 1e-3}
    made = make_settings(
        TransferSettings, {"style_layers": "relu2_1=3", "content_layers": "relu1_2"}
    )
    assert made.style_layers == {"relu2_1": 3}
    assert made.content_layers == {"relu1_2": 1}
    assert make_settings(ReconstructSettings, {"layers": "relu2_1,relu1_1"}).layers == (
        "relu2_1",
        "relu1_1",
    )


@pytest.mark.parametrize(
    "text", ["", ",", "relu1_1,", ",relu1_1", "relu1_1=1,relu1_1=2", "relu 1_1", "=1", "relu1-1",
             "relu1_1=x", "relu1_1=1=2", "relu1_1;relu2_1"]
)  # fmt: skip
def test_layers_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="layer"):
        parse_layers(text)


@pytest.mark.parametrize(
    "layers",
    ["relu1_1=-1", "relu1_1=nan", "relu1_1=inf", "relu1_1=0", "relu1_1=0,relu2_1=0", {},
     {"relu1_1": True}, {"relu1_1": "1"}, {"relu1_1": float("nan"), "relu2_1": 1.0}],
)  # fmt: skip
@pytest.mark.parametrize("name", ["content_layers", "style_layers"])
def test_layers_need_weights_that_make_sense(name: str, layers: Any) -> None:
    with pytest.raises(SettingsError, match=name):
        make_settings(TransferSettings, {name: layers})


@pytest.mark.parametrize("layers", [["relu1_1", "relu2_1"], ("relu1_1",), None, 3])
def test_layers_without_weights_are_refused_in_words(layers: Any) -> None:
    with pytest.raises(SettingsError, match="style_layers"):
        make_settings(TransferSettings, {"style_layers": layers})


def test_a_layer_of_weight_0_may_stand_beside_others() -> None:
    made = make_settings(TransferSettings, {"style_layers": "relu1_1=0,relu2_1=1"})
    assert made.style_layers == {"relu1_1": 0, "relu2_1": 1}


def test_reconstruction_needs_a_layer() -> None:
    with pytest.raises(SettingsError, match="layers is empty"):
        make_settings(ReconstructSettings, {"layers": ()})


@given(st.dictionaries(st.from_regex(r"relu[1-5]_[1-4]", fullmatch=True), st.floats(0, 1e6),
                       min_size=1))  # fmt: skip
def test_layers_survive_the_way_through_text(layers: dict[str, float]) -> None:
    assert parse_layers(",".join(f"{name}={weight!r}" for name, weight in layers.items())) == layers


# Sizes


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("full", "full"), ("1", 1)])
def test_a_size_is_read_from_text(text: str, size: object) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5", "512px", "Full", "640x480", "٣", "1e3"])
def test_a_size_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="the size is"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [("640x480", (640, 480)), ("640X480", (640, 480)), ("640×480", (640, 480)),
     ("512", (512, 512)), (" 32x64 ", (32, 64))],
)  # fmt: skip
def test_an_out_size_is_read_from_text(text: str, size: tuple[int, int]) -> None:
    assert parse_out_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "640x", "x480", "640x480x3", "640*480", "-640x480", "6.4x4.8", "full", "٣x٣"]
)
def test_an_out_size_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="width by height"):
        parse_out_size(text)


@pytest.mark.parametrize("parse", [parse_size, parse_out_size])
def test_a_size_of_thousands_of_digits_is_refused_in_words(parse: Any) -> None:
    with pytest.raises(SettingsError):
        parse("9" * 5000)


def test_bfloat16_is_left_alone_where_it_was_seen_to_cost_more_than_a_percent() -> None:
    assert TransferSettings().tolerates_bfloat16
    assert TransferSettings(strength=0.3).tolerates_bfloat16
    assert TextureSettings().tolerates_bfloat16
    assert not TransferSettings(strength=0.8).tolerates_bfloat16
    assert not TransferSettings(strength=1).tolerates_bfloat16
    assert not TransferSettings(content_weight=0.1).tolerates_bfloat16
    assert not TransferSettings(normalize="sum").tolerates_bfloat16
    assert not ReconstructSettings().tolerates_bfloat16
