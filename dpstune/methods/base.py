"""What every method shares: its config, its hooks and the linear weights it works on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, Field

from dpstune.device.randomness import stream
from dpstune.errors import RequestError
from dpstune.settings.base import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpstune.methods.criterion import Criterion

ReservedProbability = Annotated[float, Field(ge=0.0, lt=1.0)]
"""p of the paper: a linear weight stays out of the subnetwork with this probability."""

UpdateRatio = Annotated[float, Field(gt=0.0, le=1.0)]
"""Length of one stage, as a share of all steps."""

KeptShare = Annotated[float, Field(gt=0.0, lt=1.0)]
"""p of CHILD-TUNING: the share of the gradients that is kept."""

MaskSource = Callable[[str, int], Any]
"""``mask_source(linear_name, step)``: a 0/1 mask over the input columns (length in_features), or None to draw one."""

TWIN_TOKENS = 2048
"""Padded tokens of a micro-batch up to which two passes over it are computed as one of twice its size."""

StepBatches = Iterable[tuple[Mapping[str, Any], float]]
"""A step's micro-batches: the model's keyword arguments, and the share of the step's examples that is in them."""


class MethodConfig(Settings):
    """Settings of a method; each method's file subclasses it and links its source."""

    model_config = ConfigDict(strict=True)

    name: str


C = TypeVar("C", bound=MethodConfig)


class Method(Generic[C]):
    """A way to fine-tune: hooks that a training loop calls, in this order, every optimizer step.

    ``loss`` (once a micro-batch), ``backward``, ``before_clip`` (gradients unscaled, averaged over ranks, not
    yet clipped), clipping, ``before_update``, the optimizer, ``after_update``. This base class is plain
    fine-tuning: every hook leaves the model alone. It never changes a state-dict key, and ``detach`` leaves
    the model it was given, with the weights it learned.

    Args:
        config: The method's settings.
    """

    config_class: ClassVar[type[MethodConfig]]
    most_tokens: ClassVar[float] = math.inf
    """Padded tokens of a micro-batch above which ``loss`` takes more time an example: a loop does well to cut it."""

    serves_several_labels: ClassVar[bool] = True
    """Whether examples with any number of labels can be trained on."""

    def __init__(self, config: C) -> None:
        self.config = config
        self.model: nn.Module | None = None
        self.total_steps = 0
        self.seed = 0
        self.step = 1  # the optimizer step under way, counted from 1
        self.linears: dict[str, nn.Linear] = {}
        self.criterion: Criterion | None = None  # the task's loss; None for the model's own
        self._mask_source: MaskSource | None = None

    def attach(
        self,
        model: nn.Module,
        *,
        total_steps: int,
        mask_source: MaskSource | None = None,
        seed: int = 0,
        criterion: Criterion | None = None,
    ) -> None:
        """Take hold of a model, once, before step 1; its weights now are the pre-trained ones.

        Args:
            model: Any module; on its device, and not yet wrapped for distributed training.
            total_steps: N, the optimizer steps the run will take.
            mask_source: Column masks to use in the place of drawn ones; see ``MaskSource``.
            seed: What every drawn mask derives from, together with the step.
            criterion: The task's loss; None for the model's own.

        Raises:
            RequestError: The method already holds a model, or ``total_steps`` is below 1.
        """
        if self.model is not None:
            raise RequestError(f"{self.config.name} is attached to a model already; detach it first")
        if total_steps < 1:
            raise RequestError(f"total_steps is {total_steps}; a run takes at least 1 step")
        self.model = model
        self.total_steps = total_steps
        self.seed = seed
        self.criterion = criterion
        self.step = 1
        self.linears = linear_layers(model)
        self._mask_source = mask_source
        try:
            self.acquire(model)
        except BaseException:
            self.model, self.linears, self._mask_source = None, {}, None
            raise

    def acquire(self, model: nn.Module) -> None:
        """Make buffers, patch layers: whatever the method does to a model; ``attach`` calls it once."""

    def dropout(self, total_steps: int) -> float | None:
        """Return the dropout the model should be built with, or None for the model's own."""
        return None

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """See the training data once, after ``attach`` and before step 1; most methods do not look.

        Args:
            model: The attached model, on every rank of a distributed run not yet wrapped.
            steps: For every optimizer step of an epoch its micro-batches; the same on every rank.
        """

    def begin_step(self) -> None:
        """Get ready for the step under way; asked before its first forward pass, harmless when repeated."""

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of one micro-batch, averaged over its examples: the criterion's, or else the model's own.

        Args:
            model: The attached model, or what wraps it for distributed training.
            batch: The model's keyword arguments, ``labels`` among them.
        """
        self.begin_step()
        output = model(**batch)
        loss: torch.Tensor = output.loss if self.criterion is None else self.criterion(output.logits, batch["labels"])
        return loss

    def before_clip(self) -> None:
        """See and change gradients that are unscaled and averaged over ranks, but not yet clipped."""

    def before_update(self) -> None:
        """See and change gradients after clipping."""

    def after_update(self) -> None:
        """Close the step, whether the optimizer updated the weights or skipped them."""
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resume needs: plain numbers and tensors, nested in dicts."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where ``state`` was saved; the method must be attached to the model it was saved with."""
        self.step = int(state["step"])

    def held_bytes(self) -> int:
        """Return the bytes of the tensors the method itself keeps between steps."""
        return 0

    def detach(self) -> None:
        """Let go of the model and of every buffer; the model keeps the weights it learned. Harmless when repeated."""
        if self.model is not None:
            self.release()
        self.model = None
        self.linears = {}
        self._mask_source = None

    def release(self) -> None:
        """Undo what ``acquire`` did to the model and drop the buffers; ``detach`` calls it once."""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the trainable ``nn.Linear`` layers by name; layers that share one weight are listed once.

    Raises:
        RequestError: A layer's weight is computed from other parameters, which alone get gradients.

    >>> from torch import nn
    >>> list(linear_layers(nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))))
    ['0', '2']
    """
    from torch import nn

    seen: set[int] = set()
    layers: dict[str, nn.Linear] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        own = dict(module.named_parameters())
        if "weight" not in own:
            if any(parameter.requires_grad for key, parameter in own.items() if key != "bias"):
                raise RequestError(
                    f"the weight of layer {name} is computed from others (weight or spectral norm, for example): there "
                    "is no weight of its own to select; remove that, or choose another method"
                )
        elif module.weight.requires_grad and id(module.weight) not in seen:
            seen.add(id(module.weight))
            layers[name] = module
    return layers


def new_accumulator(weight: torch.Tensor) -> torch.Tensor:
    """Return zeros shaped like a weight, in float32 or in the weight's precision where that is higher."""
    import torch

    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32), requires_grad=False)


