"""The recipe of our encoder: a small VGG-shaped classifier whose features serve style.

    python -m training.encoder --data FOLDER --out RUN [--warm-start FILE] [--resume]

FOLDER holds Tiny-ImageNet (200 classes of 64 px): `tiny-imagenet-200/` as it is published, or
`tiny-imagenet/` as one mosaic a class; beside it, any folders of pictures. RUN gets the log, the
checkpoint, and at the end `encoder.safetensors`. See training/README.md.

What is learnt, in one loss:

- to classify, as VGG did, with label smoothing (Szegedy et al. 2016, section 7);
- for the later part of the run on pictures that were changed to mislead the network by a single
  gradient step from a random start (Wong, Rice & Kolter 2020, algorithm 3), with a change too small
  to see: networks that withstand it have gradients that look like pictures (Tsipras et al. 2019,
  section 4), and those gradients are what a style transfer paints with;
- to tell styles apart: the Gram matrices of two parts of one picture have to be closer than those
  of two pictures (InfoNCE, van den Oord et al. 2018, eq. 4), and closer than to the same part with
  a fine ripple, noise or blur. So the network sees what an optimiser would hide in flat regions.
"""

import dataclasses
import json
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.average import Average
from impasto.encoder import Plan
from impasto.files import atomic_path
from impasto.foreign import Weights, write_weights
from impasto.losses import gram_matrix
from impasto.settings import Padding, Pooling
from impasto.shuffle import Shuffle
from impasto.trainer import Length, Moment, Part, train
from impasto.weights import load_weights
from training.classifier import Classifier, fold, normalise, statistics_kept, warm_start
from training.datasets import SIDE, Pictures, style_pictures, tiny_imagenet
from training.program import begin, chosen, in_one_line, make_parser


@dataclass(frozen=True)
class Options:
    """Everything that makes a run what it is; each is a flag.

    Attributes:
        plan: channels of the convolutions, M for a pooling.
        pooling: `avg` or `max`, between the blocks.
        padding: how convolutions continue the picture: `zero`, `replicate` or `reflect`.
        images: pictures to see.
        batch: pictures per step.
        rate: highest rate of stochastic gradient descent.
        decay: weight decay, not of norms and biases.
        smoothing: of the labels.
        crop: side of the smallest crop, as a share of the picture's.
        adversarial: largest change of a pixel, in 1/255; 0 for none.
        adversarial_from: share of the run after which pictures are changed so.
        style: weight of telling styles apart; 0 for none.
        style_every: steps from one batch of styles to the next.
        style_batch: pictures in it.
        style_side: side of their parts, px.
        temperature: of the similarity of styles.
        warm_start: weight file to begin with; empty for random weights.
        head_first: share of the run in which only the classifier learns, after a warm start.
        seed: of every random draw.
    """

    plan: str = "32,32,M,64,64,M,128,128,M,256,256,M,256"
    pooling: Pooling = "avg"
    padding: Padding = "replicate"
    images: int = 900_000
    batch: int = 128
    rate: float = 0.4
    decay: float = 5e-4
    smoothing: float = 0.05
    crop: float = 0.6
    adversarial: float = 2.0
    adversarial_from: float = 0.4
    style: float = 0.1
    style_every: int = 4
    style_batch: int = 24
    style_side: int = 96
    temperature: float = 0.03
    warm_start: str = ""
    head_first: float = 0.04
    seed: int = 0


# --- What is learnt -----------------------------------------------------------------------------


def one_cycle(done: float, highest: float, rise: float = 0.2) -> float:
    """The rate after a share of the run: up in a line, down in a cosine (Smith & Topin 2019)."""
    if done < rise:
        return highest * max(done, 1e-3) / rise
    return highest * 0.5 * (1 + math.cos(math.pi * (done - rise) / (1 - rise))) + 1e-6


def side_at(done: float) -> int:
    """The pictures' side after a share of the run, px: small ones teach much for little."""
    return 40 if done < 0.35 else 52 if done < 0.65 else SIDE


