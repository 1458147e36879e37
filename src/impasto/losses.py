"""What the optimiser minimises: content, style and total variation, as pure functions.

The letters are those of Gatys et al. 2015: a layer has N channels (feature maps) and M = h·w
positions; F is its feature matrix (N × M) for the picture at hand, P the photo's, G = F Fᵀ the
Gram matrix (their eq. 3) and A the style's. In tensors, features are `(B, N, h, w)` with a batch
B, Gram matrices `(B, N, N)`. Everything returns a scalar, in float32 whatever the features are.

Several normalisations are in use in the literature, and one is ours:

- `sum`: Σ(F−P)² and Σ(G−A)², nothing divided (as many programs do).
- `mean`: divided by the number of terms, NM for content (Johnson et al. 2016, eq. 2) and N² for
  style, where G is the mean over positions, F Fᵀ/M.
- `gatys`: ½Σ(F−P)² (Gatys et al. 2015, eq. 1) and Σ(G−A)²/(4N²M²) (eq. 4).
- `keras`: Σ(F−P)², and Σ(G−A)²/(4·3²·(H·W)²) with the picture's own 3 channels and H·W pixels in
  the place of the layer's N and M.
- `fastai`: means, where G is divided by N too, F Fᵀ/(NM), as in Johnson et al. 2016, eq. 3.
- `relative`: divided by the energy of the target, ΣP² and ΣA². It has no unit: 0 is a perfect
  match and 1 what a black feature map would score, in every layer, network and size. So weights
  mean the same everywhere, which the others do not give; the default preset uses it.

Gram matrices are kept as means over positions, so that a style picture may have another size than
the photo; where a formula wants the sum (`sum`, `gatys`, `keras`), M is that of the picture at
hand. For pictures of equal size this is the formula to the letter.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.settings import Normalization, Reduction

__all__ = ["content_loss", "gram_matrix", "second_variation", "style_loss", "total_variation"]

_TINY = 1e-12  # keeps a flat target's energy from dividing by zero


def gram_matrix(features: Tensor) -> Tensor:
    """The Gram matrix as a mean over positions: F Fᵀ / M.

    Gatys et al. 2015, eq. 3, over M; Johnson et al. 2016, eq. 3, is this over N.

    Args:
        features: `(B, N, h, w)`.

    Returns:
        `(B, N, N)`, float32.
    """
    result: Tensor = _Gram.apply(features)  # type: ignore[no-untyped-call]
    return result


class _Gram(torch.autograd.Function):
    """F Fᵀ/M. The result is symmetric, so one product is gradient enough.

    On the CPU both products are written as 1×1 convolutions: F Fᵀ is the weight gradient of one
    whose input and output gradient are F. On channels-last features the convolution kernels are
    twice as fast as the matrix product, which `benchmarks/loss_and_gradient.py` shows.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        N, M = features.shape[1], features[0, 0].numel()
        ctx.save_for_backward(features)
        if features.device.type == "cpu":
            weight = features.new_empty(N, N, 1, 1)  # only its shape is read
            products = [_weight_gradient(f, f, weight) for f in torch.split(features, 1)]
            return torch.stack(products).view(-1, N, N).float() / M
        flat = features.flatten(2)
        return (flat @ flat.mT).float() / M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        N, M = features.shape[1], features[0, 0].numel()
        symmetric = ((gradient + gradient.mT) / M).to(features.dtype)
        if features.device.type == "cpu":
            weights = symmetric.view(-1, N, N, 1, 1)
            pairs = zip(torch.split(features, 1), weights, strict=True)
            products = [F.conv2d(f, weight) for f, weight in pairs]
            return products[0] if len(products) == 1 else torch.cat(products)
        result: Tensor = (symmetric @ features.flatten(2)).view_as(features)
        return result


def _weight_gradient(x: Tensor, gradient: Tensor, weight: Tensor) -> Tensor:
    """The gradient of a 1×1 convolution's weight."""
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [False, True, False]
    )[1]
    return result


