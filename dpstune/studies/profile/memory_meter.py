"""How much memory the tensors of a step take, now and at the peak."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Meter(Protocol):
    """Counts the bytes of the tensors that are made inside its ``with`` block.

    Attributes:
        peak: The most bytes held at once.
        reserved: The most bytes that the allocator took from the device for them; None without such an allocator.
    """

    peak: int
    reserved: int | None

    def held(self) -> int:
        """Return the bytes held now."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *ended: Any) -> None: ...


def new_meter(device: torch.device) -> Meter:
    """Return the meter for ``device``: it asks CUDA's allocator, or counts every tensor that an operation returns."""
    return CudaMeter(device) if device.type == "cuda" else TensorMeter()


class TensorMeter(TorchDispatchMode):
    """Counts every tensor that an operation returns until it is freed; a tensor and its views count once.

    The count is exact, and the same on every machine. It leaves out what an operation allocates and frees before it
    returns. Operations are slower meanwhile.

    >>> with TensorMeter() as meter:
    ...     kept = torch.ones(1000)
    ...     sums = kept.view(10, 100) * 2.0 + 1.0
    >>> meter.held(), meter.peak
    (8000, 12000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.reserved: int | None = None
        self._held = 0
        self._known: set[int] = set()

    def held(self) -> int:
        """Return the bytes held now."""
        return self._held

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):  # what was there before is not new when a view of it is returned
            self._meet(tensor.untyped_storage(), size=0)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            self._meet(storage, size=storage.nbytes())
        return result

    def _meet(self, storage: torch.UntypedStorage, size: int) -> None:
        """Count a storage's bytes until it is freed, unless it was met before."""
        address = storage._cdata
        if address not in self._known:
            self._known.add(address)
            self._held += size
            self.peak = max(self.peak, self._held)
            weakref.finalize(storage, self._forget, address, size)

    def _forget(self, address: int, size: int) -> None:
        self._known.discard(address)
        self._held -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


class CudaMeter:
    """Counts what CUDA's allocator hands out on one device, and what it takes from the device for that.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self.peak = 0
        self.reserved: int | None = 0
        self._device = device

    def held(self) -> int:
        """Return the bytes held now."""
        return torch.cuda.memory_allocated(self._device) - self._before

    def __enter__(self) -> Self:
        torch.cuda.init()  # before it, the allocator has no statistics
        torch.cuda.empty_cache()  # else memory that was freed earlier, and that the allocator keeps, would count
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.peak = torch.cuda.max_memory_allocated(self._device) - self._before
        self.reserved = torch.cuda.max_memory_reserved(self._device) - self._before


def tensor_bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of tensors; storage that several of them share counts once.

    >>> weight = torch.zeros(3)
    >>> tensor_bytes([weight, weight, torch.zeros(2)])
    20
    """
    return sum({tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in tensors}.values())
