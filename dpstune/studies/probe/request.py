"""What a probe is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dpstune.runs.folder import run_hash

FEWEST_ROWS = 10
"""Of fewer texts CKA says nothing (of two it is always 1), and of fewer rows a linear probe's score says nothing."""


@dataclass(frozen=True)
class ProbeRequest:
    """What is to be probed, and on what.

    Args:
        runs: Folders of runs, or model folders.
        output: The folder that holds all runs.
        on: Tasks for a linear probe; see ``find_target``.
        texts: A file of texts to compare hidden states on.
        text: Its one or two text columns; None for those the first model was trained on, or usual ones.
        task: A task whose texts are taken in their place; see ``find_target``. Neither: the runs' own evaluated split.
        rows: The most texts; ``FEWEST_ROWS`` or more.
        train_rows: The most rows that a linear probe is trained on; likewise.
        scored_rows: The most rows that it is scored on; likewise.
        pretrained: The model that all of them began with; None for what each run's recipe says.
        data_dirs: Folders of local data; each task is read from the first that has it.
    """

    runs: tuple[Path, ...]
    output: Path
    on: tuple[str, ...] = ()
    texts: Path | None = None
    text: tuple[str, ...] | None = None
    task: str | None = None
    rows: int = 500
    train_rows: int = 1000
    scored_rows: int = 1000
    pretrained: str | None = None
    data_dirs: tuple[Path, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of all that changes the report, for its folder's name."""
        return run_hash(
            {
                "runs": sorted(str(run.absolute()) for run in self.runs),
                "texts": [self.texts and str(self.texts.absolute()), self.text, self.task, self.rows],
                "on": [sorted(self.on), self.train_rows, self.scored_rows],
                "pretrained": self.pretrained,
                "data_dirs": [str(folder.absolute()) for folder in self.data_dirs],
            }
        )
