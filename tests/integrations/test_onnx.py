"""An exported model answers as the model does, whatever the batch; what is there is not overwritten."""

import pytest
import torch

from dpstune.errors import RequestError, RunError
from dpstune.evaluation.trained import find_trained
from dpstune.integrations import onnx
from dpstune.integrations.onnx import export_onnx, refuse_what_cannot_be_exported
from tests.tiny import FAMILIES, tiny_classifier, tiny_tokenizer


def save_classifier(folder, family="bert", **changes):
    """Write a classifier whose scores differ from text to text by more than rounding."""
    shape = {"num_hidden_layers": 1} | ({"encoder_layers": 1, "decoder_layers": 1} if family == "bart" else {})
    model = tiny_classifier(family, num_labels=3, **shape, **changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_the_model_does(family, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    model = save_classifier(tmp_path / "model", family)
    exported = export_onnx(find_trained(tmp_path / "model"), tmp_path / "onnx")
    assert exported.difference <= onnx.TOLERANCE

    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(tmp_path / "onnx").id2label == model.config.id2label
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    session = runtime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"))
    assert [each.shape for each in session.get_inputs()] == [["batch", "length"]] * len(exported.inputs)
    answers = []
    for texts in (["cat"], ["the dog sleeps", "a man in the house is not a cat, is it", "no", "a house"]):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        batch = {name: batch[name] for name in exported.inputs}
        (scores,) = session.run(None, {name: values.numpy() for name, values in batch.items()})
        with torch.no_grad():
            expected = model(**batch).logits
        assert torch.from_numpy(scores).numpy() == pytest.approx(expected.numpy(), abs=1e-4, rel=1e-4)
        answers += scores.tolist()
    assert max(abs(a - b) for row in answers for a, b in zip(row, answers[0], strict=True)) > 0.01


@pytest.mark.slow
def test_one_whose_scores_differ_is_not_kept(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    save_classifier(tmp_path / "model")
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(
        RunError, match=r"the exported model's scores differ from the model's by .*; nothing was written"
    ):
        export_onnx(find_trained(tmp_path / "model"), tmp_path / "onnx")
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_kind_that_torch_cannot_export_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    save_classifier(tmp_path / "model")

    def fail(*arguments, **options):
        raise torch.onnx.OnnxExporterError("a long\nstory") from ValueError("data-dependent\nguard")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(RequestError, match=r"torch cannot export a bert model to ONNX: data-dependent$"):
        export_onnx(find_trained(tmp_path / "model"), tmp_path / "onnx")


class TestThePlace:
    @pytest.fixture(autouse=True)
    def installed(self, monkeypatch):
        monkeypatch.setattr(onnx, "is_installed", lambda name: True)

    def test_an_empty_folder_or_none_is_taken(self, tmp_path):
        refuse_what_cannot_be_exported(tmp_path, force=False)
        refuse_what_cannot_be_exported(tmp_path / "new", force=False)
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_export_is_replaced_when_told(self, tmp_path):
        (tmp_path / "model.onnx").touch()
        with pytest.raises(RequestError, match="it exists; choose another folder, or replace it with --force"):
            refuse_what_cannot_be_exported(tmp_path, force=False)
        refuse_what_cannot_be_exported(tmp_path, force=True)

    def test_one_that_a_killed_export_had_renamed_away_is_there_again(self, tmp_path):
        (tmp_path / ".export.replaced").mkdir()
        (tmp_path / ".export.replaced" / "model.onnx").touch()
        with pytest.raises(RequestError, match="it exists; choose another folder, or replace it with --force"):
            refuse_what_cannot_be_exported(tmp_path / "export", force=False)
        assert (tmp_path / "export" / "model.onnx").is_file()

    def test_what_else_a_user_keeps_there_stays(self, tmp_path):
        earlier, beside = tmp_path / "earlier", tmp_path / "beside"
        (earlier / "notes").mkdir(parents=True)
        beside.mkdir()
        for place, text in ((earlier, "old"), (beside, "new")):
            (place / "config.json").write_text(text)
        mine = ("thesis.tex", "notes/one.txt", "model.onnx.bak")
        for name in ("model.onnx.data", *mine):
            (earlier / name).write_text("mine")
        onnx._carry_over(earlier, beside)
        kept = {str(path.relative_to(beside)): path.read_text() for path in beside.rglob("*") if path.is_file()}
        assert kept == {"config.json": "new", **dict.fromkeys(mine, "mine")}

    @pytest.mark.parametrize("force", [True, False])
    def test_what_is_no_export_never(self, tmp_path, force):
        (tmp_path / "thesis.tex").touch()
        for place in (tmp_path, tmp_path / "thesis.tex"):
            with pytest.raises(RequestError, match="it holds something else than an export"):
                refuse_what_cannot_be_exported(place, force=force)

    def test_a_package_that_is_missing_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx, "is_installed", lambda name: name != "onnxscript")
        with pytest.raises(RequestError, match=r"onnxscript is not installed; pip install 'dpstune\[onnx\]' brings it"):
            refuse_what_cannot_be_exported(tmp_path / "new", force=False)
