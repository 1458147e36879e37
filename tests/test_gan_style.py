"""The style-based networks: equalised rates, styles, noise, truncation, growing; by hand."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from impasto.errors import RunError, SettingsError, WeightsError
from impasto.gan.builtin import KIND
from impasto.gan.generator import Generator
from impasto.gan.layers import (
    GAIN,
    Convolution,
    Dense,
    Modulated,
    ToRGB,
    halved,
    minibatch_deviation,
    normalised,
    upsampled,
)
from impasto.gan.recipe import latents
from impasto.gan.style import (
    StyleDiscriminator,
    StyleGenerator,
    grow_discriminator,
    grow_generator,
    sides,
)

CHANNELS = (8, 8, 6, 4, 4, 3, 3)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=source, dtype=torch.float64)


def generator(side: int = 32, **options: Any) -> StyleGenerator:
    torch.manual_seed(0)
    channels = CHANNELS[: len(sides(side))]
    return StyleGenerator(side, 8, channels, 2, **options).double()


def discriminator(side: int = 32) -> StyleDiscriminator:
    torch.manual_seed(1)
    return StyleDiscriminator(side, CHANNELS[: len(sides(side))]).double()


def stirred(net: Any) -> Any:
    """A network whose biases, noise and mean of w are not 0, as if it had learnt."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("bias", "strength")):
                parameter.add_(torch.randn_like(parameter) / 3)
        if isinstance(net, StyleGenerator):
            net.mapping.mean.normal_()
    return net


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "kernel"), [(16, 3), (50, 1)])
def test_equalised_weights_are_drawn_wide_and_used_narrow(before: int, kernel: int) -> None:
    torch.manual_seed(0)
    layer = Convolution(before, 40, kernel, gain=GAIN)
    assert layer.weight.std().item() == pytest.approx(1, rel=0.03)
    assert layer.scale == pytest.approx(math.sqrt(2 / (before * kernel**2)))
    x = torch.randn(2, before, 5, 5)
    plain = F.conv2d(x, layer.weight * layer.scale, layer.bias, padding=kernel // 2)
    torch.testing.assert_close(layer(x), plain)
    middle = layer(torch.randn(64, before, 9, 9))[..., 2:-2, 2:-2]
    assert middle.std().item() == pytest.approx(GAIN, rel=0.15)


def test_a_step_of_adam_changes_equalised_layers_alike() -> None:
    """Karras et al. 2018, section 4.1: whatever the fan-in, by the same share of what is used."""
    shares = []
    for before in (4, 400):
        torch.manual_seed(0)
        layer = Dense(before, 30)
        used = (layer.weight * layer.scale).detach().clone()
        adam = torch.optim.Adam(layer.parameters(), 0.01, betas=(0.0, 0.9))
        layer(torch.randn(8, before)).square().sum().backward()
        adam.step()
        shares.append(((layer.weight * layer.scale - used).norm() / used.norm()).item())
    assert shares[0] == pytest.approx(shares[1], rel=0.1)
    assert shares[0] == pytest.approx(0.01, rel=0.1)


def test_a_slower_layer_computes_alike_and_learns_less() -> None:
    torch.manual_seed(0)
    layer = Dense(20, 30, bias=1.0, rate=0.01)
    assert layer.weight.std().item() == pytest.approx(100, rel=0.1)
    assert (layer.bias * layer.rate).tolist() == pytest.approx([1.0] * 30)
    assert (layer(torch.randn(500, 20)) - 1).std().item() == pytest.approx(1, rel=0.1)


def test_a_style_scales_the_weights_and_the_output_has_its_deviation_back() -> None:
    """Karras et al. 2020, eq. 1 and 3, written out for each picture."""
    torch.manual_seed(0)
    layer = stirred(Modulated(5, 7, 4).double())
    x, w, noise = numbers(3, 5, 6, 6), numbers(3, 4, seed=1), numbers(3, 1, 6, 6, seed=2)
    expected = []
    for i in range(3):
        style = F.linear(w[i], layer.affine.weight / 2, layer.affine.bias)  # √4 = 2
        weight = layer.weight / math.sqrt(45) * style[None, :, None, None]
        weight = weight / weight.square().sum((1, 2, 3), keepdim=True).sqrt()
        y = F.conv2d(x[i : i + 1], weight, padding=1) * math.sqrt(2)
        y = y + layer.bias.view(1, -1, 1, 1) + layer.strength * noise[i]
        expected.append(torch.where(y > 0, y, 0.2 * y))
    torch.testing.assert_close(layer(x, w, noise), torch.cat(expected))
    assert layer.affine.bias.mean().item() == pytest.approx(1, abs=0.6)


def test_a_style_is_free_of_scale() -> None:
    torch.manual_seed(0)
    layer = Modulated(5, 7, 4).double()
    with torch.no_grad():
        layer.affine.bias.zero_()
    x, w, noise = numbers(1, 5, 6, 6), numbers(1, 4), numbers(1, 1, 6, 6)
    torch.testing.assert_close(layer(x, 9 * w, noise), layer(x, w, noise))


def test_colours_are_a_scaled_sum() -> None:
    torch.manual_seed(0)
    layer = stirred(ToRGB(5, 4).double())
    x, w = numbers(2, 5, 3, 3), numbers(2, 4, seed=1)
    style = F.linear(w, layer.affine.weight / 2, layer.affine.bias)
    weight = layer.weight / math.sqrt(5)
    expected = torch.einsum("nchw,nc,kc->nkhw", x, style, weight) + layer.bias.view(1, 3, 1, 1)
    torch.testing.assert_close(layer(x, w), expected)


def test_doubling_is_zeros_between_pixels_and_a_blur() -> None:
    x = numbers(1, 2, 5, 5)
    spread = torch.zeros(1, 2, 10, 10, dtype=torch.float64)
    spread[..., ::2, ::2] = x
    kernel = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 4
    kernel = (kernel[:, None] * kernel).expand(2, 1, 4, 4)
    blurred = F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=2)
    torch.testing.assert_close(upsampled(x)[..., 1:-1, 1:-1], blurred[..., 1:-1, 1:-1])
    torch.testing.assert_close(halved(torch.ones(1, 1, 4, 4)), torch.ones(1, 1, 2, 2))


