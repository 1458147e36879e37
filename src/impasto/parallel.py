"""Several processes that train together, on PyTorch's own engine (`torch.distributed`).

`torchrun` starts them. Each holds the same networks and takes its share of every batch; gradients
are averaged before each step, so that together they do what one process does with the whole batch.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn

from impasto.errors import RunError

__all__ = ["ALONE", "World", "join", "synchronise_norms"]

CPU: Final = torch.device("cpu")

PATIENCE: Final = timedelta(minutes=30)
"""How long a process waits for another: scores and sheets are the first one's work alone."""


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees them.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        device: where tensors have to be that travel between them.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads, writes and speaks."""
        return self.rank == 0

    def portion(self, count: int) -> int:
        """How many pictures of so many each process has.

        Raises:
            RunError: they cannot be shared evenly.
        """
        portion, rest = divmod(count, self.size)
        if rest:
            raise RunError(
                f"{count} pictures cannot be shared by {self.size} processes; "
                "choose a --batch that can"
            )
        return portion

    def rows(self, batch: Tensor) -> Tensor:
        """This process's share of a batch: as many rows as every other has.

        Raises:
            RunError: it cannot be shared evenly.
        """
        portion = self.portion(len(batch))
        return batch[self.rank * portion : (self.rank + 1) * portion]

    def share(self, data: bytes) -> bytes:
        """The first process's data."""
        if self.size == 1:
            return data
        with _gone():
            length = torch.tensor([len(data)], device=self.device)
            dist.broadcast(length, 0)
            if not int(length):
                return b""
            found = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.first else None
            buffer = torch.empty(int(length), dtype=torch.uint8) if found is None else found
            buffer = buffer.to(self.device)
            dist.broadcast(buffer, 0)
            return buffer.cpu().numpy().tobytes()

    def agree(self, flag: bool) -> bool:
        """The first process's answer."""
        return bool(self.share(b"\1" if flag else b""))

    def mean(self, values: Sequence[float]) -> list[float]:
        """The mean of each value over the processes, the same in all."""
        if self.size == 1 or not values:
            return list(values)
        totals = torch.tensor(values, device=self.device, dtype=torch.float64)
        with _gone():
            dist.all_reduce(totals)
        return (totals / self.size).tolist()

    def mean_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces every gradient by its mean over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        with _gone():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


ALONE: Final = World()
"""One process by itself."""


@contextmanager
def join(device: torch.device, patience: timedelta = PATIENCE) -> Iterator[World]:
    """The processes that `torchrun` has started together with this one; or this one alone.

    Args:
        device: where this process computes; of a CUDA device, the one with its local rank is meant.
        patience: how long to wait for another process before it counts as gone.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1" or "RANK" not in os.environ:  # not from torchrun
        yield ALONE
        return
    # Its functions have the group at the time of its import as their default. Imported later, as by
    # Adam, it would keep the group for ever, with threads that can crash the end of the program.
    from torch.distributed.nn import functional  # noqa: F401

    cuda = device.type == "cuda"
    if cuda:
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            raise RunError(
                f"there are more processes than the {torch.cuda.device_count()} GPUs of this "
                "machine; start fewer"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    with _gone():
        dist.init_process_group("nccl" if cuda else "gloo", timeout=patience)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device if cuda else CPU)
    finally:
        dist.destroy_process_group()


@contextmanager
def _gone() -> Iterator[None]:
    """Says in one line that another process is gone."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        raise RunError(
            "another process of this run has ended; its own message says why. "
            "Start them all again with --resume"
        ) from error


def synchronise_norms(module: nn.Module, world: World) -> nn.Module:
    """Makes every batch norm take its statistics over the pictures of all processes.

    Works on any backend, differentiable once and twice; a module without batch norm, or a process
    alone, stays as it is.
    """
    if world.size == 1:
        return module
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            shared = _SharedBatchNorm(child.num_features, child.eps, child.momentum or 0.1)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.to(child.weight))
        else:
            synchronise_norms(child, world)
    return module


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient, as often as it is differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        total = x.clone()
        with _gone():  # here, as backward comes from within autograd
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        summed: Tensor = _Sum.apply(gradients[0])  # type: ignore[no-untyped-call]
        return summed


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm (Ioffe & Szegedy 2015) over the batches of all processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        wide = x.to(torch.promote_types(x.dtype, torch.float32))  # means are, whatever x is
        mean = _Sum.apply(wide.sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        centred = wide - mean.view(1, -1, 1, 1)
        variance = _Sum.apply(centred.square().sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum or 0.1)
            unbiased = variance * count / max(1, count - 1)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum or 0.1)
            self.num_batches_tracked += 1
        scale = self.weight / (variance + self.eps).sqrt()
        normed: Tensor = centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)
        return normed.to(x.dtype)
