from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpstune.errors import RequestError
from dpstune.methods import REGISTRY, newer_keys, without_newer_keys
from dpstune.recipe.finding import describe_recipe, find_recipe, shipped_recipes
from dpstune.recipe.recipe import dump_recipe, load_recipe, load_run_recipe, summarize_recipe
from dpstune.recipe.schema import Recipe, recipe_schema

MODELS = {
    "bert": "google-bert/bert-large-cased",
    "roberta": "FacebookAI/roberta-large",
    "electra": "google/electra-large-discriminator",
    "bart": "facebook/bart-large",
    "deberta": "microsoft/deberta-large",
}
# Zhang et al. 2022, Appendix C, Table 2: batch, learning rate, length, warmup, layer-wise decay.
TABLE_2 = {
    "bert-rte": (16, 2e-5, "3 epochs", "10%", None),
    "bert-mrpc": (16, 2e-5, "3 epochs", "10%", None),
    "bert-stsb": (16, 2e-5, "3 epochs", "10%", None),
    "bert-cola": (16, 2e-5, "3 epochs", "10%", None),
    "bert-sst2": (16, 2e-5, "3 epochs", "10%", None),
    "bert-qnli": (16, 2e-5, "3 epochs", "10%", None),
    "bert-qqp": (16, 2e-5, "3 epochs", "10%", None),
    "bert-mnli": (16, 2e-5, "3 epochs", "10%", None),
    "roberta-rte": (16, 2e-5, "2036 steps", "122 steps", None),
    "roberta-mrpc": (16, 1e-5, "2296 steps", "137 steps", None),
    "roberta-stsb": (16, 2e-5, "3598 steps", "214 steps", None),
    "roberta-cola": (16, 1e-5, "5336 steps", "320 steps", None),
    "electra-rte": (32, 5e-5, "10 epochs", "10%", 0.9),
    "electra-mrpc": (32, 5e-5, "3 epochs", "10%", 0.9),
    "electra-stsb": (32, 5e-5, "10 epochs", "10%", 0.9),
    "electra-cola": (32, 5e-5, "3 epochs", "10%", 0.9),
    "bart-rte": (32, 1e-5, "3 epochs", "10%", None),
    "bart-mrpc": (64, 2e-5, "3 epochs", "10%", None),
    "bart-stsb": (32, 2e-5, "3 epochs", "10%", None),
    "bart-cola": (64, 2e-5, "3 epochs", "10%", None),
    "deberta-rte": (32, 1e-5, "6 epochs", "50 steps", None),
    "deberta-mrpc": (32, 1e-5, "6 epochs", "50 steps", None),
    "deberta-stsb": (32, 7e-6, "4 epochs", "100 steps", None),
    "deberta-cola": (32, 7e-6, "6 epochs", "100 steps", None),
}
MINILM_TASKS = ("rte", "mrpc", "stsb", "cola", "sst2", "qnli", "qqp", "mnli", "snli", "sick", "scitail")
OWN_TASK = "task: {files: {train: a.csv, validation: sub/b.csv}, text: [one, two], label: gold}\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a recipe file into the working directory, on top of a model and a task where it has none."""
    monkeypatch.chdir(tmp_path)

    def write(text, name="mine.yaml"):
        lines = [
            line for line in ("model: {name: minilm}\n", "task: toy-nli\n") if line.split(":")[0] + ":" not in text
        ]
        Path(name).write_text(text + "".join(lines), encoding="utf-8")
        return name

    return write


def refused(name, **arguments):
    """Return the one line that refuses a recipe."""
    with pytest.raises(RequestError) as error:
        load_recipe(name, **arguments)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2
    return str(error.value)


