"""What a method costs: time of a step against vanilla, and where its memory goes (Zhang et al. 2022, Appendix F)."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dpstune.common.interruption import InterruptionWatch
from dpstune.common.progress import SilentProgress
from dpstune.data.inputs import Inputs
from dpstune.errors import RequestError
from dpstune.methods import BASELINE, build_method
from dpstune.recipe.draft import split_override
from dpstune.recipe.recipe import LoadedRecipe, load_recipe
from dpstune.studies.grid import LENGTH_KEYS, overrides_for, parse_method, refuse_unknown_keys
from dpstune.training.loop import Loop
from dpstune.training.runlog import RunLog

METHODS_OF_TABLE_3 = (BASELINE, "mixout", "r3f", "r-drop", "child-tuning-d", "dps-dense", "dps-mix")
BATCH_SIZES_OF_TABLE_3 = (16, 32)
TIMED_OPENINGS = 3  # how often the step that opens Stage II is timed, each time after a step of Stage I
_SET_BY_THE_PROFILE = (
    "model.init",
    "training.batch_size",
    "method",
    "method.name",
    "method.update_ratio",
    *LENGTH_KEYS,
)


@dataclass(frozen=True)
class ProfileRequest:
    """What to measure.

    Args:
        recipe: A shipped recipe's name, or a YAML file.
        methods: Methods, ``NAME`` or ``NAME:key=value,...``, in the order of the table.
        batch_sizes: Examples in a step; every method is measured with each.
        steps: Timed steps of each method; 0 measures memory alone.
        overrides: ``a.b=value`` each, for all methods; a ``method.KEY`` for the methods that have it.
    """

    recipe: str
    methods: tuple[str, ...] = METHODS_OF_TABLE_3
    batch_sizes: tuple[int, ...] = BATCH_SIZES_OF_TABLE_3
    steps: int = 10
    overrides: tuple[str, ...] = ()

    @property
    def half(self) -> int:
        """Steps of each half of a run: one to warm up or to select, one to meter, then the timed ones."""
        return 2 + -(-self.steps // 2)

    def plan(self) -> list[list[LoadedRecipe]]:
        """Return the recipes of all measurements, a list for each batch size.

        Raises:
            RequestError: The recipe, a method or a key is wrong, or there is nothing to measure.
        """
        if not (self.methods and self.batch_sizes):
            raise RequestError("a profile needs a method and a batch size at least")
        refuse_unknown_keys(self.methods, self.overrides, "--set")
        for method in self.methods:
            build_method({"name": parse_method(method)[0]})  # refuses one whose library is missing
        return [[self.load(method, size) for method in self.methods] for size in self.batch_sizes]

    def load(self, method: str, batch_size: int) -> LoadedRecipe:
        """Return the recipe of one measurement: random weights, as many steps in Stage II of DPS as in Stage I."""
        name, own = parse_method(method)
        overrides = [*overrides_for(name, self.overrides), *own]
        return self._load(name, batch_size, overrides, dict.fromkeys(own, f"--method {method}"))

    def load_vanilla(self, batch_size: int, dropout: float | None) -> LoadedRecipe:
        """Return the recipe to compare a method with: vanilla with the method's dropout."""
        overrides = overrides_for(BASELINE, self.overrides)
        if dropout is not None:
            overrides.append(f"model.dropout={dropout}")
        return self._load(BASELINE, batch_size, overrides, {})

    def _load(self, method: str, batch_size: int, overrides: Sequence[str], flags: Mapping[str, str]) -> LoadedRecipe:
        for override in overrides:
            if split_override(override)[0] in _SET_BY_THE_PROFILE:
                place = flags.get(override, f"--set {override}")
                raise RequestError(f"{place}: a profile sets this itself; see --method, --batch-size, --steps")
        size = f"training.batch_size={batch_size}"
        overrides = [
            *overrides,
            "model.init=random",
            size,
            f"training.steps={2 * self.half}",
            "training.warmup_steps=0",
        ]
        overrides += overrides_for(method, ["method.update_ratio=0.5"])
        named = {**flags, size: f"--batch-size {batch_size}"}
        return load_recipe(self.recipe, method=method, overrides=overrides, flags=named)


@dataclass(frozen=True)
class Memory:
    """Bytes of the tensors of a training step.

    Args:
        peak: The most bytes held at once in a step.
        reserved: The most that CUDA's allocator took from the GPU for it; None on a CPU.
        before_training: The most held before step 1, while the model was built and the method prepared: then
            CHILD-TUNING-D sees an epoch of training data.
        weights: Parameters and buffers.
        gradients: One for each parameter that trains; they grow while activations are freed.
        optimizer: AdamW's state.
        method: What the method keeps between steps.
        activations: What the forward pass of a micro-batch keeps for the backward pass.
    """

    peak: int
    reserved: int | None
    before_training: int
    weights: int
    gradients: int
    optimizer: int
    method: int
    activations: int


