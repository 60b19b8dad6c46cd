"""The hub's own clients against a hub on loopback: the real ids, configurations and column names."""

import json
import os
import subprocess
import sys
import time

import datasets
import pytest

from dpstune.settings.tasks import TASKS
from tests.hub_server import running_hub
from tests.tiny import save_tiny_model

UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with running_hub() as hub:
        folder = tmp_path_factory.mktemp("hub")
        save_tiny_model(folder / "roberta", "roberta")
        hub.folders["models", "FacebookAI/roberta-large"] = folder / "roberta"
        hub.root = folder
        yield hub


def pair_rows(label, count, values):
    return {
        "sentence1": [f"the cat sleeps in house {n}" for n in range(count)],
        "sentence2": [f"a dog runs {n}" for n in range(count)],
        label: [values[n % len(values)] for n in range(count)],
    }


def publish(hub, name, config, columns, features, splits):
    """Put a dataset on the hub, as Parquet files under its configuration, like the real ones."""
    folder = hub.root / name
    default = config is None
    for split, count in splits.items():
        rows = columns(count)
        place = folder / ("data" if default else config)
        place.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(place / f"{split}-00000-of-00001.parquet")
    files = "".join(f"  - split: {split}\n    path: {'data' if default else config}/{split}-*\n" for split in splits)
    card = f"---\nconfigs:\n- config_name: {config or 'default'}\n  data_files:\n{files}---\n"
    (folder / "README.md").write_text(card)
    hub.folders["datasets", name] = folder


def publish_rte(hub):
    names = datasets.ClassLabel(names=["entailment", "not_entailment"])
    text = datasets.Value("string")
    features = datasets.Features({"sentence1": text, "sentence2": text, "label": names, "idx": datasets.Value("int32")})

    def columns(count):
        return {**pair_rows("label", count, [0, 1]), "idx": list(range(count))}

    publish(hub, "nyu-mll/glue", "rte", columns, features, {"train": 24, "validation": 8, "test": 4})


def dpstune(*arguments, endpoint, home, **environment):
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1", **environment}
    removed = ("HF_HUB_OFFLINE", "HF_TOKEN")
    kept = {key: value for key, value in os.environ.items() if key not in removed}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dpstune", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1000,
        env={**kept, **settings},
    )
    done.seconds = time.monotonic() - started
    return done


SMALL = ["--set", "training.steps=3", "--set", "training.warmup_steps=1", "--set", "data.max_length=32"]


