"""Python's search for garbage, put off while modules are imported and models are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage_search() -> Iterator[None]:
    """Search for no garbage inside the block, or in the decorated function: nearly all that it makes stays.

    Python would search what is new after every 700 objects, and all objects again and again: a seventh of the time in
    which torch and transformers are imported. After the block all objects count as old, which is searched seldom.
    """
    if not gc.isenabled():  # by an outer block, or by the caller
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else the caller froze objects, which stay so
            gc.freeze()
            gc.unfreeze()  # among the old ones
        gc.enable()
