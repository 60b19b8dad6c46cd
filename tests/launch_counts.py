"""A program on a simulated GPU: what the steps of tiny models ask of it, as JSON; see benchmarks/launches.py.

launch_counts.py FILE [bert-large]
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from launches import BATCH_SIZES, LENGTH, METHODS, Step, bert_large, count, phases_of, settings_of, simulated_gpu

from tests.tiny import FAMILIES, tiny_config

SHAPE = (4, 8)


def config(family, layers):
    return tiny_config(family, num_hidden_layers=layers, encoder_layers=layers, decoder_layers=layers)


def launches(layers):
    """Return the rows of ``count`` for BERT."""
    rows, _ = count(lambda: config("bert", layers), SHAPE, METHODS, metered=False)
    return rows


def found_in(family):
    """Return, by method and phase, for what the host waits, and what has no deterministic kernel."""
    found = {}
    for name in METHODS:
        with simulated_gpu():
            side = Step(config(family, 1), settings_of(name), shape=SHAPE, metered=False)
            counted = {phase: side.take(step) for phase, step in phases_of(name).items()}
            counted["prepare"] = side.prepared
            found[name] = {phase: {"waits": each.waits, "unsteady": each.unsteady} for phase, each in counted.items()}
    return found


def launches_of_bert_large():
    rows, _ = count(bert_large, (BATCH_SIZES[0], LENGTH), ["dps-dense", "dps-mix"], metered=False)
    return rows


def main(file, what=None):
    if what == "bert-large":
        Path(file).write_text(json.dumps(launches_of_bert_large()))
        return
    content = {"launches": [launches(1), launches(2)], "found": {family: found_in(family) for family in FAMILIES}}
    Path(file).write_text(json.dumps(content))


if __name__ == "__main__":
    main(*sys.argv[1:])