@pytest.mark.slow
def test_roberta_rte_trains_from_the_hub_and_again_from_its_cache(hub, tmp_path):
    publish_rte(hub)
    train = ["train", "--recipe", "roberta-rte", *SMALL, "--json"]
    done = dpstune(*train, "--output", tmp_path / "a", endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert '"examples": {\n    "train": 24,\n    "validation": 8\n  }' in done.stdout
    assert any("/datasets/nyu-mll/glue/" in request for request in hub.requests)
    assert any("/FacebookAI/roberta-large/resolve/" in request for request in hub.requests)
    hub.requests.clear()
    offline = {"endpoint": hub.url, "home": tmp_path / "home", "HF_HUB_OFFLINE": "1"}
    done = dpstune(*train, "--output", tmp_path / "b", **offline)
    assert done.returncode == 0, done.stderr
    assert hub.requests == []
    first, second = (next((tmp_path / run).glob("*/*/*/model/model.safetensors")) for run in "ab")
    assert first.parts[-3] == second.parts[-3], "the same run, whichever way its data came"
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_labels_of_the_hub_go_by_name_and_missing_gold_labels_are_dropped(hub, tmp_path):
    """SNLI: another order of label names than ours would give, and -1 where annotators did not agree."""
    task = TASKS["snli"]
    names = datasets.ClassLabel(names=["contradiction", "neutral", "entailment"])
    text = datasets.Value("string")
    features = datasets.Features({"premise": text, "hypothesis": text, "label": names})

    def columns(count):
        rows = pair_rows("label", count, [0, 1, 2, -1])
        return {"premise": rows["sentence1"], "hypothesis": rows["sentence2"], "label": rows["label"]}

    publish(hub, task.hub.id, None, columns, features, {"train": 12, "validation": 4, "test": 4})
    program = (
        "from dpstune.data.reading import read_task; from dpstune.settings.sections import DataSection\n"
        "task = read_task('snli', DataSection())\n"
        "print([task.label_names[i] for i in task.splits['train'].labels]); print(task.notes[0])\n"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    labels, note = done.stdout.splitlines()
    assert labels == str(["contradiction", "neutral", "entailment"] * 3)
    assert note == "dataset stanfordnlp/snli (train): dropped 3 of 12 examples: no gold label"


@pytest.mark.slow
def test_a_dataset_that_no_table_knows_trains_from_the_hub(hub, tmp_path, tiny_model):
    names, text = datasets.ClassLabel(names=["poor", "good"]), datasets.Value("string")
    features = datasets.Features({"review": text, "stars": names, "user": text})

    def columns(count):
        rows = pair_rows("stars", count, [0, 1, -1])
        return {
            "review": [f"{text} of {count}" for text in rows["sentence1"]],
            "stars": rows["stars"],
            "user": [f"u{n % 9}" for n in range(count)],
        }

    publish(hub, "somebody/reviews", None, columns, features, {"train": 60, "exam": 12})
    (tmp_path / "reviews.yaml").write_text(
        f"model: {{name: {tiny_model}}}\ntask:\n  dataset: somebody/reviews\n  text: review\n  label: stars\n"
        "  splits: {train: train, validation: 0.2, test: exam}\n  group: user\n"
    )
    train = ["train", "--recipe", tmp_path / "reviews.yaml", *SMALL, "--json", "--output", tmp_path / "runs"]
    done = dpstune(*train, endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == {"train": 28, "validation": 12, "test": 8}
    assert "dataset somebody/reviews (train): dropped 20 of 60 examples: no gold label" in done.stderr
    assert "40 rows are cut into 28 train, 12 validation (split_seed 0, groups of 'user' kept together)" in done.stderr
    (run,) = (tmp_path / "runs").glob("reviews/*/seed-*")
    done = dpstune("eval", run, "--split", "test", "--json", endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == {"test": 8}
    done = dpstune(*train, "--set", "task.splits.test=dev", endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 2
    assert "Should be one of ['train', 'exam']; where it has no test split" in done.stderr

    columns = ["somebody/reviews", "--text", "review", "--label", "stars"]
    done = dpstune("check", *columns, "--model", tiny_model, "--json", endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == {"train": 60}
    small = [
        "--model",
        tiny_model,
        "--method",
        "vanilla",
        "--runs",
        "2",
        "--folds",
        "2",
        "--set",
        "training.steps=2",
        "--set",
        "data.max_length=32",
    ]
    fit = ["fit", *columns, *small, "--test", "exam", "--json", "--output", tmp_path / "fits"]
    done = dpstune(*fit, endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "fits" / "reviews").glob("fit-*")
    assert (folder / "model" / "config.json").is_file()
    assert json.loads(done.stdout)["score"]["rows"] == 8
    done = dpstune(*fit, "--test", "dev", endpoint=hub.url, home=tmp_path / "home")
    assert (done.returncode, "Should be one of ['train', 'exam']" in done.stderr) == (2, True), done.stderr
    done = dpstune(*fit, "--config", "none", endpoint=hub.url, home=tmp_path / "home")
    assert done.returncode == 2
    assert "somebody/reviews" in done.stderr


ENVIRONMENTS = [
    pytest.param({}, id="unreachable"),
    pytest.param({"HF_HUB_OFFLINE": "1"}, id="offline", marks=pytest.mark.slow),
]


class TestOutOfReach:
    """One line that says what could not be had, and what to do; soon."""

    def refused(self, *arguments, code, home, endpoint=UNREACHABLE, **environment):
        done = dpstune("train", *arguments, endpoint=endpoint, home=home, **environment)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.seconds < 200
        return last

    @pytest.mark.parametrize("environment", ENVIRONMENTS)
    def test_dataset(self, tmp_path, environment):
        told = self.refused("--recipe", "roberta-rte", code=1, home=tmp_path, **environment)
        assert "dataset nyu-mll/glue (rte) could not be reached on the hub" in told
        assert "--data-dir" in told
        assert "the recipe demo needs no hub" in told
        assert "model folder" not in told

    @pytest.mark.slow
    @pytest.mark.parametrize("environment", ENVIRONMENTS)
    def test_model(self, tmp_path, tiny_task, environment):
        arguments = ["--recipe", tiny_task, "--set", "model.name=FacebookAI/roberta-large", "--output", tmp_path / "o"]
        told = self.refused(*arguments, code=1, home=tmp_path, **environment)
        assert "model FacebookAI/roberta-large could not be reached on the hub" in told
        assert "local model folder" in told
        assert "the recipe demo needs no hub" in told
        assert "--data-dir" not in told, "the data are there"

    def test_a_model_the_hub_does_not_have(self, hub, tmp_path, tiny_task):
        arguments = ["--recipe", tiny_task, "--set", "model.name=nobody/nothing", "--output", tmp_path / "o"]
        told = self.refused(*arguments, code=2, home=tmp_path, endpoint=hub.url)
        assert "the hub has no model nobody/nothing" in told

    @pytest.mark.slow
    def test_a_dataset_the_hub_does_not_have(self, hub, tmp_path):
        arguments = ["--recipe", "roberta-rte", "--set", "task.hub_id=nobody/nothing", "--output", tmp_path / "o"]
        told = self.refused(*arguments, code=2, home=tmp_path, endpoint=hub.url)
        assert "the hub has no dataset nobody/nothing" in told

    @pytest.mark.slow
    def test_a_dataset_without_the_column(self, hub, tmp_path):
        publish_rte(hub)
        arguments = ["--recipe", "roberta-rte", "--set", "task.text=[premise, sentence2]", "--output", tmp_path / "o"]
        told = self.refused(*arguments, code=2, home=tmp_path, endpoint=hub.url)
        assert "dataset nyu-mll/glue (train): no column 'premise'" in told

    @pytest.mark.slow
    def test_a_configuration_the_dataset_does_not_have(self, hub, tmp_path):
        publish_rte(hub)
        arguments = ["--recipe", "roberta-rte", "--set", "task.hub_config=wnli", "--output", tmp_path / "o"]
        told = self.refused(*arguments, code=2, home=tmp_path, endpoint=hub.url)
        assert "wnli" in told
