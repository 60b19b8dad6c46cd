"""Is a head that is solved first worth it? A linear probe, and fine-tuning from it (LP-FT), beside plain fine-tuning.

    python benchmarks/probes.py --seeds 1          goes on where it was; writes results/probes.json
    python benchmarks/probes.py --table            prints the table, from results/probes.json

The rows are those of rivals.py: 500 to train on, 1,500 to score. Every way but the probes trains for 5 epochs at 1e-4
without dropout, from two seeds.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from common import RESULTS, about
from gpu_tables import measured_on
from rivals import TITLES, dpstune, draw, write
from tables import markdown

FILE = RESULTS / "probes.json"
EPOCHS = 5
WAYS = {
    "probe": "linear probe on what the head sees, `l2` 1",
    "means": "linear probe on the mean of the last layer's tokens, `l2` 1",
    "vanilla": "`vanilla`",
    "lp-ft l2=0.1": "`lp-ft`, `l2` 0.1",
    "lp-ft l2=1": "`lp-ft`, `l2` 1",
    "lp-ft l2=10": "`lp-ft`, `l2` 10",
}
RESTARTS = (1, 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        for seed in asked.seeds:
            for task in TITLES:
                measure(task, seed)
    print(probes_table(read()))


def read():
    return json.loads(FILE.read_text()) if FILE.exists() else {"rows": []}


def measure(task, seed):
    """Measure what is not there yet of one draw of rows."""
    found = read()
    done = {(row["task"], row["seed"], row["way"]) for row in found["rows"]}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            if (task, seed, way) not in done:
                accuracies = by_training(task, seed, way, Path(folder)) if way[0] in "vl" else by_probe(task, seed, way)
                row = {"task": task, "seed": seed, "way": way, "accuracies": accuracies}
                print(row, flush=True)
                found["rows"].append(row)
                FILE.write_text(json.dumps({**found, "about": about()}, indent=1) + "\n")


def by_training(task, seed, way, folder):
    data = draw(task, seed)
    columns = write(folder / "train.csv", data.train)
    write(folder / "test.csv", data.test)
    recipe, texts = folder / "rows.yaml", ", ".join(columns[1:-2:2])
    recipe.write_text(
        "model: {name: minilm, dropout: 0.0}\n"
        f"task: {{files: {{train: train.csv, validation: test.csv}}, text: [{texts}], label: label}}\n"
        f"training: {{batch_size: 16, learning_rate: 1.0e-4, epochs: {EPOCHS}, eval_every: 1000000}}\n"
    )
    method, *settings = way.split()
    own = [*(f"--set=method.{setting}" for setting in settings), "--output", folder / "runs"]
    runs = [
        json.loads(dpstune("train", "--recipe", recipe, "--method", method, "--seed", restart, *own, "--json"))
        for restart in RESTARTS
    ]
    return [run["value"] for run in runs]


def by_probe(task, seed, way):
    """Solve the output layer for what the untrained model's head sees, or for its mean token."""
    import torch

    from dpstune.methods.criterion import Criterion
    from dpstune.methods.probing import solve
    from dpstune.models.loading import load_classifier, load_tokenizer
    from dpstune.models.structure import output_layer
    from dpstune.settings.sections import ModelSection

    data, section = draw(task, seed), ModelSection(name="minilm")
    names = tuple(sorted({label for _, label in data.train}))
    tokenizer = load_tokenizer(section)
    model = load_classifier(section, label_names=names, kind="classification", dropout=0.0, seed=1).eval()
    seen = []
    output_layer(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))

    def features(rows):
        means = []
        seen.clear()
        for start in range(0, len(rows), 50):
            texts = zip(*(texts for texts, _ in rows[start : start + 50]), strict=True)
            batch = tokenizer(*map(list, texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
            with torch.inference_mode():
                last = model(**batch, output_hidden_states=True).hidden_states[-1]
            mask = batch["attention_mask"][..., None]
            means.append(((last * mask).sum(1) / mask.sum(1)).double())
        return torch.cat(seen if way == "probe" else means).clone()

    labels, gold = (torch.tensor([names.index(label) for _, label in rows]) for rows in (data.train, data.test))
    weight, bias = solve(features(data.train), labels, len(names), l2=1.0, loss=Criterion())
    answers = (features(data.test) @ weight.T + bias).argmax(1)
    return [round((answers == gold).double().mean().item(), 4)]


def probes_table(found):
    lines = []
    for way, name in WAYS.items():
        cells = []
        for task in TITLES:
            rows = [row["accuracies"] for row in found["rows"] if (row["task"], row["way"]) == (task, way)]
            cells.append(f"{statistics.mean(value for row in rows for value in row):.3f}" if rows else "")
        lines.append([name, *cells])
    if not found["rows"]:
        return ""
    draws = len({row["seed"] for row in found["rows"]})
    header = ["accuracy on 1,500 rows, trained on 500", "`sources`", "`mrpc`", "`sick`"]
    return markdown(header, lines) + f"\nMeans over {draws} draws of rows and two seeds. " + measured_on(found).lstrip()


if __name__ == "__main__":
    main()
