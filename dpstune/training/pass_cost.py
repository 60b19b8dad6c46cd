"""What a forward and backward pass costs beside its tokens, on the device at hand.

Derived from what the processor has and from the model's size, not timed, and the same for any number of threads: a run
that is repeated must cut its batches the same way, since each pass draws its own dropout. A checkpoint holds the cost,
so that a run goes on as it began. The figures are from an Intel Xeon (benchmarks/README.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpstune.data.passes import NEVER_CUT, PassCost
from dpstune.device.hardware import has_matrix_units

if TYPE_CHECKING:
    import torch
    from torch import nn

# Seconds of a pass: for each linear layer (calls of some thirty operations), and for each weight of one (converted to
# the pass's precision, and its gradient added to the other passes').
_A_LAYER, _A_WEIGHT = 0.35e-3, 2.0e-9
# Seconds of a token, on two threads: for each weight, by what multiplies matrices; and for each output of a layer.
_TOKEN_WEIGHT = {"amx": 1.8e-12, "avx512": 8e-12, "fp32": 22e-12}
_TOKEN_OUTPUT = 5.8e-9


def pass_cost(model: nn.Module, device: torch.device, precision: str) -> PassCost:
    """Return the cost of a pass of ``model``; on an accelerator, where none was measured, batches are never cut.

    Args:
        model: Counts by its linear layers.
        device: Where it trains.
        precision: As Accelerate names it: ``no``, ``fp16`` or ``bf16``.
    """
    from torch import nn

    if device.type != "cpu":
        return NEVER_CUT
    matrices = [module.weight for module in model.modules() if isinstance(module, nn.Linear)]
    weights = sum(weight.numel() for weight in matrices)
    outputs = sum(weight.shape[0] for weight in matrices)
    with_units = has_matrix_units(precision)
    products = "fp32" if precision == "no" else "amx" if with_units else "avx512"
    token = weights * _TOKEN_WEIGHT[products] + outputs * _TOKEN_OUTPUT
    tokens = (len(matrices) * _A_LAYER + weights * _A_WEIGHT) / token if token else NEVER_CUT.tokens
    # oneDNN's kernels for AMX are made for one shape, and to make them for another takes as long as 170 tokens.
    return PassCost(round(tokens), few_shapes=with_units)
