"""On what scale regression's values are trained on: their own, or that of (value - mean) / standard deviation.

A new output layer gives numbers near 0, and a step moves its weights by about the learning rate. Values far from 0, or
far from each other, are then out of reach: their offset takes the steps that should tell examples apart. With m the
mean of the training values and s their standard deviation, a model is trained to give (y - m) / s instead. What it
gives is turned back by its output layer, W x + b, which becomes s W x + (s b + m): a plain model on the values' own
scale.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dpstune.errors import RequestError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpstune.data.reading import TaskData
    from dpstune.data.tokens import TokenDataset


class TrainedValues:
    """The scale that a run's values are trained on, and the way back.

    Args:
        mean: m; 0 where values are trained on as they are.
        deviation: s; 1 likewise.
    """

    def __init__(self, mean: float = 0.0, deviation: float = 1.0) -> None:
        self.mean, self.deviation = mean, deviation
        self._layer: nn.Linear | None = None

    @classmethod
    def standardised(cls, task: TaskData) -> TrainedValues:
        """Return the scale of the training values' own mean and standard deviation; where all are equal, of their mean.

        >>> from types import SimpleNamespace
        >>> found = TrainedValues.standardised(SimpleNamespace(splits={"train": SimpleNamespace(labels=[10.0, 30.0])}))
        >>> found.mean, found.deviation
        (20.0, 10.0)
        """
        import numpy as np

        train = task.splits.get("train")
        values = np.asarray([] if train is None else train.labels or [], dtype=np.float64)
        if not len(values):  # as in a profile, whose examples are made up
            return cls()
        return cls(float(values.mean()), float(values.std()) or 1.0)

    @property
    def _are_their_own(self) -> bool:
        return (self.mean, self.deviation) == (0.0, 1.0)

    def of(self, dataset: TokenDataset) -> TokenDataset:
        """Return the training examples with the values that are trained on."""
        if self._are_their_own or dataset.labels is None:
            return dataset
        return dataset.labelled([(value - self.mean) / self.deviation for value in dataset.labels])

    def attach(self, layer: nn.Linear | None, model: nn.Module) -> None:
        """Take hold of the layer that gives a model's values.

        Args:
            layer: See ``value_layer``.
            model: The model; errors name it.

        Raises:
            RequestError: There is no such layer, or it has no bias to hold the mean.
        """
        if self._are_their_own:
            return
        if layer is None or layer.bias is None or layer.out_features != 1:
            raise RequestError(
                f"training.standardise: {type(model).__name__} has no linear output layer with a bias, to turn what "
                "it gives back to the labels' scale; say false, and scale the labels in your table"
            )
        self._layer = layer

    def detach(self) -> None:
        """Have the model give values on their own scale from now on."""
        if self._layer is not None:
            self._turn_back(self._layer)
        self._layer = None

    @contextmanager
    def as_detached(self) -> Iterator[None]:
        """Have the model give values on their own scale inside the ``with`` block; then put it back, to the bit."""
        if self._layer is None:
            yield
            return
        layer = self._layer
        kept = layer.weight.detach().clone(), layer.bias.detach().clone()
        self._turn_back(layer)
        try:
            yield
        finally:
            _set(layer, *kept)

    def _turn_back(self, layer: nn.Linear) -> None:
        weight, bias = (each.cpu().double() for each in (layer.weight, layer.bias))  # Apple's GPUs have no float64
        _set(layer, weight * self.deviation, bias * self.deviation + self.mean)


def _set(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    import torch

    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
