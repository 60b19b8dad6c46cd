"""EMA: train with any method, and end with the moving average of the weights over the steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator

from dpstune.errors import RequestError
from dpstune.methods import BASELINE, build_method, method_class
from dpstune.methods.base import Method, MethodConfig, StepBatches, gradients_are_finite, new_accumulator
from dpstune.methods.groups import move_toward
from dpstune.settings.base import first_problem

if TYPE_CHECKING:
    import torch
    from torch import nn


class EmaConfig(MethodConfig):
    """Settings of the moving average (Morales-Brotons et al. 2024, arXiv 2411.18704).

    Attributes:
        decay: d, above 0 and below 1: how much of the average an update leaves. It then is one over about the last
            1 / (1 - d) updates; the warm-up has it begin with fewer.
        of: The method that trains: its name, or a mapping of its name and its own settings.
    """

    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    of: SerializeAsAny[MethodConfig] = Field(default={"name": BASELINE}, validate_default=True)

    @field_validator("of", mode="before")
    @classmethod
    def _read_of(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        name = value.get("name", BASELINE)
        if not isinstance(name, str):
            raise ValueError("name: should be a method's name")
        try:
            schema = method_class(name).config_class
            return schema.model_validate(value)
        except RequestError as error:
            raise ValueError(str(error)) from None
        except ValidationError as error:
            path, message = first_problem(error, schema)
            raise ValueError(": ".join([".".join(path), message] if path else [message])) from None

    @field_validator("of")
    @classmethod
    def _can_be_averaged(cls, of: MethodConfig) -> MethodConfig:
        if of.name == cls.model_fields["name"].default:
            raise ValueError("an average of averages is not offered; give it a method that trains")
        if method_class(of.name).adds_keys:
            raise ValueError(f"the weights that {of.name} trains are not those it leaves; give it another method")
        if not method_class(of.name).weights_decide:
            raise ValueError(f"{of.name} already ends with other weights than it trains; give it another method")
        return of

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, and that of the method that trains."""
        return (self.name, *self.of.names)


