"""Time before step 1 of the first, second and third run of one process, as a sweep's worker has them.

python benchmarks/startup.py          writes results/startup.json
"""

import tempfile
import time
from pathlib import Path

from common import GLUE, clock, save


def main():
    from dpstune.data.inputs import Inputs
    from dpstune.recipe.recipe import load_recipe
    from dpstune.training import engine

    seconds = []
    first_step = engine.Loop.optimizer_step

    def noting_step(loop, step):
        if step == 1:
            seconds.append(round(clock() - started, 3))
        first_step(loop, step)

    engine.Loop.optimizer_step = noting_step
    inputs = Inputs()
    short = ["data.train_size=500", "training.steps=1", "training.warmup_steps=0", "training.batch_size=2"]
    for seed in (1, 2, 3):
        loaded = load_recipe("minilm-rte", method="dps-mix", seed=seed, data_dir=GLUE.absolute(), overrides=short)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()  # importing torch counts, the first time
            engine.train(loaded, output=Path(folder), inputs=inputs)
    print(seconds)
    save("startup", {"seconds_before_step_1": seconds})


if __name__ == "__main__":
    main()