class TestShippedRecipes:
    @pytest.mark.parametrize("name", TABLE_2)
    def test_table_2(self, name):
        recipe = load_recipe(name).recipe
        model, task = name.split("-")
        training = recipe.training
        length = f"{training.epochs:g} epochs" if training.epochs else f"{training.steps} steps"
        warmup = f"{training.warmup_ratio:.0%}" if training.warmup_ratio else f"{training.warmup_steps} steps"
        row = (training.batch_size, training.learning_rate, length, warmup, training.layerwise_lr_decay)
        assert (recipe.model.name, recipe.task, row) == (MODELS[model], task, TABLE_2[name])
        assert without_newer_keys(recipe.method.model_dump()) == {"name": "dps-dense", "p": 0.3, "update_ratio": 0.05}
        assert (training.schedule, training.weight_decay, training.max_grad_norm) == ("linear", 0.01, 1.0)
        assert (training.precision, recipe.data.max_length) == ("fp16", 128)

    def test_there_are_those_of_table_2_the_demo_and_minilm_on_glue_and_nli(self):
        transfer = {"transfer-mnli", "transfer-snli"}
        assert set(shipped_recipes()) == {*TABLE_2, "demo", *transfer, *(f"minilm-{task}" for task in MINILM_TASKS)}

    @pytest.mark.parametrize("task", ["mnli", "snli"])
    def test_the_transfer_recipes_are_appendix_e(self, task):
        recipe = load_recipe(f"transfer-{task}").recipe
        assert (recipe.task, recipe.model.name, recipe.data.train_size) == (task, MODELS["bert"], 8000)
        assert (recipe.training.steps, recipe.training.batch_size, recipe.training.learning_rate) == (1500, 16, 2e-5)
        assert (recipe.training.warmup_ratio, recipe.training.epochs) == (0.1, None)

    @pytest.mark.parametrize("name", shipped_recipes())
    def test_each_opens_with_what_it_is_and_the_command_that_launches_it(self, name):
        lines = find_recipe(name).read_text().splitlines()
        assert describe_recipe(find_recipe(name))
        assert any(line.startswith(f"#   dpstune train --recipe {name}") for line in lines)

    @pytest.mark.parametrize("task", MINILM_TASKS)
    def test_minilm_follows_berts_protocol(self, task):
        recipe = load_recipe(f"minilm-{task}").recipe
        training = recipe.training
        assert (recipe.model.name, recipe.task) == ("minilm", task)
        assert (training.batch_size, training.epochs, training.warmup_ratio) == (16, 3, 0.1)


class TestOverrides:
    def test_order_is_file_method_overrides_seed_and_data_dir(self, write, tmp_path):
        name = write("method: {name: dps-dense, p: 0.4}\nseed: 1\ndata: {dir: old}\n")
        loaded = load_recipe(
            name, method="dps-mix", overrides=["method.p=0.2", "seed=2"], seed=3, data_dir=Path("glue")
        )
        assert without_newer_keys(loaded.recipe.method.model_dump()) == {
            "name": "dps-mix",
            "p": 0.2,
            "update_ratio": 0.05,
        }
        assert (loaded.recipe.seed, loaded.recipe.data.dir, loaded.name) == (3, tmp_path / "glue", "mine")

    def test_another_method_takes_its_own_defaults(self, write):
        name = write("method: {name: dps-dense, p: 0.4}\n")
        assert load_recipe(name, method="dps-mix").recipe.method.p == 0.3
        assert load_recipe(name, method="dps-dense").recipe.method.p == 0.4
        assert load_recipe(name, overrides=["method.name=vanilla"]).recipe.method.model_dump() == {"name": "vanilla"}
        switched = load_recipe(name, overrides=["method.update_ratio=0.2", "method.name=dps-mix"]).recipe.method
        assert without_newer_keys(switched.model_dump()) == {"name": "dps-mix", "p": 0.3, "update_ratio": 0.2}

    @pytest.mark.parametrize(
        ("override", "length"), [("training.epochs=2", (None, 2.0)), ("training.steps=9", (9, None))]
    )
    def test_of_steps_and_epochs_the_recipes_own_gives_way(self, override, length):
        for name in ("demo", "bert-rte"):
            training = load_recipe(name, overrides=[override]).recipe.training
            assert (training.steps, training.epochs) == length

    @pytest.mark.parametrize("override", ["training.learning_rate=2e-5", "training={learning_rate: 2e-5}"])
    def test_values_are_yaml(self, override):
        assert load_recipe("demo", overrides=[override]).recipe.training.learning_rate == 2e-5

    def test_a_table_task_can_lie_elsewhere_on_the_hub(self):
        task = load_recipe("bert-rte", overrides=["task.hub_id=me/rte", "task.text=[a, b]"]).recipe.task
        assert (task.name, task.hub_id, task.text) == ("rte", "me/rte", ("a", "b"))
        assert load_recipe("demo", overrides=["task={name: cola, text: a}"]).recipe.task.text == ("a",)

    @pytest.mark.parametrize("parts", ["files: {train: a.csv", "dataset: a/b, splits: {train: a"])
    def test_of_validation_and_folds_the_recipes_own_gives_way(self, write, parts):
        key = parts.partition(": {")[0].rpartition(" ")[2]
        own = write(f"task: {{{parts}, validation: b, test: 0.1}}, text: t, label: l}}\n")
        task = load_recipe(own, overrides=[f"task.{key}.folds=5", f"task.{key}.fold=2"]).recipe.task
        assert (task.parts.validation, task.parts.folds, task.parts.fold) == (None, 5, 2)
        own = write(f"task: {{{parts}, folds: 5, fold: 2}}, text: t, label: l}}\n")
        task = load_recipe(own, overrides=[f"task.{key}.validation=0.2"]).recipe.task
        assert (task.parts.validation, task.parts.folds, task.parts.fold) == (0.2, None, None)


