"""Which packages are installed."""

from __future__ import annotations

from importlib.util import find_spec


def is_installed(name: str) -> bool:
    """Tell whether there is such a package; a folder of that name in the working directory is none.

    >>> is_installed("yaml"), is_installed("no_such_package")
    (True, False)
    """
    found = find_spec(name)
    return found is not None and found.origin is not None