def gradients_are_finite(model: nn.Module) -> torch.Tensor:
    """Return a 0-d bool tensor, on the model's device: no gradient holds an inf or a nan, or has a norm that is one.

    It stays on the device, so that asking costs no synchronisation.
    """
    import torch

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    if not gradients:
        return torch.tensor(True)
    # The 2-norm, since on a CPU its kernel is some twenty times as fast as that of the largest element.
    return torch.stack([norm.float() for norm in torch._foreach_norm(gradients)]).isfinite().all()


def draw_columns(
    linears: Mapping[str, nn.Linear], p: float, *, seed: int, step: int, mask_source: MaskSource | None
) -> torch.Tensor:
    """Return one bool mask over the input columns of all layers, one after the other, on the first layer's device.

    True (the column trains) has probability 1 - p. All masks of a step come from one draw that depends on nothing but
    ``seed`` and ``step``: a resumed run and every rank of a distributed one draw the same, on any device. That is why
    NumPy draws them, on the host; a GPU copies them from pinned memory while the host goes on.

    Args:
        linears: The layers, by name; the order counts.
        p: Reserved probability.
        seed: The run's seed.
        step: The optimizer step, from 1.
        mask_source: Asked first for each layer; where it returns None the drawn mask is used.

    Raises:
        RequestError: ``mask_source`` gave a mask of another length than the layer's in_features.
    """
    import torch

    widths = [linear.in_features for linear in linears.values()]
    drawn = torch.tensor(stream(seed, "columns", step).random(sum(widths), dtype="float32") >= p)
    for (name, linear), mask in zip(linears.items(), drawn.split(widths), strict=True):
        given = mask_source(name, step) if mask_source is not None else None
        if given is not None:
            columns = torch.as_tensor(given).ne(0).flatten()
            if columns.numel() != linear.in_features:
                raise RequestError(
                    f"mask_source gave {columns.numel()} columns for {name!r} at step {step}; "
                    f"it has {linear.in_features}"
                )
            mask.copy_(columns)
    if linears and (device := next(iter(linears.values())).weight.device).type == "cuda":
        return drawn.pin_memory().to(device, non_blocking=True)
    return drawn.to(device) if linears else drawn