class TestPaths:
    def test_in_a_file_they_are_relative_to_it(self, write, tmp_path):
        (tmp_path / "deep").mkdir()
        name = write(OWN_TASK + "model: {name: minilm}\n", "deep/mine.yaml")
        files = load_recipe(name).recipe.task.files
        assert (files.train, files.validation) == (tmp_path / "deep/a.csv", tmp_path / "deep/sub/b.csv")

    def test_with_data_dir_task_files_are_relative_to_that(self, write, tmp_path):
        name = write(OWN_TASK + "data: {dir: corpus}\n")
        assert load_recipe(name).recipe.task.files.train == tmp_path / "corpus/a.csv"
        assert load_recipe(name, data_dir=Path("/elsewhere")).recipe.task.files.train == Path("/elsewhere/a.csv")

    def test_overridden_ones_are_relative_to_the_working_directory(self, write, tmp_path):
        assert load_recipe("demo", overrides=["data.dir=corpus"]).recipe.data.dir == tmp_path / "corpus"
        name = write(OWN_TASK, "mine.yaml")
        loaded = load_recipe(name, overrides=["task.files.train=c.csv"], data_dir=Path("/elsewhere"))
        files = loaded.recipe.task.files
        assert (files.train, files.validation) == (tmp_path / "c.csv", Path("/elsewhere/sub/b.csv"))

    def test_so_are_those_in_lists_and_patterns(self, write, tmp_path):
        name = write("task: {files: {train: [a.csv, 'b-*.csv'], validation: 0.2, test: t.csv}, text: t, label: l}\n")
        files = load_recipe(name, overrides=["task.files.test=[c.csv]"]).recipe.task.files
        assert files.train == (tmp_path / "a.csv", tmp_path / "b-*.csv")
        assert (files.validation, files.test) == (0.2, (tmp_path / "c.csv",))

    def test_a_dataset_may_lie_in_a_folder(self, write, tmp_path):
        name = write("task: {dataset: ./d, splits: {train: train, validation: 0.2}, text: t, label: l}\n")
        assert load_recipe(name).recipe.task.dataset == str(tmp_path / "d")
        assert load_recipe(name, overrides=["task.dataset=a/b"]).recipe.task.dataset == "a/b"
        assert load_recipe(name, overrides=["task.dataset=./e"]).recipe.task.dataset == str(tmp_path / "e")

    def test_so_are_those_in_an_overridden_mapping(self, write, tmp_path):
        files = "task.files={train: c.csv, validation: d.csv}"
        (tmp_path / "below").mkdir()
        name = write(OWN_TASK, "below/mine.yaml")
        recipe = load_recipe(name, overrides=["model={name: ./m}", files]).recipe
        assert (recipe.model.name, recipe.task.files.train) == (str(tmp_path / "m"), tmp_path / "c.csv")
        assert load_recipe("demo", overrides=["data={dir: corpus}"]).recipe.data.dir == tmp_path / "corpus"

    @pytest.mark.parametrize(("given", "meant"), [("./mine", "{here}/mine"), ("~/mine", "{home}/mine"), ("a/b", "a/b")])
    def test_an_overridden_model_is_the_same_when_its_run_is_read_back(self, write, tmp_path, given, meant):
        recipe = load_recipe("demo", overrides=[f"model.name={given}"]).recipe
        assert recipe.model.name == meant.format(here=tmp_path, home=Path.home())
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "recipe.yaml").write_text(dump_recipe(recipe))
        assert load_recipe("run/recipe.yaml").recipe == recipe


