"""What DPS Dense and DPS Mix share: the two-stage cycle, and the choice of a subnetwork by its scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Cycle:
    """The two stages of DPS: blocks of ``update_steps`` steps, Stage I and Stage II in turn.

    Args:
        update_steps: us, the optimizer steps in a block.

    >>> [Cycle(2).stage(step) for step in (1, 2, 3, 4, 5)]
    [1, 1, 2, 2, 1]
    """

    update_steps: int

    @classmethod
    def of(cls, total_steps: int, update_ratio: float) -> Cycle:
        """Return the cycle of a run of ``total_steps`` steps: us = max(1, int(N * update_ratio))."""
        return cls(max(1, int(total_steps * update_ratio)))

    def stage(self, step: int) -> int:
        """Return the stage, 1 or 2, of ``step`` (counted from 1): 1 if ceil(step / us) is odd."""
        return 1 if math.ceil(step / self.update_steps) % 2 == 1 else 2

    def opens_block(self, step: int) -> bool:
        """Tell whether ``step`` is the first of its block."""
        return (step - 1) % self.update_steps == 0


def select(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Choose the subnetwork of one weight matrix: a bool tensor like ``scores``.

    The k = ceil(n * (1 - p)) largest of its n scores are selected, and every score equal to the k-th.
    (Zhang et al. 2022, Algorithm 1; n * (1 - p) is computed in floats, as in the authors' code.)

    Args:
        scores: One score for each weight, any shape, without nan.
        p: Reserved probability, in [0, 1).

    >>> import torch
    >>> select(torch.tensor([4.0, 1.0, 3.0, 3.0]), p=0.5).tolist()
    [True, False, True, True]
    """
    return scores >= kth_largest(scores, 1 - p)


def kth_largest(scores: torch.Tensor, share: float) -> torch.Tensor:
    """Return, as a 0-d tensor, the k-th largest of n scores, k = ceil(n * share).

    NumPy's partition takes an eighth of the time of torch's ``kthvalue`` on a CPU (benchmarks/README.md). On a GPU
    ``kthvalue`` uses one multiprocessor only, and older versions of torch refuse it in deterministic mode, since the
    index that it also returns depends on chance. The least of the k largest is the same value.

    >>> import torch
    >>> kth_largest(torch.tensor([4.0, 1.0, 3.0, 2.0]), share=0.5).item()
    3.0
    """
    import numpy as np
    import torch

    from dpstune.methods.groups import on_cpu

    flat, k = scores.flatten(), math.ceil(scores.numel() * share)
    if not on_cpu(scores):
        return least_of_largest(flat, k)
    place = len(flat) - k
    if scores.dtype in (torch.float32, torch.float64):  # NumPy has no bfloat16
        return torch.tensor(np.partition(flat.detach().numpy(), place)[place])
    return flat.kthvalue(place + 1).values


def least_of_largest(flat: torch.Tensor, k: int) -> torch.Tensor:
    """Return, as a 0-d tensor, the least of the k largest elements of a vector.

    >>> import torch
    >>> least_of_largest(torch.tensor([4.0, 1.0, 3.0, 2.0]), k=2).item()
    3.0
    """
    return flat.topk(k, sorted=False).values.min()


def kth_largest_of(scores: Sequence[torch.Tensor], share: float) -> torch.Tensor:
    """Return, as a 0-d tensor, the k-th largest of all n scores of several tensors, k = ceil(n * share).

    Made for hundreds of millions of scores: nothing is sorted or copied into one tensor, which would take four times
    their memory. Floats of 0 and more have the same order as their bits read as integers. So the bits of the k-th
    largest are found one after the other, the highest first: a bit is 1 if k scores or more are at least the number
    with that bit set. Only integers are added, so the result is the same on every device and in every run, and nothing
    waits for the device.

    Args:
        scores: Tensors of any shapes, all float32 or all float64; every score is 0 or more (inf is allowed), none nan.
        share: In (0, 1].

    >>> import torch
    >>> kth_largest_of([torch.tensor([4.0, 1.0]), torch.tensor([[3.0, 2.0]])], share=0.5).item()
    3.0
    """
    import torch

    dtype = scores[0].dtype
    integers = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    patterns = [each.detach().view(integers) for each in scores]
    k = math.ceil(sum(each.numel() for each in patterns) * share)
    threshold = torch.zeros((), dtype=integers, device=patterns[0].device)
    for bit in reversed(range(torch.iinfo(integers).bits - 1)):
        candidate = threshold + (1 << bit)
        reached = torch.stack([(each >= candidate).sum(dtype=torch.int32) for each in patterns]).sum()
        threshold = torch.where(reached >= k, candidate, threshold)
    return threshold.view(dtype)


def pack_bits(mask: torch.Tensor) -> torch.Tensor:
    """Pack a bool tensor of n elements into ceil(n / 8) bytes: a uint8 vector.

    >>> import torch
    >>> mask = torch.tensor([[True, False, True], [False, True, True]])
    >>> bool((unpack_bits(pack_bits(mask), mask.shape) == mask).all())
    True
    """
    import torch

    flat = mask.flatten()
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    return (padded.view(-1, 8).byte() << _shifts(flat)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: torch.Tensor, shape: torch.Size, table: torch.Tensor | None = None) -> torch.Tensor:
    """Undo ``pack_bits``: a bool tensor of ``shape``.

    Args:
        packed: What ``pack_bits`` returned.
        shape: The shape that was packed.
        table: What ``octets`` returned; saves time to a caller that unpacks often.
    """
    return unpack_bytes(packed, table)[: shape.numel()].view(shape)


def unpack_bytes(packed: torch.Tensor, table: torch.Tensor | None = None) -> torch.Tensor:
    """Return all bits of some bytes: a bool tensor [8 * bytes]; see ``unpack_bits``."""
    import torch

    if table is None:
        table = octets(packed.device)
    return table.index_select(0, packed.int()).view(torch.bool)


def octets(device: torch.device) -> torch.Tensor:
    """Return the bits of each of the 256 bytes: int64 [256], each number eight bools, so that one look-up is enough."""
    import torch

    every = torch.arange(256, dtype=torch.uint8, device=device)
    return ((every.unsqueeze(1) >> _shifts(every)) & 1).bool().view(torch.int64).flatten()


def _shifts(like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(8, dtype=torch.uint8, device=like.device)
