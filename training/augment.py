"""What a picture becomes before it is learnt from: parts of it, other colours, flat areas."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crops", "flattened", "in_bands", "in_cells", "in_few_colors", "other_colors"]


def crops(
    x: Tensor,
    side: int,
    *,
    turned: float = 0.0,
    enlarged: float = 1.2,
    smallest: float = 0.0,
) -> Tensor:
    """A random part of each picture, at a random scale, mirrored or not.

    Args:
        x: `(N, 3, H, W)`.
        side: of the result, px.
        turned: the share of the pictures that are also turned, by any angle.
        enlarged: the most that a pixel may grow, in px.
        smallest: the least that a pixel may become, in px: at 1, marks are at least as large as in
            the picture, of which a smaller part is seen. At 0, all of the picture may be. No more
            than `enlarged`.
    """
    N, device = len(x), x.device
    whole = min(x.shape[-2:]) / side  # half a picture's extent is 1; this is 1 px for 1 px
    least = min(1.0, 1 / (enlarged * whole))
    angle = torch.empty(N, device=device).uniform_(-math.pi, math.pi)
    angle = angle * (torch.rand(N, device=device) < turned)
    highest = max(least, min(1.0, 1 / max(smallest * whole, 1e-9)))
    most = (1 / (angle.cos().abs() + angle.sin().abs())).clamp(min=least, max=highest)
    share = least * (most / least) ** torch.rand(N, device=device)
    flip = torch.randint(0, 2, (N,), device=device) * 2 - 1
    room = (1 - share * (angle.cos().abs() + angle.sin().abs())).clamp(min=0)
    shift = torch.empty(N, 2, device=device).uniform_(-1, 1) * room[:, None]
    rows = torch.stack(
        (
            torch.stack((share * angle.cos() * flip, -share * angle.sin(), shift[:, 0]), 1),
            torch.stack((share * angle.sin() * flip, share * angle.cos(), shift[:, 1]), 1),
        ),
        1,
    )
    grid = F.affine_grid(rows, [N, 3, side, side], align_corners=False)
    small = F.grid_sample(x, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return small.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def other_colors(x: Tensor, share: float) -> Tensor:
    """A share of the pictures with channels mixed, inverted, in other contrast, each its way."""
    N, device = len(x), x.device
    mix = torch.eye(3, device=device) + 0.25 * torch.randn(N, 3, 3, device=device)
    order = torch.stack([torch.randperm(3, device=device) for _ in range(N)])
    mix = torch.gather(mix, 1, order[:, :, None].expand(N, 3, 3))
    mix = mix / mix.sum(2, keepdim=True).clamp(min=0.5)  # grey stays about grey
    sign = (torch.rand(N, 1, 1, 1, device=device) < 0.3).float() * -2 + 1
    gamma = torch.exp(0.3 * torch.randn(N, 1, 1, 1, device=device))
    gain = torch.exp(0.4 * torch.randn(N, 1, 1, 1, device=device)).clamp(0.7, 2.5)
    changed = torch.einsum("nij,njhw->nihw", mix, (x - 0.5) * sign * gain) + 0.5
    changed = changed.clamp(1e-4, 1) ** gamma
    chosen = torch.rand(N, 1, 1, 1, device=device) < share
    return torch.where(chosen, changed, x).contiguous(memory_format=torch.channels_last)


def in_few_colors(x: Tensor) -> Tensor:
    """Each picture in two to six of its own colours, some with outlines, some hatched.

    A pixel takes the nearest of the colours, after a blur of 1 to 9 px, so areas are flat and their
    edges hard. Hatching puts stripes of the next colour into every second area, at an angle and a
    width of its own.
    """
    made = []
    for picture in x:
        side, device = picture.shape[-1], x.device
        width = 1 + 2 * int(torch.randint(0, 5, ()))
        soft = F.avg_pool2d(picture[None], width, 1, width // 2, count_include_pad=False)[0]
        count = int(torch.randint(2, 7, ()))
        picked = torch.randint(0, side * side, (count,), device=device)
        colors = picture.flatten(1)[:, picked].T  # (count, 3)
        label = torch.cdist(soft.flatten(1).T, colors).argmin(1).view(side, side)
        shown = label
        if torch.rand(()) < 0.4:
            shown = torch.where(
                stripes(side, device) & (label % 2 == 0), (label + 1) % count, label
            )
        flat = colors[shown].permute(2, 0, 1)
        made.append(outlined(flat, label) if torch.rand(()) < 0.4 else flat)
    return torch.stack(made)


def in_cells(x: Tensor) -> Tensor:
    """Each picture in cells of one colour each, some with outlines: those nearest to a point."""
    made = []
    for picture in x:
        side, device = picture.shape[-1], x.device
        count = int(torch.randint(8, 120, ()))
        points = torch.rand(count, 2, device=device) * side
        axis = torch.arange(side, device=device, dtype=torch.float32) + 0.5
        pixels = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
        label = torch.cdist(pixels.view(-1, 2), points).argmin(1).view(side, side)
        row, column = points.long().clamp(max=side - 1).T
        flat = picture[:, row, column][:, label]
        made.append(outlined(flat, label) if torch.rand(()) < 0.6 else flat)
    return torch.stack(made)


def in_bands(x: Tensor) -> Tensor:
    """Each picture in bands of two to six colours, its own or any, that repeat after a while.

    They are 2 to 30 px wide, hard or soft at their edges, straight or slightly bent, and lie along
    a side of the picture or at an angle.
    """
    made = []
    for picture in x:
        side, device = picture.shape[-1], x.device
        count, bands = int(torch.randint(2, 7, ())), int(torch.randint(2, 25, ()))
        picked = torch.randint(0, side * side, (count,), device=device)
        colors = picture.flatten(1)[:, picked]  # (3, count)
        if torch.rand(()) < 0.4:
            colors = torch.rand_like(colors)
        order = torch.randint(0, count, (bands,), device=device)
        order[:2] = torch.arange(2)  # not one colour alone
        widths = 2 * 15 ** (torch.rand(()) * torch.rand(bands, device=device))
        profile = colors[:, order.repeat_interleave((2 * widths).long())]  # a value for half a px
        soft = 1 + 2 * int(torch.rand(()).square() * 8)
        wide = F.pad(profile[None], (soft // 2, soft // 2), mode="circular")
        profile = F.avg_pool1d(wide, soft, 1)[0]
        turns = torch.rand(()) if torch.rand(()) < 0.5 else torch.randint(0, 2, ()) / 2
        waves = waved(side, device, turns, torch.rand(()) * (torch.rand(()) < 0.4))
        shown = profile[:, (2 * waves).long() % profile.shape[1]]
        grain = 0.02 * torch.rand(()) * torch.randn_like(shown)
        made.append((shown + grain).clamp(0, 1))
    return torch.stack(made)


def stripes(side: int, device: torch.device) -> Tensor:
    """Stripes of 3 to 11 px with as much between them, slightly bent: `(side, side)`, yes or no."""
    angle, period, bend = torch.rand(3, device=device)
    waves = waved(side, device, angle, bend)
    on: Tensor = (waves * math.pi / (3 + 8 * period)).sin() > 0
    return on


def waved(side: int, device: torch.device, turns: Tensor, bend: Tensor) -> Tensor:
    """How far a pixel is across, px, at so many half turns, in waves of 12 px where bend is 1."""
    axis = torch.arange(side, device=device, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    cos, sin = (turns * math.pi).cos(), (turns * math.pi).sin()
    return x * cos + y * sin + 12 * bend * ((y * cos - x * sin) / 40).sin()


def outlined(flat: Tensor, label: Tensor) -> Tensor:
    """Areas with dark, or now and then bright, lines of 4 or 6 px between them.

    Args:
        flat: `(3, side, side)`.
        label: of the area, `(side, side)`.
    """
    edge = torch.zeros_like(label, dtype=flat.dtype)
    edge[:, 1:] += label[:, 1:] != label[:, :-1]
    edge[1:] += label[1:] != label[:-1]
    width = 3 + 2 * int(torch.randint(0, 2, ()))
    line = F.max_pool2d(edge.clamp(max=1)[None, None], width, 1, width // 2)[0]
    ink = flat.new_full((3, 1, 1), 0.08 if torch.rand(()) < 0.8 else 0.95)
    return torch.lerp(flat, ink.expand_as(flat), line)


def flattened(x: Tensor, share: float, banded: float = 0.0) -> Tensor:
    """A share of the pictures in flat colours: three in five of few colours, others in cells.

    And a further share, `banded`, in bands. They are drawn at twice the size, so that edges are
    smooth.
    """
    drawn = torch.rand(len(x), device=x.device)
    made = x.clone(memory_format=torch.channels_last)
    for change, taken in (
        (in_few_colors, drawn < 0.6 * share),
        (in_cells, (0.6 * share <= drawn) & (drawn < share)),
        (in_bands, (share <= drawn) & (drawn < share + banded)),
    ):
        if taken.any():
            double = F.interpolate(x[taken], scale_factor=2, mode="bilinear", align_corners=False)
            made[taken] = F.avg_pool2d(change(double), 2)
    return made
