"""`radiata-t1 train STORE --out RUN`: every prediction type, on one CPU or under `accelerate launch`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.aggregated_denoisers import AggregatedDenoiser
    from radiata_core.denoisers import NetworkDenoiser
    from radiata_core.objectives import Regression
    from radiata_core.train import TrainOptions
    from radiata_imaging.store import Store
    from radiata_t1.data.covariates import CovariateScale
    from radiata_t1.model.predictions import PredictionType

__all__ = ["Train"]


@dataclass(frozen=True)
class Train:
    """Train a T1 model on the training people of a store; validate on the validation people.

    Resumable to the bit: a run that was killed and continued with --resume ends in the same weights. Ctrl-C and SIGTERM
    save first. Several GPUs: accelerate launch $(which radiata-t1) train ... --device auto.

    Example: radiata-t1 train cohort.h5 --out runs/rflow --prediction rflow --steps 3000
    """

    store: Annotated[Path, tyro.conf.Positional]
    """Store written by prepare or cohort."""
    out: Path
    """The run's folder."""
    preset: Path | None = None
    """TOML file of options; options given on the command line go first where they differ from the default."""
    prediction: Literal["sample", "epsilon", "velocity", "flow", "rflow"] = "rflow"
    """What the network predicts: velocity is Salimans-Ho v, flow is eps - x0 (as sample and epsilon on MedForJ's VP path);
    rflow is dx/dt on the linear path."""
    network: Literal["unet", "medforj"] = "unet"
    """unet: this house's; medforj: the 41-million-parameter network, without covariates or anchor."""
    channels: tuple[int, ...] = (24, 64, 128)
    """Channels a level of unet, finest first."""
    down_blocks: tuple[int, ...] = (0, 1, 1)
    """Residual blocks a level on the way down."""
    up_blocks: tuple[int, ...] = (1, 2, 2)
    """Residual blocks a level on the way up."""
    rank: int = 96
    """Components of the closed-form Gaussian anchor; 0 for none."""
    positions: bool = True
    """Learned positions bind the network to the store's grid; --no-positions leaves them out."""
    stage: Literal["8mm", "4mm", "2mm", "1mm"] | None = None
    """Train a stage of a cascade that draws voxels of this size given voxels twice as large, on blocks of a store at this
    spacing or a whole fraction of it; see the presets t1-stage-*.toml."""
    block: int = 24
    """Coarse voxels of a block along each axis (--stage)."""
    corruption: float = 0.15
    """Largest sd of the noise on the coarse voxels (--stage): a drawn coarse head then serves as well as a measured one."""
    init: str | None = None
    """Start from the network of a model (name, file or run) of any prediction type; the anchor is fitted on this store."""
    time_law: Literal["log-normal", "uniform"] = "log-normal"
    """Law of the training times: log-normal noise-to-signal ratio, or uniform as MedForJ's."""
    time_mean: float = -0.3
    """Mean of log(sigma/alpha) under the log-normal law; more is more noise."""
    time_sd: float = 1.4
    """Sd of log(sigma/alpha) under the log-normal law."""
    loss: Literal["mse", "l1", "huber"] = "mse"
    """Distance in the units of the prediction."""
    weight: Literal["constant", "min-snr"] = "constant"
    """Weight of a noise level; min-snr clips the signal-to-noise ratio at 5."""
    steps: int = 3000
    """Optimiser steps."""
    batch_size: int = 6
    """Heads of one step, over all processes."""
    accumulate: int = 1
    """Pieces a process cuts its batch into, to save memory."""
    checkpointing: bool = False
    """Blocks of medforj are computed again for their gradient: less than half the memory, more time."""
    learning_rate: float = 1.5e-3
    """Step size after the warm-up."""
    warmup: int = 100
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
    """Probability that a head's covariates are all hidden (classifier-free guidance)."""
    covariate_dropout: float = 0.2
    """Probability that a single covariate is hidden."""
    covariates: Annotated[tuple[str, ...] | None, tyro.conf.UseAppendAction] = None
    """Covariates to use, one flag each; all of the store by default."""
    jointly: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Covariates to draw together with the head instead of telling the network, one flag each: heads come with them, can be
    drawn given any of them, and have them read off. For rflow and unet; no anchor, no other covariates."""
    balance: bool = True
    """People are drawn uniformly, however many scans each has; --no-balance draws scans uniformly."""
    seed: int = 0
    """Seed of initial weights, order, times, noise and dropout."""
    device: Literal["cpu", "auto"] = "cpu"
    """cpu, or auto: the accelerator that is there."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision; bf16 is slow on most CPUs."""
    workers: int = 0
    """Processes that read data."""
    in_memory: bool = True
    """The training heads are kept in memory, 2 bytes a voxel; --no-in-memory reads them from the disk each time."""
    validation_heads: int = 24
    """Held-out heads in each validation, spread over the validation people."""
    log_every: int = 50
    """Steps between two log lines."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""
    keep: int = 2
    """Checkpoints kept."""
    validate_every: int = 500
    """Steps between two validations."""
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
        resolved = self._with_preset()
        if resolved is not self:
            resolved.run()
            return
        if self.stage is not None:
            from radiata_t1.experiment.stages import train_stage

            train_stage(self)
            return
        import torch

        from radiata_core.runs import Run
        from radiata_core.train import train
        from radiata_imaging.store import Store
        from radiata_t1.data.training import TrainingHeads, people_of

        if self.resume and self.overwrite:
            raise InputError("expected --resume or --overwrite; got both. Take one.")
        self._check_jointly()
        if self.checkpointing and self.network != "medforj":
            raise InputError(
                f"expected --network medforj with --checkpointing; got {self.network}. Leave it out."
            )
        with Store(self.store) as reader:
            scale, columns = self._scale(reader)
            apart = bool(self.jointly)
            heads = TrainingHeads(reader, "train", scale, columns, in_memory=self.in_memory, apart=apart)
            people = people_of(reader, "train")
            validation = TrainingHeads(reader, "validation", scale, columns, in_memory=False, apart=apart)
            chosen = torch.linspace(
                0, len(validation) - 1, min(self.validation_heads, len(validation))
            ).long()
            held_out = torch.utils.data.Subset(validation, chosen.tolist())
            if self.dry_run:
                self._describe(reader, heads, scale)
                return
            with Run(
                self.out,
                "radiata-t1 train",
                self,
                seed=self.seed,
                data={self.store.name: reader.store_id},
                overwrite=self.overwrite,
                resume=self.resume,
            ) as run:
                denoiser = self._denoiser(reader, heads, people, scale)
                count = sum(p.numel() for p in denoiser.parameters())
                run.note(parameters=count, heads=len(heads), people=len(set(people)))
                trained = train(
                    denoiser,
                    self._objective(denoiser),
                    heads,
                    self.out,
                    self._options(),
                    validation=held_out,
                    metadata=self._metadata(reader, scale, people),
                    groups=people if self.balance else None,
                )
                if self.jointly and trained.finished:
                    run.note(covariates_read_off=_reading(trained.models[0], held_out))
        if not trained.finished:
            print(f"stopped at step {trained.step} of {self.steps}; go on with --resume")
        print(trained.models[0])

    def _with_preset(self) -> "Train":
        """This command with the preset's values where an option still has its default."""
        if self.preset is None:
            return self
        import tomllib

        try:
            values = tomllib.loads(self.preset.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"expected TOML in {self.preset}; got something else ({error}).") from None
        fields = {
            f.name: f for f in dataclasses.fields(self) if f.init and f.name not in ("store", "out", "preset")
        }
        unknown = [name for name in values if name not in fields]
        if unknown:
            raise InputError(
                f"expected options of train in {self.preset}; got {unknown[0]!r}. See train --help."
            )
        changed: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
            if getattr(self, name) == fields[name].default
        }
        return dataclasses.replace(self, preset=None, **changed)

    def _scale(self, store: "Store") -> tuple["CovariateScale", list[int]]:
        from radiata_t1.data.covariates import CovariateScale

        if self.network == "medforj":
            return CovariateScale(), []
        asked = self.jointly or self.covariates
        names = list(store.covariate_names) if asked is None else list(asked)
        unknown = [name for name in names if name not in store.covariate_names]
        if unknown:
            raise InputError(
                f"expected covariates out of {', '.join(store.covariate_names) or '(none stored)'}; got {unknown[0]!r}."
            )
        columns = [store.covariate_names.index(name) for name in names]
        rows = store.covariates[store.indices("train")]
        return CovariateScale.of(names, rows[:, columns]), columns

    def _denoiser(
        self, store: "Store", heads: Any, people: list[int], scale: "CovariateScale"
    ) -> "NetworkDenoiser":
        """The denoiser before the first step: built from the seed, or the weights of --init read as this prediction."""
        import torch

        from radiata_core.allocation import return_large_blocks
        from radiata_core.checkpoint import load_model, save_model
        from radiata_t1.model.build import fit_anchor
        from radiata_t1.model.predictions import PredictionType

        kind = PredictionType(self.prediction)
        if self.jointly:
            return self._joint(store)  # type: ignore[return-value]
        start = self.out / "start" / "model.safetensors"
        if self.resume and start.is_file():
            denoiser: Any = load_model(start).denoiser
        else:
            denoiser = self._fresh(kind, store, scale)
            if denoiser.anchor is not None:
                items = [heads[i] for i in range(len(heads))]
                given = torch.stack([item["covariates"] for item in items]) if scale.names else None
                fit_anchor(denoiser, torch.stack([item["image"] for item in items]), people, given)
        if not start.is_file():
            # The anchor takes a minute to fit, and a resumed run needs the very same one.
            save_model(start, denoiser, metadata={"note": "the denoiser before the first step"})
        denoiser.network.to(memory_format=torch.channels_last_3d)
        if self.checkpointing:
            return_large_blocks()
            denoiser.network.checkpointing = True
        return denoiser.train()

    def _joint(self, store: "Store") -> "AggregatedDenoiser":
        """Heads and covariates as one latent; a function of the seed, so that resuming needs no file."""
        import torch

        from radiata_t1.model.build import Architecture
        from radiata_t1.model.jointly import build_jointly

        sizes = Architecture(self.channels, self.down_blocks, self.up_blocks, 0, self.positions)
        denoiser = build_jointly(sizes, self.jointly, store.shape, self.seed)
        denoiser.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return denoiser.train()

    def _check_jointly(self) -> None:
        if self.jointly and (
            self.network != "unet" or self.prediction != "rflow" or self.init or self.covariates
        ):
            raise InputError(
                "expected --jointly with --network unet and --prediction rflow, without --init and --covariates; got "
                "another choice. Leave them out."
            )

    def _fresh(self, kind: "PredictionType", store: "Store", scale: "CovariateScale") -> "NetworkDenoiser":
        """A network from the seed, or that of --init read as this prediction; its anchor is not fitted yet."""
        from radiata_core.checkpoint import load_model
        from radiata_t1.model.build import Architecture, build_denoiser, with_prediction
        from radiata_t1.model.weights import find_model

        if self.init is None:
            sizes = Architecture(self.channels, self.down_blocks, self.up_blocks, self.rank, self.positions)
            return build_denoiser(
                None if self.network == "medforj" else sizes, kind, store.shape, len(scale.names), self.seed
            )
        loaded = load_model(find_model(self.init))
        if hasattr(loaded.denoiser, "modalities"):
            raise InputError(
                f"expected a model of heads for --init; got one of heads and covariates in {self.init}. Use another."
            )
        kept = loaded.metadata.get("covariates", {}).get("names", [])
        if list(kept) != list(scale.names) or tuple(loaded.metadata["shape"]) != store.shape:
            raise InputError(
                f"expected a model of {store.shape} with covariates {list(scale.names)}; got "
                f"{tuple(loaded.metadata['shape'])} with {list(kept)} in {self.init}. Use another store or model."
            )
        return with_prediction(loaded.denoiser, kind, self.rank, len(scale.names))  # type: ignore[arg-type]

    def _objective(self, denoiser: "NetworkDenoiser") -> "Regression":
        from radiata_core.objectives import (
            AbsoluteError,
            Constant,
            LossFunction,
            MinSNR,
            PseudoHuber,
            Regression,
            SquaredError,
        )
        from radiata_core.paths import DiscreteVPPath
        from radiata_core.times import LogNormalSNR, UniformSteps, UniformTime

        if self.jointly:
            from radiata_core.aggregated_elbo import AggregatedELBO

            law = UniformTime() if self.time_law == "uniform" else LogNormalSNR(self.time_mean, self.time_sd)
            return AggregatedELBO(denoiser.path, law, tuple(self.jointly))  # type: ignore[return-value]
        losses: dict[str, LossFunction] = {
            "mse": SquaredError(),
            "l1": AbsoluteError(),
            "huber": PseudoHuber(),
        }
        uniform = UniformSteps() if isinstance(denoiser.path, DiscreteVPPath) else UniformTime()
        return Regression(
            denoiser.path,
            uniform if self.time_law == "uniform" else LogNormalSNR(self.time_mean, self.time_sd),
            target=denoiser.prediction,
            weight=MinSNR() if self.weight == "min-snr" else Constant(),
            loss=losses[self.loss],
        )

    def _options(self) -> "TrainOptions":
        from radiata_core.train import TrainOptions

        names = {f.name for f in dataclasses.fields(TrainOptions)}
        return TrainOptions(**{name: value for name, value in self.__dict__.items() if name in names})

    def _metadata(self, store: "Store", scale: "CovariateScale", people: list[int]) -> dict[str, Any]:
        from radiata_t1.model.bundle import INTENDED_USE

        return {
            "prediction": self.prediction,
            "shape": store.shape,
            "voxel_size_mm": [store.spec.spacing] * 3,
            "axcodes": store.spec.axcodes,
            "value_range": [-1.0, 1.0],
            "intended_use": INTENDED_USE,
            "covariates": dataclasses.asdict(scale),
            "training": {
                "store": self.store.name,
                "store_id": store.store_id,
                "people": len(set(people)),
                "heads": len(people),
                "init": None if self.init is None else Path(self.init).name,
            },
        }

    def _describe(self, store: "Store", heads: Any, scale: "CovariateScale") -> None:
        for name, value in self.__dict__.items():
            if not name.startswith("_"):
                print(f"{name}: {value}")
        voxels = 1
        for n in store.shape:
            voxels *= n
        print(
            f"{len(heads)} training heads of {'x'.join(map(str, store.shape))}, {len(heads) * voxels * 2 / 2**20:.0f} MiB"
        )
        print(f"covariates: {', '.join(scale.names) or 'none'}")


def _reading(model: Path, held_out: Any) -> dict[str, float]:
    """Correlation of each covariate of the held-out heads with what the trained model reads off them."""
    import torch

    from radiata_core.checkpoint import load_model
    from radiata_t1.model.jointly import covariates_of, names_of

    denoiser: Any = load_model(model).denoiser.eval()
    items = [held_out[i] for i in range(len(held_out))]
    if len(items) < 3:
        return {}
    read = covariates_of(denoiser, torch.stack([item["image"] for item in items]))
    found = {}
    for column, name in enumerate(names_of(denoiser)):
        truth = torch.stack([item[name] for item in items])[:, 0]
        known = torch.isfinite(truth)
        if int(known.sum()) > 2:
            pair = torch.stack([truth[known], read[known, column]])
            found[name] = round(float(torch.corrcoef(pair)[0, 1]), 3)
            print(
                f"{name}: correlation {found[name]:.2f} with what is read off {int(known.sum())} held-out heads"
            )
    return found
