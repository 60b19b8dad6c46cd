"""Sides of a comparison that are processes of their own, and take bursts of steps in turn when they are told.

What one side sets for its whole process (deterministic kernels, cuBLAS's workspace, what the C library does with freed
memory) is not set for the other; and still their times are pairs of the same moment.

    python benchmarks/sides.py JOB         a side: reads lines of stdin, writes a line of JSON to stdout for each

JOB is JSON: kind ("dpstune" or "trainer"), recipe (name or file), method, overrides, data_dir; generated (null, or the
steps of generated inputs); for a Trainer half and padding. A line is a number of steps to take, or a question: peak,
accuracy, flops.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # dpstune itself, which need not be installed

from common import clock, new_loop  # noqa: E402
from rig import child_environment  # noqa: E402

# Where this process, too, runs dpstune: what that has set for itself is not for a side that is another's.
SET_BY_DPSTUNE = ("CUBLAS_WORKSPACE_CONFIG", "LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


class Side:
    """A side, as the process sees it that tells it what to do.

    Args:
        job: See above.
    """

    def __init__(self, **job):
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in child_environment(HERE.parent).items() if name not in SET_BY_DPSTUNE},
        )

    def __enter__(self):
        return self

    def __exit__(self, *ended):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def ready(self):
        """Wait until it has built what it trains."""
        assert self.hear() == "ready"

    def tell(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with status {self._process.wait()}")
        return json.loads(line)

    def ask(self, line):
        self.tell(line)
        return self.hear()


def bursts_in_turn(sides, steps, rounds, more=lambda: True):
    """Have sides take bursts of ``steps`` steps, in turn and in changing order; return the seconds of each.

    Args:
        sides: Sides by name.
        steps: Steps of a burst.
        rounds: Bursts of each, after one that warms up.
        more: Asked before each round whether there is time for it.
    """
    seconds = {name: [] for name in sides}
    for number in range(-1, rounds):
        if number >= 1 and not more():
            break
        for name in sorted(sides, reverse=number % 2 == 1):
            took = sides[name].ask(steps)
            if number >= 0:
                seconds[name].append(took)
    return seconds


class Told:
    """What the process of a side hears and says."""

    def __init__(self, answers):
        self.answers = answers
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # what libraries print is no answer

    def say(self, value):
        self._out.write(json.dumps(value) + "\n")
        self._out.flush()

    def wait(self):
        """Answer questions until steps are asked for; return how many, None at the end."""
        for line in sys.stdin:
            if line.strip().isdigit():
                return int(line)
            self.say(self.answers[line.strip()]())
        return None


def be_dpstune(loaded, inputs, folder):
    """Train by dpstune's own loop."""
    loop = new_loop(loaded, folder, inputs)
    told = Told(
        {
            "peak": peak,
            "accuracy": lambda: loop.evaluate()["validation"].metrics["accuracy"],
            "flops": lambda: flops_of(loop),
        }
    )
    told.say("ready")
    while steps := told.wait():
        started = clock()
        for _ in range(steps):
            loop.optimizer_step(loop.state.step + 1)
        told.say(clock() - started)


def be_trainer(loaded, inputs, folder, half, padding):
    """Train by transformers' Trainer."""
    from transformers import TrainerCallback
    from transformers.trainer_callback import PrinterCallback

    class Bursts(TrainerCallback):
        """Waits to be told before the first step and after each burst."""

        def on_train_begin(self, args, state, control, **others):
            told.say("ready")
            self.begin(control)

        def on_step_end(self, args, state, control, **others):
            self.left -= 1
            if self.left == 0:
                told.say(clock() - self.started)
                if state.global_step < state.max_steps:
                    self.begin(control)

        def begin(self, control):
            self.left = told.wait()
            control.should_training_stop = self.left is None
            self.started = clock()

    trainer = build_trainer(loaded, inputs, folder, half, padding, callbacks=[Bursts()])
    trainer.remove_callback(PrinterCallback)
    told = Told({"peak": peak, "accuracy": lambda: trainer.evaluate()["eval_accuracy"]})
    trainer.train()
    told.wait()


def build_trainer(loaded, inputs, folder, half, padding, callbacks=()):
    """A Trainer on the recipe's examples, in the engine's order."""
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    from dpstune.data.batches import StepPlan
    from dpstune.device.hardware import available_precisions
    from dpstune.models.loading import load_classifier

    recipe = loaded.recipe
    training, task, tokens = recipe.training, inputs.task(recipe), inputs.tokens(recipe)
    tokenizer = inputs.tokenizer(recipe) or plain_tokenizer()
    width = recipe.data.max_length if padding == "max_length" else None
    rows = {split: rows_of(dataset, tokenizer, width) for split, dataset in tokens.items()}
    plan = StepPlan(recipe, tokens["train"].lengths, processes=1)
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
        warmup_steps=round(steps * (training.warmup_ratio or 0.0) + 0.5),
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
        train_dataset=[rows["train"][index] for index in order],
        eval_dataset=rows.get("validation"),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=lambda scored: {"accuracy": float((scored.predictions.argmax(-1) == scored.label_ids).mean())},
        callbacks=list(callbacks),
    )


def rows_of(dataset, tokenizer, width):
    """Return a tokenised split as a Trainer takes it, a mapping an example, padded to ``width`` where it is given."""
    rows = []
    for number in range(len(dataset)):
        batch = dataset.collate([number])
        row = {name: values[0].tolist() for name, values in batch.items()}
        if width is not None:
            label = row.pop("labels")
            row = {**tokenizer.pad(row, padding="max_length", max_length=width), "labels": label}
        rows.append(row)
    return rows


def plain_tokenizer():
    """Return a tokenizer that pads with 0, for generated inputs."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"[PAD]": 0}, "[PAD]")), pad_token="[PAD]"
    )


def peak():
    """Return the most memory this process has held: of the GPU, where there is one."""
    import torch

    from dpstune.device.hardware import peak_memory_bytes

    return peak_memory_bytes(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def flops_of(loop):
    """Return the floating point operations of the steps taken so far, recomputation and elementwise work left out.

    6 a weight of a matrix and padded token, for the forward and the backward pass; and 12 a layer, hidden unit, token
    and token it attends to (Chowdhery et al. 2022, Appendix B). Embeddings and head count nothing.
    """
    from dpstune.methods.base import linear_layers

    config, steps = loop.model.config, range(1, loop.state.step + 1)
    matrices = sum(layer.weight.numel() for layer in linear_layers(loop.model.base_model).values())
    widths = [
        (len(chunk), max(loop.plan.lengths[i] for i in chunk)) for step in steps for chunk in loop.plan.chunks(step)
    ]
    attention = 12 * config.num_hidden_layers * config.hidden_size
    return [size * width * (6 * matrices + attention * width) for size, width in widths]


def main():
    job = json.loads(sys.argv[1])
    if job["kind"] == "dpstune":  # before anything else is imported that talks to the GPU
        from dpstune.device.hardware import device_type

        device_type()
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe
    from dpstune.studies.profile.generated import GeneratedInputs

    loaded = load_recipe(
        job["recipe"],
        method=job.get("method", "vanilla"),
        overrides=job.get("overrides", []),
        data_dir=Path(job["data_dir"]) if job.get("data_dir") else None,
    )
    inputs = GeneratedInputs(job["generated"], padded=True) if job.get("generated") else Inputs()
    with tempfile.TemporaryDirectory() as folder:
        if job["kind"] == "dpstune":
            be_dpstune(loaded, inputs, folder)
        else:
            be_trainer(loaded, inputs, folder, job["half"], job["padding"])


if __name__ == "__main__":
    main()
