"""A step of dpstune beside a step of a plain loop at one fixed shape, of the same model in the same process.

The plain loop is what a person would write: bf16 autocast where the processor has it, ``loss.backward()``, clipping,
torch's AdamW, always the same number of texts and tokens, and no padding. dpstune trains on real texts of any length.
What counts is tokens a second, padding not counted; for the tiny model, milliseconds a step.

    python benchmarks/steps.py              writes this processor's part of results/steps.json
    python benchmarks/steps.py rte short    some parts of it, which it prints alone
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

from common import GLUE, clock, in_turn, new_loop, save_part, spread

BURST, ROUNDS = 4, 6  # steps of a burst; bursts of each side, in turn, after one that warms up
SHORT, LONG = (16, 12), (16, 64)
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}


def plain_loop(recipe, dropout, shape):
    """Return a function that takes a step of the plain loop."""
    import torch
    from passes import autocast, batch

    from dpstune.models.loading import load_classifier

    model = load_classifier(recipe.model, label_names=("a", "b"), kind="classification", dropout=dropout, seed=1)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    inputs = batch(*shape)

    def step():
        with autocast():
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def compare(loaded, shape):
    """Return tokens a second of both, and their ratio."""
    from dpstune.data.inputs import Inputs

    with tempfile.TemporaryDirectory() as folder:
        loop = new_loop(loaded, folder, Inputs())
        step = plain_loop(loaded.recipe, loaded.recipe.model.dropout, shape)
        tokens = []

        def ours():
            before = loop.state.tokens
            for _ in range(BURST):
                loop.optimizer_step(loop.state.step + 1)
            tokens.append(loop.state.tokens - before)

        def plain():
            for _ in range(BURST):
                step()

        seconds = in_turn({"dpstune": ours, "plain": plain}, ROUNDS)
    mine = [count / took for count, took in zip(tokens[1:], seconds["dpstune"], strict=True)]
    others = [BURST * shape[0] * shape[1] / took for took in seconds["plain"]]
    return {
        "tokens_a_second": {"dpstune": spread(mine, 0)["median"], "plain": spread(others, 0)["median"]},
        "ratio": spread([a / b for a, b in zip(mine, others, strict=True)], 3),
        "milliseconds_a_step": {
            name: round(1000 * spread(values)["median"] / BURST, 1) for name, values in seconds.items()
        },
    }


def short_task(folder):
    """Write 500 sentences of SICK, of about 12 tokens, as a user's own task; return its recipe."""
    rows = [json.loads(line) for line in (GLUE.parent / "nli" / "sick" / "train.jsonl").open()][:500]
    with (folder / "short.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((row["premise"], row["label"]) for row in rows)
    recipe = folder / "short.yaml"
    recipe.write_text(
        "model: {name: minilm}\n"
        "task: {files: {train: short.csv, validation: 0}, text: text, label: label, kind: classification}\n"
        "training: {batch_size: 16, epochs: 2}\n"
    )
    return recipe


def save_tiny_model(folder, **size):
    """Save a BERT of width 32 and two layers, or of another ``size``, with MiniLM's tokenizer and random weights."""
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    from dpstune.models.loading import find_model

    place = find_model("minilm").place
    config = AutoConfig.from_pretrained(place, **{**TINY, **size})
    BertForSequenceClassification(config).base_model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place).save_pretrained(folder)


def tiny_steps(folder):
    """Return the milliseconds of a step of a tiny model, 16 texts each, in every native precision."""
    from dpstune.data.inputs import Inputs
    from dpstune.device.hardware import available_precisions
    from dpstune.recipe.recipe import load_recipe

    save_tiny_model(folder / "tiny")
    found = {}
    for precision in available_precisions("cpu"):
        overrides = [f"model.name={folder / 'tiny'}", f"training.precision={precision}"]
        loaded = load_recipe(str(short_task(folder)), method="vanilla", overrides=overrides)
        loop = new_loop(loaded, folder / "run", Inputs())
        took = []
        for step in range(1, 41):
            started = clock()
            loop.optimizer_step(step)
            took.append(1000 * (clock() - started))
        found[precision] = spread(took[10:], 1)
    return found