class TestRefusals:
    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (
                "training: {wieght_decay: 0.1}",
                "training.wieght_decay: unknown key 'wieght_decay'; did you mean 'weight_",
            ),
            ("trainin: {}", "trainin: unknown key 'trainin'; did you mean 'training'?"),
            ("method: {name: dps-mix, pp: 0.1}", "method.pp: unknown key 'pp'"),
            ("method: {name: dps-dence}", "method.name: unknown method 'dps-dence'; did you mean 'dps-dense'?"),
            ("method: mixout:p=0.7", "the method is 'mixout', and its settings go to --set method.KEY=VALUE"),
            ("epochs: 5", "unknown key 'epochs'; did you mean 'training.epochs'?"),
            ("method: {p: 1.0}", "method.p: should be less than 1, not 1.0"),
            ("method: {p: -0.1}", "method.p: should be greater than or equal to 0, not -0.1"),
            ("method: {update_ratio: 0}", "method.update_ratio: should be greater than 0, not 0"),
            ("method: {update_ratio: 1.5}", "method.update_ratio: should be less than or equal to 1, not 1.5"),
            ("training: {steps: 10, epochs: 2}", "training.epochs: steps and epochs are both given; keep one"),
            ("training: {warmup_steps: 1, warmup_ratio: 0.1}", "warmup_steps and warmup_ratio are both given"),
            ("training: {steps: 0}", "training.steps: should be greater than or equal to 1, not 0"),
            (
                "training: {steps: 9999999999}",
                "training.steps: should be less than or equal to 1000000000, not 9999999999",
            ),
            ("training: {epochs: 1.0e+308}", "training.epochs: should be less than or equal to 1000000, not 1e+308"),
            ("training: {steps: true}", "training.steps: should be a valid integer, not True"),
            ("training: {learning_rate: fast}", "training.learning_rate: should be a valid number, not 'fast'"),
            ("training: {learning_rate: .inf}", "training.learning_rate: should be a finite number"),
            ("training: {schedule: linaer}", "training.schedule: should be 'linear', 'cosine' or 'constant'"),
            ("training: {adam_betas: [0.9]}", "training.adam_betas: has too few values"),
            ("training: fast", "training: should be a mapping of keys to values"),
            ("model: {}", "model.name: key 'name' is missing"),
            ("model: {name: x, dropout: 1}", "model.dropout: should be less than 1"),
            ("task: mprc", "task: unknown task 'mprc'; did you mean 'mrpc'?"),
            ("task: {name: mprc}", "task.name: unknown task 'mprc'; did you mean 'mrpc'?"),
            ("task: {text: a, label: b}", "task.files: key 'files' is missing"),
            ("task: {name: mine, text: a, label: b}", "task.files: key 'files' is missing"),
            ("task: {name: mprc, hub_id: a/b, text: a}", "task.name: unknown task 'mprc'; did you mean 'mrpc'?"),
            ("task: {files: {train: a, validation: b}, label: l, text: [a, b, c]}", "task.text: "),
            (
                "task: {files: {train: a}, text: t, label: l}",
                "task.files: key 'validation' is missing: a place, a share such as 0.2, 0 for none; or give folds: 5",
            ),
            *(
                (f"task: {{files: {{train: a.csv, {parts}}}, text: t, label: l}}", f"task.files.{message}")
                for parts, message in [
                    ("validation: 1.5", "validation: should be a share of the rows: 0, or between 0 and 1 such as 0.2"),
                    ("validation: true", "validation: should be a file, a list of files or a pattern"),
                    ("validation: []", "validation: should be a file, a list of files or a pattern"),
                    ("validation: 0.6, test: 0.4", "test: 0.4 and validation's 0.6 leave nothing to train on"),
                    ("validation: 0.2, folds: 5", "folds: validation and folds are both given; keep one"),
                    ("validation: 0.2, fold: 1", "fold: says which of the folds; give folds"),
                    ("folds: 1", "folds: should be greater than or equal to 2, not 1"),
                    ("folds: 5, fold: 6", "fold: there are 5 folds, not 6"),
                    ("folds: 5, fold: 0", "fold: should be greater than or equal to 1, not 0"),
                    ("fold: 5, flods: 2", "flods: unknown key 'flods'; did you mean 'folds'?"),
                ]
            ),
            (
                "task: {files: {train: a, folds: 5}, text: t, label: l, encoding: latn-1}",
                "task.encoding: unknown encoding 'latn-1'; did you mean 'latin-1'?",
            ),
            ("task: {dataset: a/b, text: t, label: l}", "task.splits: key 'splits' is missing"),
            (
                "task: {dataset: a/b, splits: {train: 1, folds: 5}, text: t, label: l}",
                "task.splits.train: should be the name of a split of the dataset, not 1",
            ),
            ("seed: -1", "seed: should be greater than or equal to 0, not -1"),
            ("data: {max_length: 1}", "data.max_length: should be greater than or equal to 4"),
        ],
    )
    def test_name_file_line_and_key(self, write, line, message):
        told = refused(write(f"# a comment\n{line}\n"))
        assert told.startswith("mine.yaml:2: ")
        assert message in told

    @pytest.mark.parametrize(
        ("override", "key"),
        [("training={steps: 0}", "training.steps"), ("method={name: mixout, p: 2}", "method.p")],
    )
    def test_a_mapping_that_a_flag_gave_is_the_flags(self, write, override, key):
        file = write("method: {name: dps-mix, p: 0.1}\ntraining: {steps: 5}\n")
        assert refused(file, overrides=[override]).startswith(f"--set {override}: {key}: ")

    def test_a_task_with_nothing_but_a_name_is_that_task(self, write):
        assert load_recipe(str(write("task: rte\n")), overrides=["task.name=toy-rte"]).recipe.task == "toy-rte"

    def test_a_metric_must_suit_the_kind(self, write):
        told = refused(write(OWN_TASK.replace("}\n", ", kind: regression, metric: f1}\n")))
        assert "metric f1 does not suit a regression task" in told

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "training.wieght_decay=1",
                "training.wieght_decay: unknown key 'wieght_decay'; did you mean 'weight_decay'?",
            ),
            ("training.steps", "should be KEY=VALUE"),
            ("=1", "should be KEY=VALUE"),
            ("a..b=1", "should be KEY=VALUE"),
            ("training.steps=[", "not valid YAML"),
            ("seed.x=1", "seed has a value, not keys"),
            ("method.p=1", "method.p: should be less than 1, not 1"),
        ],
    )
    def test_of_overrides_name_the_flag(self, override, message):
        told = refused("demo", overrides=[override])
        assert told.startswith(f"--set {override}: ")
        assert message in told

    def test_of_steps_and_epochs_both_overridden(self):
        told = refused("demo", overrides=["training.steps=1", "training.epochs=1"])
        assert told == "--set training.epochs=1: training.epochs: steps and epochs are both given; keep one"

    def test_of_another_methods_keys(self):
        assert "unknown key 'p'" in refused("demo", method="vanilla", overrides=["method.p=0.1"])

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("roberta-ret", "no recipe and no file is called 'roberta-ret'; did you mean 'roberta-rte'?"),
            ("some/demo.yaml", "no recipe and no file is called 'some/demo.yaml'; did you mean 'demo'?"),
            ("zzzz", "no recipe and no file is called 'zzzz'; `dpstune recipes list` shows them all"),
            ("/", "/ is a folder; a recipe is a YAML file"),
        ],
    )
    def test_of_unknown_recipes_offer_the_nearest(self, name, message):
        assert refused(name) == message


