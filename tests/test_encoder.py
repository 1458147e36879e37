"""The encoder against plain torch: values, gradients, plans, refusals, the bundled network."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from impasto import encoder as encoder_module
from impasto.encoder import PLANS, Encoder, Plan
from impasto.errors import SettingsError
from impasto.images import Picture, open_image
from impasto.pyramid import shrink
from impasto.settings import Padding, Pooling
from impasto.sources import samples

TINY = Plan(((4, 5), (6,), (7, 3), (5,), (4,)), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
PADDINGS: tuple[Padding, ...] = get_args(Padding)
EVERY_WAY = list(itertools.product(POOLINGS, PADDINGS))


def weights_of(plan: Plan, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights for a plan, with biases that matter."""
    generator = torch.Generator().manual_seed(7)
    weights, before = {}, 3
    for layer, channels in plan.channels.items():
        name = layer.replace("relu", "conv")
        shape = (channels, before, 3, 3)
        weights[f"{name}.weight"] = (
            torch.randn(shape, generator=generator) * (2 / 9 / before) ** 0.5
        )
        weights[f"{name}.bias"] = torch.randn(channels, generator=generator) * 0.2 + 0.2
        before = channels
    return {name: weight.to(dtype) for name, weight in weights.items()}


def picture_of(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Noise `(N, 3, H, W)` in [0, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)).to(dtype)


def reference(
    x: Tensor, plan: Plan, weights: dict[str, Tensor], pooling: Pooling, padding: Padding
) -> dict[str, Tensor]:
    """Every layer of a VGG-shaped network, step by step, in the dtype of `x`."""
    mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in (plan.mean, plan.std))
    x = (x - mean) / std
    features = {}
    for b, block in enumerate(plan.blocks, 1):
        if b > 1:
            x = F.avg_pool2d(x, 2) if pooling == "avg" else F.max_pool2d(x, 2)
        for i in range(1, len(block) + 1):
            weight, bias = weights[f"conv{b}_{i}.weight"], weights[f"conv{b}_{i}.bias"]
            if padding == "zero":
                x = F.conv2d(x, weight, bias, padding=1)
            else:  # one pixel cannot be reflected
                mode = "replicate" if min(x.shape[-2:]) == 1 else padding
                x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode=mode), weight, bias)
            x = features[f"relu{b}_{i}"] = F.relu(x)
    return features


