"""The fine-tuned models that are probed, and the pre-trained ones that they began as: found, checked, grouped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpstune.errors import RequestError, counted
from dpstune.evaluation.trained import TrainedPlace, find_trained
from dpstune.models.names import shown_models
from dpstune.settings.sections import AnyTask, ModelSection, same_training_table
from dpstune.studies.points import Point, group_points
from dpstune.studies.records import RunRecord, read_run

_SAME_SHAPE = ("model_type", "num_hidden_layers", "hidden_size", "vocab_size")


@dataclass(frozen=True)
class Start:
    """What fine-tuning began with, and how texts are given to it and to what became of it.

    Args:
        model: The pre-trained model.
        max_length: A longer text is cut to this many tokens.
    """

    model: ModelSection
    max_length: int


@dataclass(frozen=True)
class Subject:
    """A fine-tuned model that is probed.

    Args:
        place: Where it lies.
        record: The run that trained it; None for a model folder.
        start: What it began with.
    """

    place: TrainedPlace
    record: RunRecord | None
    start: Start


def find_subject(run: Path) -> tuple[TrainedPlace, RunRecord | None]:
    """Find a model, and the run that trained it; None for a model folder.

    Raises:
        RequestError: There is none, the run is not finished, or something of it is damaged.
    """
    from dpstune.models.loading import weight_shapes

    place = find_trained(run)
    record = None
    if place.run is not None:
        try:
            record = read_run(place.run.path)
        except ValueError as error:
            raise RequestError(f"{run} is damaged: {error}") from None
    files = sorted(place.folder.glob("*.safetensors"))
    if not files:
        raise RequestError(f"{place.folder} holds no weights (no .safetensors file)")
    for file in files:
        weight_shapes(file)
    return place, record


def pretrained_model(place: TrainedPlace, asked: str | None) -> ModelSection:
    """Return the pre-trained model that a fine-tuned one began as.

    Args:
        place: The fine-tuned model.
        asked: Its name; None for what the recipe says.

    Raises:
        RequestError: There is none: the name is empty, a model folder has no recipe, or a run began with random
            weights.
    """
    if asked is not None:
        if not asked.strip():
            raise RequestError("--pretrained: the name is empty; give a model's name or its folder")
        return ModelSection(name=asked)
    if place.recipe is None:
        raise RequestError(
            f"{place.name} is a model folder, which does not say what it began as; add --pretrained NAME"
        )
    model = place.recipe.model
    if model.init == "random":
        raise RequestError(f"{place.name} began with random weights (model.init): it has no pre-trained model")
    return ModelSection(name=model.name, revision=model.revision)


def refuse_another_shape(place: TrainedPlace, model: ModelSection) -> None:
    """Refuse a model that cannot have begun as ``model``; only configurations are read.

    Raises:
        RequestError: They have other layers, widths or vocabularies; or a configuration cannot be read.
    """
    from dpstune.models.loading import read_config

    (_, pretrained), (_, tuned) = read_config(model), read_config(ModelSection(name=str(place.folder)))
    for key in _SAME_SHAPE:
        theirs, ours = (getattr(config, key, None) for config in (pretrained, tuned))
        if theirs != ours:
            raise RequestError(
                f"{place.name} has {key} {ours}, but {model.name}, which it should have begun as, {theirs}; "
                "--pretrained names another model"
            )


def changed_since(subjects: Sequence[Subject]) -> list[str]:
    """Say which pre-trained models are not what they were when a run was trained."""
    from dpstune.models.loading import model_fingerprint

    names: dict[str, None] = {}
    for subject in subjects:
        known = subject.record.fingerprints.get("model") if subject.record is not None else None
        if known is not None and known != model_fingerprint(subject.start.model):
            names[subject.start.model.name] = None
    return [f"{name} has changed since it was fine-tuned" for name in names]


def tell_own_tasks(subjects: Sequence[Subject], tasks: Mapping[str, AnyTask]) -> list[str]:
    """Say which tasks of linear probes are those that models were trained on.

    Args:
        subjects: The models.
        tasks: By name.
    """
    trained = [task for subject in subjects if (task := subject.place.task) is not None]
    counts = {name: sum(same_training_table(task, own) for own in trained) for name, task in tasks.items()}
    return [
        f"{name}: {counted(count, 'model')} of {len(subjects)} learned this very task: there the linear probe shows "
        "what was learned, not what was kept"
        for name, count in counts.items()
        if count
    ]


def name_starts(starts: Sequence[Start]) -> dict[Start, str]:
    """Return what each is called: the model's name; with revision or length where those of one model differ in it.

    Args:
        starts: All that are shown beside each other.

    >>> short, long = (Start(ModelSection(name="google/electra"), length) for length in (64, 128))
    >>> list(name_starts([short, long]).values()), list(name_starts([long]).values())
    (['google/electra, 64 tokens', 'google/electra, 128 tokens'], ['google/electra'])
    """
    shown = shown_models(dict.fromkeys(start.model.name for start in starts))
    found = {}
    for start in starts:
        same = [other for other in starts if other.model.name == start.model.name]
        parts = [shown[start.model.name]]
        if len({other.model.revision for other in same}) > 1:
            parts.append(f"revision {start.model.revision}" if start.model.revision else "no revision")
        if len({other.max_length for other in same}) > 1:
            parts.append(f"{start.max_length} tokens")
        found[start] = ", ".join(parts)
    return found


def group_subjects(subjects: Sequence[Subject]) -> list[tuple[Point, list[Subject]]]:
    """Group runs by point; each model folder is a point by itself.

    Raises:
        RequestError: A model is there twice.
    """
    places: dict[Path, Subject] = {}
    for subject in subjects:
        other = places.setdefault(subject.place.folder.resolve(), subject)
        if other is not subject:
            raise RequestError(f"{subject.place.name} is there twice")
    runs = {subject.record.folder: subject for subject in subjects if subject.record is not None}
    groups = [
        (point, [runs[record.folder] for record in records.values()])
        for point, records in group_points([subject.record for subject in runs.values() if subject.record is not None])
    ]
    grouped = {id(subject) for _, members in groups for subject in members}
    for subject in runs.values():
        if id(subject) not in grouped:
            raise RequestError(f"{subject.place.name} is the same restart as another run that is named; leave one out")
    folders = [subject for subject in subjects if subject.record is None]
    return [*groups, *((Point(subject.place.name), [subject]) for subject in folders)]
