"""Run every benchmark, one after the other, and write the tables of README.md from their results.

python benchmarks/run.py            all of them: about half an hour on two quiet cores
python benchmarks/run.py parts cpu  some of them
python benchmarks/run.py --tables   none of them: the tables alone, from results/*.json
"""

import argparse
import subprocess
import sys

from common import HERE
from tables import write_tables

BENCHMARKS = [
    "parts",
    "launches",
    "passes",
    "cpu",
    "startup",
    "steps",
    "scoring",
    "jobs",
    "growth",
    "trainer",
    "methods",
    "scaling",
    "precision",
    "published",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    parser.add_argument("--tables", action="store_true")
    asked = parser.parse_args()
    unknown = set(asked.benchmarks) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    for name in () if asked.tables else asked.benchmarks or BENCHMARKS:
        print(f"--- {name}", flush=True)
        subprocess.run([sys.executable, HERE / f"{name}.py"], check=True)
    write_tables()


if __name__ == "__main__":
    main()
