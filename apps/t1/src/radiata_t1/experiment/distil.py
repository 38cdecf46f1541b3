"""`radiata-t1 distil`: a student that draws a head in one to eight evaluations."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.checkpoint import LoadedModel
    from radiata_core.denoisers import NetworkDenoiser
    from radiata_core.train import TrainOptions

__all__ = ["Distil"]


@dataclass(frozen=True)
class Distil:
    """Distil a T1 model into a student of few evaluations.

    ctm: a flow map learns to jump, from the heads of a store and the teacher's own steps (consistency trajectories with
    denoising score matching). reflow: the teacher draws pairs of noise and head into --pairs first, and the student learns
    the straight flow between them (SlimFlow's annealed reflow). Both start from the teacher's weights. Resumable to the bit.
    A stage of a cascade (`train --stage`) is distilled by ctm too, on blocks of the store, guided if there is a worse run.

    Example: radiata-t1 distil --store cohort.h5 --out runs/ctm --steps 500
    """

    out: Path
    """The run's folder."""
    method: Literal["ctm", "reflow"] = "ctm"
    """Consistency trajectories, or annealed reflow on pairs."""
    model: str = "rflow-4mm"
    """The teacher: a shipped model's name, a .safetensors file, or a run folder."""
    worse: str | None = None
    """For a stage: an earlier or smaller run of it; the student learns the teacher guided by it."""
    guidance: float = 1.3
    """Weight of that guidance; 1 is none."""
    fresh: bool = False
    """For a stage: sample draws all noise anew between its jumps, which mends errors and costs some of the finest detail."""
    start: str | None = None
    """An earlier student to go on from, of the same method; none starts from the teacher's weights."""
    store: Path | None = None
    """Store of heads (ctm); reflow takes the conditions of its pairs from it, and has none without."""
    pairs: Path | None = None
    """Folder of pairs (reflow); what is missing of --pair-count is drawn."""
    pair_count: int = 480
    """Pairs to train on."""
    pair_steps: int = 20
    """Steps of UniPC with which the teacher draws a head of a pair."""
    rank: int = 32
    """Components of the teacher's Gaussian anchor that the student keeps."""
    grid_steps: int = 10
    """Steps of the time grid of ctm, even in t."""
    depth: int = 3
    """Most steps of the teacher before the student takes over (ctm)."""
    denoising_rows: int = 1
    """Rows of each batch on which the student stays a denoiser (ctm)."""
    denoising_weight: float = 0.5
    """Weight of that term; both terms are errors of a velocity."""
    from_noise: float = 0.3
    """Probability that a jump starts from pure noise (ctm)."""
    to_data: float = 0.5
    """Probability that a jump ends at the head (ctm)."""
    anneal: float = 0.5
    """Share of the run after which the noise of a pair is no longer mixed with fresh noise (reflow)."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 4
    """Heads of one step, over all processes."""
    accumulate: int = 1
    """Pieces a process cuts its batch into, to save memory."""
    learning_rate: float = 4e-4
    """Step size after the warm-up."""
    warmup: int = 30
    """Steps of linear warm-up."""
    cosine: bool = True
    """The step size falls along a half cosine to the last step; --no-cosine keeps it constant after the warm-up."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no limit."""
    ema: tuple[float, ...] = (0.05, 0.10)
    """Relative widths of the averages of the weights; the first becomes model.safetensors."""
    condition_dropout: float = 0.15
    """Probability that a head's covariates are all hidden from student and teacher (ctm; half the pairs have none)."""
    covariate_dropout: float = 0.2
    """Probability that a single covariate is hidden (ctm)."""
    seed: int = 0
    """Seed of order, times, noise and dropout."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; bf16 is slow on most CPUs."""
    workers: int = 0
    """Processes that read data."""
    log_every: int = 20
    """Steps between two log lines."""
    checkpoint_every: int = 50
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    tensorboard: bool = True
    """TensorBoard curves are written; --no-tensorboard leaves them out."""
    max_minutes: float | None = None
    """Stop with a checkpoint after this time."""
    resume: bool = False
    """Go on from the newest valid checkpoint."""
    overwrite: bool = False
    """Replace an earlier run in the folder."""
    dry_run: bool = False
    """Print options and sizes, and stop."""

    def run(self) -> None:
        import torch

        from radiata_core.checkpoint import load_model
        from radiata_core.runs import Run, sha256
        from radiata_core.train import train
        from radiata_imaging.store import Store
        from radiata_t1.model.students import earlier_student, student_of
        from radiata_t1.model.weights import find_model

        self._check()
        file = find_model(self.model)
        loaded = load_model(file)
        if hasattr(loaded.denoiser, "corruption"):
            from radiata_t1.experiment.stages import distil_stage

            distil_stage(self, loaded, file)
            return
        if self.worse is not None or self.fresh:
            raise InputError(
                "expected --worse and --fresh for a stage of a cascade; got another teacher. Leave them out."
            )
        teacher: Any = loaded.denoiser.eval()
        teacher.requires_grad_(False)
        first = None if self.start is None else load_model(find_model(self.start))
        student: Any = (
            student_of(teacher, self.method, self.rank)
            if first is None
            else earlier_student(first.denoiser, teacher, self.method)
        )
        for network in (teacher.network, student.network):
            network.to(memory_format=torch.channels_last_3d)
        count = sum(value.numel() for value in student.state_dict().values())
        if self.dry_run:
            for name, value in self.__dict__.items():
                print(f"{name}: {value}")
            print(f"student: {count} numbers, {2 * count / 1e6:.1f} MB in half precision")
            return
        with Run(
            self.out,
            "radiata-t1 distil",
            self,
            seed=self.seed,
            data={file.name: sha256(file)}
            | ({self.store.name: Store(self.store).store_id} if self.store else {}),
            overwrite=self.overwrite,
            resume=self.resume,
        ) as run:
            run.note(numbers=count)
            data, people, source = self._data(loaded)
            trained = train(
                student,
                self._objective(teacher),
                data,
                self.out,
                self._options(),
                metadata=self._metadata(loaded, file, source, first),
                groups=people,
            )
        if not trained.finished:
            print(f"stopped at step {trained.step} of {self.steps}; go on with --resume")
        print(trained.models[0])

    def _check(self) -> None:
        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        needed = "store" if self.method == "ctm" else "pairs"
        if getattr(self, needed) is None:
            raise InputError(
                f"expected --{needed} for --method {self.method}; got none. Pass --{needed} PATH."
            )

    def _data(self, loaded: "LoadedModel") -> tuple[Any, list[int] | None, dict[str, Any]]:
        """Items, their people, and what the metadata says of them."""
        from radiata_imaging.store import Store
        from radiata_t1.data.covariates import CovariateScale
        from radiata_t1.data.training import TrainingHeads, people_of

        if self.store is None:
            return *self._pairs(loaded, None), {}
        store = Store(self.store)
        scale = CovariateScale.from_metadata(loaded.metadata)
        absent = [name for name in scale.names if name not in store.covariate_names]
        if absent or tuple(loaded.metadata["shape"]) != store.shape:
            raise InputError(
                f"expected a store of {tuple(loaded.metadata['shape'])} with the teacher's covariates; got {store.shape}, "
                f"without {', '.join(absent) or 'none'}. Use the store it was trained on."
            )
        columns = [store.covariate_names.index(name) for name in scale.names]
        people = people_of(store, "train")
        source = {"store": self.store.name, "store_id": store.store_id, "people": len(set(people))}
        if self.method == "reflow":
            known = scale.standardise(store.covariates[store.indices("train")][:, columns])
            return *self._pairs(loaded, known), source
        return TrainingHeads(store, "train", scale, columns, in_memory=True), people, source

    def _pairs(self, loaded: "LoadedModel", known: Any) -> tuple[Any, None]:
        import torch
        from accelerate import PartialState

        from radiata_t1.data.pairs import drawn_pairs

        assert self.pairs is not None
        state = PartialState(cpu=self.device == "cpu")
        options: dict[str, Any] = {"known": known, "batch": self.batch_size}
        wanted = (loaded, self.pairs, self.pair_count, self.pair_steps)
        if state.num_processes > 1:
            mine = slice(state.process_index, None, state.num_processes)
            if range(self.pair_count)[mine]:
                drawn_pairs(
                    *wanted, **options, shard=(state.process_index, state.num_processes), device=state.device
                )
            state.wait_for_everyone()
        data = drawn_pairs(*wanted, **options, device=state.device)
        loaded.denoiser.to(torch.device("cpu"))
        return data, None

    def _objective(self, teacher: "NetworkDenoiser") -> Any:
        from radiata_core.objectives import Regression
        from radiata_core.times import LinearGrid, LogNormalSNR

        if self.method == "reflow":
            from radiata_core.rectification import annealed_reflow

            return annealed_reflow(max(1, round(self.anneal * self.steps)), path=teacher.path)
        from radiata_core.flowmap_objectives import ConsistencyTrajectory, average_velocity_weight

        return ConsistencyTrajectory(
            teacher,
            LinearGrid(),
            self.grid_steps,
            self.depth,
            weight=average_velocity_weight,
            from_noise=self.from_noise,
            to_data=self.to_data,
            denoising=Regression(teacher.path, LogNormalSNR(-0.3, 1.4), target=teacher.prediction),
            denoising_rows=self.denoising_rows,
            denoising_weight=self.denoising_weight,
        )

    def _options(self) -> "TrainOptions":
        from radiata_core.train import TrainOptions

        names = {f.name for f in dataclasses.fields(TrainOptions)}
        values = {name: value for name, value in self.__dict__.items() if name in names}
        if self.method == "reflow":  # a pair's head was drawn with just these conditions
            values |= {"condition_dropout": 0.0, "covariate_dropout": 0.0}
        return TrainOptions(**values)

    def _metadata(
        self, loaded: "LoadedModel", file: Path, source: dict[str, Any], first: "LoadedModel | None"
    ) -> dict[str, Any]:
        before = {} if first is None else {"started_from_sha256": first.sha256}
        sampler = "flow-map" if self.method == "ctm" else "ddim"
        return dict(loaded.metadata) | {
            "sampling": {"sampler": sampler, "grid": "linear", "steps": 4},
            "distillation": {
                "method": self.method,
                "teacher": file.stem,
                "teacher_sha256": loaded.sha256,
                **(
                    {"pairs": self.pair_count, "pair_steps": self.pair_steps}
                    if self.method == "reflow"
                    else {}
                ),
                **source,
                **before,
            },
        }
