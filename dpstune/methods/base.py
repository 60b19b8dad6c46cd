"""What every method shares: its config, its hooks and the linear weights it works on."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, TypeVar, get_origin

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from dpstune.device.randomness import stream
from dpstune.errors import RequestError, RunError
from dpstune.methods.groups import are_finite, from_host
from dpstune.settings.base import Settings

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dpstune.methods.criterion import Criterion

ReservedProbability = Annotated[float, Field(ge=0.0, lt=1.0)]
"""p of the paper, in [0, 1): the probability that a linear weight stays out of the subnetwork."""

UpdateRatio = Annotated[float, Field(gt=0.0, le=1.0)]
"""Length of one stage as a share of all steps, in (0, 1]."""

KeptShare = Annotated[float, Field(gt=0.0, lt=1.0)]
"""p of CHILD-TUNING, in (0, 1): the share of the gradients that is kept."""

MaskSource = Callable[[str, int], Any]
"""``mask_source(linear_name, step)`` returns a 0/1 mask over the input columns [in_features]; None: draw one."""

TWIN_TOKENS = 2048
"""Up to so many padded tokens in a micro-batch, two forward passes are computed as one of twice its size."""

StepBatches = Iterable[tuple[Mapping[str, Any], float]]
"""A step's micro-batches, each with the model's keyword arguments and its share of the step's examples."""