def test_what_a_recipe_leaves_out_takes_the_tables_defaults(write):
    recipe = load_recipe(write("data:\n")).recipe
    training = recipe.training
    assert without_newer_keys(recipe.method.model_dump()) == {"name": "dps-dense", "p": 0.3, "update_ratio": 0.05}
    assert (recipe.seed, recipe.data.dir, recipe.data.train_size, recipe.data.max_length) == (42, None, None, 128)
    assert (training.batch_size, training.eval_batch_size, training.gradient_accumulation) == (16, 64, 1)
    assert (training.learning_rate, training.layerwise_lr_decay, training.schedule) == (2e-5, None, "linear")
    assert (training.steps, training.epochs, training.warmup_steps, training.warmup_ratio) == (None, 3, None, 0.1)
    assert (training.weight_decay, training.adam_betas, training.adam_epsilon) == (0.01, (0.9, 0.999), 1e-8)
    assert (training.max_grad_norm, training.precision, training.batching) == (1.0, "auto", "random")
    assert (training.eval_every, training.save_every) == (None, None)
    assert not training.gradient_checkpointing
    assert not training.compile


words = st.text(min_size=1, max_size=8)
paths = st.text("abc é'\"#:-", min_size=1, max_size=8).map(lambda name: Path("/data") / f"{name}.csv")
parts = st.fixed_dictionaries(
    {"validation": paths | st.floats(0, 0.5) | st.lists(paths, min_size=1)},
    optional={"test": paths | st.floats(0, 0.4)},
) | st.fixed_dictionaries({"folds": st.integers(5, 9)}, optional={"fold": st.integers(1, 5)})
own_tasks = st.fixed_dictionaries(
    {
        "files": st.fixed_dictionaries({"train": paths | st.lists(paths, min_size=1)}).flatmap(
            lambda train: parts.map(lambda more: {**train, **more})
        ),
        "text": st.lists(words, min_size=1, max_size=2),
        "label": words,
        "name": words.filter(lambda name: name.strip() and "/" not in name),
    },
    optional={
        "metric": st.sampled_from(["accuracy", "f1", "matthews"]),
        "group": words,
        "split_seed": st.integers(0),
        "positive": words,
        "encoding": st.sampled_from(["latin-1", "utf-16"]),
    },
)
datasets = st.just({"name": "x", "dataset": "a/b", "text": "t", "label": "l", "splits": {"train": "train", "folds": 5}})
recipes = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries({"name": words.filter(lambda name: name[0] not in ".~")}),
        "task": own_tasks | st.just("rte") | st.just({"name": "rte", "hub_id": "a/b"}) | datasets,
    },
    optional={
        "data": st.fixed_dictionaries({}, optional={"dir": paths, "train_size": st.integers(1, 9)}),
        "method": st.fixed_dictionaries(
            {"name": st.sampled_from(["dps-dense", "dps-mix"])},
            optional={"p": st.floats(0, 1, exclude_max=True), "update_ratio": st.floats(0, 1, exclude_min=True)},
        ),
        "training": st.fixed_dictionaries(
            {"learning_rate": st.floats(1e-9, 1e9)},
            optional={"steps": st.integers(1, 10**9), "warmup_steps": st.integers(0), "compile": st.booleans()},
        ),
        "seed": st.integers(0),
    },
)


