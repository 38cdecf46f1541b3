"""Stages of a cascade from the command's side: trained, distilled, put on a base model, and drawn to files."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.checkpoint import load_model, save_model
from radiata_core.errors import InputError
from radiata_core.flowmaps import NetworkFlowMap
from radiata_core.nets.unet import depth_to_space
from radiata_core.refinement import Cascade, Refinement, box_mean, interpolated, refine, residual
from radiata_core.train import train
from radiata_imaging.nifti import read_volume
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.store import Item, Store, StoreWriter
from radiata_t1.data.blocks import FineBlocks, residual_rms, scaled_head
from radiata_t1.experiment.distil import Distil
from radiata_t1.experiment.sample import Sample, file_name
from radiata_t1.experiment.train import Train
from radiata_t1.model.build import Architecture, build_denoiser
from radiata_t1.model.cascades import Finer, guided, joined
from radiata_t1.model.predictions import PredictionType
from radiata_t1.model.stages import build_stage, jumping_stage

SHAPE = (24, 24, 24)
SMALL = {
    "network": "unet", "channels": (4, 6), "down_blocks": (0, 1), "up_blocks": (1, 1), "steps": 4, "batch_size": 2,
    "warmup": 1, "ema": (0.1,), "log_every": 2, "checkpoint_every": 2, "validate_every": 4, "tensorboard": False,
    "block": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Balls with a bright shell, 2 mm voxels: five people of two heads."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("fine") / "fine.h5"
    writer = StoreWriter(path, SHAPE, PreprocessSpec(spacing=2.0, shape=SHAPE), ())
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    for person, split in enumerate(["train"] * 3 + ["validation", "test"]):
        for session in range(2):
            radius = rng.uniform(7, 10)
            head = np.where(distance < radius, 0.2, -1.0) + 0.6 * (np.abs(distance - radius) < 1)
            head = head + 0.03 * rng.standard_normal(SHAPE)
            writer.append(
                Item(head.clip(-1, 1).astype(np.float32), f"{person:02d}", split, f"{session}", covariates={})
            )
    writer.finish()
    return path


def trained(store: Path, out: Path, stage: str, **options: object) -> Path:
    state = torch.get_rng_state()
    Train(store=store, out=out, stage=stage, **(SMALL | options)).run()  # type: ignore[arg-type]
    torch.set_rng_state(state)
    return out


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("stages")
    return trained(store, folder / "4mm", "4mm"), trained(store, folder / "2mm", "2mm", positions=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model of 12^3 voxels of 4 mm; its heads are noise, which is all that a test of the way needs."""
    sizes = Architecture((4, 6), (0, 1), (1, 1), 0, False)
    denoiser = build_denoiser(sizes, PredictionType("rflow"), (12, 12, 12), 0, 1)
    path = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_model(path, denoiser, metadata={"voxel_size_mm": [4.0] * 3, "shape": [12] * 3, "axcodes": "LPS"})
    return path


def test_a_block_is_the_residual_of_a_scaled_head(store: Path) -> None:
    """Uncorrupted, the coarse block is the box mean of the head, and residual and coarse give the head back."""
    stage = build_stage((4, 6), (0, 1), (1, 1), corruption=0.0, placed=True, seed=0)
    with Store(store) as reader:
        blocks = FineBlocks(reader, "train", stage, 2.0, (12, 12, 12))  # the whole grid
        item = blocks.augmented(1, 9)
        head = scaled_head(reader, int(reader.indices("train")[1]))
        base = box_mean(head, 2)
        low, high = np.percentile(base.numpy(), (0.1, 99.9))
        assert (low, high) == (pytest.approx(-1.0, abs=1e-5), pytest.approx(1.0, abs=1e-5))
        torch.testing.assert_close(item["coarse"], base[0], atol=2e-3, rtol=0)  # heads are kept in float16
        torch.testing.assert_close(item["image"], residual(head, base, 2, 1.0)[0], atol=4e-3, rtol=0)
        centre = item["coordinates"].mean((1, 2, 3))
        torch.testing.assert_close(centre, torch.zeros(3), atol=1e-6, rtol=0)
        small = FineBlocks(reader, "train", stage, 2.0, (4, 6, 4))
        again = small.augmented(1, 9)
        assert again["image"].shape == (8, 4, 6, 4)
        place = again["coordinates"][:, 0, 0, 0] / 0.04 + 5.5  # index of its first voxel on the coarse grid
        cut = tuple(slice(int(a), int(a) + n) for a, n in zip(place.round(), (4, 6, 4), strict=True))
        torch.testing.assert_close(again["image"], item["image"][:, *cut])
        torch.testing.assert_close(small.augmented(1, 9)["image"], again["image"], rtol=0, atol=0)
        assert residual_rms(blocks, 6) == pytest.approx(float(item["image"].square().mean().sqrt()), rel=0.2)


