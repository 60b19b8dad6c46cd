"""What each run of a fit is trained on and scored by: folds, held-out rows, a test part, and at the end everything."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

FEW_ROWS = 1000  # below it every row is worth scoring: folds in the place of one set of held-out rows
FOLDS = 5
SHARE = 0.2
VALIDATION, TEST = "validation", "test"  # the splits of a run that choose, and that score the choice


@dataclass(frozen=True)
class Parts:
    """How a task's rows are used.

    Args:
        place: The key of the task that says where its splits lie: ``files`` or ``splits``.
        folds: Candidates are chosen by cross-validation in as many folds; None for held-out rows.
        validation: What is held out: a share of the rows, or the user's own file or split; None for folds.
        test: What the chosen candidate is scored on: likewise; None where the rows that choose are scored too.
    """

    place: str
    folds: int | None
    validation: Any = None
    test: Any = None

    @property
    def count(self) -> int:
        """How many parts a candidate is tried on."""
        return self.folds or 1

    def task_of(self, task: Mapping[str, Any], part: int) -> dict[str, Any]:
        """Return the task of a run that a candidate is tried by.

        Args:
            task: The user's task, as a recipe has it.
            part: The part's number from 1.
        """
        keys = {"folds": self.folds, "fold": part} if self.folds else {"validation": self.validation}
        return self._with(task, keys | ({} if self.test is None else {"test": self.test}))

    def whole_task(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task of the last run: trained on everything, scored on nothing."""
        return self._with(task, {"validation": 0})

    def _with(self, task: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
        changed = deepcopy(dict(task))
        changed[self.place] = {"train": task[self.place]["train"], **keys}
        return changed


def decide_parts(task: Mapping[str, Any], rows: int, *, folds: int | None, test: Any) -> Parts:
    """Say how rows are used, where the user does not.

    Fewer than about 1,000 rows are worth all of them: 5 folds, and no test part, since the choice is scored by the
    bootstrap. More are split once, into 60% to train on, 20% to choose by and 20% to score.

    Args:
        task: The user's task, as a recipe has it.
        rows: Its training rows.
        folds: Asked for by the user; None leaves it to the number of rows.
        test: A share or a file that the user keeps for the last score; None likewise, 0 for none.

    >>> decide_parts({"files": {"train": "a.csv"}}, 500, folds=None, test=None)
    Parts(place='files', folds=5, validation=None, test=None)
    >>> decide_parts({"files": {"train": "a.csv"}}, 5000, folds=None, test=None)
    Parts(place='files', folds=None, validation=0.2, test=0.2)
    """
    place = "splits" if "dataset" in task else "files"
    given = task.get(place) or {}
    own_test = given.get("test") if test is None else test
    usual_test = SHARE if own_test is None else own_test or None
    if folds is None:
        folds = given.get("folds")
    if folds is None and given.get("validation"):
        return Parts(place, None, given["validation"], usual_test)
    if folds is None and rows >= FEW_ROWS:
        return Parts(place, None, SHARE, usual_test)
    return Parts(place, folds or FOLDS, None, own_test or None)
