"""The methods inside Hugging Face's ``Trainer``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint, has_length

from dpstune.common.writing import read_json, write_atomically
from dpstune.errors import RequestError, RunError
from dpstune.methods import build_method, without_newer_keys
from dpstune.methods.base import Method, MethodConfig, end_update, loadable_state, weights_are_finite
from dpstune.methods.criterion import Criterion
from dpstune.models.loading import set_dropout
from dpstune.settings.base import listed

METHOD_STATE = "dpstune_method.pt"


class MethodTrainer(Trainer):
    """A ``Trainer`` that fine-tunes with one of dpstune's methods.

    A step of ``Trainer`` calls, in this order:

    1. ``compute_loss`` and backward, for every micro-batch: here the method's loss; after a step's last one, all of
       them again where the method has several ``rounds``.
    2. ``clip_grad_norm_``: here ``before_clip`` first, on gradients unscaled and averaged over ranks. DPS accumulates
       and masks unclipped gradients; the masked ones are then clipped.
    3. ``on_pre_optimizer_step``: here ``before_update``. CHILD-TUNING masks clipped gradients.
    4. The optimizer, then ``on_optimizer_step``: here ``after_update``, also where the loss scaler skipped the update.

    The method is attached at ``on_train_begin``, when the number of steps is known, and detached when training ends.
    Evaluation and prediction before that see the model as detached. Every checkpoint holds the weights as they train,
    and the method's state. If the method asks for a dropout, the model's is set to it at the start.

    Args:
        method: The method's settings, as ``build_method`` takes them.
        *args: What ``Trainer`` takes.
        **kwargs: What ``Trainer`` takes.

    Raises:
        RequestError: Settings are wrong, or the run is of a kind that the hooks do not fit: DeepSpeed, FSDP, several
            GPUs in one process, ``auto_find_batch_size``, an optimizer that updates within the backward pass or
            switches weights where the method does, ``load_best_model_at_end`` where a checkpoint's weights are not
            what was evaluated, reentrant gradient checkpointing where the method's loss takes gradients; or you
            give a loss function, or a ``compute_loss``, and the method has its own loss, or sees the data before step
            1, when it cannot ask yours; or you give an optimizer, and the method adds weights to train.

    >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
    >>> model = BertForSequenceClassification(BertConfig(num_hidden_layers=1, hidden_size=12, vocab_size=10))
    >>> arguments = TrainingArguments(output_dir="out", report_to="none")
    >>> trainer = MethodTrainer(model, arguments, method={"name": "dps-mix", "p": 0.3})
    >>> trainer.method.config.update_ratio
    0.05
    """

    def __init__(self, *args: Any, method: str | Mapping[str, Any] | MethodConfig | Method[Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method: Method[Any] = build_method(method)
        self._resumed_from: Path | None = None
        self._seen_step = 0
        self._micro_batches: list[tuple[dict[str, Any], RandomStates]] = []  # of the current step
        self._own_loss = type(self.method.innermost).loss is not Method.loss
        self._refuse_what_cannot_be_served()
        # A classifier's loss is a mean over its micro-batch, whatever keywords its forward takes. With False, Trainer
        # divides by the number of micro-batches, so that accumulated micro-batches equal one large batch.
        self.model_accepts_loss_kwargs = False
        self.add_callback(_Hooks(self))
        self.callback_handler.callbacks.insert(0, _End(self))  # before those that save the model when training ends

    def _refuse_what_cannot_be_served(self) -> None:
        name = self.method.config.name
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            raise RequestError(f"{name} needs whole gradients on every rank; DeepSpeed and FSDP shard them")
        if self.args.auto_find_batch_size:
            raise RequestError(f"{name} cannot start a run again with smaller batches; set auto_find_batch_size=False")
        if self.args.n_gpu > 1:
            raise RequestError(f"{name} needs one process for each GPU; start with `accelerate launch --multi_gpu`")
        if self.args.load_best_model_at_end and not self.method.weights_decide:
            raise RequestError(
                f"{name} evaluates other weights than a checkpoint holds; set load_best_model_at_end=False"
            )
        self._refuse_other_optimizers(name)
        if self._own_loss and (self.compute_loss_func is not None or self.label_smoother is not None):
            raise RequestError(f"{name} has a loss of its own; leave out compute_loss_func and label smoothing")
        if self.method.adds_keys and self.optimizer is not None:
            raise RequestError(f"{name} trains weights that no optimizer of yours holds; leave out optimizers")
        checkpointing: Any = self.args.gradient_checkpointing_kwargs if self.args.gradient_checkpointing else None
        if self.method.loss_takes_gradients and checkpointing and checkpointing.get("use_reentrant"):
            raise RequestError(f"{name} computes gradients within its loss; checkpoint with use_reentrant=False")
        sees_the_data = type(self.method.innermost).prepare is not Method.prepare
        if sees_the_data and self.compute_loss_func is not None:
            raise RequestError(
                f"{name} sees the data before step 1, without your loss function; leave out compute_loss_func"
            )
        if (self._own_loss or sees_the_data) and type(self).compute_loss is not MethodTrainer.compute_loss:
            why = "has a loss of its own" if self._own_loss else "sees the data before step 1, without your loss"
            raise RequestError(f"{name} {why}; leave out the compute_loss of {type(self).__name__}")

    def _refuse_other_optimizers(self, name: str) -> None:
        kind, method = str(getattr(self.args.optim, "value", self.args.optim)), type(self.method)
        hooks = ("after_round", "before_clip", "before_update", "after_update")
        has_hooks = any(getattr(method, hook) is not getattr(Method, hook) for hook in hooks)
        if has_hooks and (kind.endswith("layerwise") or kind in ("lomo", "adalomo")):
            raise RequestError(f"{name} acts on gradients, and optim={kind} uses them up within the backward pass")
        if kind.startswith("schedule_free") and method.as_detached is not Method.as_detached:
            raise RequestError(
                f"{name} evaluates other weights than it trains, and so does optim={kind}; take one of both"
            )

    def create_accelerator_and_postprocess(self) -> None:
        """Show the method what each accelerator clips; each trial of ``hyperparameter_search`` has an accelerator."""
        super().create_accelerator_and_postprocess()
        self._clip = self.accelerator.clip_grad_norm_
        self.accelerator.clip_grad_norm_ = self._see_and_clip

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as ``Trainer`` does; a resumed run loads the method's state, too.

        With True it goes on from the newest checkpoint that is whole: a kill may have left one that is not.

        Raises:
            RunError: The checkpoint holds no state of a method, or that of another method or of other settings; or the
                trained weights are not finite in the end, and the method would leave finite ones.
        """
        checkpoint = resume_from_checkpoint
        if checkpoint is True:
            folder = Path(str(self.args.output_dir))
            checkpoint = newest_whole_checkpoint(folder) or get_last_checkpoint(str(folder))
            resume_from_checkpoint = checkpoint or True  # without any, Trainer says so
        self._resumed_from = Path(str(checkpoint)) if checkpoint else None
        if self.method.adds_keys:  # an optimizer of an earlier training holds weights that are merged by now
            self.optimizer = self.lr_scheduler = None
            assert self.model is not None
            self.model_wrapped = self.model  # what wrapped it for several processes knew the weights of that training
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            self.method.detach()

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate or predict with the model as the method would leave it; while training, it is put back then."""
        with self.method.as_detached():
            return super().evaluation_loop(*args, **kwargs)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Add what the method trains besides before a checkpoint is loaded, since it holds these weights, too."""
        assert self.model is not None
        self.method.freeze(self.model)
        super()._load_from_checkpoint(*args, **kwargs)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """Freeze what the method does not train, then create the optimizer as ``Trainer`` does.

        ``Trainer`` wraps the model for several processes after this, and attaches the method when both are done.
        """
        assert self.model is not None
        self.method.freeze(self.model)
        return super().create_optimizer(*args, **kwargs)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the method's loss while training, ``Trainer``'s otherwise."""
        training = self.method.model is not None and model.training
        if training and self._own_loss:
            return self.method.loss(model, inputs)
        if training:
            self.method.begin_step()
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute the gradients of a micro-batch; after a step's last one, those of the method's further rounds."""
        several = self.method.model is not None and self.method.rounds > 1
        if several:
            self._micro_batches.append((inputs, random_states()))
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not several:
            return loss
        if self.accelerator.sync_gradients:
            after = random_states()
            for number in range(1, self.method.rounds):
                self.method.after_round(number)
                model.zero_grad()
                for position, (again, drawn) in enumerate(self._micro_batches):
                    if self.method.rounds_share_dropout:
                        set_random_states(drawn)
                    last = position == len(self._micro_batches) - 1
                    with nullcontext() if last else self.accelerator.no_sync(model):
                        super().training_step(model, again, *args, **kwargs)
            self._micro_batches = []
            if self.method.rounds_share_dropout:
                set_random_states(after)
        return loss

    def _see_and_clip(self, parameters: Any, max_norm: float, norm_type: float = 2.0) -> Any:
        """Show the method the gradients, then clip them; ``max_norm`` is infinite where nothing is to be clipped."""
        if self.method.model is None:
            return self._clip(parameters, max_norm, norm_type)
        self.see_gradients()
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type)

    def see_gradients(self) -> None:
        """Show the method the step's unscaled gradients, once."""
        if self._seen_step != self.method.step:
            self.accelerator.unscale_gradients()
            self.method.before_clip()
            self._seen_step = self.method.step

    def attach_method(self, state: TrainerState) -> None:
        """Attach the method to the model; in a resumed run, ``Trainer`` has loaded the model already."""
        checkpoint, model = self._resumed_from, self.model
        assert model is not None
        weights = {name: tensor.clone() for name, tensor in model.state_dict().items()} if checkpoint else {}
        self._seen_step, self._micro_batches = 0, []
        dropout = self.method.dropout(state.max_steps)
        if dropout is not None:
            set_dropout(model, dropout)
        smoothing = self.args.label_smoothing_factor
        criterion = Criterion(label_smoothing=smoothing) if smoothing else None  # for what prepare() computes
        self.method.attach(model, total_steps=state.max_steps, seed=self.args.seed, criterion=criterion)
        if checkpoint is None:
            with torch.random.fork_rng(), _in_its_own_precision(model):
                model.train()
                self.method.prepare(model, self._training_data(state.max_steps))
            return
        model.load_state_dict(weights)  # attaching may have changed them (reinit)
        file = checkpoint / METHOD_STATE
        if not file.is_file():
            raise RunError(f"{checkpoint} holds no {METHOD_STATE}: it was not written by a MethodTrainer")
        held = torch.load(file, map_location="cpu", weights_only=True)
        if held.keys() == {"method", "state"}:  # an earlier dpstune wrote the state alone
            self._refuse_another_method(checkpoint, held["method"])
            held = held["state"]
        self.method.load_state_dict(held)

    def _refuse_another_method(self, checkpoint: Path, settings: dict[str, Any]) -> None:
        own = self.method.config.model_dump(mode="json")
        if without_newer_keys(settings) != without_newer_keys(own):
            theirs, ours = (f"{each['name']} ({listed(each) or 'no settings'})" for each in (settings, own))
            raise RunError(f"{checkpoint} was written by {theirs}, and cannot be continued with {ours}")

    def _training_data(self, steps: int) -> Iterator[list[tuple[dict[str, torch.Tensor], float]]]:
        """Yield each step's micro-batches, all with the same share, as in ``Trainer``'s own loss.

        They are those of an epoch, or of so many steps where the data have no end that is known.
        """
        loader = self.get_train_dataloader()
        accumulation = self.args.gradient_accumulation_steps
        batches = iter(loader) if has_length(loader) else islice(loader, steps * accumulation)
        while step := list(islice(batches, accumulation)):
            yield [(self._prepare_inputs(batch), 1 / len(step)) for batch in step]

    def end_training(self) -> None:
        """Detach the method.

        Raises:
            RunError: The trained weights are not finite, and those that the method leaves may be.
        """
        model, name = self.method.model, self.method.config.name
        if model is not None and not self.method.weights_decide and not weights_are_finite(model):
            raise RunError(f"the trained weights are not finite, which {name} would hide; try a lower learning_rate")
        self.method.detach()

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save the method's state, then all else: at the end of it ``Trainer`` deletes older checkpoints."""
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            held = {"method": self.method.config.model_dump(mode="json"), "state": loadable_state(self.method)}
            write_atomically(folder / METHOD_STATE, lambda file: torch.save(held, file))
        super()._save_checkpoint(model, trial)


