"""Random streams that need no state: every draw is a function of the seed and of what it is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def stream_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed that depends on nothing but ``seed`` and ``path``.

    A run draws its head initialisation, data order, dropout and masks from streams of their own, so that
    stopping after step 70 and starting again gives the draws of step 71 without any generator to restore,
    and so that every rank of a distributed run can draw what another rank draws.

    Args:
        seed: The restart's seed.
        *path: What the stream is for, for example ``("dropout", step, chunk)``.

    >>> stream_seed(42, "order", 0) == stream_seed(42, "order", 0)
    True
    >>> stream_seed(42, "order", 0) == stream_seed(42, "order", 1)
    False
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator of its own for ``path``; the same on every machine.

    >>> int(stream(42, "order", 0).integers(1000)) == int(stream(42, "order", 0).integers(1000))
    True
    """
    import numpy as np

    return np.random.Generator(np.random.Philox(stream_seed(seed, *path)))


def seed_torch(device: torch.device, seed: int, *path: str | int) -> None:
    """Seed the generators that torch draws from, for what ``path`` says: ``device``'s, and the host's beside it.

    Dropout draws on the device; BART's LayerDrop asks the host.
    """
    import torch

    drawn = stream_seed(seed, *path)
    torch.default_generator.manual_seed(drawn)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(drawn)
