"""The methods, one file each, and the registry that names them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError

from dpstune.errors import RequestError, did_you_mean
from dpstune.methods.base import Method, MethodConfig
from dpstune.settings.base import check_settings

GROUP = "dpstune.methods"
"""The group of entry points by which another package offers its methods."""

# One line for each method: its name, and where its class is. A file is imported when its method is asked for.
REGISTRY: dict[str, str | EntryPoint] = {
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
REGISTRY |= {each.name: each for each in entry_points(group=GROUP) if each.name not in REGISTRY}

OWN_PACKAGE = "dpstune"
BASELINE = "vanilla"  # what the others are compared with


def method_class(name: str) -> type[Method[Any]]:
    """Return the class of the method called ``name``.

    Raises:
        RequestError: There is no such method; the nearest name is offered. Or it is another package's, and cannot be
            imported.
    """
    if name not in REGISTRY:
        raise RequestError(f"unknown method {name!r}{_near(name)}")
    place = REGISTRY[name]
    if isinstance(place, EntryPoint):
        return _class_of_another_package(place)
    module, _, attribute = place.partition(":")
    cls: type[Method[Any]] = getattr(import_module(f"dpstune.methods.{module}"), attribute)
    return cls


def _class_of_another_package(place: EntryPoint) -> type[Method[Any]]:
    what = f"method {place.name}, which {package_of(place.name)} offers as {place.value}"
    try:
        found = place.load()
    except Exception as error:  # the package's own code, with errors of any kind
        raise RequestError(f"{what}, cannot be imported: {type(error).__name__}: {error}") from None
    config = getattr(found, "config_class", None)
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise RequestError(f"{what}, is no class derived from dpstune.methods.base.Method")
    if not (isinstance(config, type) and issubclass(config, MethodConfig)):
        raise RequestError(f"{what}, has no config_class derived from dpstune.methods.base.MethodConfig")
    if config.model_fields["name"].default != place.name:
        raise RequestError(f"{what}: the name in its config should be {place.name!r}, by default")
    return found


def foreign_code(config: MethodConfig) -> dict[str, str]:
    """Return a hash of the file of each method that acts and is another package's: who edits it trains another run.

    >>> foreign_code(build_method("ema").config)
    {}
    """
    files = {name: inspect.getsourcefile(method_class(name)) for name in config.names if is_foreign(name)}
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}


def _near(name: str) -> str:
    """Say what an unknown name may have meant, as the tail of an error message."""
    method, colon, _ = name.partition(":")
    if colon and method in REGISTRY:
        return f"; the method is {method!r}, and its settings go to --set method.KEY=VALUE"
    return did_you_mean(name, REGISTRY) or f"; there are {', '.join(REGISTRY)}"


def is_foreign(name: str) -> bool:
    """Tell whether a method is another package's."""
    return isinstance(REGISTRY.get(name), EntryPoint)


def package_of(name: str) -> str:
    """Return the name of the package that offers a method of the registry.

    >>> package_of("sam")
    'dpstune'
    """
    place = REGISTRY[name]
    if not isinstance(place, EntryPoint):
        return OWN_PACKAGE
    return place.dist.name if place.dist is not None else "another package"


def keys_schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a method's settings.

    Raises:
        RequestError: There is no such method; or it is another package's, and cannot be imported, or has a key that no
            schema describes.

    >>> list(keys_schema("sam")["properties"])
    ['name', 'rho']
    """
    config_class = method_class(name).config_class
    try:
        return config_class.model_json_schema()
    except PydanticUserError as error:
        what = f"the keys of method {name}, of {package_of(name)}"
        raise RequestError(f"{what}, cannot be shown: {error.message}") from None


def build_method(settings: str | Mapping[str, Any] | MethodConfig | Method[Any]) -> Method[Any]:
    """Build a method from its settings.

    Args:
        settings: Its name, a mapping with ``name`` and the method's own keys (those left out take their defaults), a
            config that was checked already, or the method itself, which is returned.

    Raises:
        RequestError: The name or a key is unknown, or a value is out of range.

    >>> build_method({"name": "dps-dense", "p": 0.4, "update_ratio": 0.2}).config.p
    0.4
    """
    if isinstance(settings, Method):
        return settings
    if isinstance(settings, MethodConfig):
        return method_class(settings.name)(settings)
    if isinstance(settings, str):
        settings = {"name": settings}
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
    try:
        return method_class(name).config_class.newer_keys if name in REGISTRY else {}
    except RequestError:  # another package's, which cannot be imported
        return {}


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