def augment(x: Tensor, side: int, smallest: float) -> Tensor:
    """A random crop, mirrored or not, at `side` px, with other brightness, contrast, colours."""
    N, device = len(x), x.device
    share = torch.empty(N, device=device).uniform_(smallest, 1)
    flip = torch.randint(0, 2, (N,), device=device) * 2 - 1
    shift = torch.empty(N, 2, device=device).uniform_(-1.1, 1.1) * (1.06 - share)[:, None]
    zero = torch.zeros_like(share)
    across = torch.stack((share * flip, zero, shift[:, 0]), 1)
    down = torch.stack((zero, share, shift[:, 1]), 1)
    grid = F.affine_grid(torch.stack((across, down), 1), [N, 3, side, side], align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    tint = torch.empty(N, 3, 1, 1, device=device).uniform_(0.93, 1.07)
    light = torch.empty(N, 1, 1, 1, device=device).uniform_(0.8, 1.2)
    contrast = torch.empty(N, 1, 1, 1, device=device).uniform_(0.8, 1.2)
    grey = x.mean((1, 2, 3), keepdim=True)
    x = ((x - grey) * contrast + grey) * light * tint
    return x.clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def mislead(net: Classifier, x: Tensor, y: Tensor, epsilon: float, at: Moment) -> Tensor:
    """`x`, changed by at most `epsilon` so that the loss rises (Wong et al. 2020, algorithm 3)."""
    start = (x + torch.empty_like(x).uniform_(-epsilon, epsilon)).requires_grad_()
    with statistics_kept(net):
        with at.autocast():
            loss = F.cross_entropy(net(start).float(), y)
        (gradient,) = torch.autograd.grad(loss, start)
    moved = start.detach() + 1.25 * epsilon * gradient.sign()
    return torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp_(0, 1)


def parts_of(x: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Two parts of each picture that do not overlap, `side` px wide and high."""
    H, W = x.shape[-2:]
    tops = torch.randint(0, H - side + 1, (2, len(x)))
    lefts = torch.stack((
        torch.randint(0, W // 2 - side + 1, (len(x),)),
        torch.randint(W // 2, W - side + 1, (len(x),)),
    ))  # fmt: skip
    first, second = (
        torch.stack(
            [p[:, t : t + side, j : j + side] for p, t, j in zip(x, top, left, strict=True)]
        )
        for top, left in zip(tops.tolist(), lefts.tolist(), strict=True)
    )
    return first, second


def disturb(x: Tensor) -> Tensor:
    """`x` with what a style transfer must not add or lose: ripple, dither, or blur, by chance."""
    N, _, H, W = x.shape
    device = x.device
    strength = torch.empty(N, 1, 1, 1, device=device).uniform_(0.02, 0.1)
    noise = torch.randn_like(x)
    waves = torch.empty(N, 2, 1, 1, device=device).uniform_(-math.pi, math.pi)
    waves[:, 0] = math.pi * waves[:, 0].sign() * torch.empty_like(waves[:, 0]).uniform_(0.6, 1)
    rows = torch.arange(H, device=device).view(1, H, 1)
    columns = torch.arange(W, device=device).view(1, 1, W)
    ripple = torch.sin(waves[:, 0] * rows + waves[:, 1] * columns + 1)[:, None] * 1.4
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    kind = torch.rand(N, 1, 1, 1, device=device)
    added = torch.where(kind < 0.4, x + strength * noise, x + strength * ripple)
    result = torch.where(kind < 0.8, added, blurred).clamp_(0, 1)
    return result.contiguous(memory_format=torch.channels_last)


def signature(features: Mapping[str, Tensor]) -> Tensor:
    """A style as a vector `(N, D)` of length 1: each block's first Gram matrix, of length 1."""
    first = [found for layer, found in features.items() if layer.endswith("_1")]
    grams = [F.normalize(gram_matrix(found).flatten(1)) for found in first]
    return torch.cat(grams, 1) / math.sqrt(len(grams))


def style_loss(net: Classifier, x: Tensor, side: int, temperature: float, at: Moment) -> Tensor:
    """How badly the parts of one picture find each other among all, and among disturbed ones."""
    first, second = parts_of(x, side)
    everything = torch.cat((first, second, disturb(second)))
    with statistics_kept(net), at.autocast():
        features = net.features(everything.contiguous(memory_format=torch.channels_last))
    ours, theirs, disturbed = signature(features).chunk(3)
    logits = ours @ torch.cat((theirs, disturbed)).T / temperature  # (N, 2N)
    return F.cross_entropy(logits, torch.arange(len(x), device=x.device))


class Recipe:
    """One run: its network, its optimiser, and what a step is.

    Attributes:
        net: the network in training.
        average: its average, which is what is exported.
        parts: everything with a state, for `train`.
    """

    def __init__(
        self, options: Options, pictures: Pictures, styles: Pictures, device: torch.device
    ) -> None:
        self.options, self.pictures, self.styles = options, pictures, styles
        torch.manual_seed(options.seed)
        plan = Plan.parse(options.plan)
        classes = int(pictures.labels.max()) + 1
        net = Classifier(plan, classes, options.pooling, options.padding).to(device)
        self.net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if options.warm_start:
            chosen = torch.randperm(len(pictures.labels))[:256]
            warm_start(
                net, load_weights(options.warm_start).tensors, pictures.take(chosen, device)[0]
            )
        decayed = [p for p in net.parameters() if p.ndim > 1]
        others = [p for p in net.parameters() if p.ndim == 1]
        groups: list[dict[str, Any]] = [
            {"params": decayed, "weight_decay": options.decay},
            {"params": others},
        ]
        self.optimizer = torch.optim.SGD(groups, lr=options.rate, momentum=0.9, nesterov=True)
        self.average = Average(net, half_life=15_000)
        self.parts: dict[str, Part] = {
            "net": net,
            "optimizer": self.optimizer,
            "average": self.average,
        }
        self._order = Shuffle(len(pictures.labels), options.seed)
        self._style_order = Shuffle(max(1, len(styles.labels)), options.seed + 1)

    def step(self, at: Moment) -> dict[str, Tensor | float]:
        """Trains on one batch."""
        options, net = self.options, self.net.train()
        head_only = bool(options.warm_start) and at.done < options.head_first
        rate = one_cycle(at.done, options.rate)
        x, y = self.pictures.take(self._order.indices(at.seen, options.batch), at.device)
        x = augment(x, side_at(at.done), options.crop)
        if options.adversarial and at.done >= options.adversarial_from:
            half = len(x) // 2
            moved = mislead(net, x[:half], y[:half], options.adversarial / 255, at)
            x = torch.cat((moved, x[half:])).contiguous(memory_format=torch.channels_last)
        with at.autocast():
            logits = self._logits_of_head(x) if head_only else net(x)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=options.smoothing)
        metrics: dict[str, Tensor | float] = {"loss": loss, "rate": rate}
        metrics["top1"] = (logits.argmax(1) == y).float().mean()
        number = at.seen // options.batch
        if options.style and not head_only and number % options.style_every == 0:
            seen = number // options.style_every * options.style_batch
            styles, _ = self.styles.take(
                self._style_order.indices(seen, options.style_batch), at.device
            )
            apart = style_loss(net, styles, options.style_side, options.temperature, at)
            loss = loss + options.style * options.style_every * apart
            metrics["style"] = apart * options.style_every  # so that the mean over steps is right
        self._descend(loss, 0.1 if head_only else rate)
        return metrics

    def _logits_of_head(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            last = self.net.eval().features(x)[self.net.plan.layers[-1]].mean((2, 3))
        logits: Tensor = self.net.head(last)
        return logits

    def _descend(self, loss: Tensor, rate: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.average.update(self.net, self.options.batch)


# --- What comes out -----------------------------------------------------------------------------


@torch.no_grad()
def top1(net: nn.Module, pictures: Pictures, device: torch.device) -> float:
    """The share of pictures whose class is found."""
    right = 0
    for indices in torch.split(torch.arange(len(pictures.labels)), 500):
        x, y = pictures.take(indices, device)
        right += int((net(x).argmax(1) == y).sum())
    return right / len(pictures.labels)


def export(
    net: Classifier, options: Options, photos: Sequence[Tensor], path: Path, **facts: str
) -> None:
    """Writes the encoder as float16, with what it needs to be used."""
    plan = net.plan
    weights = normalise(fold(net), plan, photos, options.pooling, options.padding)
    metadata = {
        "plan": options.plan,
        "mean": ",".join(map(str, plan.mean)),
        "std": ",".join(map(str, plan.std)),
        "pooling": options.pooling,
        "padding": options.padding,
        "recipe": json.dumps(
            dataclasses.asdict(options) | {"warm_start": Path(options.warm_start).name}
        ),
        **facts,
    }
    halves = {name: weight.half() for name, weight in weights.items()}
    with atomic_path(path) as temporary:
        write_weights(temporary, Weights(halves, metadata))


def calibration(styles: Pictures, pictures: Pictures, count: int = 200) -> list[Tensor]:
    """Pictures over which activations are averaged: evenly spread, the large ones if there are."""
    source = styles if len(styles.labels) else pictures
    chosen = torch.arange(0, len(source.labels), max(1, len(source.labels) // count))
    x, _ = source.take(chosen[:count], torch.device("cpu"))
    return list(torch.split(x.contiguous(), 1))


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, and exports what came out."""
    parser = make_parser(__doc__, Options)
    parser.add_argument("--passes", type=float, help="passes over Tiny-ImageNet, for --images")
    given = parser.parse_args(arguments)
    with in_one_line(parser):
        _run(given)


def _run(given: Namespace) -> None:
    options = chosen(given, Options)
    place = begin(given)
    pictures = tiny_imagenet(given.data, "train", place.cache)
    styles = style_pictures(given.data, place.cache)
    if given.passes:
        options = dataclasses.replace(options, images=round(given.passes * len(pictures.labels)))
    if len(styles.labels) < options.style_batch:
        options = dataclasses.replace(options, style=0.0)
    batch = options.batch
    recipe = Recipe(options, pictures, styles, place.device)
    run = train(
        recipe.parts,
        recipe.step,
        Length(options.images, batch, given.log_every * batch, 20_000, options.seed),
        given.out,
        config=dataclasses.asdict(options),
        resume=given.resume,
        device=place.device,
        dtype=place.dtype,
        stop=place.stop,
    )
    for report in run:
        for note in report.notes:
            print(note, flush=True)
        print(json.dumps(report.record()), flush=True)
    net = recipe.average.module
    assert isinstance(net, Classifier)
    judged = tiny_imagenet(given.data, "val", place.cache)
    found = top1(net, judged, place.device)
    print(f"top-1 of {len(judged.labels)} pictures: {found:.3f}")
    path = given.out / "encoder.safetensors"
    export(net, options, calibration(styles, pictures), path, top1=f"{found:.4f}")


if __name__ == "__main__":
    main()
