"""What models are called in tables and reports."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import PurePath


def shown_models(names: Collection[str]) -> dict[str, str]:
    """Return what each model is called: a hub id as it is, a folder by its last part.

    Folders with the same last part are called by as many of their last parts as are needed to differ.

    Args:
        names: ``model.name`` of every model that is shown beside the others.

    >>> shown_models(["google/electra", "/models/tiny"])
    {'google/electra': 'google/electra', '/models/tiny': 'tiny'}
    >>> shown_models(["/a/tiny", "/b/tiny"])
    {'/a/tiny': 'a/tiny', '/b/tiny': 'b/tiny'}
    """
    parts = {name: PurePath(name).parts for name in names}
    shown = {}
    for name, own in parts.items():
        others = [other for each, other in parts.items() if each != name]
        length = 1
        while length < len(own) and any(other[-length:] == own[-length:] for other in others):
            length += 1
        shown[name] = str(PurePath(*own[-length:])) if _is_folder(name) else name
    called = list(shown.values())
    return {name: text if called.count(text) == 1 else name for name, text in shown.items()}


def _is_folder(name: str) -> bool:
    """Tell a path from a hub id, which is a name or an owner and a name; the folder itself may be gone."""
    return os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1