def usual_dtype():
    """Return the dtype of what autocast computes in on this processor."""
    import torch

    from dpstune.device.hardware import choose_precision

    return torch.bfloat16 if choose_precision("auto", "cpu") == "bf16" else torch.float32


def ceiling():
    """Return the tokens a second of MiniLM's matrix products alone, forward and backward, at 16 x 64 tokens."""
    import torch

    dtype, tokens = usual_dtype(), LONG[0] * LONG[1]
    sides = {}
    for inputs, outputs in ((384, 384), (384, 1536), (1536, 384)):
        x, weight, grad = (
            torch.randn(shape, dtype=dtype) for shape in ((tokens, inputs), (outputs, inputs), (tokens, outputs))
        )
        sides[f"{inputs} x {outputs}"] = lambda x=x, w=weight, g=grad: (x @ w.t(), g @ w, g.t() @ x)
    seconds = in_turn(sides, rounds=20)
    layer = sum(spread(seconds[name])["median"] * times for name, times in zip(seconds, (4, 1, 1), strict=True))
    return round(tokens / (6 * layer))


def attentions():
    """Return the milliseconds of one layer's attention, forward and backward, by torch and by dpstune."""
    import torch
    import torch.nn.functional as F

    from dpstune.device.cpu_kernels import attention

    dtype, found = usual_dtype(), {}
    for length in (64, 128):
        mask = torch.ones(16, 1, length, length, dtype=torch.bool)
        mask[0, :, :, -3:] = False
        for rate in (0.0, 0.1):

            def take(function, rate=rate, mask=mask, length=length):
                three = [torch.randn(16, 12, length, 32, dtype=dtype, requires_grad=True) for _ in range(3)]
                function(*three, attn_mask=mask, dropout_p=rate).sum().backward()

            sides = {"torch": F.scaled_dot_product_attention, "dpstune": attention}
            seconds = in_turn({name: lambda f=f: take(f) for name, f in sides.items()}, rounds=15)
            found[f"16 x {length}, dropout {rate}"] = {
                name: round(1000 * spread(values, 6)["median"], 2) for name, values in seconds.items()
            }
    return found


def rte():
    """Return the comparison on RTE, with dropout and without."""
    from dpstune.recipe.recipe import load_recipe

    settings = ["data.train_size=500", "training.epochs=2"]
    found = {}
    for dropout in (0.1, 0.0):
        overrides = [*settings, f"model.dropout={dropout}"]
        loaded = load_recipe("minilm-rte", method="vanilla", data_dir=GLUE.absolute(), overrides=overrides)
        found[f"RTE, dropout {dropout}"] = compare(loaded, LONG)
    return found


def short():
    """Return the comparison on short texts, with dropout and without."""
    from dpstune.recipe.recipe import load_recipe

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for dropout in (0.1, 0.0):
            recipe = str(short_task(Path(folder)))
            loaded = load_recipe(recipe, method="vanilla", overrides=[f"model.dropout={dropout}"])
            found[f"short texts, dropout {dropout}"] = compare(loaded, SHORT)
    return found


def tiny():
    """Return the milliseconds of a tiny model's step."""
    with tempfile.TemporaryDirectory() as folder:
        return tiny_steps(Path(folder))


def trainers():
    """Return how many times as many examples a second as `Trainer` takes dpstune takes, by what Trainer is set to."""
    import trainer

    return {name: trainer.compare(settings)[0] for name, settings in trainer.TRAINERS.items()}


PARTS = {"ceiling": ceiling, "attention": attentions, "rte": rte, "short": short, "tiny": tiny, "trainer": trainers}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    asked = parser.parse_args().parts or list(PARTS)
    from dpstune.device.hardware import keep_freed_memory

    keep_freed_memory()
    found = {}
    for name in asked:
        found[name] = PARTS[name]()
        print(name, found[name], flush=True)
    if found.keys() == PARTS.keys():
        save_part("steps", **found)


if __name__ == "__main__":
    main()
