"""Vanilla fine-tuning: every weight trains at every step."""

from __future__ import annotations

from typing import Literal

from dpstune.methods.base import Method, MethodConfig


class VanillaConfig(MethodConfig):
    """Nothing to set."""

    name: Literal["vanilla"] = "vanilla"


class Vanilla(Method[VanillaConfig]):
    """Plain fine-tuning, with which every method is compared.

    >>> from dpstune import build_method
    >>> build_method({"name": "vanilla"}).held_bytes()
    0
    """

    config_class = VanillaConfig
