"""CHILD-TUNING-D: update only a child network, chosen once by how much the task needs each weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from dpstune.errors import RequestError
from dpstune.methods.base import KeptShare, Method, MethodConfig, StepBatches, gradients_are_finite
from dpstune.methods.groups import add_squares, multiply

if TYPE_CHECKING:
    import torch
    from torch import nn


class ChildTuningDConfig(MethodConfig):
    """Settings of CHILD-TUNING-D (Xu et al. 2021, arXiv 2109.05687).

    Attributes:
        p: Share of the encoder layers' parameters that is updated, in (0, 1). The grid is 0.1, 0.2, 0.3.
    """

    name: Literal["child-tuning-d"] = "child-tuning-d"
    p: KeptShare = 0.2


class ChildTuningD(Method[ChildTuningDConfig]):
    """Task-driven CHILD-TUNING.

    Before step 1 one epoch of the training data gives the Fisher information of each parameter of the encoder layers:
    F = mean over batches of g * g, where the gradient g of each parameter tensor is clipped to norm 1 first. The
    encoder layers have n elements in all: one threshold keeps the ceil(n * p) with the largest F, ties included. At
    every step, after clipping, the gradients of the other elements are zero. Embeddings, pooler and head train as
    usual. In a network without a stack of layers all parameters count as encoder.

    The method keeps one byte for each encoder parameter. Before step 1 it needs eight more: four for F, four for the
    gradient.

    Source: Xu et al. 2021, section 2.3; clipping before squaring as in the authors' code.

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(4, 1, bias=False)
    >>> method = build_method({"name": "child-tuning-d", "p": 0.5})
    >>> method.attach(model, total_steps=10)
    >>> method.choose({"weight": torch.tensor([[4.0, 1.0, 3.0, 2.0]])})
    >>> model(torch.ones(1, 4)).sum().backward()
    >>> method.before_update()
    >>> model.weight.grad.tolist()
    [[1.0, 0.0, 1.0, 0.0]]
    """

    config_class = ChildTuningDConfig

    def acquire(self, model: nn.Module) -> None:
        """Keep every gradient until ``prepare`` has chosen.

        Raises:
            RequestError: All of the encoder's weights are frozen, or a transformers model has no stack of layers.
        """
        import torch

        from dpstune.models.structure import encoder_parameters

        self._parameters = encoder_parameters(model)
        if not self._parameters:
            raise RequestError("child-tuning-d chooses among the encoder's weights, and all of them are frozen")
        self.masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in self._parameters.items()}

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """Estimate the Fisher information on the batches of ``steps`` and choose the child network.

        A step whose gradients are not finite is left out.
        """
        import torch

        fisher = {name: torch.zeros_like(p, dtype=torch.float32) for name, p in self._parameters.items()}
        for step in steps:
            model.zero_grad()
            for batch, share in step:
                (self.loss(model, batch) * share).backward()
            finite = gradients_are_finite(model)
            gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
            if gradients:
                clip_each(list(gradients.values()))
                add_squares([fisher[name] for name in gradients], list(gradients.values()), finite)
        model.zero_grad()
        if torch.distributed.is_initialized():  # every rank saw other batches; all choose one child network
            for each in fisher.values():
                torch.distributed.all_reduce(each)
        self.choose(fisher)

    def choose(self, fisher: Mapping[str, torch.Tensor]) -> None:
        """Keep the share p of all encoder parameters: those with the largest Fisher information.

        Args:
            fisher: A float32 tensor for each parameter, by name, of its shape; a factor common to all changes nothing.
        """
        from dpstune.methods.subnetwork import kth_largest_of

        threshold = kth_largest_of(list(fisher.values()), self.config.p)
        for name, each in fisher.items():
            self.masks[name].copy_(each >= threshold)

    def before_update(self) -> None:
        """Zero the clipped gradients outside the child network."""
        gradients = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        multiply(list(gradients.values()), [self.masks[name] for name in gradients])

    def state_dict(self) -> dict[str, Any]:
        """Return the step and the child network."""
        return {**super().state_dict(), "masks": self.masks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step and the child network of ``state``."""
        super().load_state_dict(state)
        for name, mask in self.masks.items():
            mask.copy_(state["masks"][name])

    def held_bytes(self) -> int:
        """Return one byte an encoder parameter."""
        return sum(mask.nbytes for mask in self.masks.values())

    def release(self) -> None:
        """Drop the child network."""
        self._parameters, self.masks = {}, {}


def clip_each(gradients: list[torch.Tensor]) -> None:
    """Scale each gradient whose norm is above 1 to norm 1, in place and one by one, as ``clip_grad_norm_`` does.

    >>> import torch
    >>> gradients = [torch.tensor([0.0, 4.0]), torch.tensor([0.5])]
    >>> clip_each(gradients)
    >>> [round(gradient.max().item(), 4) for gradient in gradients]
    [1.0, 0.5]
    """
    import torch

    norms = torch.stack(torch._foreach_norm(gradients))
    torch._foreach_mul_(gradients, list((1.0 / (norms + 1e-6)).clamp(max=1.0).unbind()))