def test_latents_are_normalised() -> None:
    z = normalised(numbers(5, 20) * 7)
    torch.testing.assert_close(z.square().mean(1), torch.ones(5, dtype=torch.float64))


def test_the_deviation_of_a_minibatch_by_hand() -> None:
    x = torch.zeros(4, 2, 1, 2, dtype=torch.float64)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 3.0, -1.0  # deviation 2 at one of four places; of all: 0.5
    x[2], x[3] = 5.0, 7.0  # deviation 1 everywhere
    found = minibatch_deviation(x, 2)
    assert found.shape == (4, 3, 1, 2)
    assert torch.equal(found[:, :2], x)
    assert found[:, 2, 0, 0].tolist() == pytest.approx([0.5, 0.5, 1.0, 1.0], abs=1e-3)
    assert torch.equal(found[:, 2, 0, 0], found[:, 2, 0, 1])
    alone = minibatch_deviation(x, 1)[:, 2]
    assert alone.max().item() == pytest.approx(1e-4)


# --- The generator --------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [8, 32, 256])
def test_shapes(side: int) -> None:
    net, judge = generator(side).float(), discriminator(side).float()
    x = net(torch.randn(2, 8))
    assert x.shape == (2, 3, side, side)
    assert judge(x).shape == (2,)
    assert net.styles == len(net.noise_sides) == 2 * int(math.log2(side)) - 3


def test_sides_and_channels_that_do_not_fit_are_refused() -> None:
    for side in (4, 96):
        with pytest.raises(SettingsError, match="power of two from 8 px"):
            sides(side)
    with pytest.raises(SettingsError, match="one each is needed for 4, 8, 16, 32 px"):
        StyleGenerator(32, 8, (4, 4))


def test_a_picture_does_not_depend_on_its_neighbours() -> None:
    net, z = stirred(generator()), numbers(5, 8)
    torch.testing.assert_close(net(z)[1:3], net(z[1:3]))


def test_noise_changes_details_once_it_has_strength() -> None:
    net = generator()
    w = net.broadcast(net.mapping(numbers(2, 8)))
    noises = [numbers(2, 1, side, side, seed=side) for side in net.noise_sides]
    assert torch.equal(net.synthesis(w), net.synthesis(w, noises))
    net = stirred(net)
    assert not torch.equal(net.synthesis(w), net.synthesis(w, noises))
    assert torch.equal(net.synthesis(w), net.synthesis(w))  # what is stored is always the same


def test_truncation_leads_to_the_mean_picture() -> None:
    net = stirred(generator().float())
    painter, z = Generator(net, {}), latents(3, 8, 5)
    mean = painter.paint_styles(net.broadcast(net.mapping.mean[None]))
    for picture in painter.paint(z, truncation=0):
        torch.testing.assert_close(picture, mean[0])
    torch.testing.assert_close(painter.paint(z), painter.paint(z, truncation=1.0))
    w = painter.styles(z)
    halfway = net.mapping.mean + (w - net.mapping.mean) / 2
    torch.testing.assert_close(painter.styles(z, truncation=0.5), halfway)
    with pytest.raises(SettingsError, match="truncation is 3; it is a number from 0 to 2"):
        painter.paint(z, truncation=3)


