import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "check.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


def plain(text):
    """Return what a table says without the spaces that fill its lines."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


@pytest.fixture
def tickets(zygote):
    """The page's file, where the page's commands are run."""
    path = zygote.folder / "tickets.csv"
    path.write_text(blocks("csv")[0])
    return path


def test_the_page_shows_what_is_printed(zygote, tickets):
    first, others = blocks("console")
    run = zygote.run(*first.split()[1:])
    assert run.code == 0
    assert plain(run.stderr) == plain(blocks("text")[0])
    (zygote.folder / "reviews.yaml").write_text(
        "model: {name: minilm}\ntask: {files: {train: r.csv, validation: r.csv}, text: [question], label: label}\n"
    )
    rows = "".join(f"{word},{word} of what?,{'ab'[n % 2]}\n" for n, word in enumerate(["Which", "Some", "All", "None"]))
    (zygote.folder / "r.csv").write_text(f"customer,question,label\n{rows}")
    (zygote.folder / "glue" / "MRPC").mkdir(parents=True, exist_ok=True)
    for file in ("train.tsv", "dev.tsv"):
        (zygote.folder / "glue" / "MRPC" / file).write_text(
            "Quality\t#1 String\t#2 String\n0\tA cat.\tA dog.\n1\tA cat.\tThe cat.\n"
        )
    mrpc, reviews, strict = (zygote.run(*line.split()[1:]) for line in others.splitlines())
    assert (mrpc.code, reviews.code, strict.code) == (0, 0, 2)
    assert "minilm-mrpc: 4 rows (train 2, validation 2)" in mrpc.stderr
    assert re.search(r"4 +groups-across", reviews.stderr)
    assert strict.stderr.endswith("error: tickets.csv: 1 error and 5 warnings (--strict)\n")
    assert json.loads(strict.stdout)["rows"] == {"train": 13}


def test_the_page_names_every_finding():
    folder = PAGE.parents[1] / "dpstune" / "data"
    code = "".join((folder / f"{name}.py").read_text() for name in sources(folder))
    names = set(re.findall(r'(?:Finding|_Flaw|_Alike)\(\s*"([a-z-]+)"', code))
    listed = set(re.findall(r"`([a-z-]+)`", PAGE.read_text().partition("| finding |")[2]))
    assert len(names) > 20
    assert names <= listed


def sources(folder):
    return [path.stem for path in folder.glob("*.py") if "findings" in path.stem] + ["duplicates", "lengths"]


def test_json_has_the_findings_with_their_keys(zygote, tickets):
    run = zygote.run("check", tickets, "--text", "message", "--label", "topic", "--json")
    assert run.code == 0
    first = json.loads(run.stdout)["findings"][0]
    assert first == {
        "name": "label-spellings",
        "severity": "error",
        "count": 1,
        "places": ["tickets.csv:6"],
        "remedy": "Write each label one way: as it is, each spelling is a class of its own.",
        "details": [
            "labels that differ only in case, spaces, Unicode form or number form: 'hardware' (3) = 'Hardware' (1)"
        ],
    }
    assert "taken to be" not in run.stderr


def test_clean_data_is_one_sentence_and_passes_strict(zygote, tmp_path):
    path = tmp_path / "clean.jsonl"
    words = ["river", "window", "paper", "garden", "letter", "summer", "bridge", "market", "winter", "flower"]
    rows = [{"Text": f"the {word} is near the {words[n - 1]}", "Label": n % 2} for n, word in enumerate(words)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = zygote.run("check", path, "--strict")
    assert run.code == 0
    assert run.stderr.splitlines()[-1] == f"{path}: nothing found in 10 rows"
    assert run.stdout == ""


def test_tokens_are_counted_with_the_asked_model_and_length(zygote, tickets, tiny_model):
    run = zygote.run("check", tickets, "--model", tiny_model, "--max-length", 20, "--json")
    cut = next(each for each in json.loads(run.stdout)["findings"] if each["name"] == "cut-text")
    assert cut["details"][0].startswith(f"longer than 20 tokens of {tiny_model}")


def test_words_are_counted_where_no_tokenizer_can_be_had(tickets, monkeypatch, capsys):
    from dpstune import cli
    from dpstune.errors import RequestError
    from dpstune.models import loading

    def none(model):
        raise RequestError(f"there is no {model.name}; install it")

    monkeypatch.setattr(loading, "load_tokenizer", none)
    assert cli.run(["check", str(tickets), "--max-length", "8", "--json"]) == 0
    output = capsys.readouterr()
    assert "no tokens of minilm are counted: there is no minilm\n" in output.err
    assert "longer than 8 words (no tokenizer is at hand" in output.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "there is no file nothing.csv"),
        (["demoo"], "no recipe and no file is called 'demoo'; did you mean 'demo'?"),
        (["tickets.csv", "--text", "mesage"], "no column 'mesage'; its columns are message, topic; did you mean"),
        (["tickets.csv", "--label", "x", "--text", "message"], "no column 'x'; its columns are message, topic"),
        (["tickets.csv", "--text2", "x"], "--text2 x: name the first text column, too"),
        (["tickets.csv", "--text", "message", "--text2", "x"], "no column 'x'"),
        (["empty.csv", "--text", "txt", "--label", "label"], "empty.csv holds no rows to look at"),
        (["plain.csv", "--text", "a", "--text2", "a", "--label", "b"], "column 'a' is named twice"),
        (["tickets.csv", "--group", "team"], "no column 'team'; its columns are message, topic"),
        (["tickets.csv", "--data-dir", "glue"], "--data-dir glue: tickets.csv is a file; leave --data-dir out"),
        (["tickets.csv", "--model", "./nowhere"], "there is no folder"),
        (["tickets.csv", "--model", ""], "--model: name: should be at least 1 character, not ''"),
        (["plain.csv"], "plain.csv: no column seems to hold text; say --text COLUMN (its columns: a, b)"),
        (["many.csv"], "many.csv: no column seems to hold labels; say --label COLUMN (its columns: text, body)"),
        (["empty.csv"], "empty.csv holds no rows to look at"),
        (["broken.csv"], "broken.csv:2: "),
        (
            ["plain.csv", "--text", "a,b", "--label", "b"],
            "no column 'a,b'; its columns are a, b; name 'a' and 'b' each by",
        ),
        (["latin.csv"], "latin.csv:2: not UTF-8 text"),
        (["latin.csv", "--text", "a", "--label", "b"], "such as --encoding latin-1"),
        (["plain.csv", "--text", "a", "--text", "b", "--text2", "c"], "there are three text columns"),
        (["tickets.csv", "--config", "x"], "--config x: tickets.csv is a file; leave --config out"),
        (["demo", "--text", "x"], "--text x: demo is a recipe, and says this itself; leave --text out"),
        (["demo", "--encoding", "latin-1"], "--encoding latin-1: demo is a recipe"),
        (["minilm-rt", "--data-dir", "glue"], "is called 'minilm-rt'; did you mean 'minilm-rte'?"),
        (["folder.csv"], "folder.csv is a folder; of a dataset, name --text and --label, too"),
        (["x" * 300], "is called 'xxx"),
        (
            ["somebody/reviews"],
            "no recipe and no file is called 'somebody/reviews'; of a dataset, name --text and --label",
        ),
        (
            ["somebody/reviews", "--text", "a", "--label", "b", "--encoding", "latin-1"],
            "--encoding latin-1: somebody/reviews is a dataset; leave --encoding out",
        ),
        (["demo", "--group", "x"], "--group x: only a user's own data has groups, and demo has a known task"),
        (["minilm-rte", "--data-dir", "nowhere"], "there is no folder"),
        (["demo", "--max-length", "1"], "Invalid value for '--max-length'"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(zygote, tickets, arguments, message):
    (zygote.folder / "plain.csv").write_text("a,b\n1,2\n")
    (zygote.folder / "latin.csv").write_bytes("a,b\ncafé,2\n".encode("latin-1"))
    (zygote.folder / "many.csv").write_text("text,body\nwho is there,a cat sleeps\n")
    (zygote.folder / "empty.csv").write_text("text,label\n")
    (zygote.folder / "broken.csv").write_text('text,label\n"a,b\n')
    (zygote.folder / "folder.csv").mkdir(exist_ok=True)
    run = zygote.run("check", *arguments)
    assert run.code == 2, run.stderr
    assert run.stdout == ""
    *told, last = run.stderr.splitlines()
    assert all("taken to be" in line for line in told)
    assert last.startswith("error: ")
    assert message in last


def test_training_tells_what_is_wrong_once(zygote, tiny_task, tmp_path):
    arguments = ("train", "--recipe", tiny_task, "--output", tmp_path, "--set", "training.steps=2", "--seeds", 2)
    run = zygote.run(*arguments, "--set", "training.warmup_steps=1", "--json")
    assert run.code == 0, run.stderr
    told = [line for line in run.stderr.splitlines() if line.startswith(("error: ", "warning: "))]
    assert len(told) == len(set(told)) > 0
    assert any("the same text as a row of an earlier split" in line for line in told)
    again = zygote.run(*arguments, "--set", "training.warmup_steps=1")
    assert "the same text as" not in again.stderr
