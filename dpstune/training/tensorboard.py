"""TensorBoard events, where the ``tensorboard`` extra is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def open_events(folder: Path, *, after_step: int) -> SummaryWriter | None:
    """Return a writer of TensorBoard events, or None where ``dpstune[tensorboard]`` is not installed.

    Args:
        folder: Where the events go.
        after_step: Events of later steps, written before the run was stopped, are discarded.
    """
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=after_step + 1)
