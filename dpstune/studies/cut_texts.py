"""What the runs of a sweep cut of their texts, told once for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpstune.studies.sweep.sweep import Sweep


def planned_cut(sweep: Sweep) -> str | None:
    """Say how many training texts are cut in a sweep's runs, of those that cut most; None where they are few.

    Nor is it said where nothing is left to train, or where what is asked for cannot be had, which the runs will say.

    Args:
        sweep: The sweep.
    """
    try:
        done, _ = sweep.finished()
        if sweep.jobs and len(done) == len(sweep.jobs):
            return None
        return sweep.inputs.cut_texts(min(sweep.recipes(), key=lambda recipe: recipe.data.max_length))
    except Exception:  # of a tokenizer, too: the run that meets it will say so
        return None
