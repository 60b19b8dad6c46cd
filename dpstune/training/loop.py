"""The training loop, read from top to bottom.

What it does: any device that Accelerate supports, several processes, fp16 with loss scaling on GPUs and CPUs, bf16,
fp32, gradient accumulation, random or bucketed batches (on a CPU cut into forward passes over similar lengths),
gradient checkpointing, compilation, evaluation each epoch or every n steps, checkpoints, exact resume, trackers.

What it refuses: a loss that is not finite. Under fp16 a step with such a loss is skipped, and a loss scale below 1 is
refused instead.

Every random draw depends only on the seed and on what it is for (the epoch's order, the dropout of a step's n-th chunk,
the masks of a step). So a checkpoint holds no state of a random generator.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dpstune.common.interruption import Interrupted, InterruptionWatch
from dpstune.common.progress import Progress
from dpstune.device.randomness import seed_torch
from dpstune.errors import DivergedError, RunError, some_of
from dpstune.methods.base import end_update, loadable_state
from dpstune.settings.metrics import better

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor, nn
    from torch.optim.lr_scheduler import LRScheduler

    from dpstune.data.inputs import Inputs
    from dpstune.data.passes import Pass
    from dpstune.evaluation.scoring import Evaluation
    from dpstune.methods.base import Method
    from dpstune.models.vocabulary import AllWords
    from dpstune.recipe.schema import Recipe
    from dpstune.runs.folder import RunFolder
    from dpstune.training.checkpoints import Checkpoint


class _StopAskedError(Exception):
    """A signal came within an evaluation, where the model is not what a run continues from."""


@dataclass
class LoopState:
    """Where a run is; all of it is saved in a checkpoint.

    Args:
        step: Optimizer steps done.
        evaluated_step: The step after which the last evaluation was logged.
        seconds: Wall time spent in training steps.
        other_seconds: Wall time spent in evaluations, and in what a method prepares before step 1.
        tokens: Tokens trained on, padding not counted.
        peak_memory_bytes: The most memory that was held until the last checkpoint, by this process or earlier ones.
        best: Step, value and metrics of the best evaluation so far, by the headline metric.
        stale: Evaluations since then.
        stopped: Whether so many that the run ends.
    """

    step: int = 0
    evaluated_step: int = 0
    seconds: float = 0.0
    other_seconds: float = 0.0
    tokens: int = 0
    peak_memory_bytes: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    stale: int = 0
    stopped: bool = False


class Loop:
    """One run, put together, and the loop that trains it.

    Args:
        recipe: What to train.
        inputs: Its examples and their tokens.
        folder: Where everything is written.
        accelerator: Device, precision and processes.
        watch: Notes the signals that end the run early.
        progress: Who is told how it goes.
    """

    def __init__(
        self,
        recipe: Recipe,
        inputs: Inputs,
        folder: RunFolder,
        accelerator: Accelerator,
        watch: InterruptionWatch,
        progress: Progress,
    ) -> None:
        import torch

        from dpstune.data.batches import StepPlan
        from dpstune.device.cpu_kernels import alike_again
        from dpstune.methods import build_method
        from dpstune.models.loading import load_classifier, recompute_activations
        from dpstune.models.structure import value_layer
        from dpstune.models.vocabulary import refuse_unknown_tokens
        from dpstune.training.best import BestWeights, headline_split, told_of_few_evaluations
        from dpstune.training.checkpoints import Checkpoints
        from dpstune.training.criterion import build_criterion
        from dpstune.training.forward import ForwardPasses, has_own_kernels
        from dpstune.training.losses import LossReadings
        from dpstune.training.optim import (
            build_optimizer,
            build_scheduler,
            plan_evaluations,
            plan_steps,
            told_of_warmup,
        )
        from dpstune.training.values import TrainedValues

        self.recipe, self.folder = recipe, folder
        task = self.task = inputs.task(recipe)
        self.accelerator, self.watch, self.progress = accelerator, watch, progress
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.best_weights = BestWeights(folder.checkpoints)
        self.state = LoopState()
        self.saved_step = 0  # the step whose state lies on the disk
        training = recipe.training

        self.tokenizer = inputs.tokenizer(recipe)
        self.values = TrainedValues.standardised(task) if training.standardise else TrainedValues()
        self.datasets = {
            split: self.values.of(dataset) if split == "train" else dataset
            for split, dataset in inputs.tokens(recipe).items()
        }
        self.eval_splits = [split for split in self.datasets if split != "train"]
        self.headline_split = headline_split(task)
        self.plan = StepPlan(recipe, self.datasets["train"].lengths, accelerator.num_processes)
        self.total_steps, warmup_steps = plan_steps(training, self.plan.steps_per_epoch)
        self.evaluation_interval, evaluations = plan_evaluations(training, self.total_steps, self.plan.steps_per_epoch)
        for note in (*told_of_warmup(self.total_steps, warmup_steps), *told_of_few_evaluations(training, evaluations)):
            progress.note(note)

        self.method: Method[Any] = build_method(recipe.method)
        dropout = recipe.model.dropout
        self.model: nn.Module = load_classifier(
            recipe.model,
            label_names=task.label_names,
            kind=task.kind,
            dropout=self.method.dropout(self.total_steps) if dropout is None else dropout,
            seed=recipe.seed,
        ).to(accelerator.device)
        if self.tokenizer is not None:  # a profile's tokens are made up
            largest_id = max(dataset.largest_id for dataset in self.datasets.values())
            refuse_unknown_tokens(self.model, largest_id, self.tokenizer)
        if training.gradient_checkpointing:
            again = {"context_fn": alike_again} if has_own_kernels(recipe, accelerator) else {}
            recompute_activations(self.model, **again)
        self.model.train()
        self.value_layer = value_layer(self.model, task.kind)
        self.values.attach(self.value_layer, self.model)
        self._keys = set(self.model.state_dict())
        criterion = build_criterion(training, task, accelerator.device)
        self.method.attach(self.model, total_steps=self.total_steps, seed=recipe.seed, criterion=criterion)
        self.forward = ForwardPasses(recipe, self.datasets["train"], self.model, self.method, accelerator)
        self.determinism = self._settle_determinism()
        if accelerator.num_processes > 1:
            self._freeze_unused()
        self.checkpoint = self._newest_checkpoint()
        if self.checkpoint is None:
            self._prepare_method()
        loadable_state(self.method)  # refuses before step 1 what the first checkpoint could not hold
        self.words = self._narrow_words()
        optimizer = build_optimizer(self.model, training)
        self.scheduler: LRScheduler = build_scheduler(
            optimizer, training, total_steps=self.total_steps, warmup_steps=warmup_steps
        )
        wrapped = torch.compile(self.model) if training.compile else self.model
        self.wrapped, self.optimizer = accelerator.prepare(wrapped, optimizer)
        self.losses = LossReadings(accelerator, optimizer)

    def resume(self) -> None:
        """Take up the checkpoint, where there is one, and open the logs."""
        from dpstune.data.passes import PassCost
        from dpstune.training.runlog import RunLog

        logged = 0
        if self.checkpoint is not None:
            saved = self.checkpoint.state
            self._refuse_other_groups(saved["optimizer"]["param_groups"])
            with self.words.whole():
                self.checkpoint.load_weights(self.model)
            self.words.factor = saved.get("words")
            if "pass_cost" in saved:
                self.forward.cost = PassCost(**saved["pass_cost"])
            self.state = LoopState(**saved["loop"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.scheduler.load_state_dict(saved["scheduler"])
            self.method.load_state_dict(saved["method"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(saved["scaler"])
            logged = saved["metrics_bytes"]
            self.saved_step = self.state.step
            self.progress.note(f"continuing after step {self.state.step} of {self.total_steps}")
            self.checkpoint = None
        if self.accelerator.is_main_process:
            self.best_weights.drop_after(self.state.step)
        self.log = RunLog(
            self.folder if self.accelerator.is_main_process else None,
            self.progress,
            steps_per_epoch=self.plan.steps_per_epoch,
            size=logged,
            after_step=self.state.step,
            recipe=self.recipe,
        )
        self.accelerator.wait_for_everyone()

    def _refuse_other_groups(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Refuse a checkpoint of other weights: what counts as head, or as above the layers, can change by version."""
        if [len(group["params"]) for group in saved] != [len(each["params"]) for each in self.optimizer.param_groups]:
            raise RunError(
                f"{self.folder.checkpoints} was begun by an earlier dpstune, which trains other weights of this model, "
                "or at other rates: go on with that version, or remove the folder to train the run anew"
            )

    def run(self) -> dict[str, Evaluation]:
        """Train to the last step, or until patience ends, and return the evaluations made after it."""
        self.progress.start(self.total_steps, self.state.step)
        self.watch.deferring = True
        evaluations: dict[str, Evaluation] = {}
        while True:
            step = self.state.step
            if self._evaluation_due(step) and self.state.evaluated_step < step:
                self._read_losses()
                evaluations = self.evaluate()
                self._record(evaluations)
            if step == self.total_steps or self.state.stopped:
                self._save_after_the_last_step()
                break
            if self._save_due(step):
                self.save()
            self.optimizer_step(step + 1)
            self._stop_where_asked()
        return evaluations or self.evaluate()

    def optimizer_step(self, step: int) -> None:
        """Take one step: forward and backward passes over this rank's examples, the method's hooks, clip, update."""
        import torch

        started = time.perf_counter()
        chunks = self.plan.chunks(step)
        share = self.plan.share(chunks, self.accelerator.process_index)
        passes = [
            (number, part, taken, weight * len(taken.indices) / len(chunk))
            for number, chunk, weight in share
            for part, taken in enumerate(self.forward.cut(chunk))
        ]
        total = self._round(step, 1, passes)
        for number in range(1, self.method.rounds):
            self.method.after_round(number)
            self.optimizer.zero_grad()
            self._round(step, number + 1, passes)
        rate = max(float(rate) for rate in self.scheduler.get_last_lr())
        self.accelerator.unscale_gradients()
        self.method.before_clip()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.training.max_grad_norm)
        self.method.before_update()
        with self.words.decayed_by(self.optimizer):
            self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        end_update(self.method)
        self.state.step = step
        self.state.tokens += self.plan.tokens(chunks)
        self.losses.add(step, total, rate)
        self.state.seconds += time.perf_counter() - started
        if self.losses.due or step == self.total_steps:
            self._read_losses()

    def _round(self, step: int, number: int, passes: list[tuple[int, int, Pass, float]]) -> Tensor:
        """Compute the gradients of a step from all of its passes; return the loss, a 0-d tensor on the device."""
        import torch

        anew: list[str | int] = [] if number == 1 or self.method.rounds_share_dropout else ["round", number]
        total = torch.zeros((), device=self.accelerator.device)
        for position, (chunk, part, taken, weight) in enumerate(passes):
            seed_torch(self.accelerator.device, self.recipe.seed, "dropout", step, chunk, part, *anew)
            last = position == len(passes) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.wrapped):
                with self.forward.kernels():
                    loss = self.method.loss(self.wrapped, self.forward.batch(taken)) * weight
                self.accelerator.backward(loss)
            total += loss.detach()
            # Only in the first round: between rounds a method may have changed the weights.
            if not last and number == 1 and self.accelerator.num_processes == 1:
                self._stop_where_asked()
        return total

    def evaluate(self) -> dict[str, Evaluation]:
        """Evaluate every split but the training one; the ranks share the work, and each gets the whole result."""
        from dpstune.evaluation.scoring import evaluate_split, score

        started = time.perf_counter()
        alone = self.accelerator.num_processes == 1  # between batches, several ranks could not stop together
        evaluations = {}
        try:
            with self._as_finished():
                for split in self.eval_splits:
                    logits = score(
                        self.wrapped,
                        self.datasets[split],
                        width=max(1, len(self.task.label_names)),
                        batch_size=self.recipe.training.eval_batch_size,
                        device=self.accelerator.device,
                        value_layer=self.value_layer,
                        longest=self.recipe.data.max_length if self.forward.cost.few_shapes else None,
                        share=(self.accelerator.process_index, self.accelerator.num_processes),
                        between_batches=self._leave_evaluation_where_asked if alone else None,
                    )
                    logits = self.accelerator.reduce(logits.to(self.accelerator.device), "sum").cpu()
                    evaluations[split] = evaluate_split(self.task, split, logits)
        except _StopAskedError:  # only here is the model again what a run continues from
            self._stop_where_asked()
            raise
        self.state.other_seconds += time.perf_counter() - started
        return evaluations

    @contextmanager
    def _as_finished(self) -> Iterator[None]:
        """Have the model, inside the ``with`` block, as ``finish`` would leave it; then put it back, to the bit."""
        with self.words.whole(), self.method.as_detached(), self.values.as_detached():
            yield

    def save(self) -> None:
        """Write a checkpoint of the state after the last finished step; the main process writes.

        Raises:
            DivergedError: A weight is not finite: nothing would come of going on from there.
        """
        from dpstune.training.losses import refuse_infinite_weights

        if self.saved_step == self.state.step:
            return
        self._read_losses()
        refuse_infinite_weights(self.model, self.state.step)
        self._note_peak_memory()
        if self.accelerator.is_main_process:
            self.log.sync()
            scaler = self.accelerator.scaler
            saved = {
                "loop": asdict(self.state),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "scaler": None if scaler is None else scaler.state_dict(),
                "method": loadable_state(self.method),
                "words": self.words.factor,
                "word_ids": self.words.ids,
                "pass_cost": asdict(self.forward.cost),
                "metrics_bytes": self.log.size,
            }
            with self.words.whole():
                self.checkpoints.save(self.state.step, self.model, saved)
            self.best_weights.drop_unneeded(self.checkpoints.states())
        self.saved_step = self.state.step
        self.accelerator.wait_for_everyone()

    def _save_after_the_last_step(self) -> None:
        """Write a checkpoint, in case the results cannot be written; go on without one: they take less room."""
        try:
            self.save()
        except DivergedError:
            raise
        except RunError as error:
            why = error.__cause__ or error
            self.progress.note(f"no checkpoint was written after the last step, and a finished run needs none ({why})")
            self.accelerator.wait_for_everyone()  # the other ranks wait in ``save``

    def keep_divergence(self, recipe_name: str, error: DivergedError) -> None:
        """Write that training has come to nothing, which counts where restarts are compared; see ``RunRecord``.

        Then drop the checkpoints: what goes on from them comes to nothing, too.
        """
        from dpstune.common.writing import write_json

        if self.accelerator.is_main_process:
            reached = {"steps": self.state.step, "seconds": round(self.state.seconds, 3), "error": str(error)}
            write_json(self.folder.diverged, {**self._what_was_run(recipe_name), **reached})
            self.checkpoints.clear()

    def _what_was_run(self, recipe_name: str) -> dict[str, Any]:
        from dpstune.training.results import what_was_run

        ranks = self.accelerator.num_processes
        known = what_was_run(recipe_name, self.recipe, self.task, self.headline_split, ranks)
        return {**known, "ended": datetime.now().astimezone().isoformat(timespec="seconds")}

    def _note_peak_memory(self) -> None:
        from dpstune.device.hardware import peak_memory_bytes

        held = peak_memory_bytes(self.accelerator.device)
        self.state.peak_memory_bytes = max(self.state.peak_memory_bytes, held)

    def finish(self, recipe_name: str, evaluations: dict[str, Evaluation], *, keep_model: bool) -> dict[str, Any]:
        """Write predictions, the model folder if asked for, and result.json; then drop the checkpoints.

        Args:
            recipe_name: The recipe's name.
            evaluations: Those after the last step; where the best evaluation's weights are kept, theirs take the place.
            keep_model: See ``train``.
        """
        from dpstune.common.writing import write_json
        from dpstune.evaluation.scoring import prediction_columns
        from dpstune.runs.folder import write_predictions
        from dpstune.training.model_card import save_model_folder
        from dpstune.training.results import build_result

        steps = self.state.step
        scaling = self.losses.scaling(steps)
        if scaling is not None and scaling["skipped_steps"]:
            skipped = scaling["skipped_steps"]
            self.progress.note(f"{skipped} of {steps} steps overflowed fp16 and were skipped")
        method_bytes = self.method.held_bytes()
        self.method.detach()
        self.words.restore()
        self.values.detach()
        self._refuse_other_keys()
        last = {split: evaluation.metrics for split, evaluation in evaluations.items()}
        kept_step = self.state.best["step"] if self.recipe.training.keep == "best" and self.state.best else steps
        if kept_step != steps:
            self.best_weights.load(kept_step, self.model)
            evaluations = self.evaluate()
        self._note_peak_memory()
        model = self.accelerator.unwrap_model(self.wrapped, keep_fp32_wrapper=False)
        model = getattr(model, "_orig_mod", model)
        result = build_result(
            self._what_was_run(recipe_name),
            chooses=self.recipe.training.keep == "best",
            kept={"step": kept_step, "metrics": {split: each.metrics for split, each in evaluations.items()}},
            last={"step": steps, "metrics": last},
            best=self.state.best,
            steps=steps,
            stopped_early=self.state.stopped and steps < self.total_steps,
            steps_per_epoch=self.plan.steps_per_epoch,
            seconds=self.state.seconds,
            other_seconds=self.state.other_seconds,
            tokens=self.state.tokens,
            peak_memory_bytes=self.state.peak_memory_bytes,
            method_bytes=method_bytes,
            loss_scaling=scaling,
        )
        if self.accelerator.is_main_process:
            for split, evaluation in evaluations.items():
                write_predictions(self.folder.predictions(split), prediction_columns(self.task, evaluation))
            if keep_model:
                save_model_folder(self.folder.model, model, self.tokenizer, self.recipe, self.task, result)
            write_json(self.folder.result, result)
            self.checkpoints.clear()
        self.accelerator.wait_for_everyone()
        return result

    def _refuse_other_keys(self) -> None:
        """Refuse a model in which a method has left something, or taken something out: nothing would load it."""
        if other := self._keys ^ self.model.state_dict().keys():
            raise RunError(
                f"method {self.method.config.name} should leave the model's weights under the names that they had; "
                f"{min(other)!r} is new, or gone"
            )

    def _prepare_method(self) -> None:
        """Let the method see the first epoch before step 1; each rank shows it its share."""
        from dpstune.device.hardware import wait_for

        started = time.perf_counter()
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        first_epoch = range(1 + rank, self.plan.steps_per_epoch + 1, ranks)
        with self.forward.kernels():
            self.method.prepare(self.model, (self._training_data(step) for step in first_epoch))
        wait_for(self.accelerator.device)
        self.state.other_seconds += time.perf_counter() - started

    def _narrow_words(self) -> AllWords:
        """On a CPU, train only those word embeddings that the training examples use; see ``UsedWords``."""
        from dpstune.models.vocabulary import AllWords, narrow
        from dpstune.training.forward import has_own_kernels

        saved = {} if self.checkpoint is None else self.checkpoint.state
        begun_otherwise = self.checkpoint is not None and saved.get("words") is None
        if self.method.whole_embeddings or begun_otherwise or not has_own_kernels(self.recipe, self.accelerator):
            return AllWords()
        return narrow(self.model, self.datasets["train"].token_ids(), begun_with=saved.get("word_ids"))

    def _read_losses(self) -> None:
        """Read and log the losses of finished steps; the time to wait for the device is training time."""
        started = time.perf_counter()
        self.log.losses(self.losses.read())
        self.state.seconds += time.perf_counter() - started

    def _settle_determinism(self) -> str | None:
        """On a GPU, find out whether the model trains with deterministic kernels (see ``settle``); elsewhere None."""
        from dpstune.device.determinism import settle

        if self.accelerator.device.type != "cuda":
            return None
        with self.accelerator.autocast():
            return settle(self.model, self._first_loss)

    def _freeze_unused(self) -> None:
        """Freeze what training never uses (see ``freeze_unused``): processes wait for each other's gradients of it."""
        from dpstune.training.unused import freeze_unused

        with self.accelerator.autocast():
            unused = freeze_unused(self.model, self._first_loss)
        if unused:
            self.progress.note(f"not trained, since several processes train and no loss hangs on it: {some_of(unused)}")

    def _first_loss(self) -> Tensor:
        """Return the loss of step 1's first forward pass, the same on every rank but for dropout."""
        first = self.forward.cut(self.plan.chunks(1)[0])[0]
        return self.method.loss(self.model, self.forward.batch(first))

    def _newest_checkpoint(self) -> Checkpoint | None:
        """Find the newest checkpoint that is whole; the main process looks first, and renames what is damaged."""
        with self.accelerator.main_process_first():
            checkpoint, notes = self.checkpoints.newest(self._has_its_best_weights)
        for note in notes:
            self.progress.note(note)
        return checkpoint

    def _has_its_best_weights(self, state: dict[str, Any]) -> bool:
        best = state["loop"]["best"]
        return self.recipe.training.keep == "last" or not best or self.best_weights.has(best["step"])

    def _training_data(self, step: int) -> Iterator[tuple[dict[str, Tensor], float]]:
        """Yield a batch per forward pass of a step, with its share of the step's examples and its own dropout."""
        chunks = self.plan.chunks(step)
        passes = [taken for chunk in chunks for taken in self.forward.cut(chunk)]
        for number, taken in enumerate(passes):
            self.watch.end_if_asked()
            seed_torch(self.accelerator.device, self.recipe.seed, "prepare", step, number)
            yield self.forward.batch(taken), len(taken.indices) / sum(map(len, chunks))

    def _evaluation_due(self, step: int) -> bool:
        is_between = step > 0 and step % self.evaluation_interval == 0
        return bool(self.eval_splits) and (step == self.total_steps or is_between)

    def _save_due(self, step: int) -> bool:
        interval = self.recipe.training.save_every
        return interval is not None and step > 0 and step % interval == 0

    def _leave_evaluation_where_asked(self) -> None:
        """Leave an evaluation if a signal came."""
        if self.watch.received is not None:
            raise _StopAskedError

    def _stop_where_asked(self) -> None:
        """Write a checkpoint and end the run if a signal came; in a distributed run all ranks decide together."""
        number = self.watch.received or 0
        if self.accelerator.num_processes > 1:
            if not self.losses.at_reading_point(self.state.step):
                return
            import torch

            votes = self.accelerator.gather(torch.tensor([number], device=self.accelerator.device))
            number = int(votes.max())
        if number == 0:
            return
        if self.state.step == 0:
            raise Interrupted(number, "interrupted before the first step was finished; nothing was lost")
        self.optimizer.zero_grad()
        self.save()
        raise Interrupted(
            number,
            f"interrupted after step {self.state.step} of {self.total_steps}; "
            "a checkpoint was written and the same command continues from it",
        )

    def _record(self, evaluations: dict[str, Evaluation]) -> None:
        """Log evaluations, keep what belongs to the best so far, and end the run where none was for too long."""
        step, training = self.state.step, self.recipe.training
        self.log.evaluations(step, evaluations)
        headline = None
        if self.headline_split is not None:
            headline = next(iter(evaluations[self.headline_split].metrics.values()))
        best = self.state.best
        if headline is not None and (not best or better(self.task.metric, headline, best["value"])):
            metrics = {split: evaluation.metrics for split, evaluation in evaluations.items()}
            self.state.best = {"step": step, "value": headline, "metrics": metrics}
            self.state.stale = 0
            if training.keep == "best":
                if self.accelerator.is_main_process:
                    with self._as_finished():
                        self.best_weights.save(step, self.model)
                    self.best_weights.drop_unneeded(self.checkpoints.states())
                self.accelerator.wait_for_everyone()
        else:
            self.state.stale += 1
        if training.patience is not None and self.state.stale >= training.patience:
            self.state.stopped = True
            if step < self.total_steps:
                self.progress.note(self._why_stopped())
        self.state.evaluated_step = step

    def _why_stopped(self) -> str:
        best = self.state.best
        since = f"since step {best['step']} ({best['value']:.4f})" if best else "so far"
        return (
            f"stopped early after step {self.state.step} of {self.total_steps}: no better {self.task.metric} on "
            f"{self.headline_split} {since}"
        )