def test_mixing_takes_the_composition_of_one_and_the_strokes_of_another() -> None:
    net = stirred(generator().float())
    painter = Generator(net, {})
    a, b = torch.split(painter.styles(latents(2, 8, 1)), 1)
    assert torch.equal(painter.mix(a, b, 4), b)
    mixed = painter.mix(a, b, 16)  # 4 px has one style, 8 px two
    assert torch.equal(mixed[:, :3], a[:, :3])
    assert torch.equal(mixed[:, 3:], b[:, 3:])
    assert torch.equal(painter.mix(a, b, 64), a)


def test_a_file_that_is_not_whole_is_no_generator(tmp_path: Path) -> None:
    net, path = stirred(generator().float()), tmp_path / "g.safetensors"
    card = {"arch": "style", "size": 32, "latent": 8, "channels": CHANNELS[:4], "mapping": 2}
    tensors = net.state_dict()

    def load(tensors: Mapping[str, Tensor], card: str) -> Generator:
        save_file(dict(tensors), path, {"kind": KIND, "card": card})
        return Generator.load(path)

    z = latents(2, 8, 0)
    assert torch.equal(load(tensors, json.dumps(card)).paint(z), Generator(net, {}).paint(z))
    wrong: list[Any] = [[], 3, None, {}, "x", {**card, "size": "32"}, {**card, "channels": 5}]
    wrong += [{**card, "latent": 0}, {**card, "mapping": None}, {**card, "size": 33}]
    for other in (*map(json.dumps, wrong), "", "[" * 100_000):
        with pytest.raises(WeightsError) as told:
            load(tensors, other)
        assert str(told.value) == (
            f"{path} is damaged, or no generator that impasto gan export has written"
        )
    extra = torch.zeros(8, 8)
    name = "mapping.layers.1.weight"
    for others in (
        {**tensors, "mapping.layers.2.weight": extra},
        {key: tensor for key, tensor in tensors.items() if key != name},
    ):
        with pytest.raises(WeightsError, match="damaged: weights are missing, or too many"):
            load(others, json.dumps(card))
    for value in (math.nan, math.inf):
        tensors[name] = torch.full((8, 8), value)
        with pytest.raises(WeightsError, match="some of its weights are no finite numbers"):
            load(tensors, json.dumps(card))


# --- The discriminator ----------------------------------------------------------------------------


def test_pictures_are_judged_in_groups_of_neighbours() -> None:
    net, x = stirred(discriminator()), numbers(8, 3, 32, 32)
    torch.testing.assert_close(net(x)[4:], net(x[4:]))
    torch.testing.assert_close(net(x, 2)[2:4], net(x[2:4]))
    assert not torch.allclose(net(x, 2), net(x, 4))
    assert net(x[:3]).shape == (3,)  # three have no group of four


def test_the_discriminator_is_differentiable_twice() -> None:
    net = stirred(StyleDiscriminator(8, (3, 2)).double())
    x = numbers(2, 3, 8, 8).requires_grad_()

    def slope(*weights: Tensor) -> Tensor:
        names = [name for name, _ in net.named_parameters()]
        logits = torch.func.functional_call(net, dict(zip(names, weights, strict=True)), x)
        (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(slope, tuple(net.parameters()), eps=1e-5, atol=1e-5)


# --- Growing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_grown_generator_paints_the_same_enlarged(side: int) -> None:
    small, large = stirred(generator(32)), generator(side)
    grow_generator(large, small)
    z, expected = numbers(2, 8), stirred(generator(32))(numbers(2, 8))
    while expected.shape[-1] < side:
        expected = upsampled(expected)
    torch.testing.assert_close(large(z), expected)
    torch.testing.assert_close(large.mapping.mean, small.mapping.mean)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_a_grown_discriminator_judges_the_reduced_picture(side: int) -> None:
    small, large = stirred(discriminator(32)), discriminator(side)
    grow_discriminator(large, small)
    x = numbers(4, 3, side, side)
    reduced = F.avg_pool2d(x, side // 32)
    torch.testing.assert_close(large(x), small(reduced))
    large(x).sum().backward()
    for name, parameter in large.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0 or "first" in name, name


def test_networks_that_do_not_fit_are_told() -> None:
    with pytest.raises(RunError, match=r"its --channels, --latent and --mapping"):
        grow_generator(StyleGenerator(64, 8, (9, 9, 9, 9, 9), 2), generator(32).float())
    with pytest.raises(RunError, match="its size at most this one's"):
        grow_generator(generator(16), generator(32))