def content_loss(features: Tensor, target: Tensor, normalize: Normalization = "mean") -> Tensor:
    """The squared error of feature maps (Gatys et al. 2015, eq. 1; Johnson et al. 2016, eq. 2).

    Args:
        features: `(B, N, h, w)`, of the picture at hand.
        target: the same shape, of the photo.
        normalize: what it is divided by; see the module.

    Returns:
        A scalar, float32, never negative.
    """
    difference = (features - target).float()
    squared = difference.square().sum()
    match normalize:
        case "sum" | "keras":
            return squared
        case "mean" | "fastai":
            return squared / features.numel()
        case "gatys":
            return squared / 2
        case "relative":
            return squared / (target.float().square().sum() + _TINY)


def style_loss(
    gram: Tensor,
    target: Tensor,
    positions: int,
    normalize: Normalization = "mean",
    *,
    pixels: int = 0,
) -> Tensor:
    """The squared Frobenius distance of two Gram matrices.

    Gatys et al. 2015, eq. 4; Johnson et al. 2016, eq. 4.

    Args:
        gram: `(B, N, N)` of the picture at hand, as `gram_matrix` gives it.
        target: the same shape, of the style.
        positions: M, the number of positions of the layer in the picture at hand.
        normalize: what it is divided by; see the module.
        pixels: H·W of the picture at hand; only `keras` asks for it.

    Returns:
        A scalar, float32, never negative.
    """
    squared = (gram - target).square().sum()
    match normalize:
        case "sum":
            return squared * positions**2
        case "mean":
            return squared / gram.numel()
        case "gatys":  # Σ(G−A)²/(4N²M²), where the sums' M² and the divisor's cancel
            return squared / (4 * gram.shape[-1] ** 2)
        case "keras":
            return squared * (positions / pixels) ** 2 / (4 * 3**2)
        case "fastai":
            return squared / (gram.shape[-1] ** 2 * gram.numel())
        case "relative":
            return squared / (target.square().sum() + _TINY)


def total_variation(
    picture: Tensor, beta: float = 2.0, *, reduction: Reduction = "mean", pixel_range: int = 1
) -> Tensor:
    """Σ((x[i+1,j] − x[i,j])² + (x[i,j+1] − x[i,j])²)^(β/2), or its mean over all values.

    Mahendran & Vedaldi 2015, eq. 5 (Johnson et al. 2016, section 3.2, use it with β = 2). The mean
    makes a weight mean the same at every size. There, where the right or lower neighbour is missing
    that difference counts as 0: every pair in the picture has its say, those along the last row and
    column too. The sum runs over the pixels that have both neighbours.

    Args:
        picture: `(B, 3, H, W)`, sRGB in [0, 1].
        beta: 2 is smooth everywhere; towards 1 it spares edges.
        reduction: `mean` or `sum`.
        pixel_range: 1, or 255 to measure pixels in those units.

    Returns:
        A scalar, float32, never negative.
    """
    x = picture.float() * pixel_range if pixel_range != 1 else picture.float()
    down = (x[..., 1:, :] - x[..., :-1, :]).square()
    right = (x[..., 1:] - x[..., :-1]).square()
    if reduction == "sum":
        return _power(down[..., :-1] + right[..., :-1, :], beta).sum()
    if beta == 2:
        return (down.sum() + right.sum()) / x.numel()
    return _power(F.pad(down, (0, 0, 0, 1)) + F.pad(right, (0, 1)), beta).sum() / x.numel()


def _power(squares: Tensor, beta: float) -> Tensor:
    """`squares` to the power β/2, with a gradient at 0 too."""
    return squares if beta == 2 else (squares + _TINY) ** (beta / 2)


def second_variation(picture: Tensor) -> Tensor:
    """Σ(x[i+1,j] − 2x[i,j] + x[i−1,j])² + the same along rows, over the number of values.

    The squared second differences, as in the second-order variation of Chambolle & Lions 1997,
    section 4. Beside total variation it weighs a ripple of 2 to 3 px many times heavier than an
    edge or a slope: it takes out what the network cannot see and leaves the strokes. The picture
    is mirrored at its border.

    Args:
        picture: `(B, 3, H, W)`, sRGB in [0, 1], H and W at least 2.

    Returns:
        A scalar, float32, never negative.
    """
    x = picture.float()
    p = F.pad(x, (1, 1, 1, 1), mode="reflect")
    down = p[..., 2:, 1:-1] - 2 * x + p[..., :-2, 1:-1]
    right = p[..., 1:-1, 2:] - 2 * x + p[..., 1:-1, :-2]
    return (down.square().sum() + right.square().sum()) / x.numel()
