"""A small store and a trained model of it, made once."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.store import Item, StoreWriter
from radiata_t1.experiment.train import Train

SHAPE = (8, 8, 8)
NAMES = ("size", "age")


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten people, four scans each, 8^3 voxels: a ball whose radius is the covariate `size`; `age` is often unknown."""
    rng = np.random.default_rng(3)
    path = tmp_path_factory.mktemp("tiny") / "tiny.h5"
    writer = StoreWriter(path, SHAPE, PreprocessSpec(spacing=24.0, shape=SHAPE), NAMES)
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"))
    distance = np.sqrt((grid**2).sum(0))
    for person, split in enumerate(["train"] * 6 + ["validation"] * 2 + ["test"] * 2):
        for session in range(4):
            size = rng.uniform(1.5, 3.5)
            ball = np.where(distance < size, 0.5, -0.8) + 0.05 * rng.standard_normal(SHAPE)
            values = {"size": size, "age": 40.0 if session else None}
            writer.append(
                Item(
                    ball.clip(-1, 1).astype(np.float32),
                    f"{person:02d}",
                    split,
                    f"{session}",
                    covariates=values,
                )
            )
    writer.finish()
    return path


def tiny_train(store: Path, out: Path, **options: object) -> Train:
    """A training of seconds: 2 levels, 8 channels, an anchor of rank 4."""
    small = {
        "channels": (8, 8),
        "down_blocks": (0, 1),
        "up_blocks": (1, 1),
        "rank": 4,
        "steps": 6,
        "batch_size": 4,
        "warmup": 2,
        "learning_rate": 3e-3,
        "log_every": 1,
        "checkpoint_every": 2,
        "validate_every": 3,
        "validation_heads": 4,
        "tensorboard": False,
    }
    return Train(store=store, out=out, **(small | options))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny_run(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run of a few steps."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    state = torch.get_rng_state()
    tiny_train(tiny_store, out).run()
    torch.set_rng_state(state)
    return out