class MethodConfig(Settings):
    """Settings of a method; each method has a subclass of its own, which names its source.

    Attributes:
        name: The method's name.
    """

    model_config = ConfigDict(strict=True)

    newer_keys: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Keys that the method did not always have, each with the value that changes nothing.

    With that value a key is left out of a run's name and of what people are told.
    """

    name: str

    @field_validator("*", mode="before")
    @classmethod
    def _takes_a_list_for_a_tuple(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[str(info.field_name)].annotation
        return tuple(value) if isinstance(value, list) and get_origin(annotation) is tuple else value

    @property
    def names(self) -> tuple[str, ...]:
        """The methods that act: the name of this one, and of one that it wraps."""
        return (self.name,)


C = TypeVar("C", bound=MethodConfig)


class Method(Generic[C]):
    """A way to fine-tune: hooks that a training loop calls, in this order, every optimizer step.

    ``loss`` (once for each micro-batch), ``backward``, all this again where the method has several ``rounds``, with
    ``after_round`` between, ``before_clip`` (gradients unscaled, averaged over ranks, not yet clipped), clipping,
    ``before_update``, the optimizer, ``after_update``. This base class is plain fine-tuning: no hook changes the model.
    After ``detach`` the model is again the one that was attached, with its state-dict keys and the weights it has
    learned. In between its keys are the same, too, but for a method that says otherwise by ``adds_keys``.

    Args:
        config: The method's settings.
    """

    config_class: ClassVar[type[MethodConfig]]
    most_tokens: float = math.inf
    """Above so many padded tokens in a micro-batch, ``loss`` takes more time per example: a loop should cut it."""

    whole_embeddings: bool = False
    """Whether a loop must train all word embeddings, not only those that its examples use."""

    loss_takes_gradients: bool = False
    """Whether ``loss`` computes gradients itself, which torch's reentrant checkpoints do not allow."""

    rounds_share_dropout: bool = False
    """Whether the dropout of a further round is that of the first, not drawn anew."""

    serves_several_labels: bool = True
    """Whether examples with any number of labels can be trained on."""

    weights_decide: bool = True
    """Whether ``detach`` leaves what follows from the model's weights alone, and not from the method's state, too."""

    needs_dropout: bool = False
    """Whether the loss compares draws of dropout, so that the method sets a dropout itself, also in a comparison."""

    learns_by_steps: bool = True
    """Whether steps change the model; where they do not, a run of one step is a whole one."""

    works_on_linears: bool = False
    """Whether it acts on the weights of linear layers alone: a model that has few of them is refused."""

    adds_keys: bool = False
    """Whether the model has weights of the method, and so other state-dict keys, from ``freeze`` to ``detach``."""

    def __init__(self, config: C) -> None:
        self.config = config
        self.model: nn.Module | None = None
        self.total_steps = 0
        self.seed = 0
        self.step = 1  # the current optimizer step, counted from 1
        self.linears: dict[str, nn.Linear] = {}
        self.criterion: Criterion | None = None  # the task's loss; None for the model's own
        self._mask_source: MaskSource | None = None

    @property
    def innermost(self) -> Method[Any]:
        """The method itself, or the one that it wraps."""
        return self

    def attach(
        self,
        model: nn.Module,
        *,
        total_steps: int,
        mask_source: MaskSource | None = None,
        seed: int = 0,
        criterion: Criterion | None = None,
    ) -> None:
        """Take hold of a model, once, before step 1; the weights it has then count as the pre-trained ones.

        Args:
            model: Any module; on its device, and not yet wrapped for distributed training.
            total_steps: N, the optimizer steps the run will take.
            mask_source: Column masks to use in the place of drawn ones; see ``MaskSource``.
            seed: What every drawn mask derives from, together with the step.
            criterion: The task's loss; None for the model's own.

        Raises:
            RequestError: The method already holds a model, ``total_steps`` is below 1, or the model is not one that the
                method can train.
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
        self._mask_source = mask_source
        try:
            self.linears = linear_layers(model, whole=self.works_on_linears)
            if self.works_on_linears:
                refuse_other_layers(model, self.linears, self.config.name)
            self.acquire(model)
        except BaseException:
            self.model, self.linears, self._mask_source = None, {}, None
            raise

    def acquire(self, model: nn.Module) -> None:
        """Do what the method does to a model: make buffers, patch layers. ``attach`` calls it once."""

    def freeze(self, model: nn.Module) -> None:
        """Freeze what the method does not train, and add what it trains besides; ``attach`` does so, too.

        A loop that builds its optimizer, or wraps the model, before it knows the number of steps calls this first, so
        that neither counts on gradients that never come. ``detach`` undoes it, also where nothing was attached.

        Raises:
            RequestError: The model is not one that the method can train.
        """

    def dropout(self, total_steps: int) -> float | None:
        """Return the dropout the model should be built with, or None for the model's own."""
        return None

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """See one epoch of the training data, after ``attach`` and before step 1; most methods do not look.

        Args:
            model: The attached model; in a distributed run it is not wrapped yet.
            steps: The micro-batches of each optimizer step of an epoch; in a distributed run this rank's share.
        """

    def begin_step(self) -> None:
        """Get ready for the current step, before its first forward pass; further calls in the step do nothing."""

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

    @property
    def rounds(self) -> int:
        """How often a loop computes all gradients of a step, each time from all of its micro-batches."""
        return 1

    def after_round(self, number: int) -> None:
        """See the gradients of a round that is not the last; the loop drops them, then computes those of the next.

        They are averaged over ranks. Under fp16 they are still multiplied by the loss scale, the same in all rounds of
        a step.

        Args:
            number: The round, from 1.
        """

    def before_clip(self) -> None:
        """See and change gradients that are unscaled and averaged over ranks, but not yet clipped."""

    def before_update(self) -> None:
        """See and change gradients after clipping."""

    def after_update(self) -> None:
        """Close the step, whether the optimizer updated the weights or skipped the update."""
        self.step += 1

    def state_dict(self) -> dict[str, Any]:
        """Return all that an exact resume needs: plain numbers and tensors, nested in dicts."""
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from ``state``; the method must be attached to the model that ``state`` was saved with."""
        self.step = int(state["step"])

    def held_bytes(self) -> int:
        """Return the bytes of the tensors the method itself keeps between steps."""
        return 0

    def detach(self) -> None:
        """Let go of the model and of every buffer; the model keeps what it learned. A second call does nothing."""
        if self.model is not None:
            self.release()
        self.model = None
        self.linears = {}
        self._mask_source = None

    @contextmanager
    def as_detached(self) -> Iterator[None]:
        """Have the model, inside the ``with`` block, as ``detach`` would leave it; then put it back, to the bit.

        What is evaluated inside, or saved as the best, are the weights that the finished model would have, under the
        keys it would have. A loop saves what a run continues from outside. Nothing is attached: nothing is done.
        """
        yield

    def release(self) -> None:
        """Undo what ``acquire`` did to the model and drop the buffers; ``detach`` calls it once."""


def linear_layers(model: nn.Module, *, whole: bool = True) -> dict[str, nn.Linear]:
    """Return the trainable ``nn.Linear`` layers by name; layers that share one weight are listed once.

    Args:
        model: The model.
        whole: Whether none may be left out: a layer whose weight is computed from other parameters is, since it gets no
            gradient itself.

    Raises:
        RequestError: There is such a layer, and none may be left out.

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
            if whole and any(parameter.requires_grad for key, parameter in own.items() if key != "bias"):
                raise RequestError(
                    f"the weight of layer {name} is computed from other parameters (by weight or spectral norm, for "
                    "example), so it cannot be selected; remove that, or choose another method"
                )
        elif module.weight.requires_grad and id(module.weight) not in seen:
            seen.add(id(module.weight))
            layers[name] = module
    return layers


