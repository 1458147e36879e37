"""The losses against the papers' equations, written out in loops over NumPy numbers.

The losses compute in float32 whatever they are given, so gradients are compared with central
differences of the slow float64 references, and not by gradcheck.
"""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impasto.losses import (
    content_loss,
    gram_matrix,
    second_variation,
    style_loss,
    total_variation,
)
from impasto.settings import Normalization

Array = NDArray[np.float64]
PIXELS = 60
"""H·W of the picture that the features are of, where that matters."""

NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)


def numbers(*shape: int, seed: int = 0) -> Array:
    """Like features after a ReLU: many zeros, the rest about 1."""
    return (
        np.random.default_rng(seed).normal(0.3, 1, shape).clip(0).astype(np.float32).astype(float)
    )


def tensor(array: Array) -> Tensor:
    return torch.tensor(array, dtype=torch.float32)


# Slow references, in the letters of Gatys et al. 2015


def slow_content(F: Array, P: Array, normalize: Normalization) -> float:
    """Gatys et al. 2015, eq. 1; Johnson et al. 2016, eq. 2 for `mean`."""
    squared = energy = 0.0
    for f, p in zip(F.flatten(), P.flatten(), strict=True):
        squared += (f - p) ** 2
        energy += p**2
    match normalize:
        case "sum" | "keras":
            return squared
        case "mean" | "fastai":
            return squared / F.size
        case "gatys":
            return squared / 2
        case "relative":
            return squared / energy


def slow_gram(F: Array) -> Array:
    """Gatys et al. 2015, eq. 3: G_ij = Σ_k F_ik F_jk, of `(N, h, w)`."""
    N, h, w = F.shape
    G = np.zeros((N, N))
    for i in range(N):
        for j in range(N):
            for k in range(h * w):
                G[i, j] += F[i].flat[k] * F[j].flat[k]
    return G


def slow_style(F: Array, S: Array, normalize: Normalization) -> float:
    """Of `(B, N, h, w)` and a style of as many channels.

    With the sums of eq. 3, for pictures of M positions each: Σ(G−A)²/(4N²M²) (eq. 4). A style of
    other size is brought to M positions: A is scaled by M/M'.
    """
    B, N, h, w = F.shape
    M, M_style = h * w, S.shape[2] * S.shape[3]
    squared = energy = 0.0
    for b in range(B):
        G, A = slow_gram(F[b]), slow_gram(S[b]) * M / M_style
        for i in range(N):
            for j in range(N):
                squared += float(G[i, j] - A[i, j]) ** 2
                energy += float(A[i, j]) ** 2
    match normalize:
        case "sum":
            return squared
        case "mean":  # of the means over positions, over all B N² terms
            return float(squared / M**2 / (B * N**2))
        case "gatys":
            return float(squared / (4 * N**2 * M**2))
        case "keras":  # of the sums, with the picture's own 3 channels and pixels
            return float(squared / (4 * 3**2 * PIXELS**2))
        case "fastai":  # of F Fᵀ / (NM), over all B N² terms
            return float(squared / (N * M) ** 2 / (B * N**2))
        case "relative":
            return squared / energy


def slow_variation(x: Array, beta: float) -> float:
    """Mahendran & Vedaldi 2015, eq. 5, over the number of values.

    A difference to a neighbour that is not there is 0.
    """
    H, W = x.shape[2:]
    total = 0.0
    for plane in x.reshape(-1, H, W):
        for i in range(H):
            for j in range(W):
                down = plane[i + 1, j] - plane[i, j] if i + 1 < H else 0.0
                right = plane[i, j + 1] - plane[i, j] if j + 1 < W else 0.0
                total += (down**2 + right**2) ** (beta / 2)
    return total / x.size


def slow_second_variation(x: Array) -> float:
    """The squared second differences down and to the right, the picture mirrored at its border."""
    H, W = x.shape[2:]
    total = 0.0
    for plane in x.reshape(-1, H, W):
        for i in range(H):
            for j in range(W):
                above, below = plane[abs(i - 1), j], plane[H - 1 - abs(H - 2 - i), j]
                left, right = plane[i, abs(j - 1)], plane[i, W - 1 - abs(W - 2 - j)]
                total += (above - 2 * plane[i, j] + below) ** 2
                total += (left - 2 * plane[i, j] + right) ** 2
    return total / x.size


def fast_style(F: Tensor, S: Tensor, normalize: Normalization) -> Tensor:
    """As the jobs put it together."""
    positions = F[0, 0].numel()
    return style_loss(gram_matrix(F), gram_matrix(S), positions, normalize, pixels=PIXELS)