def newest_whole_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint with a method's state and with ``Trainer``'s own, which is written last."""
    whole = {
        int(step): str(place)
        for place in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (step := place.name.rpartition("-")[2]).isdigit()
        and (place / METHOD_STATE).is_file()
        and read_json(place / TRAINER_STATE_NAME) is not None
    }
    return whole[max(whole)] if whole else None


@contextmanager
def _in_its_own_precision(model: torch.nn.Module) -> Iterator[None]:
    """Have a model compute without the autocast that accelerate has put around its forward pass."""
    under_autocast = model.__dict__.get("forward")
    plain = model.__dict__.get("_original_forward")
    if under_autocast is None or plain is None:
        yield
        return
    model.__dict__["forward"] = plain
    try:
        yield
    finally:
        model.__dict__["forward"] = under_autocast


RandomStates = tuple[torch.Tensor, list[torch.Tensor]]
"""What torch's generators hold: the CPU's, and each GPU's."""


def random_states() -> RandomStates:
    """Return what dropout will be drawn from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def set_random_states(states: RandomStates) -> None:
    """Have the same dropout drawn again."""
    torch.set_rng_state(states[0])
    if states[1]:
        torch.cuda.set_rng_state_all(states[1])


class _End(TrainerCallback):
    """Lets go of the model when training ends, so that other callbacks see it as it is left."""

    def __init__(self, trainer: MethodTrainer) -> None:
        self._trainer = trainer

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.end_training()


class _Hooks(TrainerCallback):
    """Calls the method where ``Trainer`` has a place for it."""

    def __init__(self, trainer: MethodTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.attach_method(state)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._trainer.see_gradients()  # where max_grad_norm is 0, some versions of Trainer do not ask to clip
        self._trainer.method.before_update()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        end_update(self._trainer.method)
