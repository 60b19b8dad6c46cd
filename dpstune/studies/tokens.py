"""What the runs of a sweep cut of their texts, or do not know of them, told once for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpstune.studies.sweep.sweep import Sweep


def planned_tokens(sweep: Sweep) -> list[str]:
    """Say what ``told_of_tokens`` of ``data/lengths.py`` does, of those of a sweep's runs that cut most.

    Nor is it said where nothing is left to train, or where what is asked for cannot be had, which the runs will say.

    Args:
        sweep: The sweep.
    """
    try:
        done, _ = sweep.finished()
        if sweep.jobs and len(done) == len(sweep.jobs):
            return []
        return sweep.inputs.told_of_tokens(min(sweep.recipes(), key=lambda recipe: recipe.data.max_length))
    except Exception:  # of a tokenizer, too: the run that meets it will say so
        return []
