"""A case study: which examples most of a method's restarts get right, and which most get wrong.

Zhang et al. 2022, Appendix A and Figure 1: an example is easy for a method when more than half of its restarts get it
right, hard when more than half get it wrong. With an even number of restarts it may be neither.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from dpstune.studies.wrong_labels import Suspect, have_learned, likely_wrong

if TYPE_CHECKING:
    from dpstune.studies.records import RunRecord

Verdict = Literal["easy", "hard", "neither"]
Change = Literal["rescued", "lost"]


def judge(correct: int, restarts: int) -> Verdict:
    """Say whether an example is easy or hard for a method.

    Args:
        correct: How many restarts get it right.
        restarts: How many there are.

    >>> judge(6, 10), judge(5, 10), judge(4, 10), judge(1, 1)
    ('easy', 'neither', 'hard', 'easy')
    """
    if 2 * correct > restarts:
        return "easy"
    return "hard" if 2 * correct < restarts else "neither"


def compare(baseline: Verdict, method: Verdict) -> Change | None:
    """Say whether a method rescues or loses an example against the baseline, given both verdicts; else None.

    >>> compare("hard", "easy"), compare("easy", "hard"), compare("neither", "easy")
    ('rescued', 'lost', None)
    """
    if (baseline, method) == ("hard", "easy"):
        return "rescued"
    return "lost" if (baseline, method) == ("easy", "hard") else None


@dataclass(frozen=True)
class Example:
    """An example and what is known about it.

    Args:
        id: Its id.
        label: The gold label; None if the source only says which predictions were right.
        texts: Its one or two texts; empty if they could not be read.
        phenomenon: For the toy tasks, what decides its label; else None.
    """

    id: str
    label: str | None = None
    texts: tuple[str, ...] = ()
    phenomenon: str | None = None


@dataclass(frozen=True)
class Restart:
    """The answers of one restart.

    Args:
        name: For example ``seed 42``.
        right: Whether it got each example right, in the study's order of examples.
        predictions: The label it gave each; None where only right and wrong are known.
        label_probabilities: The probability it gave the gold label; None where it is not known.
    """

    name: str
    right: Sequence[bool]
    predictions: Sequence[str] | None
    label_probabilities: Sequence[float] | None = None


@dataclass(frozen=True)
class MethodVotes:
    """A method's restarts over all examples.

    Args:
        name: The method's name, with the settings that tell it from other points of the same method.
        method: The method's name without settings.
        restarts: Number of restarts.
        correct: How many of them got each example right, in the study's order of examples.
        votes: Each restart's answers; empty if only counts are known.
    """

    name: str
    method: str
    restarts: int
    correct: Sequence[int]
    votes: Sequence[Restart] = ()

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """Whether each example is easy or hard for the method, in the study's order."""
        return [judge(correct, self.restarts) for correct in self.correct]


@dataclass(frozen=True)
class Proportions:
    """How many examples are easy, hard or neither for a method, and how many it rescues and loses.

    Args:
        examples: Number of all examples.
        easy, hard, neither: Numbers of examples; their sum is ``examples``.
        rescued, lost: Numbers of examples, against the baseline; None for the baseline itself and without one.
    """

    examples: int
    easy: int
    hard: int
    neither: int
    rescued: int | None
    lost: int | None

    @property
    def easy_share(self) -> float:
        """Easy examples / all examples."""
        return self.easy / self.examples

    @property
    def hard_share(self) -> float:
        """Hard examples / all examples."""
        return self.hard / self.examples


@dataclass(frozen=True)
class CaseStudy:
    """Examples, and how often the restarts of several methods get each of them right.

    Args:
        subject: What was predicted, for titles.
        examples: The examples.
        methods: The methods, each with a count for every example.
        baseline: Name of the method with which the others are compared; None for none.
        notes: What a reader should know, one line each.
        runs: The finished runs that were studied.
        files: The files that were studied.
    """

    subject: str
    examples: Sequence[Example]
    methods: Sequence[MethodVotes]
    baseline: str | None
    notes: Sequence[str] = ()
    runs: Sequence[RunRecord] = ()
    files: Sequence[Path] = ()

    @cached_property
    def phenomena(self) -> list[str]:
        """The phenomena, in alphabetical order; empty if examples have none."""
        return sorted({example.phenomenon for example in self.examples if example.phenomenon is not None})

    @cached_property
    def answers(self) -> list[Sequence[str]]:
        """What each restart of each method answers; empty where of some only counts are known."""
        votes = [vote for method in self.methods for vote in method.votes]
        known = [vote.predictions for vote in votes if vote.predictions is not None]
        return known if len(known) == sum(method.restarts for method in self.methods) else []

    @cached_property
    def voters(self) -> list[int]:
        """Which restarts, by their place in ``answers``, learned something; see ``have_learned``."""
        learned = have_learned([example.label for example in self.examples], self.answers)
        return [place for place, has in enumerate(learned) if has]

    @cached_property
    def suspects(self) -> list[Suspect]:
        """The examples that all voters of all methods answer alike, and against the label; see ``likely_wrong``."""
        given = [vote.label_probabilities for method in self.methods for vote in method.votes]
        chosen = [given[place] for place in self.voters]
        of_the_label = [None if each is None else np.array(each) for each in chosen]
        answers = [self.answers[place] for place in self.voters]
        return likely_wrong([example.label for example in self.examples], answers, of_the_label)

    def changes(self, method: MethodVotes) -> list[Change | None]:
        """Return, for each example, whether a method rescues or loses it against the baseline; else None."""
        baseline = next((each for each in self.methods if each.name == self.baseline), None)
        if baseline is None:
            return [None] * len(self.examples)
        return [compare(*pair) for pair in zip(baseline.verdicts, method.verdicts, strict=True)]

    def proportions(self, method: MethodVotes, phenomenon: str | None = None) -> Proportions:
        """Count a method's easy and hard examples.

        Args:
            method: One of ``methods``.
            phenomenon: Count only the examples that it decides; None counts all.
        """
        counted = [phenomenon in (None, example.phenomenon) for example in self.examples]
        verdicts = Counter(each for each, here in zip(method.verdicts, counted, strict=True) if here)
        changes = Counter(each for each, here in zip(self.changes(method), counted, strict=True) if here)
        compared = self.baseline is not None and method.name != self.baseline
        return Proportions(
            sum(counted),
            *(verdicts[verdict] for verdict in ("easy", "hard", "neither")),
            *((changes["rescued"], changes["lost"]) if compared else (None, None)),
        )
