"""How many runs an hour 1, 2 and 4 processes do that share the device: MiniLM's shape, runs as long as minilm-rte's."""

import time
from contextlib import ExitStack

from sides import Side

RUN = 468  # steps: 3 epochs of RTE's 2,490 examples in batches of 16
WORKERS = (1, 2, 4)
BURST, BURSTS = 20, 40  # three counts of workers take 12 bursts each at most


def run(stage):
    recipe = stage.write_recipe("minilm", steps=BURST * BURSTS)
    job = {"kind": "dpstune", "recipe": recipe, "overrides": ["training.epochs=1"], "generated": BURST * BURSTS}
    counts, burst = (WORKERS[:2], 2) if stage.rehearse else (WORKERS, BURST)
    with ExitStack() as stack:
        workers = [stack.enter_context(Side(method="dps-dense", **job)) for _ in range(counts[-1])]
        for worker in workers:
            worker.ready()
        for worker in workers:
            worker.tell(burst)  # warms up
        for worker in workers:
            worker.hear()
        rows, share, most = [], stage.left - 2, burst * (3 if stage.rehearse else 12)
        for count in counts:
            steps, started = 0, time.perf_counter()
            while steps == 0 or (time.perf_counter() - started < share / (len(counts) + 1) and steps < most):
                for worker in workers[:count]:
                    worker.tell(burst)
                for worker in workers[:count]:
                    worker.hear()
                steps += burst
            a_second = count * steps / (time.perf_counter() - started)
            rows.append({"workers": count, "steps_a_second": a_second, "runs_an_hour": 3600 * a_second / RUN})
            stage.note(steps_a_run=RUN, rows=rows)
            stage.say(str(rows[-1]))
        stage.note(peak_bytes=[worker.ask("peak") for worker in workers])
