"""Random streams that need no state: every draw is a function of the seed and of what it is for."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch


def stream_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed that depends on nothing but ``seed`` and ``path``.

    A run draws its head initialisation, data order, dropout and masks from separate streams. So a run that stops after
    step 70 and goes on draws the same for step 71, with no generator to restore; and every rank of a distributed run
    can draw what another rank draws.

    Args:
        seed: The run's seed.
        *path: What the stream is for, for example ``("dropout", step, chunk)``.

    >>> stream_seed(42, "order", 0) == stream_seed(42, "order", 0)
    True
    >>> stream_seed(42, "order", 0) == stream_seed(42, "order", 1)
    False
    """
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def stream(seed: int, *path: str | int) -> np.random.Generator:
    """Return a new NumPy generator for ``path``; it draws the same on every machine.

    >>> int(stream(42, "order", 0).integers(1000)) == int(stream(42, "order", 0).integers(1000))
    True
    """
    import numpy as np

    return np.random.Generator(np.random.Philox(stream_seed(seed, *path)))


def seed_torch(device: torch.device, seed: int, *path: str | int) -> None:
    """Seed torch's generators of ``device`` and of the CPU for ``path``; see ``stream_seed``.

    Dropout draws on the device, BART's LayerDrop on the CPU.
    """
    import torch

    drawn = stream_seed(seed, *path)
    torch.default_generator.manual_seed(drawn)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(drawn)
