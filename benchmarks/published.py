"""How far apart methods and their public code lie: the sizes that docs/semantics.md names.

MiniLM after 50 steps on toy-nli, on a CPU, in about two minutes.

    python benchmarks/published.py          writes results/published.json
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from common import save

from dpstune import build_method
from dpstune.data.inputs import Inputs
from dpstune.methods.subnetwork import Cycle
from dpstune.methods.twin import symmetric_divergence
from dpstune.models.loading import load_classifier, set_dropout
from dpstune.models.structure import word_embeddings
from dpstune.recipe.recipe import load_recipe

RECIPE = load_recipe("demo").recipe
SIZE, STEPS = 16, 50
SIGMA = 1e-5
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def batches():
    """Return batches of toy-nli's training examples, in the order of the file."""
    inputs = Inputs()
    tokens = inputs.tokens(RECIPE)["train"]
    return inputs.task(RECIPE), [tokens.collate(range(SIZE * n, SIZE * (n + 1))) for n in range(STEPS)]


def trained(task, given):
    """Return MiniLM after a step on each batch; the head is new, and 20 times as fast as the rest."""
    names = tuple(task.label_names)
    model = load_classifier(RECIPE.model, label_names=names, kind=task.kind, dropout=None, seed=0).train()
    torch.manual_seed(0)
    slow, fast = list(model.base_model.parameters()), list(model.classifier.parameters())
    optimizer = torch.optim.AdamW([{"params": slow, "lr": 5e-5}, {"params": fast, "lr": 1e-3}])
    for batch in given:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return model


def two_passes(model, batch, sigma, precision=torch.float32):
    """Return the logits of a clean and of a noisy pass; the noise is the same in every precision."""
    (words,) = word_embeddings(model)
    features = {key: value for key, value in batch.items() if key != "labels"}

    def add_noise(module, inputs, output):
        return output + (sigma * torch.randn(output.shape)).to(output)

    with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision in (torch.float16, torch.bfloat16)):
        clean = model(**features).logits
        handle = words.register_forward_hook(add_noise)
        noisy = model(**features).logits
        handle.remove()
    return clean, noisy


def difference_of_outputs(model, given):
    """By precision: how far noise moves the outputs without dropout, and how far that is from exact; means."""
    set_dropout(model, 0.0)
    moved = {}
    for name, precision in {"fp64": torch.float64, **PRECISIONS}.items():
        model.to(torch.float64 if name == "fp64" else torch.float32)
        torch.manual_seed(0)
        pairs = [two_passes(model, each, SIGMA, precision) for each in given]
        moved[name] = torch.cat([noisy.double() - clean.double() for clean, noisy in pairs])
    model.float()
    return {
        name: {"moved": each.abs().mean().item(), "not exact by": (each - moved["fp64"]).abs().mean().item()}
        for name, each in moved.items()
    }


def divergences(model, given):
    """The symmetric KL of a clean and a noisy pass: what noise makes of it, and what dropout does."""
    found = {}
    for dropout in (0.0, 0.1):
        for sigma in (0.0, SIGMA):
            set_dropout(model, dropout)
            torch.manual_seed(0)
            each = [symmetric_divergence(*two_passes(model, batch, sigma)).item() for batch in given]
            found[f"dropout {dropout:g}, sigma {sigma:g}"] = sum(each) / len(each)
    return found


def noise_that_survives_fp16(model):
    """The share of the word embeddings that noise changes where it is added in fp16, as fairseq --fp16 does."""
    stored = word_embeddings(model)[0].weight.detach().half()
    drawn = {"normal": SIGMA * torch.randn(stored.shape), "uniform": SIGMA * (2 * torch.rand(stored.shape) - 1)}
    return {name: (stored + noise.half()).ne(stored).float().mean().item() for name, noise in drawn.items()}


def detached_gradients(model, given):
    """How far ``detach`` moves the gradient of the word embeddings, over its norm; all else is the same."""
    found = {}
    for dropout, sigma in ((0.0, SIGMA), (0.1, SIGMA), (0.0, 1e-2)):
        set_dropout(model, dropout)
        gradients = {}
        for detach in (True, False):
            method = build_method({"name": "r3f", "sigma": sigma, "detach": detach})
            method.attach(model, total_steps=1)
            model.zero_grad()
            torch.manual_seed(0)
            for batch in given[:8]:
                method.loss(model, batch).backward()
            method.detach()
            gradients[detach] = word_embeddings(model)[0].weight.grad.clone()
        apart = (gradients[False] - gradients[True]).norm() / gradients[True].norm()
        found[f"dropout {dropout:g}, sigma {sigma:g}, lambda 1"] = apart.item()
    return found


