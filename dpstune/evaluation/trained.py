"""Classifiers that were trained before: a run's, or any local model folder's, loaded to predict."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpstune.common.writing import is_text, read_json
from dpstune.errors import RequestError
from dpstune.runs.folder import FIT_RESULT, RunFolder
from dpstune.settings.sections import FEWEST_TOKENS, DataSection, TrainingSection
from dpstune.settings.tasks import Kind

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpstune.data.examples import Examples
    from dpstune.data.tokens import TokenDataset
    from dpstune.recipe.schema import Recipe
    from dpstune.settings.sections import AnyTask, ModelSection

LENGTH_KEY = "dpstune_max_length"
"""The key of a model folder's config.json for the run's ``data.max_length``, which so goes wherever the folder goes."""


@dataclass(frozen=True)
class TrainedPlace:
    """Where a trained classifier lies.

    Args:
        name: As the user gave it.
        folder: The model folder.
        run: The run that trained it; None for a model folder that no run wrote.
        recipe: The run's recipe; likewise.
    """

    name: str
    folder: Path
    run: RunFolder | None
    recipe: Recipe | None

    @property
    def task(self) -> AnyTask | None:
        """The task of its recipe; None where it is not known."""
        return self.recipe.task if self.recipe is not None else None

    @property
    def data(self) -> DataSection:
        """How its recipe reads texts; without one the usual way, but for the length that its folder tells."""
        if self.recipe is not None:
            return self.recipe.data
        length = (read_json(self.folder / "config.json") or {}).get(LENGTH_KEY)
        return DataSection(max_length=length) if type(length) is int and length >= FEWEST_TOKENS else DataSection()

    @property
    def training(self) -> TrainingSection:
        """How its recipe trains and evaluates, or the usual way."""
        return self.recipe.training if self.recipe is not None else TrainingSection()

    def reading_from(self, folder: Path | None) -> TrainedPlace:
        """Return the same model, its own data read from another folder; see ``reading_from`` of ``data/moved.py``."""
        from dpstune.data.moved import reading_from

        return self if self.recipe is None else replace(self, recipe=reading_from(self.recipe, folder))


def find_trained(place: Path) -> TrainedPlace:
    """Find the model of a run, or a model folder.

    Args:
        place: A run's folder, the model folder in it, or any local model folder.

    Raises:
        RequestError: The folder is none of them, the run is not finished, or its recipe cannot be read.
    """
    try:
        return _find(place)
    except OSError as error:
        raise RequestError(
            f"{place} cannot be read: {error.strerror}; give a run's folder or a model folder that can be"
        ) from None


def _find(place: Path) -> TrainedPlace:
    from dpstune.recipe.recipe import load_run_recipe

    name = str(place)
    if not place.is_dir():
        raise RequestError(f"there is no folder {place}; give a run's folder or a model folder")
    if not is_text(place):
        raise RequestError(f"{place}: its name is no UTF-8 text, and no model is read from there; rename it")
    if place.name == "model" and (place.parent / "recipe.yaml").is_file():
        place = place.parent
    run = RunFolder(place)
    if run.recipe.is_file() and (place / FIT_RESULT).is_file():
        if not run.model.is_dir():
            raise RequestError(f"{place} holds no model; the same fit command makes it again")
        return TrainedPlace(name, run.model, None, load_run_recipe(run.recipe))
    if run.recipe.is_file():
        if run.read_result() is None:
            raise RequestError(f"{place} is a run that is not finished; the command that trained it continues it")
        if not run.model.is_dir():
            raise RequestError(
                f"{place} holds no model (a sweep with --no-models keeps none); dpstune train trains it anew"
            )
        return TrainedPlace(name, run.model, run, load_run_recipe(run.recipe))
    if not (place / "config.json").is_file():
        raise RequestError(f"{place} is neither a run's folder (no recipe.yaml) nor a model folder (no config.json)")
    return TrainedPlace(name, place, None, None)


class TrainedModel:
    """A classifier as it was trained, with its tokenizer, ready to score texts.

    Args:
        place: Where it lies.
        max_length: A longer example is cut to this many tokens. None takes the run's value, or 128 for a folder that
            no run wrote, but no more than the model takes.

    Raises:
        RequestError: Weights, configuration or tokenizer cannot be read, or the model takes fewer than ``max_length``.
    """

    def __init__(self, place: TrainedPlace, max_length: int | None = None) -> None:
        import torch

        from dpstune.data.lengths import CutTexts
        from dpstune.device.hardware import device_type
        from dpstune.models.loading import load_tokenizer, load_trained_classifier
        from dpstune.models.structure import value_layer
        from dpstune.settings.sections import ModelSection

        section = ModelSection(name=str(place.folder))
        self.place = place
        self.device = torch.device(device_type())
        recorded = (read_json(place.run.environment) if place.run is not None else None) or {}
        self.precision = _precision(recorded, section, self.device.type)
        self._determinism = recorded.get("determinism") if self.device.type == "cuda" else None
        self.model: PreTrainedModel = load_trained_classifier(section).eval()
        torch.nn.Module.to(self.model, self.device)
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(section)
        self.kind: Kind = "regression" if self.model.config.num_labels == 1 else "classification"
        if self.model.config.problem_type == "multi_label_classification":
            self.kind = "multilabel"
        self._value_layer = value_layer(self.model, self.kind)
        labels = self.model.config.id2label or {}
        self.label_names = () if self.kind == "regression" else tuple(labels[index] for index in sorted(labels))
        most = self.tokenizer.model_max_length
        if max_length is not None and max_length > most:
            raise RequestError(f"--max-length: {max_length} is more than the model's {most} tokens")
        self.max_length = max_length or min(place.data.max_length, most)
        self.batch_size = place.training.eval_batch_size
        self.cut = CutTexts(self.tokenizer, self.max_length)
        """Of the texts that were scored, those that were cut."""

    def score(self, dataset: TokenDataset) -> torch.Tensor:
        """Return the logits of a tokenised split, float32 [examples, labels], on the CPU."""
        from dpstune.device.determinism import kernels_for_the_same_bits
        from dpstune.device.hardware import has_matrix_units
        from dpstune.evaluation.scoring import score

        few_shapes = self.device.type == "cpu" and has_matrix_units(self.precision)
        with self._autocast(), kernels_for_the_same_bits(self._determinism):
            return score(
                self.model,
                dataset,
                width=self._width,
                batch_size=self.batch_size,
                device=self.device,
                value_layer=self._value_layer,
                longest=self.max_length if few_shapes else None,
            )

    def score_texts(self, texts: Sequence[tuple[str, ...]]) -> torch.Tensor:
        """Return the logits of texts, one or two strings per example, float32 [examples, labels], on the CPU."""
        from dpstune.data.examples import Examples

        return self.score(self.encode(Examples([str(number) for number in range(len(texts))], list(texts), None)))

    def encode(self, examples: Examples, *, float_labels: bool = False) -> TokenDataset:
        """Tokenise a split as ``encode`` of ``data/tokens.py`` does, and count which of its texts are cut."""
        from dpstune.data.tokens import encode

        dataset = encode(examples, self.tokenizer, self.max_length, float_labels=float_labels)
        self.cut.add(examples.texts, dataset.lengths)
        return dataset

    @property
    def _width(self) -> int:
        return max(1, len(self.label_names))

    def _autocast(self) -> Any:
        import torch

        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[self.precision])


def _precision(recorded: dict[str, Any], model: ModelSection, device: str) -> str:
    """Return the precision of a run's own evaluations, if they ran on this kind of device or it computes that natively.

    Else return what ``auto`` is for the model: a CPU does not emulate fp16 for a GPU's model, whose bits differ anyway.
    """
    from dpstune.device.hardware import available_precisions, choose_precision
    from dpstune.models.precision import model_precision

    precision, same_kind = recorded.get("precision"), recorded.get("device_type", recorded.get("device")) == device
    with suppress(RequestError):
        if isinstance(precision, str) and (same_kind or precision in available_precisions(device)):
            return choose_precision(precision, device)
    return model_precision("auto", model, device)
