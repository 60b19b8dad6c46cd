"""Texts a second of what scores a trained model's texts, beside transformers' ``pipeline``, on the same model.

MiniLM with two labels, RTE's pairs of texts (about 70 tokens) and single sentences of SICK (about 12), in the order in
which the files have them. ``pipeline`` computes in float32 unless it is told, pads each batch to its longest text, and
does not sort.

    python benchmarks/scoring.py            writes this processor's part of results/scoring.json
"""

import json
import tempfile
from pathlib import Path

from common import GLUE, in_turn, save_part, spread

ROUNDS, COUNT = 5, 640
BATCH = 64


def texts_of(name):
    """Return pairs or single texts as tuples."""
    if name == "sick":
        rows = [json.loads(line) for line in (GLUE.parent / "nli" / "sick" / "train.jsonl").open()]
        return [(row["premise"],) for row in rows[:COUNT]]
    from dpstune.data.reading import read_task
    from dpstune.recipe.recipe import load_recipe

    recipe = load_recipe("minilm-rte", method="vanilla", data_dir=GLUE.absolute()).recipe
    return read_task(recipe.task, recipe.data).splits["train"].texts[:COUNT]


def trained_model(folder):
    """Save a classifier that nobody trained: what it says does not matter here."""
    from dpstune.models.loading import load_classifier, load_tokenizer
    from dpstune.settings.sections import ModelSection

    section = ModelSection(name="minilm")
    model = load_classifier(section, label_names=("a", "b"), kind="classification", dropout=None, seed=1)
    model.save_pretrained(folder)
    load_tokenizer(section).save_pretrained(folder)


def compare(folder, texts):
    """Return the texts a second of each way, and dpstune's over each way of pipeline's."""
    import torch
    from transformers import pipeline

    from dpstune.evaluation.trained import TrainedModel, TrainedPlace

    mine = TrainedModel(TrainedPlace(str(folder), folder, None, None))
    given = [{"text": each[0], "text_pair": each[1]} if len(each) > 1 else each[0] for each in texts]
    sides = {"dpstune": lambda: mine.score_texts(texts)}
    for name, dtype in {"pipeline": torch.float32, "pipeline, bf16": torch.bfloat16}.items():
        other = pipeline("text-classification", str(folder), dtype=dtype, device="cpu")

        def take(other=other):
            with torch.inference_mode():
                other(given, batch_size=BATCH, truncation=True, max_length=mine.max_length)

        sides[name] = take
    seconds = in_turn(sides, ROUNDS)
    rates = {name: spread([len(texts) / took for took in values], 0) for name, values in seconds.items()}
    times = {
        name: spread([other / own for other, own in zip(seconds[name], seconds["dpstune"], strict=True)], 2)
        for name in list(sides)[1:]
    }
    return {"texts_a_second": rates, "times_as_fast": times}


def main():
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        trained_model(folder)
        for name in ("rte", "sick"):
            found[name] = compare(Path(folder), texts_of(name))
            print(name, json.dumps(found[name]), flush=True)
    save_part("scoring", **found)


if __name__ == "__main__":
    main()