def count_convolutions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the number of output channels of every convolution from now on."""
    real: Callable[..., Tensor] = encoder_module._convolve
    seen: list[int] = []

    def counted(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        seen.append(weight.shape[0])
        return real(x, weight, *rest)

    monkeypatch.setattr(encoder_module, "_convolve", counted)
    return seen


# Values


@pytest.mark.parametrize(("pooling", "padding"), EVERY_WAY)
@pytest.mark.parametrize("size", [(32, 48), (37, 23), (16, 16), (17, 31)])
def test_every_layer_is_that_of_plain_torch(
    pooling: Pooling, padding: Padding, size: tuple[int, int]
) -> None:
    weights = weights_of(TINY)
    encoder = Encoder(TINY, weights, pooling=pooling, padding=padding)
    x = picture_of(1, 3, *size)
    found = encoder(x, TINY.layers)
    expected = reference(x, TINY, weights, pooling, padding)
    assert list(found) == list(TINY.layers)
    for layer, features in expected.items():
        stride = TINY.stride(layer)
        shape = (1, TINY.channels[layer], size[0] // stride, size[1] // stride)
        assert found[layer].shape == shape
        assert (
            features.numel() < 8 or float(features.max()) > 1e-2
        )  # or the comparison says nothing
        torch.testing.assert_close(found[layer], features, rtol=1e-4, atol=1e-5)


def test_the_settings_change_the_values() -> None:
    x, weights = picture_of(1, 3, 32, 32), weights_of(TINY)
    results = [
        Encoder(TINY, weights, pooling=pooling, padding=padding)(x, ["relu3_1"])["relu3_1"]
        for pooling, padding in EVERY_WAY
    ]
    for one, other in itertools.combinations(results, 2):
        assert float((one - other).abs().max()) > 1e-3


def test_one_layer_alone_is_the_same_as_among_others() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    x = picture_of(1, 3, 33, 40)
    together = encoder(x, TINY.layers)
    for layer in TINY.layers:
        torch.testing.assert_close(encoder(x, [layer])[layer], together[layer], rtol=0, atol=1e-6)


def test_layers_come_in_the_order_asked_for_and_once() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    found = encoder(picture_of(1, 3, 16, 16), ["relu3_2", "relu1_1", "relu3_2"])
    assert list(found) == ["relu3_2", "relu1_1"]
    assert found["relu1_1"].shape[1] == 4
    assert encoder(picture_of(1, 3, 16, 16), []) == {}


def test_the_pictures_of_a_batch_do_not_touch_each_other() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    x = picture_of(3, 3, 21, 34)
    together = encoder(x, ["relu2_1", "relu4_1"])
    for n in range(3):
        for layer, features in encoder(x[n : n + 1], ["relu2_1", "relu4_1"]).items():
            torch.testing.assert_close(together[layer][n : n + 1], features, rtol=1e-4, atol=1e-5)


def test_the_memory_layout_of_the_picture_does_not_matter() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    plain = picture_of(1, 3, 24, 30)
    layouts = [
        plain.contiguous(memory_format=torch.channels_last),
        plain.transpose(2, 3).contiguous().transpose(2, 3),
        torch.cat((plain, plain), dim=3)[..., :30],
    ]
    expected = encoder(plain, ["relu1_2", "relu4_1"])
    for x in layouts:
        for layer, features in encoder(x, ["relu1_2", "relu4_1"]).items():
            torch.testing.assert_close(features, expected[layer], rtol=0, atol=1e-6)


def test_the_picture_is_left_as_it_was() -> None:
    plan = Plan(((3,),), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    x = picture_of(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    Encoder(plan, weights_of(plan))(x, ["relu1_1"])
    assert torch.equal(x, before)


# Gradients


def losses_of(features: dict[str, Tensor], layers: Sequence[str]) -> Tensor:
    """A scalar that weighs every value differently; a layer named twice counts twice."""
    total = torch.zeros((), dtype=next(iter(features.values())).dtype)
    for number, layer in enumerate(layers):
        values = features[layer]
        generator = torch.Generator().manual_seed(number)
        total = total + (values * torch.randn(values.shape, generator=generator)).sum()
        total = total + values.square().sum()
    return total


@pytest.mark.parametrize(("pooling", "padding"), EVERY_WAY)
@pytest.mark.parametrize("size", [(16, 32), (19, 22), (37, 17)])
@pytest.mark.parametrize(
    "layers",
    [
        ["relu1_1"],
        ["relu5_1"],
        ["relu1_1", "relu1_2", "relu2_1", "relu3_1", "relu5_1"],
        ["relu3_2", "relu3_2", "relu1_2"],
    ],
    ids="+".join,
)
def test_the_gradient_is_that_of_autograd(
    pooling: Pooling, padding: Padding, size: tuple[int, int], layers: list[str]
) -> None:
    weights = weights_of(TINY, torch.float64)
    encoder = Encoder(TINY, weights, pooling=pooling, padding=padding, dtype=torch.float64)
    x = picture_of(2, 3, *size, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(losses_of(encoder(x, layers), layers), x)
    features = reference(x, TINY, weights, pooling, padding)
    (expected,) = torch.autograd.grad(losses_of(features, layers), x)
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(1, 5), (2, 2), (1, 1), (3, 2)])
def test_the_gradient_at_a_picture_of_a_few_pixels(padding: Padding, size: tuple[int, int]) -> None:
    weights = weights_of(TINY, torch.float64)
    encoder = Encoder(TINY, weights, padding=padding, dtype=torch.float64)
    x = picture_of(1, 3, *size, dtype=torch.float64).requires_grad_()
    layers = ["relu1_1", "relu1_2"]
    (found,) = torch.autograd.grad(losses_of(encoder(x, layers), layers), x)
    features = reference(x, Plan(TINY.blocks[:1], TINY.mean, TINY.std), weights, "avg", padding)
    (expected,) = torch.autograd.grad(losses_of(features, layers), x)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("pooling", "padding"), EVERY_WAY)
def test_the_gradient_is_that_of_finite_differences(pooling: Pooling, padding: Padding) -> None:
    plan = Plan(((3,), (4, 2)))
    encoder = Encoder.random(plan, seed=1, pooling=pooling, padding=padding, dtype=torch.float64)
    x = picture_of(1, 3, 5, 6, dtype=torch.float64).requires_grad_()

    def features(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(encoder(x, plan.layers).values())

    assert torch.autograd.gradcheck(features, (x,), eps=1e-6, atol=1e-7)


def test_a_layer_that_the_loss_leaves_out_does_not_disturb() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    x = picture_of(1, 3, 16, 24).requires_grad_()
    (found,) = torch.autograd.grad(encoder(x, TINY.layers)["relu2_1"].sum(), x)
    (expected,) = torch.autograd.grad(encoder(x, ["relu2_1"])["relu2_1"].sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_features_survive_the_backward_pass() -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    x = picture_of(1, 3, 16, 16).requires_grad_()
    features = encoder(x, TINY.layers)
    before = {layer: values.detach().clone() for layer, values in features.items()}
    seeds = [torch.ones_like(values) for values in features.values()]
    torch.autograd.backward(list(features.values()), seeds)
    assert x.grad is not None
    for layer, values in before.items():
        assert torch.equal(features[layer], values)
    assert all(torch.equal(seed, torch.ones_like(seed)) for seed in seeds)


def test_no_gradient_reaches_the_weights() -> None:
    weights = {name: w.requires_grad_() for name, w in weights_of(TINY).items()}
    encoder = Encoder(TINY, weights)
    x = picture_of(1, 3, 16, 16).requires_grad_()
    encoder(x, ["relu4_1"])["relu4_1"].sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert all(w.grad is None for w in weights.values())
    assert not encoder(x.detach(), ["relu4_1"])["relu4_1"].requires_grad


# What is computed


@pytest.mark.parametrize(
    ("layers", "channels"),
    [
        (["relu1_1"], [4]),
        (["relu3_1"], [4, 5, 6, 7]),
        (["relu3_1", "relu1_2"], [4, 5, 6, 7]),
        (["relu5_1"], [4, 5, 6, 7, 3, 5, 4]),
        ([], []),
    ],
)
def test_nothing_deeper_than_asked_is_computed(
    monkeypatch: pytest.MonkeyPatch, layers: list[str], channels: list[int]
) -> None:
    seen = count_convolutions(monkeypatch)
    Encoder(TINY, weights_of(TINY))(picture_of(1, 3, 16, 16), layers)
    assert seen == channels


# Plans


def test_the_plans_are_configurations_d_and_e_of_simonyan_and_zisserman() -> None:
    deep = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # 13 and 16 convolutions
    width = (64, 128, 256, 512, 512)
    for name, counts in deep.items():
        expected = {
            f"relu{block + 1}_{i + 1}": width[block]
            for block, count in enumerate(counts)
            for i in range(count)
        }
        assert PLANS[name].channels == expected
        assert PLANS[name].layers == tuple(expected)
        assert len(expected) == int(name[3:]) - 3  # the papers count three more, fully connected
    assert " ".join(PLANS["slim"].layers) == (
        "relu1_1 relu1_2 relu2_1 relu2_2 relu3_1 relu3_2 relu4_1 relu4_2 relu5_1"
    )
    assert list(PLANS["slim"].channels.values()) == [32, 32, 64, 64, 128, 128, 256, 256, 256]


def test_strides_double_with_every_block() -> None:
    strides = {layer: PLANS["vgg19"].stride(layer) for layer in PLANS["vgg19"].layers}
    assert strides["relu1_1"] == strides["relu1_2"] == 1
    assert strides["relu2_2"] == 2
    assert strides["relu3_4"] == 4
    assert strides["relu4_2"] == 8
    assert strides["relu5_4"] == 16


def test_a_plan_is_read_from_its_text() -> None:
    plan = Plan.parse("4,5,M,6,M,7,3,M,5,M,4", mean=TINY.mean, std=TINY.std)
    assert plan == TINY
    assert Plan.parse(" 8, 8, M, 16 ").blocks == ((8, 8), (16,))


@pytest.mark.parametrize("text", ["", "M", "32,,32", "32,M,M,64", "32,x", "3.5"])
def test_a_plan_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="cannot understand the encoder plan"):
        Plan.parse(text)


def test_random_weights_depend_on_the_seed_alone() -> None:
    x = picture_of(1, 3, 16, 16)
    first, again, other = (
        Encoder.random(TINY, seed=seed)(x, ["relu3_1"])["relu3_1"] for seed in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert Encoder.random("vgg16", dtype=torch.bfloat16).layers == PLANS["vgg16"].layers


# Refusals


def test_an_unknown_layer_is_refused_with_the_names_there_are() -> None:
    encoder = Encoder(TINY, weights_of(TINY), name="tiny")
    with pytest.raises(SettingsError) as caught:
        encoder(picture_of(1, 3, 16, 16), ["relu1_1", "relu9_1"])
    assert "tiny has no layer 'relu9_1'" in str(caught.value)
    assert ", ".join(TINY.layers) in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(15, 64), (64, 15), (1, 1)])
def test_a_picture_too_small_for_a_layer_is_refused(height: int, width: int) -> None:
    encoder = Encoder(TINY, weights_of(TINY))
    with pytest.raises(SettingsError, match=rf"{width}×{height} px .* relu5_1.* 16 px"):
        encoder(picture_of(1, 3, height, width), ["relu1_1", "relu5_1"])
    assert encoder(picture_of(1, 3, height, width), ["relu1_1"])["relu1_1"].shape[-1] == width


# The network in the package


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    picture = open_image(samples()["astronaut"])
    w, h = picture.size
    return shrink(picture, (round(w * 224 / max(w, h)), round(h * 224 / max(w, h))))


def test_the_bundled_network_loads_and_is_the_one_we_know() -> None:
    encoder = Encoder.load("slim")
    assert encoder.name == "slim-1"
    assert encoder.sha256 == "09afd432d430bc21216e05f546fd4015a69c00a12e6bf8908909532333cde3e9"
    assert encoder.plan == PLANS["slim"]
    assert encoder.dtype is torch.float32


def test_the_bundled_layers_are_about_1_on_average(astronaut: Tensor) -> None:
    encoder = Encoder.load("slim")
    assert (encoder.pooling, encoder.padding) == ("avg", "replicate")  # as it was trained
    means = {layer: float(f.mean()) for layer, f in encoder(astronaut, encoder.layers).items()}
    assert all(0.4 < mean < 2.5 for mean in means.values()), means


def test_bfloat16_is_close_to_float32(photo: Picture) -> None:
    full, half = (Encoder.load("slim", dtype=d) for d in (torch.float32, torch.bfloat16))
    expected = full(photo.tensor(), full.layers)
    found = half(photo.tensor(), half.layers)
    for layer, features in expected.items():
        assert found[layer].dtype is torch.bfloat16
        error = float((found[layer].float() - features).norm() / features.norm())
        assert 0 < error < 0.02, layer


def test_a_picture_loses_no_precision_before_the_first_convolution() -> None:
    plan, x = Plan(((4,),)), picture_of(1, 3, 8, 8)
    weights = weights_of(plan, torch.bfloat16)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (plan.mean, plan.std))
    seen = ((x - mean) / std).bfloat16().contiguous(memory_format=torch.channels_last)
    kernel = weights["conv1_1.weight"].contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(seen, kernel, weights["conv1_1.bias"], padding=1).relu()
    encoder = Encoder(plan, weights, padding="zero", dtype=torch.bfloat16)
    assert torch.equal(encoder(x, ["relu1_1"])["relu1_1"], expected)


def test_the_gradient_in_bfloat16_points_the_same_way(photo: Picture) -> None:
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        x = photo.tensor().requires_grad_()
        # Average pooling: rounding moves the maxima of max pooling to other pixels.
        features = Encoder.load("slim", dtype=dtype, pooling="avg")(x, ["relu1_1", "relu3_1"])
        loss = torch.stack([f.float().square().mean() for f in features.values()]).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        assert gradient.dtype is torch.float32
        gradients.append(gradient.flatten())
    assert float(F.cosine_similarity(gradients[0], gradients[1], dim=0)) > 0.99
