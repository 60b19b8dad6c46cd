import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dpstune import cli
from dpstune.common.interruption import Interrupted
from dpstune.recipe.finding import shipped_recipes
from dpstune.recipe.recipe import load_recipe
from dpstune.training.engine import RunResult

HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "numpy",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
}


def dpstune(*arguments, **options):
    """Run the real command line in a process of its own."""
    command = [sys.executable, "-m", "dpstune", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


@pytest.fixture
def wrong_recipe(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("model: {name: minilm}\ntask: rte\ntraining: {batchsize: 8}\n")
    return str(path)


class TestStart:
    """What must answer at once."""

    @pytest.mark.parametrize("arguments", [["--help"], ["train", "--recipee", "demo"], ["recipes", "list"]])
    def test_nothing_heavy_is_imported(self, arguments):
        checks_recipes = {"pydantic"} if arguments == ["--help"] else set()
        code = (
            "import sys; from dpstune import cli; cli.run(sys.argv[1:]); "
            f"heavy = {HEAVY | checks_recipes} & set(sys.modules); assert not heavy, heavy"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def test_the_package_s_parts_are_there_without_being_imported():
    code = "import dpstune; dpstune.errors.RequestError, dpstune.methods.REGISTRY, dpstune.fit; print(dpstune.nothing)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr.splitlines()[-1] == "AttributeError: module 'dpstune' has no attribute 'nothing'"


class TestWrongRequests:
    """Each is one line on stderr, nothing on stdout, exit 2."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["train", "--recipee", "demo"], "no such option: --recipee; did you mean '--recipe'?"),
            (["train"], "Missing option '--recipe'"),
            (["trian"], "No such command 'trian'. Did you mean 'train'"),
            (["train", "--recipe", "demo", "--seed", "one"], "Invalid value for '--seed'"),
            (["train", "--recipe", "demo", "--seeds", "0"], "Invalid value for '--seeds'"),
            (["train", "--recipe", "demo", "more"], "unexpected extra argument"),
            (
                ["eval", "/bin", "/tmp"],
                "(/tmp); if a pattern matched several paths, name one (see dpstune eval --help)",
            ),
            (
                ["casestudy", "--from", "/bin", "/tmp"],
                "(/tmp); if a pattern matched several paths, put --from before each",
            ),
            (["train", "--recipe", "demo", "/tmp"], "extra argument(s) (/tmp) (see"),
            (["train", "--recipe", ""], "a recipe's name is empty"),
            (
                ["train", "--recipe", "demo", "--method", "mixout", "--set", "method.name=vanilla"],
                "--method mixout and --set method.name=vanilla set the same key; give one of them",
            ),
            (
                ["train", "--recipe", "demo", "--seed", "1", "--set", "seed=2"],
                "--seed 1 and --set seed=2 set the same",
            ),
            (
                ["train", "--recipe", "demo", "--data-dir", "a", "--set", "data.dir=b"],
                "and --set data.dir=b set the same key",
            ),
            (
                ["train", "--recipe", "demo", "--data-dir", "a", "--set", "data={dir: b}"],
                "and --set data={dir: b} set the same key",
            ),
            (["train", "--recipe", "dmeo"], "no recipe and no file is called 'dmeo'; did you mean 'demo'?"),
            (["train", "--recipe", "demo", "--set", "method.p=1"], "method.p: should be less than 1"),
            (["train", "--recipe", "demo", "--method", "dps-dens"], "did you mean 'dps-dense'?"),
            (["recipes", "show", "dmeo"], "did you mean 'demo'?"),
            (["recipes", "copy", "dmeo"], "did you mean 'demo'?"),
            (["recipes"], "Missing command"),
            (["predict", "~nobody-is-called-so/run", "new.csv"], "there is no folder ~nobody-is-called-so/run; give"),
            (["predict", "r" * 300, "new.csv"], "r cannot be read: File name too long; give a run's folder or"),
        ],
    )
    def test_one_line(self, run, arguments, message):
        code, out, err = run(*arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("error: ")
        assert message in err

    def test_in_a_process_of_its_own(self, wrong_recipe):
        done = dpstune("train", "--recipe", wrong_recipe)
        assert (done.returncode, done.stdout) == (2, "")
        where = f"{wrong_recipe}:3: training.batchsize"
        assert done.stderr == f"error: {where}: unknown key 'batchsize'; did you mean 'batch_size'?\n"


class TestTrain:
    """What the command asks of the engine, and what it prints of the answer; training itself has tests of its own."""

    @pytest.fixture
    def asked(self, monkeypatch):
        """Answer for the engine, and return what it was asked."""
        asked = []

        def train(loaded, *, output, progress, fresh, inputs, need_model, check_data):
            print("a library's chatter")
            asked.append((loaded.recipe, output, fresh))
            result = {
                "recipe": loaded.name,
                "method": {"name": loaded.recipe.method.name},
                "seed": loaded.recipe.seed,
                "metric": "accuracy",
                "majority": 0.5,
                "last": {"metrics": {"validation": {"accuracy": 0.75}}},
                "examples": {"validation": 4},
                "steps": 1,
                "seconds": 1.0,
            }
            return RunResult(output / "run", result, trained=True)

        monkeypatch.setattr("dpstune.training.engine.train", train)
        return asked

    def test_flags_reach_the_engine(self, run, asked, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        flags = ["--method", "dps-mix", "--set", "method.p=0.2", "--set", "training.epochs=1", "--seed", "7"]
        code, _, _ = run("train", "--recipe", "demo", *flags, "--data-dir", str(tmp_path), "--output", "o", "--fresh")
        expected = load_recipe(
            "demo", method="dps-mix", overrides=["method.p=0.2", "training.epochs=1"], seed=7, data_dir=tmp_path
        )
        assert (code, asked) == (0, [(expected.recipe, Path("o"), True)])

    def test_people_read_stderr(self, run, asked):
        code, out, err = run("train", "--recipe", "demo")
        assert (code, out) == (0, "")
        assert "0.7500" in err
        assert "accuracy 0.5000" in err

    def test_programs_read_one_json_object_on_stdout(self, run, asked):
        result = json.loads(run("train", "--recipe", "demo", "--json")[1])
        assert (result["recipe"], result["seed"], result["run"]) == ("demo", 42, str(Path("runs/run")))

    def test_seeds_are_restarts_from_the_recipes_seed_on(self, run, asked):
        out = run("train", "--recipe", "demo", "--seeds", "3", "--json")[1]
        assert [recipe.seed for recipe, _, _ in asked] == [42, 43, 44]
        assert [result["seed"] for result in json.loads(out)["runs"]] == [42, 43, 44]

    def test_of_several_processes_only_the_first_speaks(self, run, asked, monkeypatch):
        monkeypatch.setenv("RANK", "1")
        code, out, err = run("train", "--recipe", "demo", "--json")
        assert (code, out) == (0, "")
        assert "0.7500" not in err


class TestFailures:
    def fail_with(self, monkeypatch, error):
        def train(*_, **__):
            raise error

        monkeypatch.setattr("dpstune.training.engine.train", train)

    @pytest.mark.parametrize("number", [2, 15])
    def test_an_interrupted_run_exits_with_its_signal(self, run, monkeypatch, number):
        self.fail_with(monkeypatch, Interrupted(number, "a checkpoint was written"))
        code, out, err = run("train", "--recipe", "demo", "--json")
        assert (code, out, err) == (128 + number, "", "error: a checkpoint was written\n")

    def test_an_interrupt_outside_training_exits_130(self, run, monkeypatch):
        self.fail_with(monkeypatch, KeyboardInterrupt())
        code, out, err = run("train", "--recipe", "demo")
        assert (code, out, err) == (130, "", "error: interrupted; nothing that was finished is lost\n")

    def test_sigterm_outside_training_exits_143(self):
        code = (
            "import os, signal; from dpstune import cli; "
            "cli.run = lambda arguments: os.kill(os.getpid(), signal.SIGTERM); cli.main()"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (143, "error: interrupted; nothing that was finished is lost\n")

    def test_sigterm_exits_143_also_where_nobody_reads_what_is_told(self):
        code = (
            "import os, signal, sys; from dpstune import cli; sys.stdin.read(); "
            "cli.run = lambda arguments: os.kill(os.getpid(), signal.SIGTERM); cli.main()"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stderr.close()
        process.stdin.close()
        assert process.wait(timeout=300) == 143

    @pytest.mark.skipif(os.name != "posix", reason="needs a shell that closes a stream")
    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
    def test_a_standard_stream_that_is_closed_leads_nowhere(self, closed):
        code = (
            "import sys; from dpstune import cli; from dpstune.report.output import print_out, tell; "
            "cli.run = lambda arguments: sys.stdin.read() or print_out('out') or tell('err') or 7; cli.main()"
        )
        command = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", code]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        left = {"<&-": ("out\n", "err\n"), ">&-": ("", "err\n"), "2>&-": ("out\n", "")}[closed]
        assert (done.returncode, done.stdout, done.stderr) == (7, *left)

    def test_the_unforeseen_is_one_line_that_says_how_to_see_more(self, run, monkeypatch):
        monkeypatch.delenv("DPSTUNE_DEBUG", raising=False)
        self.fail_with(monkeypatch, ZeroDivisionError("of\ntwo lines"))
        code, _, err = run("train", "--recipe", "demo")
        assert code == 1
        assert err == "error: unexpected ZeroDivisionError: of two lines (DPSTUNE_DEBUG=1 shows where)\n"

    @pytest.mark.parametrize("told", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"])
    def test_a_step_that_does_not_fit_into_memory_says_what_takes_less(self, run, monkeypatch, told):
        self.fail_with(monkeypatch, RuntimeError(told))
        code, _, err = run("train", "--recipe", "demo")
        assert (code, err.count("\n")) == (1, 1)
        assert err.startswith(f"error: not enough memory ({told}); fewer examples at once")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
    def test_an_answer_that_could_not_be_written_is_no_success(self):
        command = [sys.executable, "-m", "dpstune", "recipes", "list"]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
        assert done.returncode == 1
        assert done.stderr == (
            "error: writing to stdout failed: No space left on device; send it elsewhere, or make room\n"
        )

    def test_debugging_shows_the_traceback(self, run, monkeypatch):
        monkeypatch.setenv("DPSTUNE_DEBUG", "1")
        self.fail_with(monkeypatch, ZeroDivisionError("why"))
        code, _, err = run("train", "--recipe", "demo")
        assert code == 1
        assert "Traceback" in err


class TestRecipes:
    def test_list_has_a_row_each(self, run):
        code, out, _ = run("recipes", "list")
        rows = [line.split() for line in out.splitlines()]
        assert code == 0
        assert rows[0] == ["NAME", "MODEL", "TASK", "METHOD", "WHAT"]
        assert [row[0] for row in rows[1:]] == list(shipped_recipes())
        assert ["roberta-rte", "FacebookAI/roberta-large", "rte", "dps-dense"] in [row[:4] for row in rows]

    def test_show_prints_the_file(self, run):
        code, out, _ = run("recipes", "show", "roberta-rte")
        assert (code, out) == (0, shipped_recipes()["roberta-rte"].read_text())

    def test_copy_writes_what_show_prints_and_loads(self, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert run("recipes", "copy", "roberta-rte")[0] == 0
        assert run("recipes", "copy", "roberta-rte", "mine.yaml")[0] == 0
        copied = Path("mine.yaml").read_text()
        assert copied == Path("roberta-rte.yaml").read_text() == shipped_recipes()["roberta-rte"].read_text()
        assert load_recipe("mine.yaml").recipe == load_recipe("roberta-rte").recipe

    def test_copy_says_what_to_type_next_whatever_the_name(self, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _, _, err = run("recipes", "copy", "demo", "my copy.yaml")
        assert err == "wrote my copy.yaml; train it with: dpstune train --recipe 'my copy.yaml'\n"

    @pytest.mark.parametrize(
        "place",
        [
            "model: {name: minilm}\ntask: {files: {train: t.csv, validation: 0.2}, text: a, label: b}\n",
            "model: {name: minilm}\ntask: {dataset: ./here, splits: {train: train}, text: a, label: b}\n",
            "model: {name: ./model}\ntask: rte\n",
            "model: {name: minilm}\ntask: rte\ndata: {dir: glue}\n",
        ],
    )
    def test_copy_leaves_relative_paths_where_they_lead(self, run, tmp_path, monkeypatch, place):
        (tmp_path / "x y").mkdir()
        monkeypatch.chdir(tmp_path)
        Path("x y/mine.yaml").write_text(place)
        code, _, err = run("recipes", "copy", "x y/mine.yaml", "copy.yaml")
        assert (code, Path("copy.yaml").exists()) == (2, False)
        assert err == (
            "error: x y/mine.yaml has relative paths, which would lead elsewhere from copy.yaml; make them absolute in "
            f"x y/mine.yaml first, or copy it to a file in {tmp_path / 'x y'}\n"
        )
        assert run("recipes", "copy", "x y/mine.yaml", "x y/copy.yaml")[0] == 0
        assert Path("x y/copy.yaml").read_text() == place

    def test_copy_takes_paths_in_full_anywhere(self, run, tmp_path, monkeypatch):
        (tmp_path / "x").mkdir()
        monkeypatch.chdir(tmp_path)
        files = f"{{train: {tmp_path}/t.csv, validation: ~/v.csv}}"
        Path("x/mine.yaml").write_text(f"model: {{name: minilm}}\ntask: {{files: {files}, text: a, label: b}}\n")
        assert run("recipes", "copy", "x/mine.yaml")[0] == 0
        assert load_recipe("mine.yaml").recipe == load_recipe("x/mine.yaml").recipe

    @pytest.mark.parametrize("text", ["task: {", "", "model: {name: minilm}\ntask: rte\ndata: {dir: ~nobody-here/x}\n"])
    def test_copy_takes_what_has_no_relative_path_and_what_is_to_be_mended(self, run, tmp_path, monkeypatch, text):
        (tmp_path / "x").mkdir()
        (tmp_path / "same").symlink_to(tmp_path / "x")
        monkeypatch.chdir(tmp_path)
        Path("x/mine.yaml").write_text(text)
        assert run("recipes", "copy", "x/mine.yaml", "same/copy.yaml")[0] == 0
        code, _, err = run("recipes", "copy", "x/mine.yaml", "y/copy.yaml")
        told = "wrote y/copy.yaml; mend it before it is trained: x/mine.yaml"
        assert (code, err.startswith(told), "relative paths" in err) == (
            (2, False, True) if "nobody" in text else (0, True, False)
        )

    def test_copy_overwrites_only_when_told(self, run, tmp_path):
        target = tmp_path / "mine.yaml"
        target.write_text("precious")
        code, _, err = run("recipes", "copy", "demo", str(target))
        assert (code, target.read_text()) == (2, "precious")
        assert "--force" in err
        assert run("recipes", "copy", "demo", str(target), "--force")[0] == 0
        assert target.read_text() == shipped_recipes()["demo"].read_text()
        assert list(tmp_path.iterdir()) == [target]

    def test_copy_names_the_argument_that_gave_a_place_it_cannot_write_to(self, run, tmp_path):
        (tmp_path / "file").touch()
        code, _, err = run("recipes", "copy", "demo", str(tmp_path / "file" / "x.yaml"))
        assert code == 2
        assert err.endswith("file/x.yaml: File exists; choose another folder with the argument FILE\n")

    def test_check_says_what_is_right_and_what_is_wrong(self, run, wrong_recipe):
        code, out, err = run("recipes", "check", wrong_recipe, "roberta-rte")
        assert code == 2
        assert out.startswith("roberta-rte: ok: FacebookAI/roberta-large on rte, dps-dense (p 0.3, update_ratio 0.05)")
        assert err.startswith(f"error: {wrong_recipe}:3: ")

    def test_check_prints_nothing_that_a_terminal_would_obey(self, run, tmp_path):
        recipe = tmp_path / "mine.yaml"
        recipe.write_text('model: {name: "a\\e[2Jb"}\ntask: toy-nli\n')
        code, out, _ = run("recipes", "check", recipe)
        assert (code, "\x1b" in out) == (0, False)
        assert r"ok: a\x1b[2Jb on toy-nli" in out

    def test_check_accepts_every_shipped_recipe(self, run):
        code, out, err = run("recipes", "check", *shipped_recipes())
        assert (code, err) == (0, "")
        assert out.count(": ok: ") == len(shipped_recipes())

    def test_schema_is_json(self, run):
        code, out, _ = run("recipes", "schema")
        assert code == 0
        assert json.loads(out)["title"] == "dpstune recipe"

    @pytest.mark.skipif(os.name != "posix", reason="needs a shell with pipes")
    def test_a_reader_that_leaves_is_no_failure(self):
        pipeline = f"{sys.executable} -m dpstune recipes schema | true; echo ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", pipeline], capture_output=True, text=True, timeout=300)
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_version(run):
    from dpstune import __version__

    assert run("--version") == (0, f"dpstune {__version__}\n", "")


WATCHED = "with InterruptionWatch('all is saved') as watch: send(); watch.end_if_asked()"
# What is raised inside a callback, here of a weak reference, Python prints and drops.
IN_A_CALLBACK = """
import os, time, types, weakref
from dpstune import cli
from dpstune.common.interruption import InterruptionWatch

def send():
    something = type("Something", (), {{}})()
    reference = weakref.ref(something, lambda reference: os.kill(os.getpid(), {number}))
    del something

def slowly(text, tell=cli.tell):
    tell(text)
    time.sleep(0.05)

def work(*arguments, **settings):
    {work}

cli.tell = slowly
cli.typer.main.get_command = lambda app: types.SimpleNamespace(main=work)
cli.main()
"""


@pytest.mark.parametrize(
    ("number", "work", "said"),
    [
        (signal.SIGINT, "send(); time.sleep(100)", cli.INTERRUPTED),
        (signal.SIGTERM, "send(); time.sleep(100)", cli.INTERRUPTED),
        # The command is over before the signal is sent again.
        (signal.SIGINT, "send()", cli.INTERRUPTED),
        (signal.SIGTERM, "send()", cli.INTERRUPTED),
        # What trains notes the signal itself, and ends at its next safe point.
        (signal.SIGINT, WATCHED, "all is saved"),
        (signal.SIGTERM, WATCHED, "all is saved"),
        (signal.SIGHUP, WATCHED, "all is saved"),
    ],
)
def test_a_signal_whose_exception_python_drops_ends_the_command_all_the_same(number, work, said):
    code = IN_A_CALLBACK.format(number=int(number), work=work)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert (done.returncode, done.stderr) == (128 + number, f"error: {said}\n")