def test_stages_above_the_base_share_its_scale(store: Path) -> None:
    """Blocks of 8 mm are box means of the head that was scaled at 4 mm."""
    stage = build_stage((4, 6), (0, 1), (1, 1), corruption=0.0, placed=False, seed=0)
    with Store(store) as reader:
        item = FineBlocks(reader, "train", stage, 4.0, (6, 6, 6)).augmented(2, 0)
        head = scaled_head(reader, int(reader.indices("train")[2]))
    torch.testing.assert_close(item["coarse"], box_mean(head, 4)[0], atol=2e-3, rtol=0)


def test_corruption_is_taken_off_by_the_residual(store: Path) -> None:
    """With noise on the coarse block the fine block is still x: the residual holds what the noise put there."""
    stage = build_stage((4, 6), (0, 1), (1, 1), corruption=0.5, placed=False, seed=0)
    with Store(store) as reader:
        blocks = FineBlocks(reader, "train", stage, 2.0, (12, 12, 12))
        item = blocks.augmented(0, 3)
        head = scaled_head(reader, int(reader.indices("train")[0]))
    noise = item["coarse"] - box_mean(head, 2)[0]
    told = float(item["covariates"]) / 4 * 0.5 + 0.25
    assert float(noise.std()) == pytest.approx(told, rel=0.1)
    inner = (
        ...,
        slice(2, -2),
        slice(2, -2),
        slice(2, -2),
    )  # at the border interpolation looks beyond the item
    fine = interpolated(item["coarse"][None], 2)[inner]
    unfolded = torch.nn.functional.pad(fine, (0,) * 6)  # a copy
    unfolded += depth_to_space(item["image"][None], 2)[inner]
    torch.testing.assert_close(unfolded, head[inner], atol=4e-3, rtol=0)


