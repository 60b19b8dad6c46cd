"""Fine-tune pre-trained encoders on small data with Dynamic Parameter Selection and its rivals."""

from __future__ import annotations

from dpstune.api.casestudy import casestudy
from dpstune.api.evaluate import evaluate
from dpstune.api.fit import fit
from dpstune.api.predict import predict
from dpstune.api.sweep import sweep
from dpstune.api.train import train
from dpstune.methods import build_method

__all__ = ["__version__", "build_method", "casestudy", "evaluate", "fit", "predict", "sweep", "train"]
__version__ = "0.1.0"
