"""Vanilla fine-tuning by dpstune and by Hugging Face's Trainer: RTE, one recipe, the same examples at every step.

A process a side, which take bursts of steps in turn. Metric: with the model's dropout, which each draws for itself, and
without dropout, where nothing but float error differs.

    python benchmarks/trainer.py              writes results/trainer.json
"""

from contextlib import ExitStack

from common import GLUE, SETTINGS, ratio, save
from sides import Side, bursts_in_turn

# same: dpstune's precision, padding to the longest of the batch. usual: what transformers' run_glue.py does by default.
TRAINERS = {"same": {"half": True, "padding": "longest"}, "usual": {"half": False, "padding": "max_length"}}
BURST = 4  # steps


def compare(settings, *overrides):
    """Train both for an epoch, a burst each in turn; return examples a second, accuracies and peak memory."""
    from dpstune.recipe.recipe import load_recipe

    settings_of_both = [*SETTINGS, *overrides]
    job = {"recipe": "minilm-rte", "overrides": settings_of_both, "data_dir": str(GLUE.absolute())}
    training = load_recipe("minilm-rte", method="vanilla", overrides=settings_of_both).recipe.training
    rounds = 500 // training.batch_size // BURST - 1  # whole bursts of full batches, one of which warms up
    with ExitStack() as stack:
        sides = {
            "dpstune": stack.enter_context(Side(kind="dpstune", **job)),
            "trainer": stack.enter_context(Side(kind="trainer", **job, **settings)),
        }
        for side in sides.values():
            side.ready()
        seconds = bursts_in_turn(sides, BURST, rounds)
        peaks = {name: side.ask("peak") for name, side in sides.items()}
        for side in sides.values():
            side.ask(-(-500 // training.batch_size) - (rounds + 1) * BURST)  # the rest of the epoch
        accuracy = {name: side.ask("accuracy") for name, side in sides.items()}
    examples = rounds * BURST * training.batch_size
    speed = {name: examples / sum(values) for name, values in seconds.items()}
    paired = ratio(seconds, "trainer", "dpstune")
    return {
        "examples_a_second": {name: round(value, 2) for name, value in speed.items()},
        "ratio": paired["median"],
        "quartiles": paired["quartiles"],
        "steps": rounds * BURST,
        "accuracy": accuracy,
    }, peaks


def main():
    speed, peaks = {}, {}
    for name, settings in TRAINERS.items():
        speed[name], found = compare(settings)
        peaks |= {"dpstune": found["dpstune"], name: found["trainer"]}
        print(name, speed[name], found)
    speed["same, without dropout"], _ = compare(TRAINERS["same"], "model.dropout=0.0")
    save("trainer", {"speed": speed, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