@dataclass(frozen=True)
class Cost:
    """What one method costs at one batch size.

    Args:
        method: Its settings.
        batch_size: Examples in a step.
        dropout: The dropout that the model was built with; None for its own.
        memory: Its memory.
        vanilla_peak: Peak bytes of vanilla with the same dropout.
        bytes_a_linear_weight: (Peak minus ``vanilla_peak``) / number of linear weights.
        seconds: Median time of a step; None where no step was timed.
        ratio: Time of a step / time of vanilla's step with the same dropout, median over pairs of steps taken in turn.
        ratio_quartiles: The quartiles of this ratio.
        tokens_per_second: Tokens in a step / ``seconds``.
        opening_seconds: Median time of the step that opens Stage II and chooses the subnetwork; None for a method
            without stages, and where no step was timed.
    """

    method: dict[str, Any]
    batch_size: int
    dropout: float | None
    memory: Memory
    vanilla_peak: int
    bytes_a_linear_weight: float
    seconds: float | None
    ratio: float | None
    ratio_quartiles: tuple[float, float] | None
    tokens_per_second: float | None
    opening_seconds: float | None


def profile(
    request: ProfileRequest,
    told: Callable[[str], None] = lambda line: None,
    found: Callable[[Cost], None] = lambda cost: None,
) -> dict[str, Any]:
    """Measure every method at every batch size, each beside vanilla with the same dropout.

    Two models are in memory at a time. Vanilla itself is measured against a second vanilla: the distance of its ratio
    from 1 shows how noisy the other ratios are.

    Args:
        request: What to measure.
        told: Called with a line before each measurement.
        found: Called with each cost as soon as it is measured; it may raise to stop.

    Returns:
        A mapping for JSON: ``recipe``, ``model``, ``max_length``, ``steps``, ``parameters``, ``linear_weights``,
        ``environment``, ``date``, and ``costs``: for each batch size and method its ``Cost`` as a mapping.

    Raises:
        RequestError: See ``ProfileRequest.plan``, ``load_classifier`` and ``model_precision``.
        RunError: The model's architecture does not ship with dpstune, and the hub cannot be reached.
    """
    plan = request.plan()
    costs: list[Cost] = []
    about: dict[str, Any] = {}
    for batch in plan:
        vanilla: Side | None = None
        for loaded in batch:
            told(f"{loaded.recipe.method.name}, {loaded.recipe.training.batch_size} examples a step")
            side = Side(loaded)
            if vanilla is None or vanilla.dropout != side.dropout:
                vanilla = None  # let go of it before the other is built
                vanilla = Side(request.load_vanilla(loaded.recipe.training.batch_size, side.dropout))
                vanilla.warm_up()
                about = vanilla.describe()  # the whole model, of which a method may freeze a part
            costs.append(_measure(side, vanilla, request))
            del side
            found(costs[-1])
    first = plan[0][0]
    return {
        "recipe": first.name,
        "model": first.recipe.model.name,
        "max_length": first.recipe.data.max_length,
        "steps": request.steps,
        **about,
        "date": date.today().isoformat(),
        "costs": [asdict(cost) for cost in costs],
    }


