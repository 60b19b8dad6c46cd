"""What ``fit`` tries: methods with their settings, and the ranges that Optuna chooses them from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dpstune.methods import BASELINE, build_method, method_class
from dpstune.studies.grid import Grid, as_overrides, method_grid
from dpstune.studies.points import Point

METHODS = (
    BASELINE,
    "linear-probe",
    "lp-ft",
    "top-layers",
    "dps-dense",
    "dps-mix",
    "mixout",
    "r-drop",
    "child-tuning-d",
)
"""The methods tried where none is named."""

DROPOUTS = (0.0, 0.1)
RATES_ABOUT = 4.0  # learning rates are searched from the recipe's divided by this to the recipe's times this
FEWEST_STEPS, MOST_STEPS = 120, 600
FEWEST_EPOCHS = 2
TRAINED_SHARE = 2 / 3  # of the layers, where `top-layers` is first tried: docs/comparison.md
_OWN_DROPOUT, _LAYERS = "method.dropout", "method.layers"


@dataclass(frozen=True)
class Candidate:
    """A method with its settings: what is tried, and what may win.

    Args:
        method: The method's name.
        settings: Dotted recipe keys and values, in the order in which they are shown.
    """

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def overrides(self) -> list[str]:
        """The settings as ``load_recipe`` takes overrides."""
        return as_overrides(self.settings)

    @property
    def name(self) -> str:
        """The method and the settings, for people.

        >>> Candidate("mixout", {"method.p": 0.7, "training.epochs": 5}).name
        'mixout p 0.7, epochs 5'
        """
        shown = {key.removeprefix("training.").removeprefix("model."): value for key, value in self.settings.items()}
        return Point(self.method, tuple(shown.items())).name


@dataclass(frozen=True)
class SearchSpace:
    """The ranges that candidates come from; kept with the search, so that going on later searches the same.

    Args:
        methods: The methods.
        rate: The recipe's learning rate.
        epochs: The fewest and the most.
        fixed: Keys that the user set; they are not searched.
        layers: The model's layers, so that no candidate asks for more; None where they are not known.
    """

    methods: tuple[str, ...]
    rate: float
    epochs: tuple[int, int]
    fixed: tuple[str, ...] = ()
    layers: int | None = None

    def grid(self, method: str) -> Grid:
        """Return a method's own keys from its shipped grid, with learning rate, epochs and dropout beside them.

        >>> SearchSpace(("mixout",), 1e-4, (3, 6)).grid("mixout")["training.epochs"]
        [3, 6]
        """
        own = {key: values for key, values in method_grid(method).items() if key.startswith("method.")}
        if _LAYERS in own and self.layers is not None:
            own[_LAYERS] = sorted({min(value, self.layers) for value in own[_LAYERS]})
        if not method_class(method).learns_by_steps:
            return self._searched(own)
        about = [self.rate / RATES_ABOUT, self.rate * RATES_ABOUT, *_rates(method)]
        grid = {
            **own,
            "training.learning_rate": [min(about), max(about)],
            "training.epochs": list(dict.fromkeys(self.epochs)),
        }
        if _OWN_DROPOUT not in own:
            grid["model.dropout"] = list(DROPOUTS)
        return self._searched(grid)

    def _searched(self, grid: Grid) -> Grid:
        return {key: values for key, values in grid.items() if not self._is_fixed(key)}

    def baselines(self) -> list[Candidate]:
        """Return plain fine-tuning without dropout and with it, in the middle of the ranges.

        Both are always tried; the first in full, since the others are compared with it.
        """
        dropouts = DROPOUTS[:1] if self._is_fixed("model.dropout") else DROPOUTS
        return [Candidate(BASELINE, self._middle(BASELINE, dropout)) for dropout in dropouts]

    def defaults(self) -> list[Candidate]:
        """Return every other method at its defaults, in the middle of the ranges, without dropout: tried first.

        `top-layers` trains two thirds of the layers, where it is known how many there are.
        """
        return [Candidate(method, self._middle(method, 0.0)) for method in self.methods if method != BASELINE]

    def _middle(self, method: str, dropout: float) -> dict[str, Any]:
        middle = {
            "training.learning_rate": max(self.rate, min(_rates(method), default=0.0)),
            "training.epochs": round(math.sqrt(math.prod(self.epochs))),
            "model.dropout": dropout,
        }
        if method == "top-layers" and self.layers is not None:
            middle[_LAYERS] = round(TRAINED_SHARE * self.layers)
        grid = self.grid(method)
        return {key: middle[key] if key in middle else _default(method, key, values) for key, values in grid.items()}

    def _is_fixed(self, key: str) -> bool:
        return key in self.fixed or (key == "training.epochs" and has_fixed_length(self.fixed))


def _rates(method: str) -> Sequence[float]:
    """Return the learning rates of a method's shipped grid: those of BitFit lie far above those for all weights."""
    return [float(rate) for rate in method_grid(method).get("training.learning_rate", [])]


def has_fixed_length(fixed: Sequence[str]) -> bool:
    """Return whether the keys that a user set say how long a run is."""
    return not {"training.steps", "training.epochs"}.isdisjoint(fixed)


def _default(method: str, key: str, values: Sequence[Any]) -> Any:
    """Return the default of a method's own key; the grid's first value where the default is not in the grid."""
    config = method_class(method).config_class.model_validate({"name": method})
    default = config.model_dump(by_alias=True)[key.removeprefix("method.")]
    if all(isinstance(value, int | float) for value in values):
        return default if min(values) <= default <= max(values) else values[0]
    return default if default in values else values[0]


def epochs_to_try(steps_per_epoch: int, affordable: float = math.inf) -> tuple[int, int]:
    """Return the fewest and the most epochs to try: about 120 to 600 steps.

    Few examples want many epochs: what they teach takes steps, not epochs (Mosbach et al. 2021, section 5). So where
    time is short the most are fewer, and the fewest stay: to try less is better than to train too little.

    Args:
        steps_per_epoch: Steps that see every training example once.
        affordable: The steps of a run in the middle of the range that the budget has time for.

    >>> epochs_to_try(25), epochs_to_try(400), epochs_to_try(25, affordable=200), epochs_to_try(25, affordable=50)
    ((5, 24), (2, 3), (5, 12), (5, 6))
    """
    low = max(FEWEST_EPOCHS, math.ceil(FEWEST_STEPS / steps_per_epoch))
    high = max(low + 1, MOST_STEPS // steps_per_epoch)
    if math.isfinite(affordable):  # the middle is the geometric mean
        high = min(high, max(low + 1, int((affordable / steps_per_epoch) ** 2 / low)))
    return low, high


def check_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the methods with the baseline among them, each once.

    Raises:
        RequestError: There is no such method, or its library is missing.
    """
    for method in methods:
        build_method({"name": method})
    return tuple(dict.fromkeys((BASELINE, *methods)))
