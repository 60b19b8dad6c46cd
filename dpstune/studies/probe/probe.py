"""How far fine-tuning moved the representations of a model from those of the pre-trained one.

"Representational collapse" (Aghajanyan et al. 2021): what a model knew before fine-tuning is harder to read off it
afterwards. Here it is looked at in two ways: layer by layer, how like the fine-tuned hidden states are to the
pre-trained ones on the same texts (``dpstune.studies.probe.similarity``); and how well a linear probe on the last layer
does another task (``dpstune.studies.probe.linear_probe``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dpstune.common.writing import make_writable_folder
from dpstune.data.examples import Examples
from dpstune.errors import RequestError
from dpstune.evaluation.targets import find_target
from dpstune.evaluation.trained import TrainedPlace
from dpstune.settings.sections import ModelSection
from dpstune.studies.answers import Answers
from dpstune.studies.points import Point
from dpstune.studies.probe.linear_probe import (
    ProbedTask,
    answer_linearly,
    compare_with_pretrained,
    draw_rows,
    read_probed_task,
    score_of,
)
from dpstune.studies.probe.outcome import LinearScore, Pretrained, Probed, ProbedPoint, ProbeOutcome
from dpstune.studies.probe.request import ProbeRequest
from dpstune.studies.probe.similarity import Features, linear_cka, mean_cosine
from dpstune.studies.probe.subjects import (
    Start,
    Subject,
    changed_since,
    find_subject,
    group_subjects,
    name_starts,
    pretrained_model,
    refuse_another_shape,
    tell_own_tasks,
)
from dpstune.studies.probe.texts import read_texts_to_compare

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from dpstune.data.tokens import TokenDataset


class Probe:
    """Fine-tuned models that are compared with what they began as; all is read and checked, nothing computed yet.

    Args:
        request: What is asked for.

    Raises:
        RequestError: A run is not finished or damaged, began with random weights, is there twice, or has another shape
            than its pre-trained model; or texts or tasks cannot be had.
        RunError: The hub could not be reached.
    """

    def __init__(self, request: ProbeRequest) -> None:
        from dpstune.models.loading import load_tokenizer

        if not request.runs:
            raise RequestError("name the folder of a run, or of a model")
        self._request = request
        self._notes: list[str] = []
        self._tokenizers: dict[ModelSection, PreTrainedTokenizerBase] = {}
        places = [find_subject(run) for run in request.runs]
        models = [pretrained_model(place, request.pretrained) for place, _ in places]
        for (place, _), model in zip(places, models, strict=True):
            refuse_another_shape(place, model)
            if model not in self._tokenizers:
                self._tokenizers[model] = load_tokenizer(model)
        self.subjects = [
            Subject(place, record, Start(model, self._length(place, model)))
            for (place, record), model in zip(places, models, strict=True)
        ]
        self._notes += changed_since(self.subjects) if request.pretrained is None else []
        self._groups = group_subjects(self.subjects)
        texts = read_texts_to_compare(request, self.subjects)
        self.texts = texts.name
        self._notes += texts.notes
        self._examples = draw_rows(texts.examples, request.rows)
        self.tasks = tuple(
            read_probed_task(asked, request.data_dirs, request.train_rows, request.scored_rows) for asked in request.on
        )
        if len({task.name for task in self.tasks}) < len(self.tasks):
            raise RequestError(f"--on {','.join(request.on)}: a task is there twice, or two have one name")
        own = {
            task.name: find_target(asked, request.data_dirs).task
            for task, asked in zip(self.tasks, request.on, strict=True)
        }
        self._notes += tell_own_tasks(self.subjects, own)
        self.folder = self._parent() / f"probe-{request.digest}"
        make_writable_folder(self.folder)

    def run(self, told: Callable[[str], None] = lambda line: None) -> ProbeOutcome:
        """Compute hidden states and features, and compare.

        Args:
            told: Called with a line before each model.

        Raises:
            RequestError: A model's weights cannot be read.
        """
        found: dict[str, Probed] = {}
        before: dict[Start, dict[str, Answers]] = {}
        names = name_starts(list(dict.fromkeys(subject.start for subject in self.subjects)))
        for start, name in names.items():
            begun = [subject for subject in self.subjects if subject.start == start]
            # With one for all, all round alike.
            batch_size = min(subject.place.training.eval_batch_size for subject in begun)
            reader = _Reader(self._tokenizers[start.model], start.max_length, batch_size, self._examples, self.tasks)
            told(f"pre-trained {name}")
            states, before[start] = reader.read(start.model, start.model.name)
            for subject in begun:
                told(subject.place.name)
                own, answers = reader.read(ModelSection(name=str(subject.place.folder)), subject.place.name)
                layers = range(states.shape[1])
                found[subject.place.name] = Probed(
                    subject,
                    tuple(linear_cka(own[:, layer], states[:, layer]) for layer in layers),
                    tuple(mean_cosine(own[:, layer], states[:, layer]) for layer in layers),
                    answers,
                )
        points = [
            self._point(point, [found[subject.place.name] for subject in subjects], before)
            for point, subjects in self._groups
        ]
        pretrained = tuple(
            Pretrained(start, name, {task.name: score_of(task, before[start][task.name]) for task in self.tasks})
            for start, name in names.items()
        )
        notes = tuple(self._notes)
        return ProbeOutcome(self.folder, self.texts, len(self._examples), self.tasks, tuple(points), pretrained, notes)

    def _point(
        self, point: Point, restarts: Sequence[Probed], before: Mapping[Start, Mapping[str, Answers]]
    ) -> ProbedPoint:
        scores = []
        for task in self.tasks:
            pretrained = before[restarts[0].subject.start][task.name]
            answers = [each.answers[task.name] for each in restarts]
            verdict = compare_with_pretrained(task, answers, pretrained)
            own = tuple(score_of(task, each) for each in answers)
            scores.append(LinearScore(task, own, score_of(task, pretrained), verdict))
        return ProbedPoint(point, tuple(restarts), tuple(scores))

    def _length(self, place: TrainedPlace, model: ModelSection) -> int:
        return min(place.data.max_length, self._tokenizers[model].model_max_length)

    def _parent(self) -> Path:
        recipes = {str(subject.record.result["recipe"]) if subject.record else None for subject in self.subjects}
        name = recipes.pop() if len(recipes) == 1 else None
        return self._request.output / name if name is not None else self._request.output


class _Reader:
    """Reads models that have one tokenizer: their hidden states on texts, and linear probes' answers.

    Args:
        tokenizer: The pre-trained model's.
        max_length: A longer text is cut to this many tokens.
        batch_size: Texts a batch.
        texts: What hidden states are computed of.
        tasks: The linear probe's.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        batch_size: int,
        texts: Examples,
        tasks: Sequence[ProbedTask],
    ) -> None:
        from dpstune.data.tokens import encode

        self._tasks = tasks
        self._texts = encode(texts, tokenizer, max_length)
        self._rows = [[encode(part, tokenizer, max_length) for part in (task.train, task.scored)] for task in tasks]
        self._batch_size = batch_size

    def read(self, model: ModelSection, name: str) -> tuple[Features, dict[str, Answers]]:
        """Return the hidden states of the texts, [texts, layers + 1, width], and the answers by task.

        Args:
            model: The model.
            name: What people call it.

        Raises:
            RequestError: The model's weights cannot be read, or its hidden states are not finite.
        """
        from dpstune.evaluation.states import load_encoder

        encoder = load_encoder(model)
        states = self._states(encoder, self._texts)
        if not np.isfinite(states).all():
            raise RequestError(f"{name}: its hidden states are not finite: nothing to compare; train it anew")
        answers = {}
        for task, parts in zip(self._tasks, self._rows, strict=True):
            train, scored = (self._states(encoder, part, last_only=True)[:, 0] for part in parts)
            answers[task.name] = answer_linearly(task, train, scored)
        return states, answers

    def _states(self, encoder: nn.Module, dataset: TokenDataset, *, last_only: bool = False) -> Features:
        from dpstune.evaluation.states import mean_states

        found: Features = mean_states(encoder, dataset, batch_size=self._batch_size, last_only=last_only).numpy()
        return found
