"""What the same bits cost: MiniLM's shape on padded batches, under deterministic kernels alone, with warnings, and any.

Two models a mode, a step each in turn: their times, and whether their weights are the same after it.
"""

from common import in_turn, ratio, spread
from rig import different, free_memory, precisions, state_of

STEPS = 24


def run(stage):
    import torch

    def use(mode):
        torch.use_deterministic_algorithms(mode != "off", warn_only=mode == "warn_only")

    modes = ("strict", "warn_only", "off")
    recipe = stage.write_recipe("minilm", steps=2 * STEPS)
    rows = {}
    for precision in precisions():
        loops = {
            (mode, copy): stage.new_loop(stage.load(recipe, "vanilla", precision)) for mode in modes for copy in "ab"
        }

        def step(mode, copy, loops=loops):
            use(mode)
            loop = loops[mode, copy]
            loop.optimizer_step(loop.state.step + 1)

        sides = {key: lambda key=key: step(*key) for key in loops}
        # A share of the time each, and what the first leaves.
        least = stage.left / 2 if precision == "fp16" else 3
        seconds = in_turn(sides, 4 if stage.rehearse else STEPS - 1, lambda least=least: stage.left > least)
        rows[precision] = {
            mode: {
                "seconds": spread(seconds[mode, "a"] + seconds[mode, "b"], 6),
                "over_off": ratio(seconds, (mode, "a"), ("off", "a")),
                "different_on_repeat": different(state_of(loops[mode, "a"]), state_of(loops[mode, "b"])),
            }
            for mode in modes
        }
        stage.note(rows=rows)
        stage.say(f"{precision}: {rows[precision]}")
        loops.clear()
        free_memory()
