"""The recipe of the network that paints in one pass (`impasto.fast`).

    python -m training.fast --data FOLDER --out RUN [--resume]

On a CPU, a process for each core is quicker than one of several threads:

    torchrun --nproc-per-node 2 -m training.fast --threads 1 --data FOLDER --out RUN [--resume]

FOLDER holds folders of pictures; `photos` and `styles` below say how often one comes from which.
RUN gets the log, checkpoints, sheets, and at the end `fast.safetensors`. See training/README.md.

What is learnt is what the optimiser minimises, with its default layers and weights: the content
loss and the Gram matrices' distance on the bundled encoder, over what they are for the photo
itself, so that every pair counts as much; and the second variation, which keeps down a ripple. So
one pass gives what many steps would. Beside it:

- the same for the draft, at half the size, which is of use while the second look is not: in the end
  a draft has to be good for what is made of it;
- means and deviations of deep layers (Huang & Belongie 2017, eq. 12), which pull evenly at all
  channels;
- in a share of the pictures the style is the photo itself, and the result has to be the photo
  (Park & Lee 2019, section 3.2, identity loss);
- values outside of [0, 1] cost.

A photo and a style are random crops at random scales, mirrored or not. Half of the styles are as
they are found; others are turned, get other colours, or are made flat in colour and hard at their
edges: marks as of woodcuts, stained glass and posters, of which other pictures have few. Photos are
most of the pictures, but seldom a style: they have few marks.
"""

import dataclasses
import json
import math
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.average import Average
from impasto.encoder import Encoder
from impasto.errors import ImpastoError
from impasto.fast.decoder import Modulated
from impasto.fast.network import FORM, HALF, LOOKS, MOMENTS, STRIDE, FastNetwork, halved
from impasto.fast.style import FastStyle
from impasto.files import atomic_path
from impasto.foreign import Weights, write_weights
from impasto.images import Picture, save_image
from impasto.losses import second_variation
from impasto.parallel import World, join
from impasto.seeds import derive_seed
from impasto.trainer import Length, Moment, Part, train
from training.augment import crops, flattened, other_colors
from training.datasets import STYLE_SIDE, Pictures, chances, style_pictures
from training.judge import OBJECTIVE, Judge, Seen
from training.muon import Muon
from training.program import Place, begin, chosen, in_one_line, make_parser

USUAL, LEAST, MOST = 8.0, 3.0, 16.0
"""The objective of a photo: as it mostly is, and the least and the most that it is taken for.

A pair in which it is `USUAL` counts as it is. One in which the style is the photo, where it is 0,
counts `USUAL / LEAST` times."""


