"""How many runs a machine trains at a time where nobody says it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpstune.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from dpstune.studies.sweep.sweep import Sweep

_BYTES_OF_A_PROCESS = 2**30  # libraries and data
_BYTES_OF_A_WEIGHT = 24  # itself, its gradient and two moments in fp32; and 8 that methods keep
_BYTES_OF_AN_ACTIVATION = 140  # of a token in a layer, for each of its width: two forward passes with dropout, in fp32
_SHARE_OF_MEMORY = 0.75  # others need some, too
_LEAST_POINTS_A_WORKER = 4  # of a search, which learns from points that have ended


def default_workers(sweep: Sweep) -> int:
    """Return how many workers train a sweep's runs: on a CPU one a core, as memory allows; elsewhere 1.

    Short runs gain by it: a core that trains a run of its own waits for no other (benchmarks/README.md, "A sweep on one
    machine"). A core is what torch would use a thread for. A search has fewer, so that it learns from what has ended.

    Raises:
        RequestError: There is no such model.
        RunError: The hub could not be reached.
    """
    import torch

    from dpstune.device.limits import memory_bytes, processors
    from dpstune.models.loading import read_config

    cores = int(min(torch.get_num_threads(), processors()))
    if torch.accelerator.is_available() or cores < 2:
        return 1
    largest = max(run_bytes(read_config(recipe.model)[1], recipe) for recipe in _sizes(sweep.recipes()))
    budget = sweep.request.budget
    points = cores if budget is None else budget // _LEAST_POINTS_A_WORKER
    return max(1, min(cores, points, int(memory_bytes() * _SHARE_OF_MEMORY / largest)))


def run_bytes(config: PretrainedConfig, recipe: Recipe) -> int:
    """Return about how much memory a run on a CPU takes, in bytes: enough for any method, in any precision.

    Weights are counted as those of word embeddings and of plain transformer layers. A config that does not say its
    size counts as BERT-large.
    """
    text = config.get_text_config()
    width = getattr(text, "hidden_size", 1024)
    inner = getattr(text, "intermediate_size", 4 * width)
    layers = getattr(text, "num_hidden_layers", 24) + getattr(text, "decoder_layers", 0)
    weights = getattr(text, "vocab_size", 30_000) * width + layers * (4 * width * width + 2 * width * inner)
    tokens = recipe.training.batch_size * recipe.data.max_length
    return int(_BYTES_OF_A_PROCESS + _BYTES_OF_A_WEIGHT * weights + _BYTES_OF_AN_ACTIVATION * layers * width * tokens)


def _sizes(recipes: Sequence[Recipe]) -> list[Recipe]:
    """Return a recipe of each size of model and batch."""
    by_size = {
        (each.model.name, each.model.revision, each.training.batch_size, each.data.max_length): each for each in recipes
    }
    return list(by_size.values())
