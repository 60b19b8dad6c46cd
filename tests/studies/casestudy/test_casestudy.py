"""The rule of easy and hard, and case studies of files and runs that are there already."""

import csv
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpstune import cli
from dpstune.data.toy import generate
from dpstune.errors import RequestError
from dpstune.report.casestudy_page import page_data
from dpstune.report.casestudy_report import summarize, write_case_study
from dpstune.runs.folder import write_predictions
from dpstune.studies.casestudy.casestudy import compare, judge
from dpstune.studies.casestudy.sources import SourcesRequest, study_sources
from tests.studies.test_records import make_run

LABELS = ("entailment", "neutral", "contradiction")


def write_table(path, rows):
    """Write dictionaries as CSV, TSV or Parquet."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            dialect = "excel-tab" if path.suffix == ".tsv" else "excel"
            writer = csv.DictWriter(file, list(rows[0]), dialect=dialect)
            writer.writeheader()
            writer.writerows(rows)
    return path


def study(*sources, output="unused", **asked):
    return study_sources(SourcesRequest(tuple(sources), output, **asked))


def outcome(found):
    """What is told of each method: restarts, easy, hard, neither, rescued, lost."""
    keys = ("restarts", "easy", "hard", "neither", "rescued", "lost")
    return {each["method"]: tuple(each[key] for key in keys) for each in summarize(found)["methods"]}


class TestRule:
    @pytest.mark.parametrize(
        ("correct", "restarts", "verdict"),
        [
            (10, 10, "easy"),
            (6, 10, "easy"),
            (5, 10, "neither"),
            (4, 10, "hard"),
            (0, 10, "hard"),
            (1, 1, "easy"),
            (0, 1, "hard"),
            (1, 2, "neither"),
            (2, 3, "easy"),
            (1, 3, "hard"),
        ],
    )
    def test_more_than_half(self, correct, restarts, verdict):
        assert judge(correct, restarts) == verdict

    @given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
    def test_right_and_wrong_are_treated_alike(self, votes):
        correct, restarts = votes
        mirrored = {"easy": "hard", "hard": "easy", "neither": "neither"}
        assert judge(restarts - correct, restarts) == mirrored[judge(correct, restarts)]
        assert (judge(correct, restarts) == "neither") == (2 * correct == restarts)

    @given(st.integers(1, 100))
    def test_more_right_restarts_never_make_an_example_harder(self, restarts):
        order = ["hard", "neither", "easy"]
        ranks = [order.index(judge(correct, restarts)) for correct in range(restarts + 1)]
        assert ranks == sorted(ranks)
        assert (ranks[0], ranks[-1]) == (0, 2)

    @given(*[st.sampled_from(["easy", "hard", "neither"])] * 2)
    def test_lost_is_rescued_the_other_way_round(self, one, other):
        assert (compare(one, other) == "rescued") == (compare(other, one) == "lost")
        assert (compare(one, other) is None) == (one == other or "neither" in (one, other))


@st.composite
def votes(draw):
    """Right or wrong: by method, restart and example; methods differ in their number of restarts."""
    examples = draw(st.integers(1, 6))
    methods = draw(st.dictionaries(st.sampled_from(["vanilla", "mixout", "mine"]), st.integers(1, 5), min_size=1))
    one = st.lists(st.booleans(), min_size=examples, max_size=examples)
    return {method: draw(st.lists(one, min_size=count, max_size=count)) for method, count in methods.items()}


class TestFiles:
    @settings(max_examples=40)
    @given(votes(), st.sampled_from(["csv", "tsv", "parquet"]))
    def test_predictions_and_counts_make_the_same_study(self, tmp_path_factory, given_votes, ending):
        folder = tmp_path_factory.mktemp("files")
        rows, counts = [], []
        for method, restarts in given_votes.items():
            rows += [
                {"id": f"e{n}", "method": method, "seed": seed, "label": "a", "prediction": "a" if right else "b"}
                for seed, answers in enumerate(restarts)
                for n, right in enumerate(answers)
            ]
            counts += [
                {"id": f"e{n}", "method": method, "correct": sum(column), "restarts": len(restarts)}
                for n, column in enumerate(zip(*restarts, strict=True))
            ]
        by_votes = study(write_table(folder / f"votes.{ending}", rows))
        by_counts = study(write_table(folder / f"counts.{ending}", counts))
        assert outcome(by_votes) == outcome(by_counts)
        for method in by_votes.methods:
            found = by_votes.proportions(method)
            assert found.easy + found.hard + found.neither == found.examples
            restarts = given_votes[method.name]
            assert list(method.correct) == [sum(column) for column in zip(*restarts, strict=True)]
            assert found.easy == sum(2 * sum(column) > len(restarts) for column in zip(*restarts, strict=True))
            assert [vote.name for vote in method.votes] == [f"seed {seed}" for seed in range(len(restarts))]

    def test_a_study_reads_its_own_table_back(self, tmp_path, capsys):
        source = write_table(
            tmp_path / "votes.csv",
            [
                {
                    "id": n,
                    "method": method,
                    "seed": seed,
                    "label": "a",
                    "prediction": answer,
                    "sentence": f"{'=-'[n % 2]}No. {n}, x",
                }
                for method, answers in (("vanilla", "aab"), ("mixout p 0.3", "bba"))
                for n in range(4)
                for seed, answer in enumerate(answers if n else "aaa")
            ],
        )
        assert cli.run(["casestudy", "--from", str(source), "--output", str(tmp_path / "runs"), "--json"]) == 0
        told = json.loads(capsys.readouterr().out)
        (table,) = tmp_path.glob("runs/casestudy-*/examples.csv")
        again = study(table)
        assert outcome(again) == outcome(study(source))
        assert outcome(again)["mixout p 0.3"] == (3, 1, 3, 0, [], ["1", "2", "3"])
        assert again.examples == study(source).examples
        assert [each["lost"] for each in told["methods"]] == [[], ["1", "2", "3"]]

    def test_a_restart_that_gives_one_answer_to_all_has_no_vote_on_labels(self, tmp_path):
        """The last label is wrong; the constant answer alone disagrees with that."""
        answers = {"vanilla 1": "aabbb", "vanilla 2": "aabbb", "constant": "aaaaa"}
        rows = [
            {"id": n, "method": method, "seed": 1, "label": label, "prediction": given}
            for method, predictions in answers.items()
            for n, (label, given) in enumerate(zip("aabba", predictions, strict=True))
        ]
        found = study(write_table(tmp_path / "votes.csv", rows))
        assert [found.methods[place].name for place in found.voters] == ["vanilla 1", "vanilla 2"]
        assert [found.examples[each.place].id for each in found.suspects] == ["4"]
        page = write_case_study(tmp_path / "report", found).with_suffix(".md").read_text()
        assert "Left out, since one answer to all is as good: 1 restart" in page
        assert "none was trained on what it answers" not in page
        (told,) = [note for note in page_data(found)["notes"] if "wrong_labels.csv" in note]
        assert told.endswith("Left out, since one answer to all is as good: 1 restart")

    def test_rows_that_name_no_restart_are_one_each(self, tmp_path):
        rows = [{"id": n, "label": "a", "prediction": answer} for n in range(2) for answer in "aab"]
        found = study(write_table(tmp_path / "mine.csv", rows))
        assert outcome(found) == {"mine": (3, 2, 0, 0, [], [])}
        assert [vote.name for vote in found.methods[0].votes] == ["restart 1", "restart 2", "restart 3"]

    def test_examples_that_only_methods_left_out_answer_are_left_out(self, tmp_path):
        files = [
            write_table(
                tmp_path / f"{name}.csv", [{"id": n, "method": name, "seed": 1, "correct": 1} for n in range(count)]
            )
            for name, count in (("vanilla", 5), ("mixout", 8))
        ]
        assert outcome(study(*files, methods=("vanilla",))) == {"vanilla": (1, 5, 0, 0, [], [])}
        with pytest.raises(RequestError, match="example '5' is missing, but others answer it"):
            study(*files)

    def test_methods_with_other_numbers_of_restarts_are_not_to_be_compared(self, tmp_path):
        def told(numbers):
            rows = [{"id": 1, "method": m, "seed": s, "correct": 1} for m, count in numbers for s in range(count)]
            return [note for note in study(write_table(tmp_path / "mine.csv", rows)).notes if "restarts differ" in note]

        (note,) = told([("vanilla", 3), ("mixout", 2)])
        assert note.startswith("restarts differ (vanilla 3, mixout 2): with fewer, other examples")
        assert told([("vanilla", 3), ("mixout", 3)]) == []

    def test_restarts_of_several_files_are_put_together(self, tmp_path):
        files = [
            write_table(tmp_path / f"{seed}.csv", [{"id": 1, "method": "m", "seed": seed, "correct": seed % 2}])
            for seed in range(3)
        ]
        assert outcome(study(*files)) == {"m": (3, 0, 1, 0, [], [])}
        with pytest.raises(RequestError, match=r"0\.csv: seed 0 of m is in .*0\.csv as well"):
            study(files[0], files[0])

    def test_right_and_wrong_alone_are_enough_and_their_file_names_the_method(self, tmp_path):
        rows = [{"id": n, "seed": seed, "correct": seed != 1} for n in range(2) for seed in range(2)]
        found = study(write_table(tmp_path / "mine.parquet", rows))
        assert outcome(found) == {"mine": (2, 0, 0, 2, [], [])}
        assert found.methods[0].votes[0].predictions is None

    def test_the_recipe_gives_labels_texts_and_phenomena(self, tmp_path):
        from dpstune.recipe.recipe import load_recipe

        examples = generate("toy-nli", "validation")
        rows = [{"id": examples.ids[n], "prediction": LABELS[examples.labels[n]]} for n in (3, 1)]
        found = study(write_table(tmp_path / "mine.csv", rows), recipe=load_recipe("demo"))
        assert outcome(found) == {"mine": (1, 2, 0, 0, [], [])}
        assert [each.texts for each in found.examples] == [examples.texts[3], examples.texts[1]]
        assert found.phenomena == sorted({examples.phenomena[3], examples.phenomena[1]})

    def test_another_tasks_recipe_is_refused(self, tmp_path):
        from dpstune.recipe.recipe import load_recipe

        examples = generate("toy-nli", "validation")
        wrong = LABELS[(examples.labels[0] + 1) % 3]
        rows = [{"id": examples.ids[0], "label": wrong, "prediction": wrong}]
        with pytest.raises(RequestError, match="name the recipe of its task, or none"):
            study(write_table(tmp_path / "mine.csv", rows), recipe=load_recipe("demo"))
        rows = [{"id": examples.ids[0], "prediction": "1"}]
        with pytest.raises(RequestError, match="'1' is no label of the recipe's task; its labels are contradiction"):
            study(write_table(tmp_path / "mine.csv", rows), recipe=load_recipe("demo"))

    def test_text_columns_are_known_by_name_or_named(self, tmp_path):
        row = {"id": 1, "correct": 1, "restarts": 1}
        known = write_table(tmp_path / "known.csv", [{**row, "premise": "A.", "hypothesis": "B."}])
        assert study(known).examples[0].texts == ("A.", "B.")
        usual = [{**row, "question": "A?", "answer": "B."}]
        assert study(write_table(tmp_path / "usual.csv", usual)).examples[0].texts == ("A?", "B.")
        gaps = [{**row, "id": n, "premise": first, "hypothesis": "B."} for n, first in enumerate(("", "A."))]
        assert study(write_table(tmp_path / "gaps.csv", gaps)).examples[0].texts == ("", "B.")
        three = [{**row, "text": "", "premise": "A.", "hypothesis": "B."}]
        assert study(write_table(tmp_path / "three.csv", three)).examples[0].texts == ("A.", "B.")
        alone = [{**row, "premise": "A.", "hypothesis": ""}]
        assert study(write_table(tmp_path / "alone.csv", alone)).examples[0].texts == ("A.",)
        named = write_table(tmp_path / "named.csv", [{**row, "utterance": "C."}])
        assert study(named, texts=("utterance",)).examples[0].texts == ("C.",)

    def test_labels_that_never_meet_predictions_are_noted(self, tmp_path):
        found = study(write_table(tmp_path / "m.csv", [{"id": 1, "label": "yes", "prediction": "1"}]))
        assert found.notes == ["no prediction (1) is ever a gold label (yes); are both written the same way?"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of vanilla and of mixout at two settings, 3 restarts each, of the demo's first examples.

    Of the first three examples vanilla gets (3, 2, 1) right, mixout 0.5 (1, 2, 3), mixout 0.7 all.
    """
    folder = tmp_path_factory.mktemp("runs") / "demo"
    examples = generate("toy-nli", "validation")
    right = {
        "vanilla": ("vanilla", (), [(1, 1, 1), (1, 1, 0), (1, 0, 0)]),
        "5": ("mixout", ["method.p=0.5"], [(1, 1, 1), (0, 1, 1), (0, 0, 1)]),
        "7": ("mixout", ["method.p=0.7"], [(1, 1, 1)] * 3),
    }
    for name, (method, overrides, restarts) in right.items():
        for seed, answers in enumerate(restarts):
            run = make_run(folder / method / f"seed-{seed}-{name}", method, seed, 0.5, overrides)
            order = [0, 1, 2] if seed else [2, 0, 1]
            write_predictions(
                run / "predictions" / "validation.parquet",
                {
                    "id": [examples.ids[n] for n in order],
                    "label": [LABELS[examples.labels[n]] for n in order],
                    "prediction": [LABELS[(examples.labels[n] + 1 - answers[n]) % 3] for n in order],
                    "scores": [[0.5, 0.25, 0.25]] * 3,
                    "phenomenon": [examples.phenomena[n] for n in order],
                },
            )
    return folder