def refuse_other_layers(model: nn.Module, linears: Mapping[str, nn.Linear], method: str) -> None:
    """Refuse a model most of whose weights are not those of linear layers: ``method`` would leave them as they are.

    GPT-2 has ``Conv1D`` layers, I-BERT ``QuantLinear`` ones, SqueezeBERT convolutions. What counts are trainable
    matrices, and stacks of them, outside embeddings.

    Args:
        model: The model.
        linears: Its linear layers, see ``linear_layers``.
        method: The method's name.

    Raises:
        RequestError: It is such a model.
    """
    from torch import nn

    seen = {id(linear.weight) for linear in linears.values()}
    sizes: Counter[str] = Counter()  # of the other layers' weights, by the layers' kind
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.ndim >= 2 and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                sizes[type(module).__name__] += 0 if isinstance(module, nn.Embedding) else parameter.numel()
    if sizes.total() > sum(linear.weight.numel() for linear in linears.values()):
        raise RequestError(
            f"{method} works on nn.Linear layers, and most weights of {type(model).__name__} are in layers of another "
            f"kind ({sizes.most_common(1)[0][0]}); choose another method"
        )


def new_accumulator(weight: torch.Tensor) -> torch.Tensor:
    """Return zeros shaped like a weight, in float32 or in the weight's precision where that is higher."""
    import torch

    return torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32), requires_grad=False)


def weights_are_finite(model: nn.Module) -> bool:
    """Tell whether no trained weight of a model holds an inf or a nan."""
    trained = [parameter.detach() for parameter in model.parameters() if parameter.requires_grad]
    return not trained or bool(are_finite(trained))


def gradients_are_finite(model: nn.Module) -> torch.Tensor:
    """Return a 0-d bool tensor: true if no gradient holds an inf or a nan, and no gradient's norm overflows.

    The answer stays on the model's device, so that the host need not wait for it.
    """
    import torch

    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return are_finite(gradients) if gradients else torch.tensor(True)


def draw_columns(
    linears: Mapping[str, nn.Linear], p: float, *, seed: int, step: int, mask_source: MaskSource | None
) -> torch.Tensor:
    """Return the column masks of all layers, one after the other: a bool tensor [sum of in_features].

    It lies on the first layer's device. True (the column trains) has probability 1 - p. All masks of a step come from
    one draw, which depends on ``seed`` and ``step`` alone: a resumed run draws the same, and so does every rank of a
    distributed run, on any device. This is why NumPy draws them, on the host. A GPU copies them from pinned memory
    while the host goes on.

    Args:
        linears: The layers, by name; their order decides which draws each gets.
        p: Reserved probability.
        seed: The run's seed.
        step: The optimizer step, from 1.
        mask_source: Asked for each layer first; if it returns None, the drawn mask is used.

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
                    f"the layer has {linear.in_features}"
                )
            mask.copy_(columns)
    return from_host(drawn, next(iter(linears.values())).weight.device) if linears else drawn


def end_update(method: Method[Any]) -> None:
    """Call ``after_update``.

    Raises:
        RunError: The method did not count the step, so that every draw would be the same.
    """
    counted = method.step
    method.after_update()
    if method.step == counted:
        raise RunError(f"method {method.config.name}: its after_update should call super().after_update()")


def loadable_state(method: Method[Any]) -> dict[str, Any]:
    """Return a method's state.

    Raises:
        RunError: It holds what a checkpoint cannot be continued from.
    """
    state = method.state_dict()
    strange = next(_strange(state, "state_dict()"), None)
    if strange is not None:
        raise RunError(
            f"method {method.config.name}: {strange}; a checkpoint holds tensors, numbers, texts, None, and lists and "
            "dicts of these"
        )
    return state


def _strange(value: Any, place: str) -> Iterator[str]:
    """Yield what of a state torch does not load with ``weights_only``."""
    import torch

    if type(value) in (dict, OrderedDict):
        for key, below in value.items():
            yield from _strange(key, f"a key of {place}")
            yield from _strange(below, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for number, below in enumerate(value):
            yield from _strange(below, f"{place}[{number}]")
    elif not (value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str)):
        yield f"{place} is of type {type(value).__name__}"
