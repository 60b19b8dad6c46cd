"""Restarts' answers from any source, collected by example and counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpstune.errors import RequestError, did_you_mean, some_of
from dpstune.methods import BASELINE, REGISTRY
from dpstune.studies.casestudy.casestudy import CaseStudy, Example, MethodVotes, Restart
from dpstune.studies.records import RunRecord


@dataclass
class Ballot:
    """One restart's answers, by example id.

    Args:
        name: ``seed 42``; None where the source does not name its restarts.
        place: Where the answers lie, for errors.
        predictions: The label it gave each example.
        right: Whether it was right; of examples that are not there, prediction and gold label decide.
        label_probabilities: The probability it gave the gold label; empty where the source has none.
    """

    name: str | None
    place: str
    predictions: dict[str, str] = field(default_factory=dict)
    right: dict[str, bool] = field(default_factory=dict)
    label_probabilities: dict[str, float] = field(default_factory=dict)

    @property
    def ids(self) -> set[str]:
        """The ids of the examples that it answers."""
        return {*self.predictions, *self.right}


@dataclass
class MethodBallots:
    """All that is known of a method's answers: those of each restart, or how many restarts were right.

    Args:
        name: The method's name, with the settings that tell it from other points of the same method.
        place: Where its answers lie, for errors.
        ballots: One for each restart; empty if there are counts.
        counts: Number of right restarts, by example id; empty if there are ballots.
        restarts: Of how many restarts the counts are.
    """

    name: str
    place: str
    ballots: list[Ballot] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    restarts: int = 0

    @property
    def ids(self) -> set[str]:
        """The ids of the examples that any of its restarts answers."""
        return set(self.counts).union(*(ballot.ids for ballot in self.ballots))

    @property
    def method(self) -> str:
        """The method's name without settings, if ``name`` begins with a known one; else ``name``."""
        first = self.name.partition(" ")[0]
        return first if first in REGISTRY else self.name


@dataclass
class Gathered:
    """Methods and examples from any number of sources.

    Args:
        methods: The methods, by name.
        examples: The examples, by id, in the order in which they were read.
        notes: What a reader should know.
        runs: The finished runs among the sources.
        files: The files among them.
    """

    methods: dict[str, MethodBallots] = field(default_factory=dict)
    examples: dict[str, Example] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    def add_method(self, new: MethodBallots) -> None:
        """Add a method; further restarts join those of the same name.

        Raises:
            RequestError: The method is there already and either has counts, or a restart is there twice.
        """
        old = self.methods.setdefault(new.name, new)
        if old is new:
            return
        if old.counts or new.counts:
            raise RequestError(
                f"{new.place}: {new.name} is in {old.place} as well, and counts are not added up; leave one out, or "
                "tell them apart in a column 'method'"
            )
        for ballot in new.ballots:
            twin = next((each for each in old.ballots if each.name is not None and each.name == ballot.name), None)
            if twin is not None:
                raise RequestError(f"{ballot.place}: {ballot.name} of {new.name} is in {twin.place} as well")
            old.ballots.append(ballot)

    def add_example(self, new: Example, place: str) -> None:
        """Add an example; if it is known, fill in what it lacks.

        Args:
            new: The example.
            place: Where it was read, for errors.

        Raises:
            RequestError: It has another label than before.
        """
        old = self.examples.get(new.id)
        if old is None:
            self.examples[new.id] = new
        elif old is not new and old != new:
            if old.label and new.label and old.label != new.label:
                raise RequestError(
                    f"{place}: example {new.id!r} has the label {new.label!r} here and {old.label!r} elsewhere; "
                    "all restarts should be of the same examples"
                )
            self.examples[new.id] = fill_in(old, new)

    def select(self, names: Sequence[str]) -> None:
        """Keep only the methods of these names and the examples that they answer; with no names, keep all.

        A method's name without settings keeps all its points.

        Raises:
            RequestError: A name is none of the methods.
        """
        for name in names:
            if not any(name in (each.name, each.method) for each in self.methods.values()):
                hint = did_you_mean(name, self.methods) or f"; the methods are {some_of(self.methods)}"
                raise RequestError(f"--method {name}: there are no predictions of it{hint}")
        kept = {name: each for name, each in self.methods.items() if {each.name, each.method} & set(names)}
        if kept:
            self.methods = kept
            answered = set().union(*(each.ids for each in kept.values()))
            self.examples = {identity: each for identity, each in self.examples.items() if identity in answered}


def fill_in(example: Example, other: Example) -> Example:
    """Return an example; what it lacks is taken from another."""
    return replace(
        example,
        label=example.label or other.label,
        texts=example.texts or other.texts,
        phenomenon=example.phenomenon or other.phenomenon,
    )