@given(values=recipes)
def test_a_dumped_recipe_loads_back_the_same(values, tmp_path_factory):
    recipe = Recipe.model_validate(values)
    file = tmp_path_factory.mktemp("dump") / "recipe.yaml"
    file.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_run_recipe(file) == recipe


def test_a_recipe_can_be_built_in_python_and_is_checked():
    with pytest.raises(RequestError, match=r"method: p: should be less than 1, not 2"):
        Recipe.model_validate({"model": {"name": "x"}, "task": "rte", "method": {"name": "dps-mix", "p": 2}})


def test_the_schema_knows_every_section_and_every_method():
    schema = recipe_schema()
    definitions = schema["$defs"]
    methods = {
        definition["properties"]["name"].get("const"): definition
        for definition in definitions.values()
        if "Config" in definition["title"]
    }
    assert set(methods) == set(REGISTRY)
    assert set(methods["dps-dense"]["properties"]) == {"name", "p", "update_ratio", *newer_keys("dps-dense")}
    assert all(
        definition["additionalProperties"] is False
        for definition in definitions.values()
        if definition.get("type") == "object"
    )
    assert definitions["TrainingSection"]["properties"]["schedule"]["enum"] == ["linear", "cosine", "constant"]
    assert definitions["OwnTask"]["properties"]["text"]["anyOf"][0] == {"type": "string"}
    assert schema["required"] == ["model", "task"]
    validation = definitions["FilesSection"]["properties"]["validation"]["anyOf"]
    assert {"type": "number"} in validation
    assert {"type": "string"} in validation
    assert {"dataset", "splits"} <= set(definitions["DatasetTask"]["required"])