@pytest.fixture
def spoiled(runs, tmp_path):
    """A copy of the runs, to spoil; and the predictions of one of them."""
    folder = shutil.copytree(runs, tmp_path / "demo")
    return folder, folder / "vanilla" / "seed-1-vanilla" / "predictions" / "validation.parquet"


DROPOUTS = (
    "Dropout is not the same for every method: mixout 0; vanilla the model's own. So the table compares dropouts, too."
)


class TestRuns:
    def test_each_setting_is_a_method_and_texts_are_the_tasks(self, runs):
        found = study(runs)
        first, second, third = (example.id for example in found.examples)
        assert sorted([first, second, third]) == [f"toy-nli-validation-{n}" for n in range(3)]
        ids = [f"toy-nli-validation-{n}" for n in range(3)]
        assert outcome(found) == {
            "vanilla": (3, 2, 1, 0, [], []),
            "mixout p 0.5": (3, 2, 1, 0, [ids[2]], [ids[0]]),
            "mixout p 0.7": (3, 3, 0, 0, [ids[2]], []),
        }
        examples = generate("toy-nli", "validation")
        assert {each.id: each.texts for each in found.examples} == dict(
            zip(ids, [examples.texts[n] for n in range(3)], strict=True)
        )
        assert found.notes == [DROPOUTS]
        assert found.methods[0].votes[0].name == "seed 0"

    def test_methods_can_be_chosen_and_compared_with_another(self, runs):
        assert list(outcome(study(runs, methods=("mixout",)))) == ["mixout p 0.5", "mixout p 0.7"]
        found = study(runs, methods=("mixout",), baseline="mixout p 0.5")
        assert outcome(found)["mixout p 0.7"][4] == ["toy-nli-validation-0"]
        (note,) = study(runs, methods=("mixout",)).notes
        assert "so nothing is rescued or lost" in note

    def test_runs_of_other_methods_are_neither_read_nor_told_of(self, spoiled, tmp_path):
        folder, path = spoiled
        path.unlink()
        found = study(folder, methods=("mixout p 0.5",))
        assert list(outcome(found)) == ["mixout p 0.5"]
        assert {record.method for record in found.runs} == {"mixout"}
        rows = [{"id": f"toy-nli-validation-{n}", "correct": 5, "restarts": 5} for n in range(3)]
        both = study(folder, write_table(tmp_path / "mine.csv", rows), methods=("mine", "mixout"))
        assert list(outcome(both)) == ["mine", "mixout p 0.5", "mixout p 0.7"]
        with pytest.raises(RequestError, match="predictions of it; did you mean 'mixout"):
            study(shutil.copytree(folder / "mixout", tmp_path / "mixout"), methods=("mixuot",))

    def test_what_sets_nothing_keeps_its_methods_name(self, spoiled):
        """So that vanilla stays the baseline of vanilla with another dropout."""
        folder, _ = spoiled
        for run in list((folder / "vanilla").iterdir()):
            without = make_run(folder / "without" / run.name, "vanilla", int(run.name[5]), 0.5, ["model.dropout=0.0"])
            shutil.copytree(run / "predictions", without / "predictions")
        found = study(folder, methods=("vanilla",))
        assert found.baseline == "vanilla"
        assert outcome(found)["vanilla model.dropout 0"] == (3, 2, 1, 0, [], [])

    def test_files_join_runs(self, runs, tmp_path):
        rows = [{"id": f"toy-nli-validation-{n}", "correct": 5, "restarts": 5} for n in range(3)]
        assert outcome(study(runs, write_table(tmp_path / "mine.csv", rows)))["mine"][:2] == (5, 3)

    def test_data_that_is_gone_leaves_the_texts_out_and_says_so(self, spoiled):
        folder, _ = spoiled
        for recipe in folder.glob("*/*/recipe.yaml"):
            recipe.write_text(recipe.read_text().replace("task: toy-nli", "task: mnli"))
            recipe.write_text(recipe.read_text().replace("data:", "data:\n  dir: /nowhere"))
        found = study(folder)
        assert {each.texts for each in found.examples} == {()}
        assert found.notes[1].startswith("texts are left out: there is no folder /nowhere")

    def test_files_that_were_moved_are_read_where_they_are_said_to_be(self, tiny_run, tiny_task, tmp_path):
        run = shutil.copytree(tiny_run, tmp_path / "seed-42-moved")
        recipe = (run / "recipe.yaml").read_text()
        (run / "recipe.yaml").write_text(recipe.replace(str(tiny_task.parent), "/old/disk"))
        (note,) = [each for each in study(run).notes if each.startswith("texts are left out")]
        assert note.endswith(
            "no file /old/disk/train.csv; where it was moved, --data-dir names the folder that holds it"
        )
        found = study(run, data_dir=tiny_task.parent)
        assert all(each.texts[1] == "a man, in a house" for each in found.examples)

    def test_examples_that_have_changed_have_no_texts(self, spoiled):
        folder, _ = spoiled
        for path in folder.glob("*/*/predictions/*.parquet"):
            columns = pq.read_table(path).to_pydict()
            write_predictions(path, {**columns, "id": [f"old-{each}" for each in columns["id"]]})
        assert study(folder).notes == [
            DROPOUTS,
            "texts are left out: split validation holds other examples now than when it was predicted",
        ]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"id": ["a", "b", "c"]}, "is missing, but others answer it (3 of 6 are there)"),
            ({"id": ["a", "a", "b"]}, "example 'a' is there twice"),
            ({"label": ["neutral"] * 3}, "elsewhere; all restarts should be of the same examples"),
            ({"label": pa.nulls(3, pa.string())}, "its examples have no labels, so no prediction is right or wrong"),
        ],
    )
    def test_restarts_of_different_examples_are_refused(self, spoiled, change, message):
        folder, path = spoiled
        write_predictions(path, {**pq.read_table(path).to_pydict(), **change})
        with pytest.raises(RequestError) as caught:
            study(folder)
        assert message in str(caught.value)

    def test_predictions_that_are_damaged_or_not_there_are_named(self, spoiled):
        folder, path = spoiled
        path.write_bytes(b"PAR1")
        with pytest.raises(RequestError, match=r"validation\.parquet: its predictions cannot be read"):
            study(folder)
        path.rename(path.with_name("test.parquet"))
        with pytest.raises(RequestError, match=r"is not there: the run predicted test; choose with --split"):
            study(folder)

    def test_runs_of_several_tasks_and_of_regression_are_refused(self, runs, tmp_path):
        make_run(tmp_path / "other" / "seed-1-x", task="toy-rte")
        with pytest.raises(RequestError, match=r"the runs are of several tasks \(toy-nli, toy-rte\)"):
            study(runs, tmp_path / "other")
        make_run(tmp_path / "sts" / "seed-1-x", overrides=["task=toy-sts"])
        with pytest.raises(RequestError, match="toy-sts is regression: a predicted value is neither right nor wrong"):
            study(tmp_path / "sts")


