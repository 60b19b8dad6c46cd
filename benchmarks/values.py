"""What training.standardise does for values near 0, and for values far from it: STS-B's scores, and 20 times them.

    python benchmarks/values.py

500 pairs to train on and 400 others, the same for all; plain fine-tuning of MiniLM without dropout, two seeds.
DPSTUNE_GLUE is a folder with the corpora. A run takes about half a minute of a core.
"""

import tempfile
from pathlib import Path

import pandas as pd
from common import GLUE

import dpstune

SEEDS = (42, 43)
TRAINING = {"batch_size": 16, "learning_rate": 1e-4, "steps": 120, "batching": "bucketed"}


def main():
    with tempfile.TemporaryDirectory() as folder:
        for factor in (1, 20):
            for split, rows in (("train", 500), ("dev", 400)):
                pairs = pd.read_csv(GLUE / "STS-B" / f"{split}.tsv", sep="\t", quoting=3, on_bad_lines="skip")
                drawn = pairs[["sentence1", "sentence2", "score"]].dropna().sample(n=rows, random_state=1)
                drawn.assign(score=drawn["score"] * factor).to_csv(Path(folder) / f"{split}.csv", index=False)
            for standardise in (False, True):
                found = [correlation(folder, factor, standardise, seed) for seed in SEEDS]
                print(f"scores times {factor}, standardise {standardise}: {', '.join(f'{each:.3f}' for each in found)}")


def correlation(folder, factor, standardise, seed):
    """Return Spearman's correlation on the 400 pairs."""
    recipe = {
        "name": f"times-{factor}",
        "model": {"name": "minilm", "dropout": 0},
        "task": {
            "files": {"train": f"{folder}/train.csv", "validation": f"{folder}/dev.csv"},
            "text": ["sentence1", "sentence2"],
            "label": "score",
            "kind": "regression",
        },
        "training": {**TRAINING, "standardise": standardise},
    }
    return dpstune.train(recipe, method="vanilla", seed=seed, output=f"{folder}/runs", quiet=True).value


if __name__ == "__main__":
    main()
