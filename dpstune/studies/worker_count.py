"""How many runs a machine trains at a time where nobody says it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dpstune.settings.sections import ModelSection

if TYPE_CHECKING:
    from transformers import PretrainedConfig

GIB = 2**30
_BYTES_A_WEIGHT = 24  # itself, its gradient, two moments; and what methods keep: 8 at most, in fp32
_BYTES_A_PROCESS = GIB  # libraries, data, and the activations of a batch
_SHARE_OF_MEMORY = 0.75  # others need some, too


def default_workers(model: ModelSection) -> int:
    """Return how many workers train a model's runs: one on each GPU; on a CPU one a core, as memory allows.

    Short runs gain by it: a core that trains a run of its own waits for no other (benchmarks/README.md, "A sweep on one
    machine"). A core is what torch would use a thread for.

    Raises:
        RequestError: There is no such model.
        RunError: The hub could not be reached.
    """
    import torch

    from dpstune.device.hardware import visible_gpus
    from dpstune.models.loading import read_config

    if torch.accelerator.is_available():
        return max(1, len(visible_gpus()))
    _, config = read_config(model)
    room = memory_bytes() * _SHARE_OF_MEMORY / run_bytes(config)
    return max(1, min(torch.get_num_threads(), int(room)))


def run_bytes(config: PretrainedConfig) -> int:
    """Return about how much memory a run on a CPU takes, in bytes: enough for any method, at the usual batch sizes.

    Weights are counted as those of word embeddings and of plain transformer layers. A config that does not say its
    size counts as BERT-large.
    """
    text = config.get_text_config()
    width = getattr(text, "hidden_size", 1024)
    inner = getattr(text, "intermediate_size", 4 * width)
    layers = getattr(text, "num_hidden_layers", 24) + getattr(text, "decoder_layers", 0)
    weights = getattr(text, "vocab_size", 30_000) * width + layers * (4 * width * width + 2 * width * inner)
    return _BYTES_A_PROCESS + _BYTES_A_WEIGHT * int(weights)


def memory_bytes() -> int:
    """Return this machine's memory, or what the container may use of it, in bytes; one GiB where nothing says it."""
    try:
        known = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not a Unix
        known = GIB
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            return min(known, int(file.read()))
    except (OSError, ValueError):  # no container; or its limit is "max"
        return known
