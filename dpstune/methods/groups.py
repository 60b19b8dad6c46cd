"""Work over many tensors in few kernel launches, with temporaries of a bounded size.

A step on a GPU is bound by the launches of its kernels. torch's ``_foreach_`` functions take lists and launch a few
kernels for all of their tensors. Where each tensor needs a temporary of its own size, one group is taken at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GROUP = 2**24
"""Most elements of a group on an accelerator: 64 MiB in float32; a ``_foreach_`` function takes one kernel for it."""


def on_cpu(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor is on a CPU, where a launch costs nothing and a number can be read without waiting."""
    return tensor.device.type == "cpu"


def groups(tensors: Sequence[torch.Tensor]) -> Iterator[slice]:
    """Cut a list into groups of neighbours: one dtype, one device, up to ``GROUP`` elements; yield their slices.

    A larger tensor is a group of its own. On a CPU every tensor is one: a launch costs nothing there, and a temporary
    that fits into the cache is made faster.

    >>> import torch
    >>> list(groups([torch.zeros(2), torch.zeros(2)]))
    [slice(0, 1, None), slice(1, 2, None)]
    """
    start = elements = 0
    for position, tensor in enumerate(tensors):
        size = tensor.numel()
        first = tensors[start]
        alike = (tensor.dtype, tensor.device) == (first.dtype, first.device)
        if position > start and (on_cpu(tensor) or not alike or elements + size > GROUP):
            yield slice(start, position)
            start, elements = position, 0
        elements += size
    if tensors:
        yield slice(start, len(tensors))


def multiply(tensors: list[torch.Tensor], masks: list[torch.Tensor]) -> None:
    """Multiply floating-point tensors in place by 0/1 masks of the same shapes; the masks may have any dtype.

    >>> import torch
    >>> values = [torch.ones(2), torch.full((1, 2), 3.0)]
    >>> multiply(values, [torch.tensor([True, False]), torch.tensor([[False, True]])])
    >>> values
    [tensor([1., 0.]), tensor([[0., 3.]])]
    """
    import torch

    for part in groups(tensors):
        factors = masks[part]
        if part.stop - part.start > 1:
            # In the tensors' own dtype: with other dtypes ``_foreach_mul_`` launches one kernel for each tensor.
            factors = [torch.empty_like(tensor) for tensor in tensors[part]]
            torch._foreach_copy_(factors, masks[part])
        torch._foreach_mul_(tensors[part], factors)


