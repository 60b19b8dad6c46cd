"""Vanilla fine-tuning by dpstune and by Hugging Face's Trainer: RTE, one recipe, the same examples at every step.

Speed: in one process, step by step in turn (Trainer's callback takes dpstune's step). Memory: a process each. Metric:
with the model's dropout, which each draws for itself, and without dropout, where nothing but float error differs.

    python benchmarks/trainer.py              writes results/trainer.json
    python benchmarks/trainer.py --alone dpstune|same|usual     one of them alone; prints its peak memory
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time

from common import GLUE, SETTINGS, new_loop, save

LENGTH = 128
# same: dpstune's precision, padding to the longest of the batch. usual: what transformers' run_glue.py does by default.
TRAINERS = {"same": {"half": True, "padding": "longest"}, "usual": {"half": False, "padding": "max_length"}}


def load(*overrides):
    from dpstune.recipe import load_recipe

    return load_recipe("minilm-rte", method="vanilla", data_dir=GLUE.absolute(), overrides=[*SETTINGS, *overrides])


def build_trainer(loaded, inputs, folder, half, padding, callbacks=()):
    """A Trainer on the recipe's examples, in the engine's order."""
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from dpstune.batches import StepPlan
    from dpstune.hardware import available_precisions
    from dpstune.models import load_classifier

    recipe = loaded.recipe
    training, task, tokenizer = recipe.training, inputs.task(recipe), inputs.tokenizer(recipe)
    encoded = {split: encode(examples, tokenizer, padding) for split, examples in task.splits.items()}
    plan = StepPlan(recipe, inputs.tokens(recipe)["train"].lengths, processes=1)
    steps = plan.steps_per_epoch
    order = [index for step in range(1, steps + 1) for chunk in plan.chunks(step) for index in chunk]
    model = load_classifier(
        recipe.model, label_names=task.label_names, kind=task.kind, dropout=recipe.model.dropout, seed=recipe.seed
    )
    precision = available_precisions("cuda" if torch.cuda.is_available() else "cpu")[0]
    arguments = TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.eval_batch_size,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        num_train_epochs=1,
        warmup_steps=round(steps * training.warmup_ratio + 0.5),
        train_sampling_strategy="sequential",
        seed=recipe.seed,
        bf16=half and precision == "bf16",
        fp16=half and precision == "fp16",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    return Trainer(
        model,
        arguments,
        train_dataset=[encoded["train"][index] for index in order],
        eval_dataset=encoded["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda scored: {"accuracy": float((scored.predictions.argmax(-1) == scored.label_ids).mean())},
        callbacks=list(callbacks),
    )


def encode(examples, tokenizer, padding):
    first, second = zip(*examples.texts, strict=True)
    kind = "max_length" if padding == "max_length" else False
    rows = tokenizer(list(first), list(second), truncation="longest_first", max_length=LENGTH, padding=kind)
    return [
        {**{key: values[n] for key, values in rows.items()}, "labels": label} for n, label in enumerate(examples.labels)
    ]


def compare(settings, *overrides):
    """Train both, a step each in turn; return examples a second and accuracies."""
    from transformers import TrainerCallback

    from dpstune.inputs import Inputs

    loaded, inputs = load(*overrides), Inputs()
    seconds = {"dpstune": [], "trainer": []}
    with tempfile.TemporaryDirectory() as folder:
        loop = new_loop(loaded, folder, inputs)

        class InTurn(TrainerCallback):
            """Times Trainer's step from the end of ours, and takes ours."""

            def on_train_begin(self, args, state, control, **others):
                self.started = time.perf_counter()

            def on_step_end(self, args, state, control, **others):
                ended = time.perf_counter()
                seconds["trainer"].append(ended - self.started)
                loop.optimizer_step(state.global_step)
                self.started = time.perf_counter()
                seconds["dpstune"].append(self.started - ended)

        trainer = build_trainer(loaded, inputs, folder, **settings, callbacks=[InTurn()])
        trainer.train()
        accuracy = {
            "dpstune": loop.evaluate()["validation"].metrics["accuracy"],
            "trainer": trainer.evaluate()["eval_accuracy"],
        }
    steps = len(seconds["dpstune"]) - 2  # the first two warm up
    examples = steps * loaded.recipe.training.batch_size
    speed = {name: examples / sum(values[2:]) for name, values in seconds.items()}
    return {
        "examples_a_second": {name: round(value, 2) for name, value in speed.items()},
        "ratio": round(speed["dpstune"] / speed["trainer"], 3),
        "steps": steps,
        "accuracy": accuracy,
    }


def alone(which):
    """Train one of them for an epoch and print the most memory the process held while it trained."""
    import torch

    from dpstune.hardware import peak_memory_bytes
    from dpstune.inputs import Inputs

    loaded, inputs = load(), Inputs()
    with tempfile.TemporaryDirectory() as folder:
        if which == "dpstune":
            loop = new_loop(loaded, folder, inputs)
            for step in range(1, loop.total_steps + 1):
                loop.optimizer_step(step)
        else:
            build_trainer(loaded, inputs, folder, **TRAINERS[which]).train()
    print(json.dumps(peak_memory_bytes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))))


def peak_of(which):
    command = [sys.executable, __file__, "--alone", which]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", choices=["dpstune", *TRAINERS])
    asked = parser.parse_args()
    if asked.alone:
        alone(asked.alone)
        return
    peaks = {which: peak_of(which) for which in ("dpstune", *TRAINERS)}
    speed = {name: compare(settings) for name, settings in TRAINERS.items()}
    speed["same, without dropout"] = compare(TRAINERS["same"], "model.dropout=0.0")
    save("trainer", {"speed": speed, "peak_bytes": peaks})


if __name__ == "__main__":
    main()
