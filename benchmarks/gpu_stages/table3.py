"""The paper's Table 3, and times over vanilla's: BERT-large at 16 and 32 x 128, then the other architectures at 16.

`dpstune profile` on random weights, in fp16 as in the paper where the device has it. Methods with the same dropout
stand beside one vanilla: the model's own 0.1, or none.
"""

from dataclasses import asdict

from rig import built_on_the_device, free_memory, precisions

BY_DROPOUT = {0.1: ("vanilla", "r-drop", "r3f", "child-tuning-d"), 0.0: ("dps-dense", "dps-mix", "mixout")}
OTHERS = {
    "roberta": "FacebookAI/roberta-large",
    "electra": "google/electra-large-discriminator",
    "bart": "facebook/bart-large",
    "deberta": "microsoft/deberta-large",
}
OF_OTHERS = {0.0: ("dps-dense", "dps-mix")}
STEPS = {16: 16, 32: 10}
ROOM = 4  # seconds to leave


class OutOfTimeError(Exception):
    """There is no time for another method."""


def run(stage):
    precision = "fp16" if "fp16" in precisions() else "auto"
    stage.note(precision=precision, rows=[], left_out=[])
    for size, steps in STEPS.items():
        for dropout, methods in reversed(BY_DROPOUT.items()):
            measure(stage, "bert", "google-bert/bert-large-cased", methods, size, dropout, precision, steps)
    for name, model in OTHERS.items():
        for dropout, methods in OF_OTHERS.items():
            measure(stage, name, model, methods, 16, dropout, precision, 8)


def measure(stage, name, model, methods, size, dropout, precision, steps):
    """Profile some methods that share a dropout; note each as it is measured, or that there was no time for it."""
    from dpstune.studies.profile.profile import ProfileRequest, profile

    rows, left = stage.found["rows"], list(methods)
    steps = 2 if stage.rehearse else steps
    recipe = stage.write_recipe(model, family=name, batch_size=size)
    overrides = (f"training.precision={precision}", f"model.dropout={dropout}")

    def found(cost):
        left.remove(cost.method["name"])
        rows.append({"model": name, "table_3_batch_size": size, **asdict(cost)})
        stage.note(rows=rows)
        stage.say(
            f"{name}, {size}, {cost.method['name']}: ratio {cost.ratio:.3f}, peak {cost.memory.peak / 2**30:.2f} GiB"
        )
        if left and stage.left < ROOM:
            raise OutOfTimeError

    try:
        if stage.left < 2 * ROOM:
            raise OutOfTimeError
        batch = min(size, 4) if stage.rehearse else size
        with built_on_the_device():
            profile(ProfileRequest(recipe, methods, (batch,), steps, overrides), found=found)
    except OutOfTimeError:
        stage.note(left_out=[*stage.found["left_out"], *(f"{name}, {size}, {method}" for method in left)])
    except RuntimeError as error:  # a smaller GPU holds fewer of them
        if "out of memory" not in str(error):
            raise
        stage.note(
            left_out=[*stage.found["left_out"], *(f"{name}, {size}, {method}: out of memory" for method in left)]
        )
    free_memory()
