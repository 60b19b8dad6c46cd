"""Fine-tune pre-trained encoders on small data with Dynamic Parameter Selection and its rivals."""

from __future__ import annotations

from dpstune.methods import build_method

__all__ = ["__version__", "build_method"]
__version__ = "0.1.0"