def test_the_schema_says_what_each_key_is():
    schema = recipe_schema()
    for each in (schema, *schema["$defs"].values()):
        assert not [key for key, field in each["properties"].items() if not field.get("description")], each["title"]
    definitions = schema["$defs"]
    assert definitions["DataSection"]["description"] == "The examples."
    inherited = definitions["DpsMixConfig"]["properties"]["update_ratio"]
    assert inherited["description"] == "Length of one stage as a share of all steps, in (0, 1]."
    own = definitions["DpsMixConfig"]["properties"]["p"]
    assert own["description"].startswith("Reserved probability, in [0, 1): how often Stage I replaces")
    assert "lambda" in definitions["SmartConfig"]["properties"]
    assert definitions["DataSection"]["properties"]["dir"]["description"].startswith("Local data; null reads the hub")


def test_the_summary_says_how_long_and_how_large(write):
    recipe = load_recipe(write("training: {gradient_accumulation: 2}\nmethod: vanilla\n")).recipe
    assert summarize_recipe(recipe) == "minilm on toy-nli, vanilla, 3 epochs in steps of 32 examples, seed 42"
    own = load_recipe(write(OWN_TASK, "reviews.yaml")).recipe
    assert summarize_recipe(own).startswith("minilm on reviews, dps-dense (")


def test_a_users_own_task_is_called_by_its_name_or_else_by_its_recipe(write):
    named = write(OWN_TASK.replace("task: {", "task: {name: product reviews, "), "ux.yaml")
    assert load_recipe(named).recipe.task.name == "product reviews"
    assert load_recipe(named, overrides=["task.name=others"]).recipe.task.name == "others"
    unnamed = load_recipe(write(OWN_TASK, "ux.yaml")).recipe
    assert unnamed.task.name == "ux"
    kept = write(dump_recipe(unnamed), "recipe.yaml")
    assert load_recipe(kept).recipe == unnamed, "what a run keeps has the name"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "task.name: should be a name without slashes, not 'a/b'"),
        ("' '", "task.name: should be a name without slashes, not ' '"),
        ("''", "task.name: should be at least 1 character, not ''"),
        ("5", "task.name: should be a valid string, not 5"),
        (r'"\0"', r"task.name: should be one line without control characters, not '\x00'"),
        (r'"a\nb"', r"task.name: should be one line without control characters, not 'a\nb'"),
        ("é" * 101, f"task.name: should be at most 200 bytes long, not '{'é' * 78}…"),
    ],
)
def test_a_wrong_name_of_a_task_is_refused(write, name, message):
    assert refused(write(OWN_TASK.replace("task: {", f"task: {{name: {name}, "))).endswith(message)


def test_the_name_of_an_earlier_run_s_task_may_be_one_that_is_refused_now(write):
    kept = write(OWN_TASK.replace("task: {", f"task: {{name: {'n' * 300}, "), "recipe.yaml")
    assert load_run_recipe(Path(kept)).task.name == "n" * 300


@pytest.mark.parametrize("name", ["...yaml", "a\nb.yaml", "esc\x1b[31m.yaml"])
def test_a_file_whose_name_no_folder_can_have_is_no_recipe(tmp_path, name):
    (tmp_path / name).write_text("model: {name: minilm}\ntask: toy-nli\n")
    with pytest.raises(RequestError, match="cannot name its runs' folder; rename it"):
        load_recipe(str(tmp_path / name))