@dataclass(frozen=True)
class Options:
    """Everything that makes a run what it is; each is a flag.

    Attributes:
        widths: channels of the decoder at full size, 1/2, 1/4 and 1/8.
        images: pictures to paint.
        pairings: how often the photos of a batch are painted, each time paired with other styles of
            it: what losses see in both, a quarter of the work, is found once.
        batch: pictures at once, over all processes.
        cut: the side of the squares that pictures are cut to and kept at, px, a multiple of 32; at
            most twice `side`, or fine detail aliases, unless `smallest` is 1. Smaller pictures are
            enlarged to it.
        side: of the pictures, px, a multiple of 32.
        late_side: of the pictures in the last part of the run, px, likewise.
        late: the share of the run from which on they have that side, and the rate falls.
        rate: highest rate, of Muon for matrices and of Adam for biases and the last layer.
        momentum: share of the old gradients that Muon keeps. A step of a few pictures is mostly
            chance, and Muon makes chance as long as what is known: the smaller the batch, the more
            is to be kept.
        half_life: of the average that is exported, in pictures, each pairing counted; 0 for a
            twelfth of the run, at most 4,000.
        linear: the rate of linear layers, which turn a style into gains, as a share of that: all
            their 256 inputs move a result at once (Karras et al. 2019, appendix C, take 0.01).
        fit: the rate of the layers that fit a style's code to a photo, of those that take the
            photo's features for the second look, and of the shares by which these are mixed with
            the draft's, likewise. Some begin at 0: at the others' rate nothing comes of them.
        gates: the rate of the last layers that make gates, which begin at 0 as well, likewise.
        photos: how often a photo comes from which folder; see `chances`.
        styles: how often a style does.
        enlarged: the most px that a pixel of a photo's square becomes: at 512 px many photos have
            no finer detail. Styles become 1.2 at most, where the square is as large as the picture:
            more would teach the network to blur.
        smallest: the least px that a pixel of a square becomes, at most 1; see `crops`. At 1, parts
            of 256 px of squares of 512 px have the marks of 512 px and cost a quarter: so more
            pairs are seen.
        style: weight of the style loss, that of content being 1.
        draft: weight of the draft's losses; at 0 it learns from what becomes of it alone.
        moments: weight of means and deviations.
        identity: weight of giving a photo back whose style is its own.
        own: share of the pictures whose style is their own, in a batch's first pairing.
        turned: share of the styles that are turned.
        recolored: share of the styles with other colours.
        flat: share of the styles that are made of flat colours.
        banded: share of the styles that are made of bands.
        outside: weight of values outside of [0, 1].
        warm_start: an exported network to begin with; empty for random weights.
        seed: of every random draw.
    """

    widths: str = "16,32,64,128"
    images: int = 120_000
    pairings: int = 1
    batch: int = 8
    cut: int = STYLE_SIDE
    side: int = 128
    late_side: int = 192
    late: float = 0.8
    rate: float = 5e-4
    momentum: float = 0.95
    half_life: int = 0
    linear: float = 0.3
    fit: float = 5.0
    gates: float = 5.0
    photos: str = "photos=93,paintings=3,landscapes=2,textures=1,drawn=1"
    styles: str = "drawn=50,textures=22,paintings=14,photos=10,landscapes=4"
    enlarged: float = 1.7
    smallest: float = 0.0
    style: float = OBJECTIVE.style_weight
    draft: float = 0.3
    moments: float = 0.1
    identity: float = 30.0
    own: float = 0.05
    turned: float = 0.3
    recolored: float = 0.2
    flat: float = 0.1
    banded: float = 0.0
    outside: float = 10.0
    warm_start: str = ""
    seed: int = 0


# --- What is learnt -------------------------------------------------------------------------------


