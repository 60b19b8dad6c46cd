"""A trained classifier as an ONNX model, for programs that run it without torch."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.hub import first_line
from dpstune.common.packages import is_installed
from dpstune.common.writing import make_writable_folder, put_back, write_folder
from dpstune.errors import RequestError, RunError, shortened

if TYPE_CHECKING:
    import torch

    from dpstune.evaluation.trained import TrainedModel, TrainedPlace

MODEL_FILE = "model.onnx"
TOLERANCE = 1e-4  # how far a score may lie from the model's; of scores above 1, as a share of the largest
_TRACED = (3, 7)  # words of the examples that are traced; what is checked differs in number and length
_CHECKED = ((1,), (2, 11, 1, 40, 5))
_MOST_TOLD = 200  # characters of what torch says of a model that it cannot export


@dataclass(frozen=True)
class OnnxModel:
    """A model that was exported.

    Args:
        folder: Holds model.onnx, the tokenizer and the configuration with the label names.
        inputs: What the model takes, int64 [batch, length] each.
        max_length: Tokens that texts should be cut to, as they were in training.
        difference: The largest difference between its scores and the model's; None where onnxruntime is not installed.
    """

    folder: Path
    inputs: tuple[str, ...]
    max_length: int
    difference: float | None


def refuse_what_cannot_be_exported(folder: Path, *, force: bool) -> None:
    """Refuse a place that holds something else, and an export without what it takes.

    Args:
        folder: Where the export is to lie.
        force: Whether an earlier export there may be replaced.

    Raises:
        RequestError: A package is missing, or the place is taken.
    """
    missing = [name for name in ("onnx", "onnxscript") if not is_installed(name)]
    if missing:
        raise RequestError(f"--onnx: {missing[0]} is not installed; pip install 'dpstune[onnx]' brings it")
    put_back(folder.absolute(), "--onnx")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not (folder / MODEL_FILE).is_file():
            raise RequestError(f"--onnx {folder}: it holds something else than an export; choose another folder")
        if not force:
            raise RequestError(f"--onnx {folder}: it exists; choose another folder, or replace it with --force")
    make_writable_folder(folder.absolute().parent, "--onnx")


def export_onnx(place: TrainedPlace, folder: Path) -> OnnxModel:
    """Export a trained classifier in float32, for batches of any size and length.

    Args:
        place: Where it lies.
        folder: Where the export is to lie; an earlier one is replaced once the new one is whole, other files stay.

    Raises:
        RequestError: The model cannot be read, or torch cannot export its kind.
        RunError: The exported model's scores are not the model's.
    """
    from dpstune.evaluation.trained import TrainedModel

    trained = TrainedModel(place)
    trained.model.cpu().float()
    program, inputs = _trace(trained)
    differences: list[float | None] = []

    def fill(beside: Path) -> None:
        trained.model.config.save_pretrained(beside)
        trained.tokenizer.save_pretrained(beside)
        program.save(str(beside / MODEL_FILE))
        differences.append(_check(trained, beside / MODEL_FILE))
        _carry_over(folder, beside)

    write_folder(folder.absolute(), fill, flag="--onnx")
    return OnnxModel(folder, inputs, trained.max_length, differences[0])


# What torch and transformers write for a model and a tokenizer: of an earlier export, and perhaps of another model.
_OF_AN_EXPORT = (
    *(MODEL_FILE, f"{MODEL_FILE}.data"),
    *("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "spm.model"),
)


def _carry_over(earlier: Path, beside: Path) -> None:
    """Copy what else a user keeps in an earlier export's folder."""
    for entry in earlier.iterdir() if earlier.is_dir() else ():
        if entry.name in _OF_AN_EXPORT or (beside / entry.name).exists():
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, beside / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, beside, follow_symlinks=False)


def _trace(trained: TrainedModel) -> tuple[Any, tuple[str, ...]]:
    """Return the exported program and the names of its inputs."""
    import torch

    batch = _batch(trained, _TRACED)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                _scores_alone(trained.model, tuple(batch)),
                tuple(batch.values()),
                input_names=list(batch),
                output_names=["logits"],
                dynamic_shapes=(tuple({0: "batch", 1: "length"} for _ in batch),),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        why = shortened(first_line(error.__cause__ or error), _MOST_TOLD)
        kind = trained.model.config.model_type
        raise RequestError(f"{trained.place.name}: torch cannot export a {kind} model to ONNX: {why}") from error
    return program, tuple(batch)


def _scores_alone(model: torch.nn.Module, names: tuple[str, ...]) -> torch.nn.Module:
    """Return a module that takes a classifier's inputs, in the order of ``names``, and gives its logits alone."""
    import torch

    class Scores(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(**dict(zip(names, inputs, strict=True))).logits
            return logits

    return Scores().eval()


def _batch(trained: TrainedModel, words: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Return a batch of pairs of texts, as training would pad it; ``words`` says how many each example has."""
    from dpstune.data.examples import Examples
    from dpstune.data.tokens import encode

    vocabulary = ["one", "man", "and", "a", "dog", "are", "in", "the", "house"]
    texts = [(" ".join((vocabulary * count)[:count]), vocabulary[count % len(vocabulary)]) for count in words]
    examples = Examples([str(count) for count in words], [*texts], None)
    return encode(examples, trained.tokenizer, trained.max_length).collate(range(len(texts)))


def _check(trained: TrainedModel, file: Path) -> float | None:
    """Return the largest difference from the model's own scores, in batches that were not traced.

    Raises:
        RunError: It is more than is accepted.
    """
    if not is_installed("onnxruntime"):
        return None
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    largest = 0.0
    for words in _CHECKED:
        batch = _batch(trained, words)
        with torch.no_grad():
            expected = trained.model(**batch).logits
        (scores,) = session.run(["logits"], {name: value.numpy() for name, value in batch.items()})
        difference = float((torch.from_numpy(scores) - expected).abs().max())
        if not difference <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise RunError(
                f"{trained.place.name}: the exported model's scores differ from the model's by {difference:.2g}; "
                "nothing was written"
            )
        largest = max(largest, difference)
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's notes about packages and its own workings to itself inside the block."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
