"""Fine-tune pre-trained encoders on small data with Dynamic Parameter Selection and its rivals.

A function is imported when it is first asked for, so that ``dpstune --help`` does not wait for what it does not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpstune.api.casestudy import casestudy
    from dpstune.api.evaluate import evaluate
    from dpstune.api.fit import fit
    from dpstune.api.predict import predict
    from dpstune.api.probe import probe
    from dpstune.api.sweep import sweep
    from dpstune.api.train import train
    from dpstune.methods import build_method

__all__ = ["__version__", "build_method", "casestudy", "evaluate", "fit", "predict", "probe", "sweep", "train"]
__version__ = "0.1.0"
_PARTS = ("api", "errors", "integrations", "methods", "recipe", "runs", "training")  # as in dpstune.errors.RequestError


def __getattr__(name: str) -> Any:
    if name in __all__:
        module = import_module("dpstune.methods" if name == "build_method" else f"dpstune.api.{name}")
        globals()[name] = found = getattr(module, name)
        return found
    if name in _PARTS:
        return import_module(f"dpstune.{name}")
    raise AttributeError(f"module 'dpstune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