def r_drop_losses(model, given):
    """The divergence over the cross-entropy: by the paper's formula with alpha 1, and as public code weighs it."""
    set_dropout(model, 0.1)
    torch.manual_seed(0)
    parts = []
    for batch in given:
        first, second = two_passes(model, batch, 0.0)
        labels = batch["labels"]
        parts.append(
            (F.cross_entropy(first, labels), F.cross_entropy(second, labels), symmetric_divergence(first, second))
        )
    ce1, ce2, kl = (torch.stack(each).mean().item() for each in zip(*parts, strict=True))
    ways = {
        "paper, fairseq roberta (alpha 1)": (ce1 + ce2, kl / 2),
        "README, mean (alpha 1)": ((ce1 + ce2) / 2, kl / 2),
        "transformers BERT": (ce1 + ce2, 0.5 * SIZE * kl / 2),
        "transformers RoBERTa": (0.5 * ce1, 0.7 * SIZE * kl / 2),
    }
    ours = kl / 2 / (ce1 + ce2)
    return {
        name: {"divergence over cross-entropy": part / task, "alpha that gives it": part / task / ours}
        for name, (task, part) in ways.items()
    }


def percentile(model, given):
    """CHILD-TUNING-D: elements that numpy's interpolated percentile keeps otherwise than ceil(n * p) largest."""
    method = build_method({"name": "child-tuning-d", "p": 0.2})
    method.attach(model, total_steps=1)
    fisher = {name: torch.zeros_like(parameter) for name, parameter in method._parameters.items()}
    for batch in given[:8]:
        model.zero_grad()
        model(**batch).loss.backward()
        for name, parameter in method._parameters.items():
            torch.nn.utils.clip_grad_norm_(parameter, 1.0)
            fisher[name] += parameter.grad**2 / 8
    model.zero_grad()
    values = torch.cat([each.flatten() for each in fisher.values()])
    found = {"elements": values.numel()}
    for p in (0.1, 0.2, 0.3):
        method.config = method.config.model_copy(update={"p": p})
        method.choose(fisher)
        ours = torch.cat([method.masks[name].flatten() for name in fisher])
        theirs = values >= float(np.percentile(values.numpy(), (1 - p) * 100))
        found[f"p {p:g}"] = {"kept": int(ours.sum()), "otherwise": int((ours != theirs).sum())}
    method.detach()
    return found


def schedules():
    """What optimizers differ in, from their formulas."""
    without_correction = {step: (1 - 0.9**step) / math.sqrt(1 - 0.999**step) for step in (1, 10, 100, 1000, 10000)}
    rates = sum(2e-5 * min(step / 122, (2036 - step) / (2036 - 122)) for step in range(2036))
    cycles = {}
    for size in (500, 1000):
        an_epoch = math.ceil(size / SIZE)
        cycles[f"{size} examples"] = {
            ratio: {"theirs": int(an_epoch * ratio), "ours": Cycle.of(3 * an_epoch, ratio).update_steps}
            for ratio in (0.05, 0.1, 0.2)
        }
    return {
        "Adam without bias correction: its step over the corrected one, by step": without_correction,
        "roberta-rte: what weight decay takes off a weight in a run": {
            decay: 1 - math.exp(-decay * rates) for decay in (0.1, 0.01)
        },
        "low resource: steps of a stage, by update_ratio": cycles,
    }


def main():
    torch.set_num_threads(1)
    task, given = batches()
    model = trained(task, given)
    found = {
        "R3F: how far the noise moves an output": difference_of_outputs(model, given[:8]),
        "R3F: the divergence": divergences(model, given[:8]),
        "R3F: share of fp16 embeddings that the noise changes": noise_that_survives_fp16(model),
        "R3F: what detach changes in the gradient of the word embeddings": detached_gradients(model, given),
        "R-Drop: losses": r_drop_losses(model, given[:8]),
        "CHILD-TUNING-D: the percentile": percentile(model, given),
        **schedules(),
    }
    for title, values in found.items():
        print(title, *(f"  {name}: {value}" for name, value in values.items()), sep="\n")
    save("published", found)


if __name__ == "__main__":
    main()
