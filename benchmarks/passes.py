"""What a pass costs beside its tokens, what cutting batches gives, and two passes beside one of twice the size.

MiniLM, forward and backward of one batch; an epoch of RTE's batches.

    python benchmarks/passes.py          writes results/passes.json
"""

import statistics
import tempfile
from contextlib import contextmanager

import torch
from common import GLUE, SETTINGS, in_turn, new_loop, ratio, save

from dpstune.device.hardware import choose_precision, keep_freed_memory


def new_model():
    from dpstune.models.loading import load_classifier
    from dpstune.settings.sections import ModelSection

    section = ModelSection(name="minilm", init="random")
    return load_classifier(section, label_names=("a", "b"), kind="classification", dropout=0.1, seed=1).train()


def batch(size, length):
    ids = torch.randint(1000, 20000, (size, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.randint(0, 2, (size,))}


def autocast():
    half = choose_precision("auto", "cpu") == "bf16"
    return torch.autocast("cpu", torch.bfloat16, enabled=half)


def cost_of_a_pass():
    """Return the tokens in whose time a pass does what does not depend on them: 16 x 64 in one pass and in four."""
    model = new_model()

    def take(parts):
        for _ in range(parts):
            with autocast():
                loss = model(**batch(16 // parts, 64)).loss
            loss.backward()
        model.zero_grad()

    seconds = in_turn({"one": lambda: take(1), "four": lambda: take(4)}, rounds=10)
    one, four = (statistics.median(seconds[name]) for name in ("one", "four"))
    extra = (four - one) / 3
    return {"seconds": {"one": one, "four": four}, "tokens": round(extra / ((one - extra) / 1024))}


@contextmanager
def uncut(loop):
    """Compute every chunk in one pass, of the loop that is given."""
    from dpstune.data.passes import NEVER_CUT

    kept = loop.forward.cost
    loop.forward.cost = NEVER_CUT
    try:
        yield
    finally:
        loop.forward.cost = kept


def cut_batches():
    """Take the steps of an epoch of RTE with batches cut and uncut, in turn; return the ratio of the times."""
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe

    inputs, found = Inputs(), {}
    for method in ("vanilla", "dps-dense", "dps-mix"):
        loaded = load_recipe("minilm-rte", method=method, data_dir=GLUE.absolute(), overrides=SETTINGS)
        with tempfile.TemporaryDirectory() as folder:
            loops = {name: new_loop(loaded, folder, inputs) for name in ("cut", "uncut")}

            def uncut_step(loop=loops["uncut"]):
                with uncut(loop):
                    loop.optimizer_step(loop.state.step + 1)

            def cut_step(loop=loops["cut"]):
                loop.optimizer_step(loop.state.step + 1)

            seconds = in_turn({"cut": cut_step, "uncut": uncut_step}, rounds=30)
        total = {name: sum(values) for name, values in seconds.items()}
        found[method] = {"seconds": total, "speedup": round(total["uncut"] / total["cut"], 3)}
        print(method, found[method])
    return found


def two_passes():
    """Return the time of two passes in the memory of one, over one pass of twice the size."""
    from dpstune import build_method
    from dpstune.methods import twin

    model, found = new_model(), {}
    method = build_method({"name": "r-drop"})
    method.attach(model, total_steps=10)
    kept = twin.TWIN_TOKENS

    def take(size, length, most_tokens):
        twin.TWIN_TOKENS = most_tokens
        with autocast():
            loss = method.loss(model, batch(size, length))
        loss.backward()
        model.zero_grad()

    for size, length in ((16, 16), (16, 64), (16, 128), (32, 128)):
        sides = {
            "two": lambda size=size, length=length: take(size, length, 0),
            "doubled": lambda size=size, length=length: take(size, length, 10**9),
        }
        found[f"{size} x {length}"] = ratio(in_turn(sides, rounds=6), "two", "doubled")
    twin.TWIN_TOKENS = kept
    return found


def main():
    keep_freed_memory()
    save("passes", {"a_pass": cost_of_a_pass(), "cut": cut_batches(), "two_over_doubled": two_passes()})


if __name__ == "__main__":
    main()
