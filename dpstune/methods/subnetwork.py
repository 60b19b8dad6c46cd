"""What DPS Dense and DPS Mix share: settings, the two-stage cycle, and the choice of a subnetwork by its scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from dpstune.errors import RequestError
from dpstune.methods.base import MethodConfig, ReservedProbability, UpdateRatio

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

StageTwo = Literal["select", "prune", "none"]
"""What Stage II does; see ``DpsConfig``."""

Scope = Literal["all", "encoder"]
"""Which linear weights are selected from; see ``DpsConfig``."""

Score = Literal["squared", "absolute", "movement", "random"]
"""What weights are selected by; see ``DpsConfig``."""


class DpsConfig(MethodConfig):
    """Settings of both variants; the published method is what the last three have when they are left out.

    Attributes:
        p: Reserved probability, in [0, 1): the share of each matrix that Stage II leaves out.
        update_ratio: Length of one stage as a share of all steps, in (0, 1].
        stage2: ``select``, or ``prune``: weights outside the subnetwork count as zero, or ``none``: no Stage II.
        scope: ``all`` linear weights, or those of the ``encoder``'s layers: all others train as usual.
        score: ``squared`` gradients, ``absolute`` ones, ``movement`` (minus gradient times weight), or ``random``.
    """

    newer_keys = MappingProxyType({"stage2": "select", "scope": "all", "score": "squared"})

    p: ReservedProbability = 0.3
    update_ratio: UpdateRatio = 0.05
    stage2: StageTwo = "select"
    scope: Scope = "all"
    score: Score = "squared"


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


def draw_selections(weights: Sequence[torch.Tensor], p: float, *, seed: int, step: int) -> Iterator[torch.Tensor]:
    """Yield a subnetwork for each weight matrix, drawn: a bool tensor like it with exactly k = ceil(n * (1 - p)) true.

    The draws depend on ``seed`` and ``step`` alone: a resumed run draws the same, and so does every rank of a
    distributed run, on any device.

    Args:
        weights: The matrices; their order decides which draws each gets.
        p: Reserved probability, in [0, 1).
        seed: The run's seed.
        step: The optimizer step, from 1.

    >>> import torch
    >>> [int(mask.sum()) for mask in draw_selections([torch.zeros(3, 5), torch.zeros(4)], 0.3, seed=1, step=9)]
    [11, 3]
    """
    import torch

    from dpstune.device.randomness import stream
    from dpstune.methods.groups import from_host

    source = stream(seed, "selection", step).bit_generator
    for weight in weights:
        chosen = _largest(source.random_raw(weight.numel()), math.ceil(weight.numel() * (1 - p)))
        yield from_host(torch.tensor(chosen).view(weight.shape), weight.device)


def _largest(numbers: np.ndarray, k: int) -> np.ndarray:
    """Return which of some 64-bit numbers are the k largest: exactly k, since equal ones go by their place."""
    import numpy as np

    low = np.uint64(len(numbers).bit_length())
    distinct = (numbers >> low << low) | np.arange(len(numbers), dtype=np.uint64)
    place = len(numbers) - k
    chosen: np.ndarray = distinct >= np.partition(distinct, place)[place]
    return chosen


def add_scores(
    score: Score,
    totals: list[torch.Tensor],
    gradients: list[torch.Tensor],
    weights: list[torch.Tensor],
    finite: torch.Tensor,
) -> None:
    """Add a step's part of the scores if ``finite``, a 0-d bool tensor, is true; else change nothing.

    ``squared`` adds g * g (Zhang et al. 2022), ``absolute`` |g|. ``movement`` subtracts g * w, so that the sum is large
    for weights that gradient descent moves away from zero, and negative for those it moves toward it. It is signed, as
    in its source (Sanh, Wolf and Rush 2020, arXiv 2005.07683, section 4; there with the learning rate as a factor,
    which leaves the order as it is, and summed over all steps so far). ``random`` has no scores.

    Args:
        score: Which scores.
        totals: One for each gradient, of its shape; changed in place.
        gradients: g, unscaled and not clipped.
        weights: w, before the step's update.
        finite: On the gradients' device.
    """
    from dpstune.methods.groups import add_magnitudes, add_squares, subtract_products

    if score == "squared":
        add_squares(totals, gradients, finite)
    elif score == "absolute":
        add_magnitudes(totals, gradients, finite)
    elif score == "movement":
        subtract_products(totals, gradients, weights, finite)


def within_scope(linears: Mapping[str, nn.Linear], model: nn.Module, scope: Scope) -> dict[str, nn.Linear]:
    """Return those of a model's linear layers whose weights are selected from.

    Args:
        linears: All of them, by name.
        model: The model.
        scope: ``encoder``: those inside the transformer layers, without what lies below (embeddings' projections) and
            above them (pooler, head), unless that shares a weight with them.

    Raises:
        RequestError: ``encoder``, and the model has no stack of layers.
    """
    from dpstune.models.structure import encoder_linears

    if scope == "all":
        return dict(linears)
    try:
        inside = encoder_linears(model)
    except RequestError as error:
        raise RequestError(f"method.scope encoder: {error}; take scope all") from None
    weights = {id(linear.weight) for linear in inside.values()}
    return {name: linear for name, linear in linears.items() if id(linear.weight) in weights}


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
    >>> pack_bits(mask).tolist(), unpack_bytes(pack_bits(mask), octets(mask.device))[:6].view(2, 3).equal(mask)
    ([53], True)
    """
    import torch

    flat = mask.flatten()
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    return (padded.view(-1, 8).byte() << _shifts(flat)).sum(1, dtype=torch.uint8)


def unpack_bytes(packed: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Undo ``pack_bits``: all bits of the bytes, a bool tensor [8 * bytes], of which the last few may be padding.

    Args:
        packed: What ``pack_bits`` returned.
        table: What ``octets`` returned.
    """
    import torch

    return table.index_select(0, packed.int()).view(torch.bool)


def octets(device: torch.device) -> torch.Tensor:
    """Return the bits of each of the 256 bytes: int64 [256], each number eight bools, so that one look-up is enough."""
    import torch

    every = torch.arange(256, dtype=torch.uint8, device=device)
    return ((every.unsqueeze(1) >> _shifts(every)) & 1).bool().view(torch.int64).flatten()


def _shifts(like: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(8, dtype=torch.uint8, device=like.device)
