"""What a half precision changes: the weights that DPS selects, and the scores of an evaluation.

MiniLM on RTE, in one process: the same weights and examples in fp16 and bf16 beside fp32.

    python benchmarks/precision.py          writes results/precision.json
"""

import tempfile

import torch
from common import GLUE, new_loop, save

HALVES = ("fp16", "bf16")
STEPS = 8  # whose squared gradients are accumulated, on the pre-trained weights
SHORT = ["data.train_size=500", "training.steps=100", "model.dropout=0.0"]


def loop_in(precision, folder):
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe

    overrides = [*SHORT, f"training.precision={precision}"]
    loaded = load_recipe("minilm-rte", method="dps-dense", data_dir=GLUE.absolute(), overrides=overrides)
    return new_loop(loaded, folder, Inputs())


def accumulate(loop):
    """Have DPS Dense see the gradients of a few steps' examples; the weights stay pre-trained."""
    for step in range(1, STEPS + 1):
        (chunk,) = loop.plan.chunks(step)
        for taken in loop.forward.cut(chunk):
            share = len(taken.indices) / len(chunk)
            loop.accelerator.backward(loop.method.loss(loop.wrapped, loop.forward.batch(taken)) * share)
        loop.accelerator.unscale_gradients()
        loop.method.before_clip()
        loop.optimizer.optimizer.zero_grad()
        if loop.accelerator.scaler is not None:
            loop.accelerator.scaler.update(loop.accelerator.scaler.get_scale())


def selection(loop, p):
    from dpstune.methods.subnetwork import select

    return torch.cat([select(gam, p).flatten() for gam in loop.method.gam.values()])


def scores(loop):
    from dpstune.evaluation.scoring import score

    with loop.words.whole():
        return score(loop.wrapped, loop.datasets["validation"], width=2, batch_size=64, device=loop.accelerator.device)


def main():
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        chosen, logits = {}, {}
        for precision in ("fp32", *HALVES):
            loop = loop_in(precision, folder)
            logits[precision] = scores(loop)
            accumulate(loop)
            chosen[precision] = selection(loop, 0.3)
    for precision in HALVES:
        rows[precision] = {
            "selected_otherwise": (chosen[precision] != chosen["fp32"]).float().mean().item(),
            "largest_difference": (logits[precision] - logits["fp32"]).abs().max().item(),
            "answers_that_differ": int((logits[precision].argmax(1) != logits["fp32"].argmax(1)).sum()),
        }
    save("precision", {"answers": len(logits["fp32"]), "against_fp32": rows})


if __name__ == "__main__":
    main()