def _measure(side: Side, vanilla: Side, request: ProfileRequest) -> Cost:
    """Measure one method beside vanilla, with half of the steps in each stage of DPS."""
    steps = request.steps
    times: list[tuple[float, float]] = []
    side.warm_up()
    times += take_turns(side.time_step, vanilla.time_step, -(-steps // 2))
    side.meter_step()  # the first of Stage II
    times += take_turns(side.time_step, vanilla.time_step, steps // 2)
    openings = side.time_openings(request.half, TIMED_OPENINGS) if steps else []
    ratios = sorted(mine / other for mine, other in times)
    seconds = statistics.median(mine for mine, _ in times) if times else None
    beyond = side.memory.peak - vanilla.memory.peak
    return Cost(
        method=side.recipe.method.model_dump(mode="json"),
        batch_size=side.recipe.training.batch_size,
        dropout=side.dropout,
        memory=side.memory,
        vanilla_peak=vanilla.memory.peak,
        bytes_a_linear_weight=round(beyond / vanilla.linear_weights, 3),
        seconds=seconds,
        ratio=statistics.median(ratios) if ratios else None,
        ratio_quartiles=(ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]) if ratios else None,
        tokens_per_second=side.tokens / seconds if seconds else None,
        opening_seconds=statistics.median(openings) if openings else None,
    )


def take_turns(first: Callable[[], float], second: Callable[[], float], times: int) -> list[tuple[float, float]]:
    """Call two functions in turn, each as often first as second; return their results in pairs.

    >>> take_turns(lambda: 1.0, lambda: 2.0, times=2)
    [(1.0, 2.0), (1.0, 2.0)]
    """
    pairs = []
    for number in range(times):
        if number % 2 == 0:
            mine = first()
            pairs.append((mine, second()))
        else:
            other = second()
            pairs.append((first(), other))
    return pairs


class Side:
    """One model in training; it takes the same steps as the engine.

    Args:
        loaded: The recipe.
        inputs: What it trains on; None generates the examples of one step.

    Attributes:
        memory: The memory that its metered steps have taken so far.
    """

    def __init__(self, loaded: LoadedRecipe, inputs: Inputs | None = None) -> None:
        from dpstune.device.hardware import device_type, new_accelerator
        from dpstune.methods.base import linear_layers
        from dpstune.models.precision import model_precision
        from dpstune.runs.folder import RunFolder
        from dpstune.studies.profile.generated import GeneratedInputs
        from dpstune.studies.profile.memory_meter import new_meter

        gc.collect()  # a reference cycle may still hold the model that was measured before
        self.recipe = recipe = loaded.recipe
        self.precision = model_precision(recipe.training.precision, recipe.model, device_type())
        accelerator = new_accelerator(self.precision)
        self.device = accelerator.device
        with TemporaryDirectory(prefix="dpstune-profile-") as folder:
            inputs, watch = inputs or GeneratedInputs(), InterruptionWatch()
            with new_meter(self.device) as meter:
                self.loop = Loop(recipe, inputs, RunFolder(Path(folder)), accelerator, watch, SilentProgress())
        self.loop.log = RunLog(None, SilentProgress(), steps_per_epoch=1, size=0, after_step=0)
        own = self.loop.method.dropout(self.loop.total_steps)
        self.dropout = own if recipe.model.dropout is None else recipe.model.dropout
        self.tokens = self.loop.plan.tokens(self.loop.plan.chunks(1))
        self.linear_weights = sum(layer.weight.numel() for layer in linear_layers(self.loop.model).values())
        reserved = None if meter.reserved is None else 0
        self.memory = Memory(0, reserved, meter.peak, 0, 0, 0, 0, 0)

    def describe(self) -> dict[str, Any]:
        """Return the model's size and its environment."""
        from dpstune.device.hardware import describe_environment

        return {
            "parameters": sum(parameter.numel() for parameter in self.loop.model.parameters()),
            "linear_weights": self.linear_weights,
            "environment": describe_environment(self.device, self.precision, processes=1),
        }

    def warm_up(self) -> None:
        """Take the first step, which makes the optimizer's state, and meter the next."""
        self.step()
        self.meter_step()

    def step(self) -> None:
        """Take a step."""
        self.loop.optimizer_step(self.loop.state.step + 1)

    def time_step(self) -> float:
        """Take a step and return its seconds."""
        from dpstune.device.hardware import wait_for

        wait_for(self.device)
        started = time.perf_counter()
        self.step()
        wait_for(self.device)
        return time.perf_counter() - started

    def time_openings(self, last_of_stage_1: int, times: int) -> list[float]:
        """Take the step that opens Stage II several times and return the seconds of each; empty without stages.

        Args:
            last_of_stage_1: The step that ends the first Stage I.
            times: How often.
        """
        method = self.loop.method
        if not hasattr(method, "cycle"):
            return []
        seconds = []
        for _ in range(times):
            method.step = 1  # one step of Stage I, for real scores: selecting among equal ones takes another time
            self.step()
            method.step = last_of_stage_1 + 1
            seconds.append(self.time_step())
        return seconds

    def meter_step(self) -> None:
        """Take a step and note the memory it takes, where it is more than that of an earlier step."""
        import torch

        from dpstune.studies.profile.memory_meter import new_meter, tensor_bytes

        loop, method = self.loop, self.loop.method
        kept: list[int] = []
        loss_of = method.loss

        def loss_and_note(*arguments: Any) -> Any:
            before = meter.held()
            loss = loss_of(*arguments)
            kept.append(meter.held() - before)
            return loss

        method.loss = loss_and_note  # type: ignore[assignment, method-assign]
        try:
            with new_meter(self.device) as meter:
                self.step()
        finally:
            del method.loss
        parameters = list(loop.model.parameters())
        state = loop.optimizer.state.values()
        weights = tensor_bytes([*parameters, *loop.model.buffers()])
        optimizer = tensor_bytes(value for each in state for value in each.values() if isinstance(value, torch.Tensor))
        held = method.held_bytes()
        before = weights + optimizer + held
        known = self.memory
        reserved = None if meter.reserved is None else max(known.reserved or 0, before + meter.reserved)
        self.memory = Memory(
            peak=max(known.peak, before + meter.peak),
            reserved=reserved,
            before_training=known.before_training,
            weights=weights,
            gradients=tensor_bytes(parameter for parameter in parameters if parameter.requires_grad),
            optimizer=optimizer,
            method=held,
            activations=max(known.activations, *kept),
        )
