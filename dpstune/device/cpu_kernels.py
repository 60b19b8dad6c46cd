"""Attention and dropout on a CPU, in training: the same functions as torch's, from faster operations.

torch's fused attention has a slow backward pass in half precision on a CPU, and where dropout is drawn it computes all
in float32; ``bernoulli_`` takes several nanoseconds a number (benchmarks/README.md). Both are called by every model, so
they are replaced where they are called, for the time of a training step: no model is changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_LEVELS = 1 << 16  # of a random number of 16 bits
_FEWEST = 4096  # below so many elements torch's own dropout is as fast
_LONGEST = 192  # above so many keys torch's fused attention is as fast, and keeps less for the backward pass


class CpuKernels(TorchFunctionMode):
    """Within this context, models that are called in training compute attention and dropout as this module does.

    It holds for a forward pass. What the backward pass computes again needs ``alike_again``.

    >>> with CpuKernels():
    ...     kept = F.dropout(torch.ones(100_000), 0.1).count_nonzero()
    >>> bool(89_000 < kept < 91_000)
    True
    """

    entered = 0
    """How many such contexts there are now; of this class, not of one."""

    def __enter__(self) -> Self:
        """Begin to replace."""
        CpuKernels.entered += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: object) -> None:
        """Replace no longer."""
        CpuKernels.entered -= 1
        super().__exit__(*raised)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call ``func``, or what replaces it."""
        return _REPLACED.get(func, func)(*args, **(kwargs or {}))


def alike_again() -> tuple[AbstractContextManager[object], AbstractContextManager[object]]:
    """Return contexts for ``torch.utils.checkpoint``: what it computes again is computed as it was the first time.

    Its parameter ``context_fn`` is this function.
    """
    return nullcontext(), CpuKernels() if CpuKernels.entered else nullcontext()


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return ``F.dropout``; its bits are a function of one number drawn from torch's generator.

    16 random bits decide about an element, so ``p`` is rounded to a 65,536th, and is one at least.
    """
    if not training or inplace or not 0.0 < p < 1.0 or input.numel() < _FEWEST or input.device.type != "cpu":
        return F.dropout(input, p, training, inplace)
    return input * _noise(input, p)


def _noise(like: Tensor, p: float) -> Tensor:
    """Return 0 with probability ``p`` and else 1 / (1 - p), in shape and dtype of ``like``."""
    dropped = min(max(round(p * _LEVELS), 1), _LEVELS - 1)
    keep = 1.0 - dropped / _LEVELS
    kept = _random_int16(like.numel()).ge_(dropped - _LEVELS // 2)  # 0 or 1, as int16
    if like.dtype in (torch.bfloat16, torch.float16):
        # 0 or the bits of 1 / keep: faster than to convert 0 and 1 to a half precision, and multiply.
        bits = int(torch.tensor(1.0 / keep, dtype=like.dtype).view(torch.int16))
        return kept.mul_(bits).view(like.dtype).view(like.shape)
    return kept.to(like.dtype).div_(keep).view(like.shape)


def _random_int16(count: int) -> Tensor:
    """Return ``count`` random integers of 16 bits, from a generator that torch's own seeds."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    words = np.random.SFC64(seed).random_raw(-(-count // 4))  # of 64 bits
    return torch.from_numpy(words.view(np.int16))[:count]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return ``F.scaled_dot_product_attention``.

    Scores and their softmax are computed in float32, products with the values in the precision of the inputs: as
    accurate as torch's fused kernel. What is long and has no dropout, and masks that are no plain yes or no, are left
    to torch.
    """
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else query.dtype
    fused = dropout_p == 0.0 and (dtype == torch.float32 or not torch.is_grad_enabled() or key.shape[-2] > _LONGEST)
    unusual = enable_gqa or query.device.type != "cpu" or query.dtype == torch.float64
    if fused or unusual or not _is_plain(attn_mask, is_causal):
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    with torch.autocast("cpu", enabled=False):
        factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        scores = (query.float() * factor) @ key.float().transpose(-1, -2)
        bias = _bias(attn_mask, is_causal, scores)
        weights = (scores if bias is None else scores.add_(bias)).softmax(-1).to(dtype)
        return dropout(weights, dropout_p) @ value


def _is_plain(mask: Tensor | None, is_causal: bool) -> bool:
    """Tell whether a mask, if there is one, says of each pair yes or no, and every query sees something."""
    return mask is None or (mask.dtype == torch.bool and not is_causal and bool(mask.any(-1).all()))


def _bias(mask: Tensor | None, is_causal: bool, scores: Tensor) -> Tensor | None:
    """Return what is added to scores, so that a query does not see what it must not."""
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is None:
        return None
    return torch.zeros(mask.shape).masked_fill_(~mask, torch.finfo(torch.float32).min)


_REPLACED: dict[Callable[..., Any], Callable[..., Any]] = {
    F.dropout: dropout,
    F.scaled_dot_product_attention: attention,
}
