"""``dpstune methods``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dpstune.commands.options import AsJson, method_names
from dpstune.errors import RequestError
from dpstune.report.output import print_json, print_out, tell

if TYPE_CHECKING:
    from dpstune.methods.describing import MethodDescription


def methods(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="METHOD", help="The method to describe; all when left out.", autocompletion=method_names
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods, or say what one of them does and which keys it has.

    Those of other packages are listed, too.

    Example: dpstune methods dps-mix
    """
    from dpstune.methods.describing import describe_method
    from dpstune.report.method_report import method_page, method_table

    if name is not None:
        described = describe_method(name)
        print_json(asdict(described)) if as_json else print_out(method_page(described))
        return
    found = _all_methods()
    if as_json:
        print_json({"methods": [asdict(each) for each in found]})
        return
    print_out(method_table(found))
    tell("what one of them does, and its keys: dpstune methods METHOD")


def _all_methods() -> list[MethodDescription]:
    """Describe all methods that can be imported, and say which cannot."""
    from dpstune.methods import REGISTRY
    from dpstune.methods.describing import describe_method

    found = []
    for name in REGISTRY:
        try:
            found.append(describe_method(name))
        except RequestError as error:  # another package's
            tell(f"left out: {error}")
    return found
