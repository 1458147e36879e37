"""The recipe of the network that paints in one pass (`impasto.fast`).

    python -m training.fast --data FOLDER --out RUN [--resume]

FOLDER holds pictures, in any folders: photos, paintings, textures. `tiny-imagenet` is too small and
is left out. RUN gets the log, checkpoints, sheets, and at the end `fast.safetensors`. See
training/README.md.

What is learnt is what the optimiser minimises, with its default layers and weights: the content
loss and the Gram matrices' distance on the bundled encoder, and the second variation, which keeps
down a ripple. So one pass gives what many steps would. Beside it:

- means and deviations of deep layers (Huang & Belongie 2017, eq. 12), which pull evenly at all
  channels;
- in a share of the pictures the style is the photo itself, and the result has to be the photo
  (Park & Lee 2019, section 3.2, identity loss);
- values outside of [0, 1] cost.

A photo and a style are random crops at random scales, turned and mirrored; a style's colours are
mixed by a random matrix, so that no palette is rare. A share of the styles comes from drawings, if
there are any (`training.drawn`), and a share is made flat in colour and hard at its edges: marks as
of woodcuts, stained glass and posters, of which other pictures have few.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.average import Average
from impasto.encoder import Encoder
from impasto.errors import ImpastoError
from impasto.fast.network import DEPTHS, FORM, LOOKS, STRIDE, FastNetwork
from impasto.fast.style import FastStyle
from impasto.files import atomic_path
from impasto.foreign import Weights, write_weights
from impasto.images import Picture, save_image
from impasto.losses import gram_matrix, second_variation
from impasto.settings import TransferSettings
from impasto.shuffle import Shuffle
from impasto.trainer import Length, Moment, Part, train
from training.datasets import Pictures, style_label, style_pictures
from training.muon import Muon
from training.program import begin, chosen, make_parser

OBJECTIVE = TransferSettings()
"""Whose layers and weights are learnt."""

MOMENTS = ("relu3_1", "relu4_1", "relu5_1")
"""Where means and deviations are compared."""


PHOTOS_ENLARGED = 1.7
"""The most px that a photo's pixel becomes: at 512 px many photos have no finer detail.