def test_training_can_be_stopped_and_goes_on_to_the_same_weights(store: Path, tmp_path: Path) -> None:
    flat = {"cosine": False}
    trained(store, tmp_path / "a", "2mm", **flat)
    trained(store, tmp_path / "b", "2mm", steps=2, **flat)
    trained(store, tmp_path / "b", "2mm", steps=4, resume=True, **flat)
    first, second = (load_model(tmp_path / name).denoiser.state_dict() for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_is_a_stage_with_its_scale(store: Path, runs: tuple[Path, Path]) -> None:
    coarse, fine = (load_model(run) for run in runs)
    assert isinstance(coarse.denoiser, Refinement) and coarse.denoiser.placed and not fine.denoiser.placed
    assert (coarse.metadata["coarse_spacing_mm"], fine.metadata["coarse_spacing_mm"]) == (8.0, 4.0)
    assert coarse.metadata["field_mm"] == [48.0] * 3
    with Store(store) as reader:
        unit = build_stage((4, 6), (0, 1), (1, 1), corruption=0.15, placed=False, seed=0)
        blocks = FineBlocks(reader, "train", unit, 2.0, (4, 4, 4))
        assert fine.denoiser.scale == pytest.approx(residual_rms(blocks), rel=1e-6)


def test_a_student_starts_as_its_teacher_and_jumps(
    store: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    teacher = load_model(runs[1]).denoiser
    student = jumping_stage(teacher).eval()
    assert isinstance(student.denoiser, NetworkFlowMap)
    coarse = torch.randn((1, 1, 12, 12, 12), generator=torch.Generator().manual_seed(0))
    x = torch.randn((1, 8, 12, 12, 12), generator=torch.Generator().manual_seed(1))
    told = {"coarse": coarse, **teacher.told(0.05, 1)}
    t = torch.tensor(0.6, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(student(x, t, **told), teacher(x, t, **told))
    state = torch.get_rng_state()
    Distil(
        out=tmp_path / "student", model=str(runs[1]), store=store, steps=3, batch_size=2, ema=(0.1,), checkpoint_every=3,
        tensorboard=False, grid_steps=3, depth=1,
    ).run()  # fmt: skip
    torch.set_rng_state(state)
    made = load_model(tmp_path / "student")
    assert made.metadata["distillation"]["teacher_sha256"] == load_model(runs[1]).sha256
    assert made.metadata["distillation"]["store_id"] == Store(store).store_id
    assert (made.metadata["distillation"]["people"], made.metadata["distillation"]["heads"]) == (3, 6)
    with torch.no_grad():
        drawn = refine(made.denoiser, coarse, [0], steps=2, corruption=0.05)
    assert drawn.shape == (1, 1, 24, 24, 24) and bool(drawn.isfinite().all())
    with pytest.raises(InputError, match="was not distilled"):
        jumping_stage(made.denoiser)


def test_heads_of_a_base_model_drawn_finer(runs: tuple[Path, Path], base: Path, tmp_path: Path) -> None:
    """The file is what `Cascade` draws of the base head, with its affine, the same alone and in a batch."""
    stages = tuple(map(str, runs))
    common = {"model": str(base), "steps": 2, "sampler": "ddim", "cascade": stages}
    Sample(out=tmp_path / "base", seeds=(3,), **common).run()  # a named model draws on its own grid
    Sample(out=tmp_path / "both", seeds=(3, 4), resolution="2mm", **common).run()
    Sample(out=tmp_path / "one", seeds=(4,), resolution="2mm", **common).run()
    own, fine = (read_volume(tmp_path / name / file_name(3)) for name in ("base", "both"))
    assert own.shape == (12, 12, 12) and fine.shape == (24, 24, 24)
    assert np.allclose(fine.spacing, 2.0)
    middle = [v.affine @ np.array([*(np.array(v.shape) - 1) / 2, 1]) for v in (own, fine)]
    assert np.allclose(middle[0], middle[1])  # the same field of view
    one, both = (tmp_path / name / file_name(4) for name in ("one", "both"))
    assert one.read_bytes() == both.read_bytes()
    sidecar = json.loads((tmp_path / "both" / "sub-syn0003_desc-synthetic_T1w.json").read_text())
    assert (
        sidecar["ResolutionMM"] == 2.0
        and sidecar["CascadeSteps"] == [4, 4]
        and sidecar["SyntheticImage"] is True
    )
    cascade, _, _ = joined([load_model(run) for run in runs])
    finer = Finer.of(stages, 2.0, PreprocessSpec("LPS", 4.0, (12, 12, 12)))
    head = torch.linspace(-1, 1, 12**3).reshape(12, 12, 12)
    with torch.no_grad():
        expected = cascade(box_mean(head[None, None], 2), [3])[0, 0].clamp(-1, 1.5)
    torch.testing.assert_close(finer(head, 3), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(finer(head, 3, tile=4), expected, rtol=0, atol=1e-5)


def test_evaluations_of_each_stage_can_be_asked_for(
    runs: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    """The head is that of a cascade of these numbers, the sidecar says them, and a head of other numbers is another."""
    stages, spec = tuple(map(str, runs)), PreprocessSpec("LPS", 4.0, (12, 12, 12))
    cascade, _, _ = joined([load_model(run) for run in runs])
    head = torch.linspace(-1, 1, 12**3).reshape(12, 12, 12)
    with torch.no_grad():
        asked = Cascade(**cascade.options | {"steps": (1, 3)})(box_mean(head[None, None], 2), [3])[0, 0]
    drawn = Finer.of(stages, 2.0, spec, (1, 3))(head, 3)
    torch.testing.assert_close(drawn, asked.clamp(-1, 1.5), rtol=0, atol=1e-5)
    assert float((drawn - Finer.of(stages, 2.0, spec)(head, 3)).abs().max()) > 1e-3
    common = {"model": str(base), "steps": 2, "sampler": "ddim", "cascade": stages, "resolution": "2mm"}
    Sample(out=tmp_path, seeds=(3,), cascade_steps=(1, 3), **common).run()  # type: ignore[arg-type]
    sidecar = tmp_path / "sub-syn0003_desc-synthetic_T1w.json"
    assert json.loads(sidecar.read_text())["CascadeSteps"] == [1, 3]
    for wrong in ((2,), (0, 1)):
        with pytest.raises(InputError, match="of 2 numbers >= 1"):
            Finer.of(stages, 2.0, spec, wrong)
    with pytest.raises(InputError, match="drawn finer; got the model's own grid"):
        Sample(out=tmp_path, model=str(base), cascade_steps=(1, 3)).run()


def test_a_cascade_survives_its_file(runs: tuple[Path, Path], tmp_path: Path) -> None:
    cascade, metadata, _ = joined([load_model(run) for run in runs])
    save_model(tmp_path / "c.safetensors", cascade, metadata=metadata)
    loaded = load_model(tmp_path / "c.safetensors").denoiser
    assert isinstance(loaded, Cascade) and loaded.spacings() == (4.0, 2.0)
    coarse = torch.zeros(1, 1, 6, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(loaded(coarse, [1]), cascade(coarse, [1]), rtol=0, atol=0)
        assert loaded(coarse, [1], until=4.0).shape[2:] == (12, 12, 12)


def test_a_stage_begins_with_the_weights_of_another(
    store: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    """Its weights and its scale, and a card that says so; with a learning rate of nothing they are what it ends with."""
    again = trained(
        store, tmp_path / "on", "2mm", positions=False, init=str(runs[1]), learning_rate=1e-12, seed=5
    )
    before, after = (load_model(run).denoiser for run in (runs[1], again))
    assert isinstance(before, Refinement) and isinstance(after, Refinement) and after.scale == before.scale
    for name, weight in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], weight, rtol=0, atol=1e-8)
    assert load_model(again).metadata["training"]["init"] == runs[1].name
    with pytest.raises(InputError, match="same channels, blocks, corruption and positions"):
        trained(store, tmp_path / "other", "2mm", positions=False, init=str(runs[1]), channels=(4, 8))


def test_a_worse_run_guides_a_stage(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """The file of a cascade holds both; at a weight of 1 it draws what the stage alone draws, beyond it something else."""
    coarse = torch.randn(1, 1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    alone = load_model(runs[0])
    drawn = {}
    for weight in (1.0, 2.0):
        stage = guided(alone, load_model(runs[0]), weight).denoiser
        for parameter in stage.worse.parameters():
            parameter.data = parameter.data * 0.9
        cascade, _, _ = joined([dataclasses.replace(alone, denoiser=stage)])
        save_model(tmp_path / "whole.safetensors", cascade, metadata={})
        with torch.no_grad():
            drawn[weight] = load_model(tmp_path / "whole.safetensors").denoiser(coarse, [1])
    with torch.no_grad():
        torch.testing.assert_close(drawn[1.0], joined([alone])[0](coarse, [1]), rtol=0, atol=0)
    assert float((drawn[2.0] - drawn[1.0]).abs().max()) > 1e-4


def test_the_student_of_a_guided_stage_learns_what_is_guided(
    store: Path, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher that is followed is the mix, the data's own term is left out, and the card says whose guidance it was."""
    worse = trained(store, tmp_path / "worse", "4mm", steps=1, seed=3)
    seen = {}

    def kept(student: object, objective: object, *rest: object, **more: object) -> object:
        seen["objective"] = objective
        return train(student, objective, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("radiata_core.train.train", kept)
    state = torch.get_rng_state()
    options = {"steps": 2, "batch_size": 2, "ema": (0.1,), "tensorboard": False, "grid_steps": 3, "depth": 1}
    Distil(
        out=tmp_path / "few",
        model=str(runs[0]),
        store=store,
        worse=str(worse),
        guidance=1.8,
        fresh=True,
        **options,
    ).run()  # type: ignore[arg-type]
    torch.set_rng_state(state)
    better, other = (load_model(run).denoiser for run in (runs[0], worse))
    x, coarse = (torch.randn((1, n, 6, 6, 6), generator=torch.Generator().manual_seed(n)) for n in (8, 1))
    told = {"coarse": coarse, **better.told(0.05, 1), **better.places((6, 6, 6), 8.0)}
    t = torch.tensor(0.7, dtype=torch.float64)
    with torch.no_grad():
        followed = seen["objective"].teacher(x, t, **told)
        mixed = other(x, t, **told) + 1.8 * (better(x, t, **told) - other(x, t, **told))
        torch.testing.assert_close(followed, mixed, rtol=1e-4, atol=1e-5)
        assert float((followed - better(x, t, **told)).abs().max()) > 1e-3
    assert seen["objective"].denoising is None
    made = load_model(tmp_path / "few")
    assert made.metadata["worse"] == {"sha256": load_model(worse).sha256, "step": 1, "guidance": 1.8}
    assert made.denoiser.worse is None and isinstance(made.denoiser.denoiser, NetworkFlowMap)
    cascade, _, _ = joined([made])
    assert (cascade.steps, cascade.stochastic) == ((4,), (True,))


def test_what_does_not_fit_is_one_line(
    store: Path, runs: tuple[Path, Path], base: Path, tmp_path: Path
) -> None:
    spec = PreprocessSpec("LPS", 4.0, (12, 12, 12))
    with pytest.raises(InputError, match="coarsest first"):
        Finer.of([str(runs[1]), str(runs[0])], 2.0, spec)
    with pytest.raises(InputError, match="resolution out of 4mm, 2mm"):
        Finer.of([str(run) for run in runs], 1.0, spec)
    with pytest.raises(InputError, match="base model of 48×48×48 mm"):
        Finer.of([str(run) for run in runs], 2.0, PreprocessSpec("LPS", 4.0, (16, 12, 12)))
    with pytest.raises(InputError, match="one cascade, or stages"):
        Finer.of([str(base)], 2.0, spec)
    with pytest.raises(InputError, match="heads at 1 mm or a whole fraction"):
        Train(store=store, out=tmp_path / "x", stage="1mm", **SMALL).run()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--stage with --network unet"):
        Train(store=store, out=tmp_path / "x", stage="2mm", **(SMALL | {"network": "medforj"})).run()  # type: ignore[arg-type]
    with pytest.raises(InputError, match="--method ctm and --store"):
        Distil(out=tmp_path / "y", model=str(runs[1]), method="reflow", pairs=tmp_path).run()
    with pytest.raises(InputError, match="--worse and --fresh for a stage"):
        Distil(out=tmp_path / "y", model=str(base), store=store, worse=str(runs[0])).run()
    with pytest.raises(InputError, match="--worse and --fresh for a stage"):
        Distil(out=tmp_path / "y", model=str(base), store=store, fresh=True).run()
    with pytest.raises(InputError, match="two runs of one stage"):
        Distil(out=tmp_path / "y", model=str(runs[0]), store=store, worse=str(runs[1])).run()
