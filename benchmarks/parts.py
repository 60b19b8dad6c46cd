"""The parts that were made faster, each beside what stood there before, on the shapes of MiniLM's linear weights.

python benchmarks/parts.py          writes results/parts.json
"""

import math

import torch
from common import in_turn, ratio, save

from dpstune.device.hardware import keep_freed_memory
from dpstune.methods.base import gradients_are_finite
from dpstune.methods.groups import add_squares
from dpstune.methods.mixing import mix
from dpstune.methods.subnetwork import octets, pack_bits, select, unpack_bytes

SHAPES = [*[(384, 384)] * 24, *[(1536, 384)] * 6, *[(384, 1536)] * 6]
P = 0.3


def fresh(make):
    return [make(shape) for shape in SHAPES]


def infinity_norm(gradients):
    return torch.stack(list(torch._foreach_norm(gradients, float("inf")))).isfinite().all()


def unpack_by_shifts(packed, shape):
    shifts = torch.arange(8, dtype=torch.uint8)
    return ((packed.unsqueeze(1) >> shifts) & 1).bool().flatten()[: shape.numel()].view(shape)


def k_largest(scores):
    kept = math.ceil(scores.numel() * (1 - P))
    return scores >= scores.flatten().topk(kept, sorted=False).values.min()


def by_sorting(scores):
    kept = math.ceil(scores.numel() * (1 - P))
    return scores >= scores.flatten().sort(descending=True).values[kept - 1]


def parts():
    """Return, by name, two functions: before and now."""
    weights, targets = fresh(torch.randn), fresh(torch.randn)
    gradients, sums = fresh(lambda shape: torch.randn(shape) * 1e-3), fresh(torch.zeros)
    columns = fresh(lambda shape: torch.rand(shape[1]) > P)
    scores, masks = fresh(torch.rand), fresh(lambda shape: torch.rand(shape) > P)
    packed, table, true = [pack_bits(mask) for mask in masks], octets(torch.device("cpu")), torch.tensor(True)
    model = torch.nn.Module()
    for number, gradient in enumerate(gradients):
        parameter = torch.nn.Parameter(torch.zeros_like(gradient))
        parameter.grad = gradient
        model.register_parameter(str(number), parameter)

    def mix_all():
        return [mix(w, t, m / (1 - P)).bfloat16() for w, t, m in zip(weights, targets, columns, strict=True)]

    def old_squares():
        for total, gradient in zip(sums, gradients, strict=True):
            total.add_(gradient.square().where(true, 0.0))

    def new_squares():
        add_squares(sums, gradients, true)

    return {
        "gradients are finite: largest element, norm": (
            lambda: infinity_norm(gradients),
            lambda: gradients_are_finite(model),
        ),
        "add squares: three passes, one": (old_squares, new_squares),
        "mix in bf16: forward and backward, forward alone": (lambda: (mix_all(), mix_all()), mix_all),
        "unpack the selection: shifts, look-up": (
            lambda: [unpack_by_shifts(each, mask.shape) for each, mask in zip(packed, masks, strict=True)],
            lambda: [unpack_bytes(each, table) for each in packed],
        ),
        "select (once in 2 stages): sort, k-th value": (
            lambda: [by_sorting(each) for each in scores],
            lambda: [select(each, P) for each in scores],
        ),
        "select: k largest (not taken), k-th value": (
            lambda: [k_largest(each) for each in scores],
            lambda: [select(each, P) for each in scores],
        ),
    }


def main():
    keep_freed_memory()
    rows = {}
    with torch.no_grad():
        for name, (before, now) in parts().items():
            seconds = in_turn({"before": before, "now": now}, rounds=15)
            medians = {side: round(1000 * sorted(values)[len(values) // 2], 2) for side, values in seconds.items()}
            rows[name] = {"milliseconds": medians, "ratio": ratio(seconds, "now", "before")}
            print(name, medians)
    save("parts", {"rows": rows})


if __name__ == "__main__":
    main()
