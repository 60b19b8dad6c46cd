"""A finished model reaches the hub whole, or one line says why it does not; the run is kept."""

import json

import pytest
from huggingface_hub import constants

from dpstune import cli
from dpstune.training import engine
from tests.hub_server import READ_TOKEN, TOKEN, running_hub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with running_hub() as hub:
        hub.uploads = tmp_path / "hub"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage is no part of the hub on loopback
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def push(tiny_run, tiny_task, capsys):
    """Push the finished run; return exit code, stdout and the last line of stderr."""

    def push(*flags):
        recipe = ["--recipe", str(tiny_task), "--output", str(tiny_run.parents[2])]
        code = cli.run(["train", *recipe, *flags])
        out, err = capsys.readouterr()
        return code, out, err.splitlines()[-1]

    return push


@pytest.mark.parametrize(("flags", "private"), [([], False), (["--private"], True)])
def test_a_finished_run_is_only_pushed(hub, push, tiny_run, flags, private):
    code, out, told = push("--push-to-hub", "tiny", "--json", *flags)
    assert (code, told) == (0, f"pushed to {hub.url}/me/tiny")
    assert json.loads(out)["pushed"] == f"{hub.url}/me/tiny"
    there = hub.uploads / "me" / "tiny"
    sent = {path.name: path.read_bytes() for path in (tiny_run / "model").iterdir()}
    assert {path.name: path.read_bytes() for path in there.iterdir() if path.name != ".gitattributes"} == sent
    assert {"README.md", "model.safetensors", "tokenizer.json", "config.json"} <= set(sent)
    assert ("me/tiny" in hub.private) == private
    assert push("--push-to-hub", "me/tiny")[0] == 0  # again, into what is there


def test_what_should_be_private_is_not_sent_where_it_would_be_public(hub, push):
    assert push("--push-to-hub", "tiny")[0] == 0
    (hub.uploads / "me" / "tiny" / "config.json").unlink()
    code, _, told = push("--push-to-hub", "tiny", "--private")
    assert code == 1
    assert told.startswith("error: me/tiny is there already, and public; --private makes no public one private")
    assert not (hub.uploads / "me" / "tiny" / "config.json").exists()


def test_a_card_that_the_hub_does_not_take_is_said_in_one_line(hub, push, tiny_run):
    card = tiny_run / "model" / "README.md"
    before = card.read_text()
    card.write_text(before.replace("---\n", "---\nbase_model: /home/me/bert\n", 1))
    try:
        code, _, told = push("--push-to-hub", "tiny")
    finally:
        card.write_text(before)
    assert code == 1
    assert told.startswith("error: tiny: the hub does not take it (Invalid metadata in README.md. - ")
    assert told.endswith("and the same command uploads it")


def test_a_place_of_somebody_else(hub, push, tiny_run):
    code, _, told = push("--push-to-hub", "other/tiny")
    assert code == 1
    assert told.startswith("error: other/tiny: your token may not write there (`hf auth login` takes another); ")
    assert told.endswith(f"the model is kept as {tiny_run}/model, and the same command uploads it")


def test_a_hub_out_of_reach(hub, push, tiny_run, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    code, _, told = push("--push-to-hub", "me/tiny")
    assert code == 1
    assert told.startswith("error: me/tiny: the hub could not be reached (")
    assert told.endswith(f"the model is kept as {tiny_run}/model, and the same command uploads it")
    assert (tiny_run / "model" / "model.safetensors").is_file()


class TestBeforeAnythingIsTrained:
    @pytest.fixture(autouse=True)
    def untrained(self, monkeypatch):
        monkeypatch.setattr(engine, "train", lambda *_, **__: pytest.fail("it was trained"))

    @pytest.mark.parametrize(
        ("flags", "token", "message"),
        [
            (
                ["--push-to-hub", "a/b/c"],
                TOKEN,
                "a/b/c: Repo id must be in the form 'repo_name' or 'namespace/repo_name'",
            ),
            (["--push-to-hub", "tiny"], "", "log in with `hf auth login`, or set HF_TOKEN"),
            (["--push-to-hub", "tiny"], READ_TOKEN, "your token may only read"),
            (["--push-to-hub", "tiny"], "hf_wrong", "the hub does not know your token"),
            (["--push-to-hub", "tiny", "--seeds", "2"], TOKEN, "takes one model, and --seeds 2 trains 2; give one"),
            (["--private"], TOKEN, "--private: says who may see what --push-to-hub uploads; give that, too"),
        ],
    )
    def test_what_cannot_work_is_refused(self, hub, push, monkeypatch, tmp_path, flags, token, message):
        monkeypatch.setenv("HF_TOKEN", token)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
        code, out, told = push(*flags)
        assert (code, out) == (2, "")
        assert message in told

    def test_an_offline_mode_is_named(self, hub, push, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        code, _, told = push("--push-to-hub", "tiny")
        assert (code, told) == (
            2,
            "error: --push-to-hub tiny: HF_HUB_OFFLINE is set, and the hub will not be asked; unset it",
        )