def central_differences(f: Callable[[Array], float], x: Array, step: float = 1e-4) -> Array:
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        gradient[index] = (f(up) - f(down)) / (2 * step)
    return gradient


def gradient_of(f: Callable[[Tensor], Tensor], x: Array) -> Array:
    leaf = tensor(x).requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf)
    return gradient.double().numpy()


def assert_gradient(found: Array, expected: Array) -> None:
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# Content


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("B", [1, 3])
def test_content_is_equation_1(normalize: Normalization, B: int) -> None:
    F, P = numbers(B, 4, 3, 5), numbers(B, 4, 3, 5, seed=1)
    found = content_loss(tensor(F), tensor(P), normalize)
    assert found.shape == ()
    assert float(found) == pytest.approx(slow_content(F, P, normalize), rel=1e-5)


def test_content_by_hand() -> None:
    F, P = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[0.0, 4.0]]]])
    assert float(content_loss(F, P, "sum")) == 5
    assert float(content_loss(F, P, "mean")) == 2.5
    assert float(content_loss(F, P, "gatys")) == 2.5
    assert float(content_loss(F, P, "relative")) == 5 / 16


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_the_gradient_of_content(normalize: Normalization) -> None:
    F, P = numbers(2, 3, 2, 4), numbers(2, 3, 2, 4, seed=1)
    found = gradient_of(lambda x: content_loss(x, tensor(P), normalize), F)
    assert_gradient(found, central_differences(lambda x: slow_content(x, P, normalize), F))


# Style


@pytest.mark.parametrize("B", [1, 3])
def test_the_gram_matrix_is_equation_3_over_the_positions(B: int) -> None:
    F = numbers(B, 4, 3, 5)
    found = gram_matrix(tensor(F))
    assert found.shape == (B, 4, 4)
    for b in range(B):
        np.testing.assert_allclose(found[b], slow_gram(F[b]) / 15, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, found.mT, rtol=1e-6, atol=1e-6)


def test_the_gram_matrix_by_hand() -> None:
    F = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels, two positions
    assert gram_matrix(F).tolist() == [[[2.5, 0.5], [0.5, 5.0]]]


def test_the_gram_matrix_forgets_where_things_are() -> None:
    F = tensor(numbers(1, 5, 4, 6))
    shuffled = F.flatten(2)[..., torch.randperm(24, generator=torch.Generator().manual_seed(0))]
    torch.testing.assert_close(gram_matrix(shuffled.view(1, 5, 3, 8)), gram_matrix(F))


def test_the_gram_matrix_of_a_tiled_picture_is_the_same() -> None:
    F = tensor(numbers(1, 5, 4, 6))
    torch.testing.assert_close(gram_matrix(F.repeat(1, 1, 2, 3)), gram_matrix(F))


