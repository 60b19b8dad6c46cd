"""``dpstune export``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from dpstune.commands.options import AsJson, Trained
from dpstune.common.paths import expanded
from dpstune.report.output import print_json, tell


def export(
    trained: Trained,
    onnx: Annotated[Path, typer.Option(metavar="FOLDER", help="Where model.onnx, tokenizer and configuration go.")],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained model as ONNX.

    Where onnxruntime is installed it checks that the scores are the model's.

    Example: dpstune export runs/demo/dps-dense/seed-42-... --onnx demo-onnx
    """
    from dpstune.evaluation.trained import find_trained
    from dpstune.integrations.onnx import MODEL_FILE, export_onnx, refuse_what_cannot_be_exported

    onnx = expanded(onnx)
    refuse_what_cannot_be_exported(onnx, force=force)
    place = find_trained(expanded(trained))
    with redirect_stdout(sys.stderr):  # stdout is for the result; what a library prints is for people
        exported = export_onnx(place, onnx)
    if exported.difference is None:
        tell("onnxruntime is not installed: nobody checked the scores; pip install onnxruntime, and export again")
    else:
        tell(f"onnxruntime gives the model's scores, to {exported.difference:.1e}")
    tell(f"wrote {onnx / MODEL_FILE}; it takes {', '.join(exported.inputs)}, of {exported.max_length} tokens at most")
    if as_json:
        print_json(
            {
                "model": str(place.folder),
                "onnx": str(onnx / MODEL_FILE),
                "inputs": exported.inputs,
                "max_length": exported.max_length,
                "difference": exported.difference,
            }
        )