class Recipe:
    """One run: its network, its optimiser, and what a step is.

    Attributes:
        net: the network in training.
        average: its average, which is what is exported.
        photo_chances, style_chances: how often each picture comes as which.
        sources: the same in words.
        parts: everything with a state, for `train`.
    """

    def __init__(
        self,
        options: Options,
        pictures: Pictures,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        if options.side % STRIDE or options.late_side % STRIDE:
            raise ImpastoError(f"sides are multiples of {STRIDE} px; change --side, --late-side")
        self.options, self.pictures = options, pictures
        self.photo_chances, photos = chances(options.photos, pictures)
        self.style_chances, styles = chances(options.styles, pictures)
        self.sources = f"photos: {photos}; styles: {styles}"
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
        beside = self.net.decoder(1).take_beside
        mixes = self.net.photo_shares
        for layers in (self.net.sight, self.net.fit, beside, mixes):
            shares |= dict.fromkeys(layers.parameters(), options.fit)
        for module in self.net.modules():
            if isinstance(module, Modulated):
                shares |= dict.fromkeys(module.gates.parameters(), options.gates)
        last = {self.net.decoder(look).out.conv.weight for look in range(LOOKS)}
        matrices = [p for p in shares if p.ndim > 1 and p not in last]
        others = [p for p in shares if p.ndim == 1 or p in last]
        self.muon = Muon(
            ({"params": [p], "share": shares[p]} for p in matrices), momentum=options.momentum
        )
        self.adam = torch.optim.Adam([{"params": [p], "share": shares[p]} for p in others])
        self.average = Average(self.net, options.half_life or min(4_000, options.images / 12))
        self.parts: dict[str, Part] = {
            "net": self.net,
            "muon": self.muon,
            "adam": self.adam,
            "average": self.average,
        }

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        """Trains on one batch, in all its pairings; each process on its own part of it."""
        options, N = self.options, at.world.portion(self.options.batch)
        if not at.world.first:  # others draw other pictures
            torch.manual_seed(derive_seed(options.seed, "process", at.world.rank, at.seen))
        side = options.side if at.done < options.late else options.late_side
        photos, _ = self.pictures.take(torch.multinomial(self.photo_chances, N, True), at.device)
        styles, _ = self.pictures.take(torch.multinomial(self.style_chances, N, True), at.device)
        photos = crops(photos, side, enlarged=options.enlarged, smallest=options.smallest)
        styles = crops(styles, side, turned=options.turned, smallest=options.smallest)
        styles = other_colors(styles, options.recolored)
        styles = flattened(styles, options.flat, options.banded)
        own = torch.rand(N, device=at.device) < options.own
        styles = torch.where(own[:, None, None, None], photos, styles)
        with torch.no_grad():
            kept, aims = (
                Seen(x, self.judge.look(x), self.judge.look(halved(x))) for x in (photos, styles)
            )
        losses: list[dict[str, Tensor]] = []
        pairs: list[dict[str, Tensor]] = []
        for turn in range(options.pairings):
            by = turn * N // options.pairings
            same = own & (by == 0)  # the others now have another's style
            loss, pair = self._learn(at, kept, aims.rolled(by), same)
            losses.append(loss)
            pairs.append({**pair, "own": same})
        told: dict[str, Tensor | float] = {
            name: torch.stack([each[name] for each in losses]).mean() for name in losses[0]
        }
        pooled = {name: torch.cat([pair[name] for pair in pairs]).float() for name in pairs[0]}
        own = pooled.pop("own")
        for name, values in pooled.items():
            share = own if name == "identity" else 1 - own
            told[name] = (values * share).sum() / share.sum().clamp(min=1)
        return told

    def _learn(
        self, at: Moment, photos: Seen, styles: Seen, own: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """One step of the optimisers; `own` tells where the style is the photo.

        Returns:
            Losses, and what is measured for each picture.
        """
        options = self.options
        features = {layer: styles.whole[layer].float() for layer in MOMENTS}
        small = {layer: styles.half[layer].float() for layer in HALF}
        with at.autocast():
            code = self.net.describe(styles.pictures, features, small=small)
            draft, x = self.net.looks(photos.pictures, code)
        draft, x = draft.float(), x.float()
        painted, each = self._loss(x, photos.whole, styles.whole)
        drafted = x.new_zeros(())
        if options.draft:
            drafted, _ = self._loss(draft, photos.half, styles.half)
        each["identity"] = (x - photos.pictures).abs().mean((1, 2, 3))
        loss = (
            painted
            + options.draft * drafted
            + options.moments * each["moments"].mean()
            + options.identity * (own.float() * each["identity"]).mean()
        )
        self._descend(loss, rate_at(at.done, options.rate, options.late), at.world)
        whole = {"loss": loss, "painted": painted, "draft": drafted}
        return (
            {name: value.detach() for name, value in whole.items()},
            {name: value.detach() for name, value in each.items()},
        )

    def _loss(
        self, x: Tensor, kept: Mapping[str, Tensor], aims: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective over that of the photo, with what is outside of [0, 1]; and its parts.

        Args:
            x: what was painted, or drafted, `(N, 3, H, W)`.
            kept: what `Judge.look` sees in the photos, at that size.
            aims: what it sees in the styles.
        """
        shown = x.clamp(0, 1)  # as it will be; what is beyond counts here
        losses = self.judge.losses(self.judge.look(shown), kept, aims)
        whole = self.options.style * losses["photo"]
        ripple = torch.stack([second_variation(each[None]) for each in x])
        objective = (
            OBJECTIVE.content_weight * losses["content"]
            + self.options.style * losses["style"]
            + OBJECTIVE.ripple_weight * ripple
        ) * (USUAL / whole.clamp(LEAST, MOST))
        loss = objective.mean() + self.options.outside * (x - shown).square().mean()
        return loss, losses

    def _descend(self, loss: Tensor, rate: float, world: World) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)  # of each process: all count alike
        world.mean_gradients(self.net.parameters())
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
    try:
        a, b, c, d = (int(number) for number in text.split(","))
    except ValueError:
        raise ImpastoError(f"widths are four numbers such as 16,32,64,128, not {text!r}") from None
    return a, b, c, d


# --- What comes out -------------------------------------------------------------------------------


@torch.no_grad()
def sheet(net: FastNetwork, pictures: Pictures, device: torch.device) -> Picture:
    """Eight pictures, each in the style of three others: the same ones each time."""
    net.eval()
    count = len(pictures.labels)
    chosen = torch.arange(8) * (count // 8) + count // 16
    photos, _ = pictures.take(chosen, device)
    rows, corner = [photos], photos.shape[-1] // 4
    for turn in (3, 5, 6):
        styles = photos.roll(turn, 0)
        painted = net(photos, net.style(styles)).clamp(0, 1)
        painted[..., :corner, :corner] = F.adaptive_avg_pool2d(styles, corner)
        rows.append(painted)
    lines = [torch.cat(list(row), 2) for row in rows]
    return Picture.from_tensor(torch.cat(lines, 1)[None].float().cpu())


def export(net: FastNetwork, options: Options, path: Path, **facts: str) -> None:
    """Writes the network as float16."""
    tensors = {name: value.half().cpu() for name, value in net.state_dict().items()}
    del tensors["noise"]
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
        write_weights(temporary, Weights(tensors, metadata))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, and exports what came out."""
    parser = make_parser(__doc__, Options)
    given = parser.parse_args(arguments)
    with in_one_line(parser):
        _run(given)


def _run(given: Namespace) -> None:
    options = chosen(given, Options)
    if options.cut < STRIDE or options.cut % STRIDE:
        raise ImpastoError(f"--cut is a multiple of {STRIDE} px, not {options.cut}")
    if not 0 <= options.smallest <= 1:
        raise ImpastoError(f"--smallest is a number from 0 to 1, not {options.smallest}")
    if not 0 < options.enlarged < math.inf:
        raise ImpastoError(f"--enlarged is a number above 0, not {options.enlarged}")
    if not 0 <= options.momentum < 1:
        raise ImpastoError(f"--momentum is a number from 0 to below 1, not {options.momentum}")
    if not (min(options.flat, options.banded) >= 0 and options.flat + options.banded <= 1):
        raise ImpastoError("--flat and --banded are shares of the styles, together at most 1")
    if options.half_life < 0:
        raise ImpastoError(f"--half-life is a number of pictures, not {options.half_life}")
    place = begin(given)
    with join(place.device) as world:
        _train(given, options, place, world)


def _train(given: Namespace, options: Options, place: Place, world: World) -> None:
    """What each process does; the first one alone reads the pictures anew, and writes."""
    if not 1 <= options.pairings <= world.portion(options.batch):
        raise ImpastoError(
            f"--pairings is a number from 1 to --batch, not {options.pairings} (in each process)"
        )
    if not world.first:
        world.share(b"")  # until the first has the pictures in the cache
    pictures = style_pictures(given.data, place.cache, options.cut)
    if world.first:
        world.share(b"")
    if not len(pictures.labels):
        raise ImpastoError(f"{given.data} has no pictures; see training/README.md")
    recipe = Recipe(options, pictures, place.device, place.dtype)
    if world.first:
        print(recipe.sources, file=sys.stderr)
    batch = options.batch * options.pairings
    kept = max(batch, min(4_000, options.images // 4))  # a checkpoint after so many pictures
    run = train(
        recipe.parts,
        recipe.step,
        Length(options.images, batch, given.log_every * batch, kept, options.seed),
        given.out,
        config={
            **dataclasses.asdict(options),
            "pictures": pictures.key,
            "processes": world.size,  # each draws and cuts gradients by itself
        },
        resume=given.resume,
        device=place.device,
        dtype=place.dtype,
        world=world,
        stop=place.stop,
    )
    net = recipe.average.module
    assert isinstance(net, FastNetwork)
    for report in run:
        if not world.first:
            continue
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
