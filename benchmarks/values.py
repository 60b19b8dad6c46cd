"""What training.standardise does for values near 0, and for values far from it: STS-B's scores, and 20 times them.

    python benchmarks/values.py

Plain fine-tuning of MiniLM without dropout, ten seeds, each with its own 500 training pairs; all 1,500 of the
validation split. DPSTUNE_GLUE is a folder with the corpora. It takes about 20 minutes of a core.
"""

import statistics
import tempfile
from pathlib import Path

import pandas as pd
from common import GLUE

import dpstune

SEEDS = range(42, 52)
TRAINING = {"batch_size": 16, "learning_rate": 1e-4, "steps": 120, "batching": "bucketed", "eval_every": 120}


def main():
    with tempfile.TemporaryDirectory() as folder:
        for factor in (1, 20):
            for split in ("train", "dev"):
                pairs = pd.read_csv(GLUE / "STS-B" / f"{split}.tsv", sep="\t", quoting=3, on_bad_lines="skip")
                scaled = pairs.assign(score=pairs["score"] * factor)[["sentence1", "sentence2", "score"]].dropna()
                scaled.to_csv(Path(folder) / f"{split}-{factor}.csv", index=False)
            for standardise in (True, False):
                found = [correlation(folder, factor, standardise, seed) for seed in SEEDS]
                print(
                    f"scores times {factor}, standardise {standardise}: mean {statistics.fmean(found):.3f}, "
                    f"worst {min(found):.3f}; {' '.join(f'{each:.3f}' for each in found)}",
                    flush=True,
                )


def correlation(folder, factor, standardise, seed):
    """Return Spearman's correlation on the validation split."""
    recipe = {
        "name": f"times-{factor}",
        "model": {"name": "minilm", "dropout": 0},
        "task": {
            "files": {"train": f"{folder}/train-{factor}.csv", "validation": f"{folder}/dev-{factor}.csv"},
            "text": ["sentence1", "sentence2"],
            "label": "score",
            "kind": "regression",
        },
        "data": {"train_size": 500},
        "training": {**TRAINING, "standardise": standardise},
    }
    return dpstune.train(recipe, method="vanilla", seed=seed, output=f"{folder}/runs", quiet=True).value


if __name__ == "__main__":
    main()
