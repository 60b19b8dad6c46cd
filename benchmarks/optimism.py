"""How much too good fit's score of its choice is, where every candidate only guesses.

    python benchmarks/optimism.py

A row is answered right by a coin. Candidates are proposed, given up and chosen by fit's own search, in memory.
"""

import sys
from pathlib import Path

import numpy as np
import optuna

from dpstune.studies.choice import choose, judge_by_bootstrap
from dpstune.studies.fit import search
from dpstune.studies.fit.candidates import METHODS, SearchSpace

ROWS, FOLDS, REPEATS = 100, 5, 30


def main():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search.open_storage = lambda url, heartbeats: optuna.storages.InMemoryStorage()
    for runs in map(int, sys.argv[1:] or (40, 120)):
        looked, told, covered = zip(*(guess(runs, seed) for seed in range(REPEATS)), strict=True)
        print(
            f"{runs} runs: the best looks {np.mean(looked) - 0.5:.3f} too good, fit says {np.mean(told) - 0.5:.3f} "
            f"(standard error {np.std(told) / REPEATS**0.5:.3f}); 0.5 lies in {np.mean(covered):.0%} of the intervals"
        )


def guess(runs, seed):
    """Return what the best looks like on all rows, what fit says of it, and whether its interval holds the truth."""
    rng = np.random.default_rng(seed)
    space = SearchSpace(METHODS, 1e-4, (3, 12))
    found = search.CandidateSearch(Path("coins"), lambda: space, parts=FOLDS, seed=seed)
    right = {}
    for _ in range(runs):
        trial = found.next()
        own = right.setdefault(trial.number, rng.random(ROWS) < 0.5)
        part = len(trial.values) + 1
        found.report(trial, part, float(np.array_split(own, FOLDS)[part - 1].mean()))
    kept = [right[trial.number] for trial in found.trials() if trial.state == "complete"]

    def score(candidate, rows):
        return float(kept[candidate][rows].mean())

    every = np.arange(ROWS)
    verdict = judge_by_bootstrap(score, range(len(kept)), [], every, seed=seed)
    best = score(choose(score, range(len(kept)), every), every)
    return best, verdict.value, verdict.low <= 0.5 <= verdict.high


if __name__ == "__main__":
    main()