class Ema(Method[EmaConfig]):
    """Exponential moving average of the weights.

    Another method trains the weights W; nothing of its training changes. Each trained weight has an average A. It
    starts as W before step 1, and after update number t becomes d_t * A + (1 - d_t) * W with
    d_t = min(d, (1 + t) / (10 + t)). So the first updates, whose weights are far from the last, are soon forgotten: A
    is over about the last ninth of the updates, until d is reached. An evaluation sees A in the place of W, and the
    finished model has A. A step that the loss scaler skips is no update: it leaves A and t as they are.

    A is float32, or of the weight's precision where that is higher. The model must have all of its word embeddings:
    those that no text uses decay, and have averages, too.

    Source: Morales-Brotons et al. 2024 for fine-tuned and other networks; Polyak and Juditsky 1992 for averages over
    steps, Tarvainen and Valpola 2017 for moving ones. The warm-up is that of TensorFlow's
    ``ExponentialMovingAverage`` with ``num_updates``.

    >>> import torch
    >>> from dpstune import build_method
    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> _ = model.weight.data.fill_(11.0)
    >>> method = build_method({"name": "ema", "decay": 0.9, "of": {"name": "dps-dense", "p": 0.3}})
    >>> method.attach(model, total_steps=1)
    >>> model(torch.ones(1, 1)).sum().backward()
    >>> method.before_clip()
    >>> _ = model.weight.data.fill_(22.0)  # in the place of an optimizer's update
    >>> method.after_update()
    >>> method.detach()
    >>> round(model.weight.item(), 4)  # 2/11 * 11 + 9/11 * 22
    20.0
    """

    config_class = EmaConfig
    weights_decide = False

    def __init__(self, config: EmaConfig) -> None:
        super().__init__(config)
        self.inner = build_method(config.of)
        """The method that trains."""
        self.most_tokens = self.inner.most_tokens
        self.rounds_share_dropout = self.inner.rounds_share_dropout
        self.serves_several_labels = self.inner.serves_several_labels
        self.loss_takes_gradients = self.inner.loss_takes_gradients
        self.whole_embeddings = True
        self.averages: dict[str, torch.Tensor] = {}
        self._weights: dict[str, nn.Parameter] = {}

    @property
    def innermost(self) -> Method[Any]:
        """The method that trains."""
        return self.inner.innermost

    def acquire(self, model: nn.Module) -> None:
        """Attach the method that trains, and make an average for each weight that it trains."""
        import torch

        self.inner.attach(
            model,
            total_steps=self.total_steps,
            mask_source=self._mask_source,
            seed=self.seed,
            criterion=self.criterion,
        )
        try:
            self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            self.averages = {name: new_accumulator(weight) for name, weight in self._weights.items()}
            place = next(iter(self._weights.values())).device if self._weights else None
            self.updates = torch.zeros((), device=place)  # t, where the weights lie: nobody waits for it
            self._is_update = torch.ones((), dtype=torch.bool, device=place)
        except BaseException:
            self.inner.detach()
            raise
        self._start()

    def freeze(self, model: nn.Module) -> None:
        """Freeze what the method that trains does not train."""
        self.inner.freeze(model)

    def dropout(self, total_steps: int) -> float | None:
        """Return the dropout that the method that trains asks for."""
        return self.inner.dropout(total_steps)

    def prepare(self, model: nn.Module, steps: Iterable[StepBatches]) -> None:
        """Let the method that trains see the data; what it makes of the weights is what the averages start from."""
        self.inner.prepare(model, steps)
        self._start()

    def begin_step(self) -> None:
        """Have the method that trains get ready."""
        self.inner.begin_step()

    def loss(self, model: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of the method that trains."""
        return self.inner.loss(model, batch)

    @property
    def rounds(self) -> int:
        """The rounds of the method that trains."""
        return self.inner.rounds

    def after_round(self, number: int) -> None:
        """Show the gradients of a round to the method that trains."""
        self.inner.after_round(number)

    def before_clip(self) -> None:
        """Note whether the optimizer will update, then show the gradients to the method that trains."""
        assert self.model is not None
        self._is_update = gradients_are_finite(self.model)
        self.inner.before_clip()

    def before_update(self) -> None:
        """Show the clipped gradients to the method that trains."""
        self.inner.before_update()

    def after_update(self) -> None:
        """Take the updated weights into their averages; the weights of a skipped step are not taken."""
        self.inner.after_update()
        super().after_update()
        self.updates += self._is_update
        decay = ((1 + self.updates) / (10 + self.updates)).clamp(max=self.config.decay)
        move_toward(list(self.averages.values()), list(self._weights.values()), 1 - decay, self._is_update)

    def state_dict(self) -> dict[str, Any]:
        """Return the step, the number of updates, the averages and what the method that trains needs."""
        inner = {key: value for key, value in self.inner.state_dict().items() if key != "step"}  # it is the same
        return {**super().state_dict(), "updates": self.updates, "averages": self.averages, "of": inner}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the step, the number of updates, the averages and the state of the method that trains."""
        super().load_state_dict(state)
        self.inner.load_state_dict({**state["of"], "step": state["step"]})
        self.updates.copy_(state["updates"])
        for name, average in self.averages.items():
            average.copy_(state["averages"][name])

    def held_bytes(self) -> int:
        """Return 4 bytes a trained weight, and what the method that trains keeps."""
        return sum(average.nbytes for average in self.averages.values()) + self.inner.held_bytes()

    @contextmanager
    def as_detached(self) -> Iterator[None]:
        """Have the averages in the model; nothing is copied, where a weight has its average's precision."""
        trained = {name: weight.data for name, weight in self._weights.items()}
        for name, weight in self._weights.items():
            weight.data = self.averages[name].to(weight.dtype)
        try:
            yield
        finally:
            for name, weight in self._weights.items():
                weight.data = trained[name]

    def detach(self) -> None:
        """Let go of the model, which keeps the averages; so does the method that trains."""
        self.inner.detach()  # first: it may give weights back that it had moved
        super().detach()

    def release(self) -> None:
        """Give the weights their averages."""
        for name, weight in self._weights.items():
            weight.data.copy_(self.averages[name])
        self.averages, self._weights = {}, {}

    def _start(self) -> None:
        """Start the averages from the weights."""
        for name, weight in self._weights.items():
            self.averages[name].copy_(weight.detach())
