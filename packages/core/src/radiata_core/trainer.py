"""The state of one training run on one process, and its steps: see `train` for what is promised."""

import contextlib
import dataclasses
import io
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch.utils.data import DataLoader

from radiata_core.checkpoint import save_model
from radiata_core.checkpoints import Checkpoints
from radiata_core.ema import EMA
from radiata_core.errors import InputError
from radiata_core.feeding import DROPOUT, HIDE, NOISE, VALIDATE, AddressedRows, StepBatches, split_batch
from radiata_core.logs import Progress
from radiata_core.orders import Order, rows_of_process
from radiata_core.runs import Interrupted
from radiata_core.seeds import generator_of, generators_of, seed_of
from radiata_core.signals import StopSignal
from radiata_core.specs import describe
from radiata_core.train_options import TrainOptions, hide, learning_rate
from radiata_core.training_log import TrainingLog

__all__ = ["Objective", "Trained", "Trainer", "held_modules"]

_EDGES = (-4.0, -2.0, 0.0, 2.0, 4.0)


@runtime_checkable
class Objective(Protocol):
    """A loss with `.value` (), `.per_sample` (batch,) and `.t` (batch,), e.g. `objectives.Regression`.

    Three attributes are optional. `at(step)` gives the objective of a step, for one that changes in a run: a function of
    the step alone, so that a resumed run is the same run. `companions` names entries of the items that are not conditions
    (the noise a head is paired with): they are passed on in full, never hidden by dropout. `beside` is a module with what is
    trained or kept beside the denoiser (a projector, a moving teacher): it shares the optimiser and the checkpoints, and is
    neither in the averages nor in the models that are written.
    """

    def __call__(
        self,
        denoiser: Any,
        x0: torch.Tensor,
        generators: Sequence[torch.Generator],
        **conditions: Any,
    ) -> Any: ...


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        step: Optimiser steps done.
        finished: False if `max_minutes` ended it.
        models: Weights written, the first EMA length first.
    """

    step: int
    finished: bool
    models: tuple[Path, ...]


def held_modules(held: Any) -> list[torch.nn.Module]:
    """The modules an objective keeps beside the student (a teacher, a discriminator), in fields, sequences or both."""
    if isinstance(held, torch.nn.Module):
        return [held]
    if dataclasses.is_dataclass(held) and not isinstance(held, type):
        held = [getattr(held, field.name) for field in dataclasses.fields(held)]
    if isinstance(held, Sequence) and not isinstance(held, str):
        return [module for item in held for module in held_modules(item)]
    return []


def _at(objective: Any, step: int) -> Objective:
    """The objective of a step."""
    return objective.at(step) if hasattr(objective, "at") else objective


class _LossModule(torch.nn.Module):
    """The loss as a module: what DDP and mixed precision wrap is its forward."""

    def __init__(self, denoiser: torch.nn.Module, objective: Objective, beside: torch.nn.Module) -> None:
        super().__init__()
        self.denoiser, self.objective, self.beside = denoiser, objective, beside

    def forward(self, x0, generators, conditions, step):
        loss = _at(self.objective, step)(self.denoiser, x0, generators, **conditions)
        return loss.value, loss.per_sample, loss.t


class Trainer:
    """The state of one training run on one process."""

    def __init__(
        self,
        denoiser: torch.nn.Module,
        objective: Objective,
        folder: Path,
        options: TrainOptions,
        metadata: dict[str, Any],
    ) -> None:
        from accelerate import Accelerator

        self.options, self.objective, self.folder, self.metadata = options, objective, folder, metadata
        self.accelerator = Accelerator(cpu=options.device == "cpu", mixed_precision=options.precision)
        self.main = self.accelerator.is_main_process
        self.positions = rows_of_process(
            options.batch_size,
            options.accumulate,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        self.denoiser = denoiser.to(self.accelerator.device)
        for module in held_modules(objective):
            module.to(self.accelerator.device)
        self.beside: torch.nn.Module = getattr(objective, "beside", torch.nn.ModuleList())
        optimizer = torch.optim.AdamW(
            [*denoiser.parameters(), *(p for p in self.beside.parameters() if p.requires_grad)],
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
        )
        self.model, self.optimizer = self.accelerator.prepare(
            _LossModule(self.denoiser, objective, self.beside), optimizer
        )
        self.ema = EMA(self.denoiser, options.ema)
        self.step = 0
        self.unchecked: list[tuple[int, torch.Tensor]] = []
        self.checkpoints = Checkpoints(folder / "checkpoints", options.keep)
        self._restore()
        self.log = TrainingLog(folder, self.step, self.main, options.tensorboard)

    # -- state -------------------------------------------------------------------------------------------------

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run to be the same run."""
        names = (
            "seed",
            "batch_size",
            "learning_rate",
            "warmup",
            "cosine",
            "weight_decay",
            "betas",
            "clip",
            "ema",
            "condition_dropout",
            "covariate_dropout",
            "precision",
        )
        return {"denoiser": describe(self.denoiser)} | {
            name: describe(getattr(self.options, name)) for name in names
        }

    def _restore(self) -> None:
        if not self.options.resume:
            if any(self.checkpoints.folders()):
                raise InputError(
                    f"expected a folder without checkpoints; got {self.checkpoints.folder}. "
                    "Pass --resume to go on, or choose another --out."
                )
            return
        state = self.checkpoints.newest()
        if state is None:
            return
        for name, value in self._identity().items():
            if state["identity"].get(name) != value:
                raise InputError(
                    f"expected to resume with the same {name}; got {value}, the checkpoint has "
                    f"{state['identity'].get(name)}. Keep it or choose another --out."
                )
        self.step = int(state["step"])
        if self.main:
            self.checkpoints.tidy(self.step)
        self.denoiser.load_state_dict(state["model"])
        self.beside.load_state_dict(state.get("beside", {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def save(self) -> None:
        """Write a checkpoint of the present step, unless a loss since the last one was not finite."""
        self.check_losses()
        if self.main:
            scaler = self.accelerator.scaler
            beside = self.beside.state_dict()
            self.checkpoints.write(
                self.step,
                ({"beside": beside} if beside else {})
                | {
                    "step": self.step,
                    "identity": self._identity(),
                    "model": self.denoiser.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "ema": self.ema.state_dict(),
                    "scaler": None if scaler is None else scaler.state_dict(),
                },
            )
        self.accelerator.wait_for_everyone()

    def check_losses(self) -> float:
        """Mean loss since the last check; read here and not at every step, since reading waits for the GPU."""
        values = [(step, float(loss)) for step, loss in self.unchecked]
        for step, value in values:
            if not math.isfinite(value):
                raise InputError(
                    f"expected a finite loss; got {value} at step {step}. "
                    "The last checkpoint is kept: use a smaller --learning-rate, or --precision no."
                )
        self.unchecked.clear()
        return sum(value for _, value in values) / max(1, len(values))

    # -- work --------------------------------------------------------------------------------------------------

    def fit(self, dataset: Any, order: Order, validation: Any, stop: StopSignal) -> Trained:
        """Do the steps that are left, with their log, validations and checkpoints, and write the models.

        Raises:
            InputError: a loss is not finite.
            Interrupted: `stop` was asked for; the step is finished and saved.
        """
        options = self.options
        began = said = time.monotonic()
        said_step = self.step
        loader = iter(
            DataLoader(
                AddressedRows(dataset, options.seed),
                batch_sampler=StepBatches(
                    order, range(self.step, options.steps), options.batch_size, self.positions
                ),
                num_workers=options.workers,
                pin_memory=self.accelerator.device.type == "cuda",
                generator=generator_of(options.seed, DROPOUT),
            )
        )
        saved, asked = self.step, False
        stream = None if self.main else io.StringIO()
        with Progress(options.steps, "train", start=self.step, stream=stream) as bar:
            while self.step < options.steps:
                norm = self.one_step(loader)
                bar.update()
                if self.step % options.log_every == 0 or self.step == options.steps:
                    loss = self.check_losses()
                    now = time.monotonic()
                    rate = (self.step - said_step) * options.batch_size / max(1e-9, now - said)
                    said, said_step = now, self.step
                    bar.update(0, loss=loss)
                    self.log.write(
                        self.step,
                        loss=loss,
                        gradient_norm=float(norm),
                        learning_rate=learning_rate(self.step - 1, options),
                        rows_per_second=round(rate, 3),
                    )
                if validation is not None and (
                    self.step % options.validate_every == 0 or self.step == options.steps
                ):
                    self.validate(validation)
                late = options.max_minutes is not None and time.monotonic() - began > 60 * options.max_minutes
                # A signal may have come to one process alone.
                asked = self.agreed(stop.number is not None)
                ending = asked or self.agreed(late)
                if self.step % options.checkpoint_every == 0 or self.step == options.steps or ending:
                    self.save()
                    saved = self.step
                if ending:
                    break
        if asked and self.step < options.steps:
            raise Interrupted(f"step {saved} is saved in {self.checkpoints.folder}; go on with --resume")
        return Trained(self.step, self.step >= options.steps, self.export())

    def agreed(self, mine: bool) -> bool:
        """True on every process if true on one."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor([float(mine)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item() > 0)

    def one_step(self, loader: Any) -> torch.Tensor:
        """One optimiser step; the norm of its gradient."""
        options, accelerator = self.options, self.accelerator
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, options)
        total = torch.zeros((), device=accelerator.device)
        for index, positions in enumerate(self.positions):
            x0, conditions = split_batch(next(loader), accelerator.device)
            rows = [self.step * options.batch_size + p for p in positions]
            companions = {
                name: conditions.pop(name)
                for name in getattr(self.objective, "companions", ())
                if name in conditions
            }
            conditions = hide(conditions, self._generators(HIDE, rows), options) | companions
            # The masks of dropout layers come from torch's global generator, which `train` restores at its end.
            torch.manual_seed(seed_of(options.seed, DROPOUT, rows[0]))
            last = index == len(self.positions) - 1
            with _synchronised(accelerator, self.model, last):
                value = self.model(x0, self._generators(NOISE, rows), conditions, self.step)[0] / len(
                    self.positions
                )
                accelerator.backward(value)
            total += value.detach()
        norm = accelerator.clip_grad_norm_(
            self.model.parameters(), options.clip if options.clip > 0 else math.inf
        )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.unchecked.append((self.step, self.accelerator.reduce(total, "mean")))
        if options.precision != "fp16":  # a step the scaler skips has an infinite norm, which is no fault
            self.unchecked.append((self.step, norm * 0 + self.unchecked[-1][1]))
        self.ema.update(self.denoiser)
        return norm

    def _generators(self, purpose: int, rows: Sequence[int]) -> list[torch.Generator]:
        return [generator_of(self.options.seed, purpose, row) for row in rows]

    @torch.no_grad()
    def validate(self, validation: Any) -> None:
        """Held-out loss of the first average, whole and by bins of log-SNR, with the same times and noise each time."""
        options, accelerator = self.options, self.accelerator
        objective = _at(self.objective, self.step)
        path = getattr(objective, "path", None)
        sums = torch.zeros(len(_EDGES) + 1, 2, dtype=torch.float64)
        self.model.eval()
        mine = range(accelerator.process_index, len(validation), accelerator.num_processes)
        applied = self.ema.applied(self.denoiser) if self.ema.lengths else contextlib.nullcontext()
        with applied:
            for item in mine:
                single = torch.utils.data.default_collate([validation[item]] * options.validation_draws)
                x0, conditions = split_batch(single, accelerator.device)
                generators = generators_of(range(options.validation_draws), VALIDATE, item)
                conditions = {name: value.float() for name, value in conditions.items()}
                with accelerator.autocast():
                    loss = objective(self.denoiser, x0, generators, **conditions)
                bins = torch.zeros(len(loss.t), dtype=torch.long)
                if path is not None:
                    bins = torch.bucketize(path.log_snr(loss.t.double().cpu()), torch.tensor(_EDGES).double())
                sums[:, 0].index_add_(0, bins, loss.per_sample.double().cpu())
                sums[:, 1].index_add_(0, bins, torch.ones(len(bins), dtype=torch.float64))
        self.model.train()
        sums = accelerator.reduce(sums.float().to(accelerator.device), "sum").double().cpu()
        figures = {"validation_loss": float(sums[:, 0].sum() / sums[:, 1].sum().clamp(min=1))}
        if path is not None:
            edges = ("-inf", *(f"{edge:g}" for edge in _EDGES), "inf")
            for index, (total, count) in enumerate(sums.tolist()):
                if count:
                    figures[f"validation_loss_log_snr_{edges[index]}_{edges[index + 1]}"] = total / count
        self.log.write(self.step, **figures)

    def export(self) -> tuple[Path, ...]:
        """The models: one a length, or the last weights where no average was asked for."""
        lengths: tuple[float | None, ...] = self.ema.lengths or (None,)
        names = ["model.safetensors", *(f"model-ema-{length:g}.safetensors" for length in lengths[1:])]
        paths = tuple(self.folder / name for name in names)
        if self.main:
            for path, length in zip(paths, lengths, strict=True):
                applied = (
                    self.ema.applied(self.denoiser, length)
                    if length is not None
                    else contextlib.nullcontext()
                )
                with applied:
                    save_model(
                        path, self.denoiser, metadata=self.metadata | {"step": self.step, "ema": length}
                    )
        self.accelerator.wait_for_everyone()
        return paths


def _synchronised(accelerator: Any, model: torch.nn.Module, now: bool):
    """Gradients are averaged over the processes with the last piece only."""
    return contextlib.nullcontext() if now else accelerator.no_sync(model)
