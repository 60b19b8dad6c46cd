"""The methods, one file each, and the registry that names them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dpstune.errors import RequestError, did_you_mean
from dpstune.methods.base import Method, MethodConfig
from dpstune.settings.base import check_settings

# One line for each method: its name, and where its class is. A file is imported when its method is asked for.
REGISTRY: dict[str, str] = {
    "vanilla": "vanilla:Vanilla",
    "dps-dense": "dps_dense:DpsDense",
    "dps-mix": "dps_mix:DpsMix",
    "mixout": "mixout:Mixout",
    "r3f": "r3f:R3F",
    "r-drop": "rdrop:RDrop",
    "sam": "sam:Sam",
    "reinit": "reinit:Reinit",
    "linear-probe": "linear_probe:LinearProbe",
    "lp-ft": "lp_ft:LpFt",
    "child-tuning-d": "child_tuning_d:ChildTuningD",
    "child-tuning-f": "child_tuning_f:ChildTuningF",
    "bitfit": "bitfit:BitFit",
    "top-layers": "top_layers:TopLayers",
    "noisytune": "noisytune:NoisyTune",
    "smart": "smart:Smart",
    "ema": "ema:Ema",
    "lora": "lora:Lora",
}

BASELINE = "vanilla"  # what the others are compared with


def method_class(name: str) -> type[Method[Any]]:
    """Return the class of the method called ``name``.

    Raises:
        RequestError: There is no such method; the nearest name is offered.
    """
    if name not in REGISTRY:
        hint = did_you_mean(name, REGISTRY) or f"; there are {', '.join(REGISTRY)}"
        raise RequestError(f"unknown method {name!r}{hint}")
    module, _, attribute = REGISTRY[name].partition(":")
    cls: type[Method[Any]] = getattr(import_module(f"dpstune.methods.{module}"), attribute)
    return cls


def build_method(settings: Mapping[str, Any] | MethodConfig) -> Method[Any]:
    """Build a method from its settings.

    Args:
        settings: A mapping with ``name`` and the method's own keys (those left out take their defaults), or
            a config that was checked already.

    Raises:
        RequestError: The name or a key is unknown, or a value is out of range.

    >>> build_method({"name": "dps-dense", "p": 0.4, "update_ratio": 0.2}).config.p
    0.4
    """
    if isinstance(settings, MethodConfig):
        return method_class(settings.name)(settings)
    name = settings.get("name") if isinstance(settings, Mapping) else None
    if not isinstance(name, str):
        raise RequestError(f"a method needs a name, as in {{'name': 'dps-mix'}}; there are {', '.join(REGISTRY)}")
    cls = method_class(name)
    return cls(check_settings(cls.config_class, settings, place=f"method {name}"))


def newer_keys(name: Any) -> Mapping[str, Any]:
    """Return the keys that a method did not always have, with the values that change nothing.

    Args:
        name: The method's name; what is no method has none.

    >>> dict(newer_keys("dps-mix"))
    {'stage2': 'select', 'scope': 'all', 'score': 'squared'}
    """
    return method_class(name).config_class.newer_keys if name in REGISTRY else {}


def without_newer_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's plain settings, and those of one that it wraps, without the newer keys that change nothing.

    >>> without_newer_keys({"name": "ema", "of": {"name": "dps-mix", "p": 0.3, "scope": "all", "score": "random"}})
    {'name': 'ema', 'of': {'name': 'dps-mix', 'p': 0.3, 'score': 'random'}}
    """
    newer = newer_keys(settings.get("name"))
    return {
        key: without_newer_keys(value) if isinstance(value, Mapping) else value
        for key, value in settings.items()
        if key not in newer or value != newer[key]
    }


def needs_own_dropout(config: MethodConfig) -> bool:
    """Tell whether the loss of a method, or of one that it wraps, needs a dropout that the method itself sets.

    >>> needs_own_dropout(build_method({"name": "ema", "of": "r-drop"}).config)
    True
    """
    return any(method_class(name).needs_dropout for name in config.names)
