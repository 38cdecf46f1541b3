"""Stages of a cascade in `train --stage` and `distil`: heads of a store at the fine spacing in, one `Refinement` out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from radiata_core.errors import InputError

if TYPE_CHECKING:
    from radiata_core.checkpoint import LoadedModel
    from radiata_core.refinement import Refinement
    from radiata_core.train import Trained
    from radiata_imaging.store import Store
    from radiata_t1.experiment.distil import Distil
    from radiata_t1.experiment.train import Train

__all__ = ["distil_stage", "train_stage"]

_VALIDATION_BLOCKS = 12


def train_stage(command: "Train") -> None:
    """Train the stage that `command.stage` names; the model of the run is a `Refinement`."""
    from radiata_core.runs import Run
    from radiata_core.train import train
    from radiata_imaging.store import Store
    from radiata_t1.data.blocks import FineBlocks, residual_rms
    from radiata_t1.model.cascades import resolution_mm
    from radiata_t1.model.stages import build_stage

    assert command.stage is not None
    if command.network != "unet" or command.prediction != "rflow" or command.jointly:
        raise InputError(
            "expected --stage with --network unet and --prediction rflow, without --jointly; got another choice. "
            "Leave them out."
        )
    spacing = resolution_mm(command.stage)
    with Store(command.store) as store:
        stage = build_stage(
            command.channels,
            command.down_blocks,
            command.up_blocks,
            corruption=command.corruption,
            placed=command.positions,
            seed=command.seed,
        )
        block = (command.block,) * 3
        blocks = FineBlocks(store, "train", stage, spacing, block)
        stage.scale = residual_rms(blocks) if command.init is None else _begun(stage, command.init)
        held_out = FineBlocks(store, "validation", stage, spacing, block)
        parameters = sum(p.numel() for p in stage.parameters())
        if command.dry_run:
            for name, value in command.__dict__.items():
                print(f"{name}: {value}")
            print(
                f"stage: {parameters} parameters, residual {stage.scale:.4f}, {len(blocks)} heads in memory"
            )
            return
        with Run(
            command.out,
            "radiata-t1 train",
            command,
            seed=command.seed,
            data={command.store.name: store.store_id},
            overwrite=command.overwrite,
            resume=command.resume,
        ) as run:
            run.note(parameters=parameters, heads=len(blocks), people=len(set(blocks.people)))
            trained = train(
                _fast(stage).train(),
                command._objective(stage),  # type: ignore[arg-type]
                blocks,
                command.out,
                _plain(command._options()),
                validation=_some(held_out),
                metadata=_metadata(store, blocks.people, spacing * stage.factor, block, command.init),
                groups=blocks.people if command.balance else None,
            )
    _said(trained, command.steps)


def distil_stage(command: "Distil", loaded: "LoadedModel", file: "Path") -> None:
    """Distil a stage into one that jumps, by consistency trajectories on the blocks it was trained on.

    The student of a guided stage learns what is guided (Meng et al. 2023, https://arxiv.org/abs/2210.03142): one evaluation
    where its teacher takes two. The data know nothing of guidance, so its diagonal is then learned from the teacher alone.
    """
    import dataclasses

    from radiata_core.checkpoint import load_model
    from radiata_core.runs import Run, sha256
    from radiata_core.train import train
    from radiata_imaging.store import Store
    from radiata_t1.data.blocks import FineBlocks
    from radiata_t1.model.cascades import guided
    from radiata_t1.model.stages import jumping_stage
    from radiata_t1.model.weights import find_model

    if command.method != "ctm" or command.store is None or command.start is not None:
        raise InputError(
            "expected --method ctm and --store STORE without --start for a stage of a cascade; got another choice. "
            "Give the store it was trained on."
        )
    if command.worse is not None:
        loaded = guided(loaded, load_model(find_model(command.worse)), command.guidance)
    teacher: Any = loaded.denoiser.eval()
    teacher.requires_grad_(False)
    student = jumping_stage(teacher)
    objective = command._objective(teacher)
    if teacher.worse is not None:
        objective = dataclasses.replace(objective, teacher=teacher.guided, denoising=None)
    spacing = float(loaded.metadata["coarse_spacing_mm"]) / teacher.factor
    block = tuple(int(n) for n in loaded.metadata["block"])
    with Store(command.store) as store:
        blocks = FineBlocks(store, "train", student, spacing, block)
        if command.dry_run:
            for name, value in command.__dict__.items():
                print(f"{name}: {value}")
            print(f"student: {sum(p.numel() for p in student.parameters())} parameters")
            return
        with Run(
            command.out,
            "radiata-t1 distil",
            command,
            seed=command.seed,
            data={file.name: sha256(file), command.store.name: store.store_id},
            overwrite=command.overwrite,
            resume=command.resume,
        ):
            _fast(teacher)
            trained = train(
                _fast(student).train(),
                objective,
                blocks,
                command.out,
                _plain(command._options()),
                metadata=dict(loaded.metadata)
                | {
                    "sampling": {"steps": 4, "stochastic": command.fresh},
                    "distillation": {
                        "method": "ctm",
                        "teacher": file.stem,
                        "teacher_sha256": loaded.sha256,
                        "store": store.path.name,
                        "store_id": store.store_id,
                        "people": len(set(blocks.people)),
                        "heads": len(blocks),
                    },
                },
                groups=blocks.people,
            )
    _said(trained, command.steps)


def _begun(stage: "Refinement", name: str) -> float:
    """Put the weights of a model of the same stage into `stage`; the scale that they were trained at.

    Raises:
        InputError: a model of another kind or another stage.
    """
    from radiata_core.checkpoint import load_model
    from radiata_core.refinement import Refinement
    from radiata_core.specs import describe
    from radiata_t1.model.weights import find_model

    begun = load_model(find_model(name)).denoiser
    own = describe(stage)
    if not isinstance(begun, Refinement) or describe(begun) | {"scale": own["scale"]} != own:
        raise InputError(
            f"expected --init of a stage with the same channels, blocks, corruption and positions; got another in {name}. "
            "Give the options that it was trained with."
        )
    stage.load_state_dict(begun.state_dict())
    return begun.scale


def _fast(stage: "Refinement") -> "Refinement":
    import torch

    stage.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return stage


def _plain(options: Any) -> Any:
    """A coarse grid is never hidden: the stage means nothing without it."""
    import dataclasses

    return dataclasses.replace(options, condition_dropout=0.0, covariate_dropout=0.0)


def _some(blocks: Any) -> Any:
    import torch

    chosen = torch.linspace(0, len(blocks) - 1, min(_VALIDATION_BLOCKS, len(blocks))).long()
    return torch.utils.data.Subset(blocks, chosen.tolist())


def _metadata(
    store: "Store", people: list[str], coarse_mm: float, block: tuple[int, ...], init: str | None
) -> dict[str, Any]:
    from radiata_t1.model.bundle import INTENDED_USE

    return {
        "name": "radiata-t1 stage",
        "coarse_spacing_mm": coarse_mm,
        "block": list(block),
        "field_mm": [round(n * store.spec.spacing, 3) for n in store.shape],
        "axcodes": store.spec.axcodes,
        "intended_use": INTENDED_USE,
        "training": {
            "store": store.path.name,
            "store_id": store.store_id,
            "people": len(set(people)),
            "heads": len(people),
            "init": None if init is None else Path(init).name,
        },
    }


def _said(trained: "Trained", steps: int) -> None:
    if not trained.finished:
        print(f"stopped at step {trained.step} of {steps}; go on with --resume")
    print(trained.models[0])
