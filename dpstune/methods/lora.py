"""LoRA: to frozen matrices, train what is added to them: products of two small ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from dpstune.common.packages import is_installed
from dpstune.errors import RequestError
from dpstune.methods.base import MethodConfig
from dpstune.methods.freezing import FreezingMethod

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "default"  # PEFT's name of the adapter; it is part of the keys of checkpoints


class LoraConfig(MethodConfig):
    """Settings of LoRA (Hu et al. 2021, arXiv 2106.09685).

    The learning rate is larger than for all weights: the paper's are 2e-4 to 5e-4 for RoBERTa-base on GLUE.

    Attributes:
        r: Rank of what is added to a matrix, 1 or more.
        alpha: What is added is multiplied by alpha / r; above 0.
        dropout: Dropout of what a pair A, B takes in, in [0, 1); the matrix itself takes it in whole. 0 is PEFT's
            default and that of the authors' code for RoBERTa.
        target: ``query-value``: the matrices of attention that give queries and values, as in the paper and as PEFT
            chooses for these models by default. ``all-linear``: every linear layer of the encoder's layers.

    >>> LoraConfig(r=4).alpha
    16.0
    """

    name: Literal["lora"] = "lora"
    r: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0.0)] = 16.0
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    target: Literal["query-value", "all-linear"] = "query-value"


class Lora(FreezingMethod[LoraConfig]):
    """Low-rank adaptation, with the layers of the PEFT library.

    A target layer computes with W + alpha / r * B A, where W [out, in] is frozen, A is [r, in] and B is [out, r]. A
    starts uniform between -1/sqrt(in) and 1/sqrt(in), drawn from the seed and the layer's name; B starts at 0. So at
    first the model is the pre-trained one. A, B and the head train; all else is frozen, biases too.

    A and B are float32, or of W's precision where that is higher. While attached, the model has other state-dict keys:
    those of A and B, and ``base_layer.`` before those of a target layer. An evaluation sees W + alpha / r * B A in the
    layer's own place, and so does the finished model: it has the keys and the size that it had, and needs no PEFT.

    Where one layer gives queries, keys and values together (DeBERTa, ModernBERT), one pair A, B changes all three.

    Args:
        config: The method's settings.

    Raises:
        RequestError: PEFT is not installed.

    Source: Hu et al. 2021, section 4.1. The paper draws A from a normal distribution, its authors' code and PEFT from
    this uniform one.
    """

    config_class = LoraConfig
    adds_keys = True

    def __init__(self, config: LoraConfig) -> None:
        super().__init__(config)
        if not is_installed("peft"):
            raise RequestError("method lora needs PEFT: pip install 'dpstune[lora]'")
        self._adapted: nn.Module | None = None
        self._layers: dict[str, Any] = {}  # PEFT's layers, by the names of those that they stand for
        self._is_merged = False

    def trained(self, model: nn.Module) -> list[nn.Parameter]:
        """Return every A and B, and the head's parameters."""
        from dpstune.models.structure import head_parameters

        return [*self._adapters(), *head_parameters(model)]

    def freeze(self, model: nn.Module) -> None:
        """Put an A and a B beside each target layer and freeze the rest; a second call does nothing.

        Raises:
            RequestError: The model has no target layers, two of them share a weight, it has adapters of PEFT already,
                or another method or library has replaced a layer's forward.
        """
        if not self._layers:
            self._adapt(model)
        super().freeze(model)

    def acquire(self, model: nn.Module) -> None:
        """Adapt and freeze, and draw every A from the seed."""
        import torch
        from torch import nn

        from dpstune.device.randomness import stream_seed

        self.freeze(model)
        for name, layer in self._layers.items():
            weight = layer.lora_A[ADAPTER].weight
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "lora", name))
            # kaiming_uniform_ with a = sqrt(5) is uniform within 1/sqrt(in)
            drawn = nn.init.kaiming_uniform_(torch.empty(weight.shape), a=5**0.5, generator=generator)
            weight.data.copy_(drawn)
            layer.lora_B[ADAPTER].weight.data.zero_()

    def held_bytes(self) -> int:
        """Return 4 bytes for each element of A and B, which is 4 r (in + out) a target layer."""
        return sum(weight.nbytes for weight in self._adapters())

    @contextmanager
    def as_detached(self) -> Iterator[None]:
        """Have the merged weights in the model, in layers of its own; a block inside another changes nothing."""
        if self._is_merged:
            yield
            return
        frozen = {name: layer.base_layer.weight.data for name, layer in self._layers.items()}
        merged = {name: self._merged(layer) for name, layer in self._layers.items()}
        self._is_merged = True
        try:
            for name, layer in self._layers.items():
                layer.base_layer.weight.data = merged[name]
                self._put(name, layer.base_layer)
            yield
        finally:
            self._is_merged = False
            for name, layer in self._layers.items():
                layer.base_layer.weight.data = frozen[name]
                self._put(name, layer)

    def detach(self) -> None:
        """Let go of the model, which keeps the merged weights; what the method has frozen can train again."""
        for name, layer in self._layers.items():
            layer.base_layer.weight.data.copy_(self._merged(layer))
            self._put(name, layer.base_layer)
        if self._adapted is not None:
            del self._adapted.peft_config  # PEFT's note that the model is adapted
        self._adapted, self._layers = None, {}
        super().detach()

    def _adapt(self, model: nn.Module) -> None:
        import torch
        from peft import LoraConfig as Adapters
        from peft import inject_adapter_in_model

        from dpstune.methods.mixing import refuse_replaced_forwards
        from dpstune.models.structure import encoder_linears, query_and_value_linears

        if getattr(model, "peft_config", None) is not None:
            raise RequestError("the model has adapters of PEFT already; merge them first")
        targets = (encoder_linears if self.config.target == "all-linear" else query_and_value_linears)(model)
        refuse_replaced_forwards(targets.values())
        if len({id(layer.weight) for layer in targets.values()}) < len(targets):
            raise RequestError(
                "lora's layers share a weight, to which each would add its own product; take another method"
            )
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        settings: dict[str, Any] = {
            "r": self.config.r,
            "lora_alpha": self.config.alpha,
            "lora_dropout": self.config.dropout,
            "target_modules": "|".join(map(re.escape, targets)),  # PEFT compares a name with the whole expression
        }
        with torch.random.fork_rng(devices=[]):  # PEFT draws A, which ``acquire`` draws again
            inject_adapter_in_model(Adapters(**settings), model, adapter_name=ADAPTER)
        self._adapted = model
        self._layers = {name: model.get_submodule(name) for name in targets}
        for weight in self._adapters():  # as in PEFT's own models: half precision would lose small steps
            weight.data = weight.data.to(torch.promote_types(weight.dtype, torch.float32))
        for parameter in trainable:  # PEFT has frozen them; ``freeze`` does so itself, to undo it later
            parameter.requires_grad_(True)

    def _adapters(self) -> list[nn.Parameter]:
        layers = self._layers.values()
        return [part[ADAPTER].weight for layer in layers for part in (layer.lora_A, layer.lora_B)]

    def _merged(self, layer: Any) -> Tensor:
        """Return W + alpha / r * B A in W's precision, computed in float32 or in W's where that is higher."""
        import torch

        weight: Tensor = layer.base_layer.weight.data
        exact = torch.promote_types(weight.dtype, torch.float32)
        a, b = (part[ADAPTER].weight.data.to(exact) for part in (layer.lora_A, layer.lora_B))
        merged: Tensor = weight.to(exact) + self.config.alpha / self.config.r * (b @ a)
        return merged.to(weight.dtype)

    def _put(self, name: str, module: nn.Module) -> None:
        assert self._adapted is not None
        parent, _, attribute = name.rpartition(".")
        setattr(self._adapted.get_submodule(parent), attribute, module)
