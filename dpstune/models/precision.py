"""The precision a model is trained in where the recipe leaves it to dpstune."""

from __future__ import annotations

from dpstune.device.hardware import choose_precision
from dpstune.models.loading import read_config
from dpstune.settings.sections import ModelSection

NARROW = 128
"""Below this width a CPU gains less by half-precision products than it loses by converting to and from them."""


def model_precision(asked: str, model: ModelSection, device_type: str) -> str:
    """Return the precision that a model is trained in: ``fp16``, ``bf16`` or ``fp32``.

    ``auto`` is what the device computes natively and best; on a CPU, fp32 for narrow models. It follows from model and
    processor, not from a timing, since it is a part of what a run is.

    Args:
        asked: The recipe's ``training.precision``.
        model: The model.
        device_type: Where it trains.

    Raises:
        RequestError: The device cannot do what was asked, or there is no such model.
        RunError: The hub could not be reached.
    """
    precision = choose_precision(asked, device_type)
    if asked == "auto" and device_type == "cpu" and precision != "fp32":
        _, config = read_config(model)
        width: int = getattr(config.get_text_config(), "hidden_size", NARROW)
        return "fp32" if width < NARROW else precision
    return precision
