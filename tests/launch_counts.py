"""A program on a simulated GPU: what the steps of tiny models ask of it, as JSON; see benchmarks/launches.py.

launch_counts.py FILE
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from launches import METHODS, Step, count, phases_of, settings_of, simulated_gpu

from tests.tiny import FAMILIES, tiny_config

SHAPE = (4, 8)


def config(family, layers):
    return tiny_config(family, num_hidden_layers=layers, encoder_layers=layers, decoder_layers=layers)


def launches(layers):
    """Return the rows of ``count`` for BERT."""
    rows, _ = count(lambda: config("bert", layers), SHAPE, METHODS, metered=False)
    return rows


def waits(family):
    """Return, by method and phase, for what the host waits."""
    found = {}
    for name in METHODS:
        with simulated_gpu():
            side = Step(config(family, 1), settings_of(name), shape=SHAPE, metered=False)
            found[name] = {phase: side.take(step).waits for phase, step in phases_of(name).items()}
            found[name]["prepare"] = side.prepared.waits
    return found


def main(file):
    content = {"launches": [launches(1), launches(2)], "waits": {family: waits(family) for family in FAMILIES}}
    Path(file).write_text(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[1])