def count_votes(
    gathered: Gathered, subject: str, *, baseline: str | None = None, restarts: int | None = None
) -> CaseStudy:
    """Count, for each method, how many restarts get each example right.

    Args:
        gathered: Methods and examples.
        subject: What was predicted, for titles.
        baseline: The method to compare the others with; None takes ``vanilla`` if it is there.
        restarts: How many restarts each method should have; None allows any number.

    Raises:
        RequestError: Restarts answer different examples, an answer has no gold label, the baseline is not there, or a
            method has another number of restarts.
    """
    notes = list(gathered.notes)
    methods = [_count(method, gathered) for method in gathered.methods.values()]
    for each in methods:
        if restarts not in (None, each.restarts):
            raise RequestError(
                f"--restarts {restarts}: {gathered.methods[each.name].place} holds {each.restarts} of {each.name}; "
                "leave --restarts out to take what there is"
            )
    notes += _strange_labels(methods, gathered.examples)
    if len({each.restarts for each in methods}) > 1:
        numbers = ", ".join(f"{method.name} {method.restarts}" for method in methods)
        notes.append(
            f"restarts differ ({numbers}): with fewer, other examples of the same method are easy or hard, so that "
            "these counts cannot be compared"
        )
    chosen = choose_baseline(baseline, {each.name: each.method for each in methods})
    if chosen is None and len(methods) > 1:
        notes.append(
            f"there is no method {BASELINE}, or more than one, so nothing is rescued or lost; --baseline NAME compares "
            "with another"
        )
    return CaseStudy(subject, list(gathered.examples.values()), methods, chosen, notes, gathered.runs, gathered.files)


def choose_baseline(asked: str | None, methods: Mapping[str, str]) -> str | None:
    """Return the name of the method to compare with; None if none was asked for and not exactly one is ``vanilla``.

    Args:
        asked: A name; None for ``vanilla``.
        methods: The methods' own names, by the names that tell their settings apart.

    Raises:
        RequestError: What was asked for is not there, or names several.

    >>> choose_baseline("mixout", {"vanilla": "vanilla", "mixout": "mixout"})
    'mixout'
    >>> choose_baseline(None, {"vanilla": "vanilla", "mixout": "mixout"})
    'vanilla'
    """
    wanted = (asked or BASELINE).casefold()
    found = [name for name in methods if name.casefold() == wanted]
    found = found or [name for name, method in methods.items() if method.casefold() == wanted]
    if len(found) == 1:
        return found[0]
    if asked is not None:
        what = "names several methods" if found else "is none of the methods"
        hint = "" if found else did_you_mean(asked, methods)
        raise RequestError(f"--baseline {asked}: {what}; the methods are {some_of(methods)}{hint}")
    return None


def _count(method: MethodBallots, gathered: Gathered) -> MethodVotes:
    if method.counts:
        _refuse_missing(method.counts.keys(), f"{method.place} ({method.name})", gathered)
        correct = [method.counts[example] for example in gathered.examples]
        return MethodVotes(method.name, method.method, method.restarts, correct)
    votes = []
    for number, ballot in enumerate(method.ballots, start=1):
        name = ballot.name or f"restart {number}"
        _refuse_missing(ballot.ids, f"{ballot.place} ({method.name}, {name})", gathered)
        right = [_is_right(ballot, example) for example in gathered.examples.values()]
        known = len(ballot.predictions) == len(gathered.examples)
        predictions = [ballot.predictions[example] for example in gathered.examples] if known else None
        known_too = ballot.label_probabilities
        of_the_label = [known_too[example] for example in gathered.examples] if known_too else None
        votes.append(Restart(name, right, predictions, of_the_label))
    correct = [sum(column) for column in zip(*(vote.right for vote in votes), strict=True)]
    return MethodVotes(method.name, method.method, len(votes), correct, votes)


def _refuse_missing(ids: Collection[str], place: str, gathered: Gathered) -> None:
    missing = next((example for example in gathered.examples if example not in ids), None)
    if missing is not None:
        raise RequestError(
            f"{place}: example {missing!r} is missing, but others answer it ({len(ids)} of {len(gathered.examples)} "
            "are there); all restarts should answer the same examples"
        )


def _is_right(ballot: Ballot, example: Example) -> bool:
    if example.id in ballot.right:
        return ballot.right[example.id]
    if example.label is None:
        raise RequestError(
            f"{ballot.place}: example {example.id!r} has no label, so no prediction is right or wrong; add a "
            "column 'label' or 'correct', or name the task's recipe with --recipe"
        )
    return ballot.predictions[example.id] == example.label


def _strange_labels(methods: Sequence[MethodVotes], examples: Mapping[str, Example]) -> list[str]:
    """Return a note if no prediction is ever a gold label: the two may be written in different ways."""
    labels = {example.label for example in examples.values()} - {None}
    given = {label for each in methods for vote in each.votes for label in vote.predictions or ()}
    if not labels or not given or labels & given:
        return []
    ours, theirs = (some_of(sorted(map(str, names))) for names in (given, labels))
    return [f"no prediction ({ours}) is ever a gold label ({theirs}); are both written the same way?"]