BAD = {
    "no id": ("idd,correct\n1,1\n", "m.csv: no column 'id'; its columns are idd, correct; did you mean 'idd'?"),
    "no answer": ("id,label\n1,a\n", "m.csv: has no column 'prediction' or 'correct'; a row should say"),
    "unknown column": (
        "id,corect\n1,1\n",
        "m.csv: unknown column 'corect'; --text corect reads it as a text; did you mean 'correct'?",
    ),
    "empty file": ("", "m.csv: holds no predictions; it should have a row for each example and restart"),
    "header only": ("id,correct\n", "m.csv: holds no predictions"),
    "no restarts": ("id,correct\n1,1\n", "m.csv: does not say of how many restarts its counts are; add a column"),
    "count too large": ("id,correct,restarts\n1,4,3\n", "m.csv:2: correct is 4, more than the 3 restarts of m"),
    "negative count": ("id,correct,restarts\n1,-1,3\n", "m.csv:2: correct is '-1'; it should be a whole number"),
    "fraction": ("id,correct,restarts\n1,0.5,3\n", "m.csv:2: correct is '0.5'; it should be a whole number"),
    "zero restarts": ("id,correct,restarts\n1,0,0\n", "m.csv:2: restarts is 0; it should be 1 or more"),
    "restarts differ": ("id,correct,restarts\n1,1,3\n2,1,4\n", "m.csv:3: 4 restarts of m here and 3 before"),
    "id twice": ("id,correct,restarts\n1,1,3\n1,2,3\n", "m.csv:3: example '1' is there twice for m"),
    "seed twice": ("id,seed,correct\n1,5,1\n1,5,0\n", "m.csv:3: example '1' is there twice for seed 5 of m"),
    "no truth": ("id,seed,correct\n1,5,7\n", "m.csv:2: correct is '7'; it should be 0 or 1"),
    "no label": ("id,prediction\n1,a\n", "example '1' has no label, so no prediction is right or wrong; add"),
    "empty prediction": ("id,label,prediction\n1,a,\n", "m.csv:2: column 'prediction' is empty"),
    "empty id": ("id,correct,restarts\n,1,1\n", "m.csv:2: column 'id' is empty"),
    "method missing": ("id,method,correct,restarts\n1,,1,1\n", "m.csv:2: column 'method' is empty"),
    "ragged": ("id,correct,restarts\n1,1\n", "m.csv:2: 2 columns where there should be 3"),
    "two labels": ("id,label,prediction\n1,a,a\n1,b,a\n", "m.csv:3: example '1' has the label 'b' here and 'a'"),
    "other examples": (
        "id,method,seed,correct\n1,a,1,1\n2,a,1,1\n1,b,1,1\n",
        "m.csv (b, seed 1): example '2' is missing, but others answer it (1 of 2 are there)",
    ),
    "fewer rows": ("id,label,prediction\n1,a,a\n1,a,a\n2,a,a\n", "m.csv (m, restart 2): example '2' is missing"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_line_with_place_and_remedy(tmp_path, capsys, name):
    content, message = BAD[name]
    path = tmp_path / "m.csv"
    path.write_text(content)
    assert cli.run(["casestudy", "--from", str(path), "--output", str(tmp_path / "runs")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert message in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["casestudy"], "give --recipe R to train restarts, or --from FILE_OR_RUNS to study existing ones"),
        (["casestudy", "--from", "nowhere.csv"], "there is no file nowhere.csv"),
        (["casestudy", "--from", "m.xls"], "m.xls: cannot tell its format; save it as .xlsx or .csv"),
        (["casestudy", "--from", "latin.csv"], "latin.csv:2: not UTF-8 text"),
        (["casestudy", "--from", "no.parquet"], "cannot read no.parquet as Parquet"),
        (["casestudy", "--from", "empty"], "empty: holds no finished run"),
        (
            ["casestudy", "--from", "m.csv", "--method", "mixuot"],
            "--method mixuot: there are no predictions of it; the methods are m",
        ),
        (
            ["casestudy", "--from", "m.csv", "--baseline", "x"],
            "--baseline x: is none of the methods; the methods are m",
        ),
        (["casestudy", "--from", "m.csv", "--restarts", "4"], "--restarts 4: m.csv holds 3 of m; leave --restarts out"),
        (["casestudy", "--from", "m.csv", "--text", "tetx"], "m.csv: no column 'tetx'"),
        (["casestudy", "--from", "m.csv", "--set", "a=1"], "--set: nothing is trained with --from; leave it out"),
        (["casestudy", "--from", "m.csv", "--jobs", "2"], "--jobs: nothing is trained with --from; leave it out"),
        (["casestudy", "--from", "m.csv", "--recipe", "demo"], "has no example '1'; its ids look like 'toy-nli-"),
        (["casestudy", "--recipe", "demo", "--set", "task=toy-sts"], "--recipe demo: toy-sts is regression"),
        (["casestudy", "--recipe", "demo", "--split", "test"], "--split test: should be one that runs of"),
        (
            ["casestudy", "--recipe", "demo", "--baseline", "r3f"],
            "none of the methods; the methods are vanilla, dps-dense",
        ),
        (["casestudy", "--recipe", "demo", "--method", "vanila"], "did you mean 'vanilla'?"),
        (["casestudy", "--recipe", "demo", "--restarts", "0"], "--restarts"),
        (["casestudy", "--recipe", "demo", "--text", "x"], "--text names a column in the files of --from"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_done(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "m.xls").touch()
    (tmp_path / "m.csv").write_text("id,correct,restarts\n1,1,3\n")
    (tmp_path / "latin.csv").write_bytes(b"id,correct,restarts\nCaf\xe9,1,1\n")
    (tmp_path / "no.parquet").write_text("no Parquet")
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not (tmp_path / "runs").exists()
