"""The two half precisions beside each other: vanilla BERT-large on padded batches of 16, a step each in turn."""

from common import in_turn, ratio, spread
from rig import built_on_the_device, precisions

STEPS = 20


def run(stage):
    found = precisions()
    if len(found) < 2:
        return f"this device computes {' and '.join(found) or 'neither half precision'} natively"
    recipe = stage.write_recipe("google-bert/bert-large-cased", steps=1000)
    with built_on_the_device():
        loops = {precision: stage.new_loop(stage.load(recipe, "vanilla", precision)) for precision in found}

    def step(loop):
        loop.optimizer_step(loop.state.step + 1)

    sides = {precision: lambda loop=loop: step(loop) for precision, loop in loops.items()}
    seconds = in_turn(sides, 2 if stage.rehearse else STEPS, lambda: stage.left > 3)
    stage.note(
        fp16_over_bf16=ratio(seconds, "fp16", "bf16"),
        seconds={precision: spread(values, 6) for precision, values in seconds.items()},
    )
    stage.say(str(stage.found))
    return None