def test_the_memory_layout_of_features_does_not_matter() -> None:
    F = tensor(numbers(2, 5, 4, 6))
    last = F.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(gram_matrix(last), gram_matrix(F), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("size", [(3, 5), (6, 4), (2, 2)])
@pytest.mark.parametrize("B", [1, 2])
def test_style_is_equation_4(normalize: Normalization, size: tuple[int, int], B: int) -> None:
    F, S = numbers(B, 4, 3, 5), numbers(B, 4, *size, seed=1)
    found = fast_style(tensor(F), tensor(S), normalize)
    assert found.shape == ()
    assert float(found) == pytest.approx(slow_style(F, S, normalize), rel=1e-4)


def test_the_style_of_another_size_counts_as_if_it_had_the_pictures_size() -> None:
    F, S = tensor(numbers(1, 4, 4, 6)), tensor(numbers(1, 4, 2, 3, seed=1))
    for normalize in NORMALIZATIONS:
        tiled = fast_style(F, S.repeat(1, 1, 2, 2), normalize)
        assert float(fast_style(F, S, normalize)) == pytest.approx(float(tiled), rel=1e-5)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_the_gradient_of_style(normalize: Normalization) -> None:
    F, S = numbers(2, 3, 2, 4), numbers(2, 3, 3, 3, seed=1)
    found = gradient_of(lambda x: fast_style(x, tensor(S), normalize), F)
    assert_gradient(found, central_differences(lambda x: slow_style(x, S, normalize), F))


def test_the_gradient_of_the_gram_matrix_for_any_gradient_from_above() -> None:
    F = numbers(1, 3, 2, 4)
    weights = np.random.default_rng(5).normal(size=(3, 3))  # not symmetric
    found = gradient_of(lambda x: (gram_matrix(x)[0] * tensor(weights)).sum(), F)
    expected = central_differences(lambda x: float((slow_gram(x[0]) / 8 * weights).sum()), F)
    assert_gradient(found, expected)


def test_the_gradient_of_the_gram_matrix_passes_gradcheck_as_far_as_float32_goes() -> None:
    F = tensor(numbers(1, 3, 2, 3)).double().requires_grad_()
    assert torch.autograd.gradcheck(gram_matrix, (F,), eps=1e-2, atol=1e-3, rtol=1e-3)


# Both


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_nothing_is_lost_at_the_target(normalize: Normalization) -> None:
    F = numbers(2, 4, 3, 5)
    assert float(content_loss(tensor(F), tensor(F), normalize)) == 0
    assert float(fast_style(tensor(F), tensor(F), normalize)) == 0
    assert not gradient_of(lambda x: content_loss(x, tensor(F), normalize), F).any()
    assert not gradient_of(lambda x: fast_style(x, tensor(F), normalize), F).any()


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_a_loss_is_never_negative(normalize: Normalization) -> None:
    for seed in range(20):
        F, S = tensor(numbers(1, 3, 2, 3, seed=seed)), tensor(numbers(1, 3, 2, 3, seed=seed + 50))
        assert float(content_loss(F, S, normalize)) > 0
        assert float(fast_style(F, S, normalize)) > 0
        assert float(fast_style(F, -F, normalize)) == 0  # products do not see the sign


def test_relative_is_1_for_a_black_feature_map_at_any_scale() -> None:
    for scale in (1e-2, 1.0, 1e3):
        target = tensor(numbers(1, 4, 3, 5) * scale)
        black = torch.zeros_like(target)
        assert float(content_loss(black, target, "relative")) == pytest.approx(1, rel=1e-4)
        assert float(fast_style(black, target, "relative")) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_a_flat_target_gives_finite_numbers(normalize: Normalization) -> None:
    flat = torch.zeros(1, 3, 2, 2)
    for F in (numbers(1, 3, 2, 2), np.zeros((1, 3, 2, 2))):
        assert np.isfinite(float(content_loss(tensor(F), flat, normalize)))
        assert np.isfinite(float(fast_style(tensor(F), flat, normalize)))
        assert np.isfinite(gradient_of(lambda x: content_loss(x, flat, normalize), F)).all()
        assert np.isfinite(gradient_of(lambda x: fast_style(x, flat, normalize), F)).all()


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_bfloat16_features_give_a_float32_loss(normalize: Normalization) -> None:
    F, S = numbers(1, 16, 12, 12), numbers(1, 16, 12, 12, seed=1)
    f, s = tensor(F).bfloat16(), tensor(S).bfloat16()
    for loss, slow in ((content_loss, slow_content), (fast_style, slow_style)):
        found = loss(f, s, normalize)
        assert found.dtype is torch.float32
        assert float(found) == pytest.approx(slow(F, S, normalize), rel=0.05)
    leaf = f.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(fast_style(leaf, s, normalize), leaf)
    assert gradient.dtype is torch.bfloat16
    full = gradient_of(lambda x: fast_style(x, tensor(S), normalize), F)
    error = np.linalg.norm(gradient.double().numpy() - full) / np.linalg.norm(full)
    assert error < 0.05


# Total variation


def picture(*rows: list[float]) -> Tensor:
    """One channel with values, two without any: `(1, 3, H, W)`."""
    x = torch.zeros(1, 3, len(rows), len(rows[0]))
    x[0, 0] = torch.tensor(rows)
    return x


def test_total_variation_by_hand() -> None:
    square = picture([0.0, 0.3], [0.4, 1.0])
    assert float(total_variation(square)) == pytest.approx((0.25 + 0.49 + 0.36) / 12)
    rooted = 0.25**0.625 + 0.49**0.625 + 0.36**0.625
    assert float(total_variation(square, 1.25)) == pytest.approx(rooted / 12, rel=1e-5)
    larger = picture([0.0, 1.0, 1.0], [0.0, 0.5, 1.0], [0.2, 0.5, 0.9])
    squares = [1.0, 0.25, 0.0, 0.5**2 + 0.2**2, 0.25, 0.1**2, 0.3**2, 0.4**2, 0.0]  # per pixel
    assert float(total_variation(larger)) == pytest.approx(sum(squares) / 27)
    rooted = sum(square**0.625 for square in squares)
    assert float(total_variation(larger, 1.25)) == pytest.approx(rooted / 27, rel=1e-5)


def test_the_sum_of_total_variation_in_units_of_255() -> None:
    """Σ(a² + b²)^1.25 over the pixels that have both neighbours, in 0..255 units."""
    x = np.random.default_rng(4).random((1, 3, 5, 7)).astype(np.float32).astype(float)
    y, expected = x * 255, 0.0
    for plane in y[0]:
        for i in range(4):
            for j in range(6):
                a, b = plane[i, j] - plane[i + 1, j], plane[i, j] - plane[i, j + 1]
                expected += (a**2 + b**2) ** 1.25
    found = total_variation(tensor(x), 2.5, reduction="sum", pixel_range=255)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    in_units = total_variation(tensor(x), 2.5, reduction="sum")
    assert float(found / in_units) == pytest.approx(255**2.5, rel=1e-4)  # about a million
    flat = torch.full((1, 3, 4, 4), 0.5)
    assert not gradient_of(
        lambda x: total_variation(x, 2.5, reduction="sum", pixel_range=255), flat.numpy()
    ).any()
    assert float(total_variation(tensor(x[..., :1]), 2.5, reduction="sum")) == 0  # no such pixel


@pytest.mark.parametrize("beta", [2.0, 1.25, 1.0, 3.0])
def test_total_variation_is_equation_5(beta: float) -> None:
    x = np.random.default_rng(3).random((2, 3, 5, 7)).astype(np.float32).astype(float)
    found = total_variation(tensor(x), beta)
    assert found.shape == ()
    assert float(found) == pytest.approx(slow_variation(x, beta), rel=1e-4)


@pytest.mark.parametrize("beta", [2.0, 1.25])
def test_the_gradient_of_total_variation(beta: float) -> None:
    x = np.random.default_rng(4).random((1, 3, 3, 4))
    found = gradient_of(lambda x: total_variation(x, beta), x)
    assert_gradient(found, central_differences(lambda x: slow_variation(x, beta), x))


@pytest.mark.parametrize("beta", [2.0, 1.25])
def test_a_flat_picture_does_not_vary(beta: float) -> None:
    flat = np.full((1, 3, 6, 8), 0.4)
    assert 0 <= float(total_variation(tensor(flat), beta)) < 1e-7
    gradient = gradient_of(lambda x: total_variation(x, beta), flat)
    assert not gradient.any()  # finite, above all


@pytest.mark.parametrize("beta", [2.0, 1.25])
def test_a_line_varies_along_itself(beta: float) -> None:
    line = picture([0.0, 0.5, 0.2])
    expected = (0.5**beta + 0.3**beta) / 9
    assert float(total_variation(line, beta)) == pytest.approx(expected, rel=1e-5)
    assert float(total_variation(line.mT, beta)) == pytest.approx(expected, rel=1e-5)
    assert float(total_variation(line[..., :1], beta)) < 1e-7


def test_total_variation_of_bfloat16_is_float32() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = total_variation(x.bfloat16())
    assert found.dtype is torch.float32
    assert float(found) == pytest.approx(float(total_variation(x)), rel=0.02)


# Second variation


def test_second_variation_by_hand() -> None:
    line = picture([0.0, 0.5, 0.2], [0.0, 0.5, 0.2])
    across = 1.0**2 + 0.8**2 + 0.6**2  # 0.5 0 0.5, 0 0.5 0.2, 0.5 0.2 0.5
    assert float(second_variation(line)) == pytest.approx(2 * across / 18)
    assert float(second_variation(line.mT)) == pytest.approx(2 * across / 18)


@pytest.mark.parametrize("size", [(5, 7), (2, 2), (3, 2)])
def test_second_variation_is_its_definition(size: tuple[int, int]) -> None:
    x = np.random.default_rng(3).random((2, 3, *size)).astype(np.float32).astype(float)
    found = second_variation(tensor(x))
    assert found.shape == ()
    assert float(found) == pytest.approx(slow_second_variation(x), rel=1e-5)


def test_the_gradient_of_second_variation() -> None:
    x = np.random.default_rng(4).random((1, 3, 3, 4))
    assert_gradient(gradient_of(second_variation, x), central_differences(slow_second_variation, x))


def test_second_variation_weighs_ripple_and_spares_slopes_and_edges() -> None:
    j = torch.arange(32.0)
    slope, edge, ripple = j / 31, (j > 15).float(), 0.5 + 0.1 * (-1) ** j
    second, first = (
        [float(f(row.expand(1, 3, 32, 32))) for row in (slope, edge, ripple)]
        for f in (second_variation, total_variation)
    )
    assert second[0] < 0.01 * second[2]
    assert second[2] / first[2] > 1.9 * second[1] / first[1]
    flat = torch.full((1, 3, 8, 8), 0.4)
    assert float(second_variation(flat)) == 0
    assert not gradient_of(second_variation, flat.double().numpy()).any()


def test_second_variation_of_bfloat16_is_float32() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = second_variation(x.bfloat16())
    assert found.dtype is torch.float32
    assert float(found) == pytest.approx(float(second_variation(x)), rel=0.02)
