"""What a half precision changes: the weights that DPS selects, the scores of an evaluation, and R3F's divergence.

MiniLM on RTE, in one process: the same weights and examples in fp16 and bf16 beside fp32.

    python benchmarks/precision.py          writes results/precision.json
"""

import tempfile

import torch
from common import GLUE, new_loop, save

HALVES = ("fp16", "bf16")
STEPS = 8  # whose squared gradients are accumulated, on the pre-trained weights
SHORT = ["data.train_size=500", "training.steps=100", "model.dropout=0.0"]


def loop_in(precision, method, folder):
    from dpstune.inputs import Inputs
    from dpstune.recipe import load_recipe

    overrides = [*SHORT, f"training.precision={precision}"]
    loaded = load_recipe("minilm-rte", method=method, data_dir=GLUE.absolute(), overrides=overrides)
    return new_loop(loaded, folder, Inputs())


def accumulate(loop):
    """Have DPS Dense see the gradients of a few steps' examples; the weights stay pre-trained."""
    for step in range(1, STEPS + 1):
        (chunk,) = loop.plan.chunks(step)
        for indices in loop._passes(chunk):
            share = len(indices) / len(chunk)
            loop.accelerator.backward(loop.method.loss(loop.wrapped, loop._batch(indices)) * share)
        loop.accelerator.unscale_gradients()
        loop.method.before_clip()
        loop.optimizer.optimizer.zero_grad()
        if loop.accelerator.scaler is not None:
            loop.accelerator.scaler.update(loop.accelerator.scaler.get_scale())


def selection(loop, p):
    from dpstune.methods.subnetwork import select

    return torch.cat([select(gam, p).flatten() for gam in loop.method.gam.values()])


def scores(loop):
    from dpstune.evaluation import score

    return score(loop.wrapped, loop.datasets["validation"], width=2, batch_size=64, device=loop.accelerator.device)


def divergence(loop):
    """R3F's divergence of its two passes over one batch, before the first step."""
    from dpstune.methods.twin import symmetric_divergence, twin_logits
    from dpstune.randomness import seed_torch

    seed_torch(loop.accelerator.device, 1, "precision")
    with torch.no_grad():
        clean, noisy = twin_logits(loop.wrapped, loop._batch(range(16)), loop.method._noisy_from)
    return (clean - noisy).abs().max().item(), symmetric_divergence(noisy, clean).item()


def main():
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen, logits, noise = {}, {}, {}
        for precision in ("fp32", *HALVES):
            loop = loop_in(precision, "dps-dense", folder)
            logits[precision] = scores(loop)
            accumulate(loop)
            chosen[precision] = selection(loop, 0.3)
            noise[precision] = divergence(loop_in(precision, "r3f", folder))
    for precision in HALVES:
        rows[precision] = {
            "selected otherwise": (chosen[precision] != chosen["fp32"]).float().mean().item(),
            "largest difference of a logit": (logits[precision] - logits["fp32"]).abs().max().item(),
            "answers that differ": int((logits[precision].argmax(1) != logits["fp32"].argmax(1)).sum()),
        }
    print(rows, noise)
    save("precision", {"against fp32": rows, "R3F: largest difference of a logit, divergence": noise})


if __name__ == "__main__":
    main()