Styles are hardly enlarged: that would teach the network to blur."""


@dataclass(frozen=True)
class Options:
    """Everything that makes a run what it is; each is a flag.

    Attributes:
        widths: channels of the decoder at full size, 1/2, 1/4 and 1/8.
        images: pictures to paint.
        batch: pictures per step.
        side: of the pictures, px, a multiple of 32.
        late_side: of the pictures in the last part of the run, px, likewise.
        late: the share of the run from which on they have that side, and the rate falls.
        rate: highest rate, of Muon for matrices and of Adam for biases and the last layer.
        linear: the rate of linear layers, which turn a style into gains, as a share of that: all of
            their 256 inputs move a result at once (Karras et al. 2019, appendix C, take 0.01).
        style: weight of the style loss, that of content being 1.
        moments: weight of means and deviations.
        identity: weight of giving a photo back whose style is its own.
        own: share of the pictures whose style is their own.
        drawn: share of the styles that come from the folder `drawn`; see `training.drawn`.
        flat: share of the styles that are made of flat colours.
        outside: weight of values outside of [0, 1].
        warm_start: an exported network to begin with; empty for random weights.
        seed: of every random draw.
    """

    widths: str = "16,32,64,128"
    images: int = 120_000
    batch: int = 8
    side: int = 128
    late_side: int = 192
    late: float = 0.8
    rate: float = 5e-4
    linear: float = 0.3
    style: float = OBJECTIVE.style_weight
    moments: float = 0.3
    identity: float = 30.0
    own: float = 0.1
    drawn: float = 0.35
    flat: float = 0.2
    outside: float = 10.0
    warm_start: str = ""
    seed: int = 0


# --- Pictures -------------------------------------------------------------------------------------


def crops(x: Tensor, side: int, *, turned: bool, enlarged: float = 1.2) -> Tensor:
    """A random part of each picture, at a random scale, mirrored or not.

    Args:
        x: `(N, 3, H, W)`.
        side: of the result, px.
        turned: whether it may also be turned, by any angle.
        enlarged: the most that a pixel may grow, in px.
    """
    N, device = len(x), x.device
    whole = min(x.shape[-2:]) / side  # half a picture's extent is 1; this is 1 px for 1 px
    least = min(1.0, 1 / (enlarged * whole))
    angle = torch.empty(N, device=device).uniform_(-math.pi, math.pi) * float(turned)
    most = (1 / (angle.cos().abs() + angle.sin().abs())).clamp(min=least)
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


def other_colors(x: Tensor) -> Tensor:
    """Half of the pictures with channels mixed, inverted, in other contrast, each its way."""
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
    chosen = torch.rand(N, 1, 1, 1, device=device) < 0.5
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


def stripes(side: int, device: torch.device) -> Tensor:
    """Stripes of 3 to 11 px with as much between them, slightly bent: `(side, side)`, yes or no."""
    axis = torch.arange(side, device=device, dtype=torch.float32)
    angle, period, bend = torch.rand(3, device=device)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    across = x * (angle * math.pi).cos() + y * (angle * math.pi).sin()
    along = y * (angle * math.pi).cos() - x * (angle * math.pi).sin()
    waves = across + 12 * bend * (along / 40).sin()
    on: Tensor = (waves * math.pi / (3 + 8 * period)).sin() > 0
    return on


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


def flattened(x: Tensor, share: float) -> Tensor:
    """A share of the pictures in flat colours: three in five of few colours, others in cells.

    They are drawn at twice the size, so that edges are smooth.
    """
    drawn = torch.rand(len(x), device=x.device)
    made = x.clone(memory_format=torch.channels_last)
    for change, taken in (
        (in_few_colors, drawn < 0.6 * share),
        (in_cells, (0.6 * share <= drawn) & (drawn < share)),
    ):
        if taken.any():
            double = F.interpolate(x[taken], scale_factor=2, mode="bilinear", align_corners=False)
            made[taken] = F.avg_pool2d(change(double), 2)
    return made


# --- What is learnt -------------------------------------------------------------------------------


def relative(error: Tensor, energy: Tensor, values: int) -> Tensor:
    """The error over the energy, per picture; where it is far above 1 only its root counts.

    Args:
        error: sums of squares, `(N,)`.
        energy: of what was to be reached, likewise.
        values: how many were summed. The encoder's features are 1 on average; a flat picture, whose
            features are nearly 0, is not taken for more than a hundred times as important.
    """
    ratio = error / (energy + 0.01 * values)
    return 2 * ((1 + ratio).sqrt() - 1)


class Judge:
    """The optimiser's default objective, for batches.

    Args:
        encoder: the network that looks.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.content, self.style = OBJECTIVE.content_layers, OBJECTIVE.style_layers
        self.layers = list(dict.fromkeys([*self.style, *self.content]))

    def look(self, x: Tensor) -> dict[str, Tensor]:
        """The features that losses compare."""
        return self.encoder(x, self.layers)

    def losses(
        self, x: Mapping[str, Tensor], photo: Mapping[str, Tensor], style: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`content`, `style` and `moments`, per picture, `(N,)`."""
        total = sum(self.content.values())
        content = torch.stack([
            share / total * relative(
                (x[name] - photo[name]).float().square().sum((1, 2, 3)),
                photo[name].float().square().sum((1, 2, 3)),
                photo[name][0].numel(),
            )
            for name, share in self.content.items()
        ]).sum(0)  # fmt: skip
        total = sum(self.style.values())
        grams, moments = [], []
        for name, share in self.style.items():
            G, A = gram_matrix(x[name]), gram_matrix(style[name])
            grams.append(
                share
                / total
                * relative((G - A).square().sum((1, 2)), A.square().sum((1, 2)), A[0].numel())
            )
            if name not in MOMENTS:
                continue
            (a, da), (b, db) = (_moments(each[name]) for each in (x, style))
            spread = (b.square() + db.square()).sum(1)
            moments.append(
                relative((a - b).square().sum(1) + (da - db).square().sum(1), spread, b.shape[1])
            )
        return {
            "content": content,
            "style": torch.stack(grams).sum(0),
            "moments": torch.stack(moments).mean(0),
        }


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    x = features.float()
    mean = x.mean((2, 3))
    return mean, ((x - mean[..., None, None]).square().mean((2, 3)) + 1e-6).sqrt()


class Recipe:
    """One run: its network, its optimiser, and what a step is.

    Attributes:
        net: the network in training.
        average: its average, which is what is exported.
        parts: everything with a state, for `train`.
    """

    def __init__(
        self,
        options: Options,
        pictures: Pictures,
        device: torch.device,
        dtype: torch.dtype,
        drawn: int | None = None,
    ) -> None:
        if options.side % STRIDE or options.late_side % STRIDE:
            raise ImpastoError(f"sides are multiples of {STRIDE} px; change --side, --late-side")
        self.options, self.pictures = options, pictures
        self._drawn = torch.from_numpy((pictures.labels == drawn).nonzero()[0])
        torch.manual_seed(options.seed)
        exact = Encoder.load(OBJECTIVE.encoder)
        net = FastNetwork(exact, four(options.widths)).to(device)
        if options.warm_start:
            net.load_state_dict(FastStyle.load(options.warm_start).network.state_dict())
        net.sums = torch.float32
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.judge = Judge(Encoder.load(OBJECTIVE.encoder, device=device, dtype=dtype))
        shares = {
            parameter: options.linear if isinstance(module, nn.Linear) else 1.0
            for module in self.net.modules()
            for parameter in module.parameters(recurse=False)
        }
        last = {self.net.decoder(look).out.conv.weight for look in range(LOOKS)}
        matrices = [p for p in shares if p.ndim > 1 and p not in last]
        others = [p for p in shares if p.ndim == 1 or p in last]
        self.muon = Muon({"params": [p], "share": shares[p]} for p in matrices)
        self.adam = torch.optim.Adam([{"params": [p], "share": shares[p]} for p in others])
        self.average = Average(self.net, half_life=min(4_000, options.images / 12))
        self.parts: dict[str, Part] = {
            "net": self.net,
            "muon": self.muon,
            "adam": self.adam,
            "average": self.average,
        }
        count = len(pictures.labels)
        self._photos, self._styles = Shuffle(count, options.seed), Shuffle(count, options.seed + 1)

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        """Trains on one batch."""
        options, N = self.options, self.options.batch
        side = options.side if at.done < options.late else options.late_side
        photos, _ = self.pictures.take(self._photos.indices(at.seen, N), at.device)
        styles, _ = self.pictures.take(self._style_indices(at.seen), at.device)
        photos = crops(photos, side, turned=False, enlarged=PHOTOS_ENLARGED)
        styles = flattened(other_colors(crops(styles, side, turned=True)), options.flat)
        own = torch.rand(N, device=at.device) < options.own
        styles = torch.where(own[:, None, None, None], photos, styles)
        with torch.no_grad():
            kept, aims = self.judge.look(photos), self.judge.look(styles)
        features = {name: aims[layer].float() for name, layer in DEPTHS.items()}
        with at.autocast():
            x = self.net(photos, self.net.describe(styles, features))
        x = x.float()
        shown = x.clamp(0, 1)  # as it will be; what is beyond counts below
        losses = self.judge.losses(self.judge.look(shown), kept, aims)
        objective = (
            OBJECTIVE.content_weight * losses["content"]
            + options.style * losses["style"]
            + options.moments * losses["moments"]
        )
        identity = own.float() * (x - photos).abs().mean((1, 2, 3))
        outside = (x - x.clamp(0, 1)).square().mean()
        ripple = second_variation(x)
        loss = (
            objective.mean()
            + options.identity * identity.mean()
            + options.outside * outside
            + OBJECTIVE.ripple_weight * ripple
        )
        self._descend(loss, rate_at(at.done, options.rate, options.late))
        others = ~own
        count = others.sum().clamp(min=1)
        metrics = {name: (value * others).sum() / count for name, value in losses.items()}
        return {
            "loss": loss,
            **metrics,
            "identity": identity.sum() / own.sum().clamp(min=1),
            "ripple": ripple,
        }

    def _style_indices(self, seen: int) -> Tensor:
        """Which pictures are the styles of a batch: a share of it are drawn ones."""
        N = self.options.batch
        found = self._styles.indices(seen, N)
        if not len(self._drawn):
            return found
        drawn = self._drawn[torch.randint(len(self._drawn), (N,))]
        return torch.where(torch.rand(N) < self.options.drawn, drawn, found)

    def _descend(self, loss: Tensor, rate: float) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        for optimizer in (self.muon, self.adam):
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.step()
            optimizer.zero_grad()
        self.average.update(self.net, self.options.batch)


def rate_at(done: float, highest: float, late: float) -> float:
    """The rate after a share of the run: a short rise, then constant, from `late` on down to 0."""
    rise = 0.01
    if done < rise:
        return highest * max(done, 1e-4) / rise
    return highest * min(1.0, (1 - done) / max(1 - late, 1e-9))


def four(text: str) -> tuple[int, int, int, int]:
    """Numbers from `16,32,64,128`."""
    a, b, c, d = (int(number) for number in text.split(","))
    return a, b, c, d


# --- What comes out -------------------------------------------------------------------------------


@torch.no_grad()
def sheet(net: FastNetwork, pictures: Pictures, device: torch.device) -> Picture:
    """Eight pictures, each in the style of three others: the same ones each time."""
    net.eval()
    count = len(pictures.labels)
    chosen = torch.arange(8) * (count // 8) + count // 16
    photos, _ = pictures.take(chosen, device)
    rows = [photos]
    for turn in (3, 5, 6):
        styles = photos.roll(turn, 0)
        painted = net(photos, net.style(styles)).clamp(0, 1)
        painted[..., :64, :64] = F.avg_pool2d(styles, 4)
        rows.append(painted)
    lines = [torch.cat(list(row), 2) for row in rows]
    return Picture.from_tensor(torch.cat(lines, 1)[None].float().cpu())


def export(net: FastNetwork, options: Options, path: Path, **facts: str) -> None:
    """Writes the network as float16."""
    weights = {name: value.half().cpu() for name, value in net.state_dict().items()}
    del weights["noise"]
    metadata = {
        "kind": "fast",
        "widths": options.widths,
        "form": FORM,
        "encoder": net.encoder.name,
        "encoder_sha256": net.encoder.sha256,
        "recipe": json.dumps(
            dataclasses.asdict(options) | {"warm_start": Path(options.warm_start).name}
        ),
        **facts,
    }
    with atomic_path(path) as temporary:
        write_weights(temporary, Weights(weights, metadata))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, and exports what came out."""
    parser = make_parser(__doc__, Options)
    given = parser.parse_args(arguments)
    options = chosen(given, Options)
    place = begin(given)
    pictures = style_pictures(given.data, place.cache)
    drawn = style_label(place.cache, "drawn")
    recipe = Recipe(options, pictures, place.device, place.dtype, drawn)
    batch = options.batch
    run = train(
        recipe.parts,
        recipe.step,
        Length(options.images, batch, given.log_every * batch, 4_000, options.seed),
        given.out,
        config=dataclasses.asdict(options),
        resume=given.resume,
        device=place.device,
        dtype=place.dtype,
        stop=place.stop,
    )
    net = recipe.average.module
    assert isinstance(net, FastNetwork)
    for report in run:
        for note in report.notes:
            print(note, flush=True)
        print(json.dumps(report.record()), flush=True)
        if report.saved and report.seen:
            save_image(
                sheet(net, pictures, place.device), given.out / f"sheet-{report.seen:07d}.png"
            )
            export(net, options, given.out / "fast.safetensors", images=str(report.seen))


if __name__ == "__main__":
    main()