def are_finite(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Return a 0-d bool tensor: true if no tensor, one or more, holds an inf or a nan, and no norm overflows.

    The answer stays on the tensors' device, so that the host need not wait for it.

    >>> import torch
    >>> are_finite([torch.ones(2), torch.tensor([float("inf")])])
    tensor(False)
    """
    import torch

    # The 2-norm: on a CPU its kernel is some twenty times as fast as the one for the largest element.
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors)]).isfinite().all()


def add_squares(accumulators: list[torch.Tensor], gradients: list[torch.Tensor], finite: torch.Tensor) -> None:
    """Add g * g to each accumulator if ``finite``, a 0-d bool tensor, is true; else change nothing.

    >>> import torch
    >>> accumulator = torch.ones(2)
    >>> add_squares([accumulator], [torch.tensor([2.0, 3.0])], torch.tensor(True))
    >>> add_squares([accumulator], [torch.tensor([2.0, float("nan")])], torch.tensor(False))
    >>> accumulator.tolist()
    [5.0, 10.0]
    """
    import torch

    for part, taken in _taken_if(finite, accumulators, gradients):
        torch._foreach_addcmul_(accumulators[part], taken, taken)


def add_magnitudes(accumulators: list[torch.Tensor], gradients: list[torch.Tensor], finite: torch.Tensor) -> None:
    """Add |g| to each accumulator if ``finite``, a 0-d bool tensor, is true; else change nothing.

    >>> import torch
    >>> accumulator = torch.ones(2)
    >>> add_magnitudes([accumulator], [torch.tensor([-2.0, 3.0])], torch.tensor(True))
    >>> accumulator.tolist()
    [3.0, 4.0]
    """
    import torch

    for part, taken in _taken_if(finite, accumulators, gradients):
        torch._foreach_add_(accumulators[part], torch._foreach_abs(taken))


def subtract_products(
    accumulators: list[torch.Tensor], gradients: list[torch.Tensor], weights: list[torch.Tensor], finite: torch.Tensor
) -> None:
    """Subtract g * w from each accumulator if ``finite``, a 0-d bool tensor, is true; else change nothing.

    >>> import torch
    >>> accumulator = torch.ones(2)
    >>> subtract_products([accumulator], [torch.tensor([-2.0, 3.0])], [torch.tensor([1.0, 2.0])], torch.tensor(True))
    >>> accumulator.tolist()
    [3.0, -5.0]
    """
    import torch

    for part, taken in _taken_if(finite, accumulators, gradients):
        factors = [w.detach().to(total.dtype) for total, w in zip(accumulators[part], weights[part], strict=True)]
        torch._foreach_addcmul_(accumulators[part], taken, factors, value=-1)


def _taken_if(
    finite: torch.Tensor, accumulators: list[torch.Tensor], gradients: list[torch.Tensor]
) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Yield, group by group, the gradients in their accumulators' precision; zeros, or nothing, if not ``finite``."""
    ask = on_cpu(finite)  # on a GPU the host would have to wait for the answer
    if ask and not finite:
        return
    for part in groups(accumulators):
        taken = [g.to(total.dtype) for total, g in zip(accumulators[part], gradients[part], strict=True)]
        yield part, taken if ask else zero_unless(finite, taken)


def from_host(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor that the host has made to a device; a GPU copies from pinned memory while the host goes on."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def move_toward(
    averages: list[torch.Tensor], values: list[torch.Tensor], share: torch.Tensor, finite: torch.Tensor
) -> None:
    """Move each average by a share of its way to a value, a += share * (v - a), if ``finite``; else change nothing.

    Args:
        averages: Of a value's shape each; changed in place.
        values: In any dtype.
        share: 0-d, on the averages' device; the host does not read it.
        finite: A 0-d bool tensor, likewise.

    >>> import torch
    >>> average = torch.tensor([1.0, 2.0])
    >>> move_toward([average], [torch.tensor([5.0, 2.0])], torch.tensor(0.25), torch.tensor(True))
    >>> average.tolist()
    [2.0, 2.0]
    """
    import torch

    ask = on_cpu(finite)  # on a GPU the host would have to wait for the answer
    if ask and not finite:
        return
    for part in groups(averages):
        taken = [value.detach().to(average.dtype) for average, value in zip(averages[part], values[part], strict=True)]
        ways = list(torch._foreach_sub(taken, averages[part]))
        if not ask:
            ways = zero_unless(finite, ways)
        torch._foreach_mul_(ways, share.to(ways[0].dtype))
        torch._foreach_add_(averages[part], ways)


def zero_unless(condition: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors as they are if ``condition``, a 0-d bool tensor, is true; else zeros.

    The bits are multiplied, as integers, by 1 or 0: a product of floats would keep a nan, and ``torch.where`` takes no
    list.

    Args:
        condition: On the tensors' device.
        tensors: One or more, all of one floating dtype.

    >>> import torch
    >>> spoilt = [torch.tensor([1.5, float("nan")]), torch.tensor([float("inf")])]
    >>> zero_unless(torch.tensor(False), spoilt)
    [tensor([0., 0.]), tensor([0.])]
    >>> zero_unless(torch.tensor(True), spoilt)
    [tensor([1.5000,    nan]), tensor([inf])]
    """
    import torch

    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensors[0].element_size()]
    factor = condition.to(bits)
    products = torch._foreach_mul([tensor.view(bits) for tensor in tensors], factor)
    return [product.view(tensor.dtype) for product, tensor in zip(products, tensors, strict=True)]
