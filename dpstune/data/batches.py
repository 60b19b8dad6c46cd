"""Which examples each optimizer step trains on, in which order, in which chunks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from dpstune.device.randomness import stream

if TYPE_CHECKING:
    from dpstune.recipe.schema import Recipe

POOL = 50  # ``bucketed`` sorts the examples of so many steps together: enough to find similar lengths


def step_batches(
    lengths: Sequence[int],
    *,
    batch_size: int,
    chunks_per_step: int,
    batching: Literal["random", "bucketed"],
    seed: int,
    epoch: int,
) -> list[list[list[int]]]:
    """Return an epoch's optimizer steps; each is a list of chunks, each chunk a list of example indices.

    Every example comes once per epoch. Every step holds batch_size * chunks_per_step examples, except one that holds
    the rest. The same seed and epoch give the same steps, however a step is cut into chunks.

    Args:
        lengths: Tokens of each example.
        batch_size: Examples per chunk.
        chunks_per_step: Accumulation times processes.
        batching: ``random``, or ``bucketed``: examples of similar length in one step.
        seed: The run's seed.
        epoch: The epoch, from 0.

    >>> step_batches([3, 1, 2, 5, 4], batch_size=2, chunks_per_step=1, batching="bucketed", seed=0, epoch=0)
    [[[3]], [[0, 4]], [[1, 2]]]
    """
    generator = stream(seed, "order", epoch)
    order: list[int] = generator.permutation(len(lengths)).tolist()
    size = batch_size * chunks_per_step
    if batching == "bucketed":
        pools = [order[start : start + size * POOL] for start in range(0, len(order), size * POOL)]
        order = [index for pool in pools for index in sorted(pool, key=lambda index: lengths[index])]
    steps = [order[start : start + size] for start in range(0, len(order), size)]
    if batching == "bucketed":
        steps = [steps[position] for position in generator.permutation(len(steps))]
    return [[step[start : start + batch_size] for start in range(0, len(step), batch_size)] for step in steps]


class StepPlan:
    """Which examples each step trains on, in which chunks, on which rank.

    A step holds batch_size x accumulation x processes examples (the last of an epoch may hold fewer). It is cut
    into chunks of batch_size; chunk c goes to rank c mod processes. Each chunk's mean loss is weighted by its share
    of the step's examples, so that the step's gradient is the mean over its examples, however the step is cut.

    Args:
        recipe: Batch size, accumulation, batching and seed.
        lengths: Tokens of each training example.
        processes: Ranks that share the work.
    """

    def __init__(self, recipe: Recipe, lengths: Sequence[int], processes: int) -> None:
        training = recipe.training
        self.lengths, self.processes = lengths, processes
        self.chunks_per_step = training.gradient_accumulation * processes
        self.steps_per_epoch = -(-len(lengths) // (training.batch_size * self.chunks_per_step))

        @lru_cache(maxsize=1)
        def epoch_steps(epoch: int) -> list[list[list[int]]]:
            return step_batches(
                lengths,
                batch_size=training.batch_size,
                chunks_per_step=self.chunks_per_step,
                batching=training.batching,
                seed=recipe.seed,
                epoch=epoch,
            )

        self._epoch_steps = epoch_steps

    def chunks(self, step: int) -> list[list[int]]:
        """Return the chunks of example indices of a step, counted from 1."""
        epoch, position = divmod(step - 1, self.steps_per_epoch)
        return self._epoch_steps(epoch)[position]

    def share(self, chunks: list[list[int]], rank: int) -> list[tuple[int, list[int], float]]:
        """Return one rank's chunks: number within the step, indices, and the weight of their mean loss.

        Gradients are averaged over ranks, so the weights are multiplied by the number of ranks. Every rank gets equally
        many chunks: one that has too few repeats one example with weight 0.
        """
        examples = sum(len(chunk) for chunk in chunks)
        mine = [
            (number, chunk, len(chunk) / examples * self.processes)
            for number, chunk in enumerate(chunks)
            if number % self.processes == rank
        ]
        most = -(-len(chunks) // self.processes)
        return mine + [(len(chunks) + rank, chunks[0][:1], 0.0)] * (most - len(mine))

    def tokens(self, chunks: list[list[int]]) -> int:
        """Return the tokens in a step's chunks, padding not counted."""
        return sum(self.lengths[index] for chunk in chunks for index in chunk)
