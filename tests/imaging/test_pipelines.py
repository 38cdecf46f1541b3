"""MONAI pipelines give the same heads as the functions they are made of, cached, moved and batched."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_imaging.manifest import Entry
from radiata_imaging.nifti import read_volume, write_volume
from radiata_imaging.pipelines import Augmentation, augmented, head_dataset, head_loader, random_transforms
from radiata_imaging.preprocess import PreprocessSpec, prepare_volume
from radiata_imaging.store import Item, StoreDataset, StoreWriter
from radiata_imaging.volume import Volume, centred_affine

SPEC = PreprocessSpec(spacing=8.0, shape=(20, 24, 20))


def ball(
    radius: float = 70.0, shape: tuple[int, int, int] = (50, 56, 52), spacing: float = 4.0
) -> np.ndarray:
    grid = np.stack(np.meshgrid(*[spacing * (np.arange(n) - (n - 1) / 2) for n in shape], indexing="ij"))
    return np.clip((radius - np.sqrt((grid**2).sum(0))) / spacing, 0, 1).astype(np.float32) * (
        1 + 0.3 * np.sin(grid[0] / 9)
    )


@pytest.fixture
def entries(tmp_path: Path) -> list[Entry]:
    found = []
    for index, radius in enumerate((60.0, 68.0, 75.0)):
        array = ball(radius)
        path = tmp_path / f"{index}.nii.gz"
        write_volume(path, Volume(array, centred_affine(array.shape, 4.0, "RAS")), dtype="float32")
        found.append(Entry(path, str(index), covariates={"age": 30.0 + index}))
    return found


@pytest.mark.parametrize("on_disk", [False, True])
def test_cached_heads_are_the_prepared_heads(entries: list[Entry], tmp_path: Path, on_disk: bool) -> None:
    cache = tmp_path / "cache" if on_disk else None
    dataset = head_dataset(entries, SPEC, covariates=("age", "sex"), cache_dir=cache)
    for _ in range(2):  # the second time from the cache
        for index, entry in enumerate(entries):
            item = dataset[index]
            expected = prepare_volume(read_volume(entry.path), SPEC).array
            assert type(item["image"]) is torch.Tensor
            np.testing.assert_array_equal(item["image"][0].numpy(), expected)
            assert item["covariates"][0] == 30 + index
            assert bool(item["covariates"][1].isnan())


def test_another_specification_never_meets_another_cache(entries: list[Entry], tmp_path: Path) -> None:
    coarse = PreprocessSpec(spacing=16.0, shape=(10, 12, 10))
    assert head_dataset(entries, SPEC, cache_dir=tmp_path)[0]["image"].shape == (1, 20, 24, 20)
    assert head_dataset(entries, coarse, cache_dir=tmp_path)[0]["image"].shape == (1, 10, 12, 10)


def test_batches_depend_on_the_generator_alone(entries: list[Entry]) -> None:
    augmentation = Augmentation(rotation=10.0, shift=1.0)

    def batches(seed: int) -> torch.Tensor:
        dataset = head_dataset(entries, SPEC, augmentation=augmentation)
        loader = head_loader(dataset, 2, generator=torch.Generator().manual_seed(seed))
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(batches(1), batches(1))
    assert not torch.equal(batches(1), batches(2))


def test_no_augmentation_changes_nothing(entries: list[Entry]) -> None:
    assert random_transforms(Augmentation(), seed=0).transforms == ()
    moved = head_dataset(entries, SPEC, augmentation=Augmentation(rotation=5.0, probability=0.0))
    assert torch.equal(moved[0]["image"], head_dataset(entries, SPEC)[0]["image"])


@pytest.mark.parametrize("cubic", [True, False])
def test_augmentation_moves_the_head_and_pads_with_background(cubic: bool) -> None:
    """A ball keeps its mass when it is turned; what enters from outside is −1; values stay in [−1, 1]."""
    image = torch.from_numpy(2 * ball(30.0, (24, 24, 24)) / 1.3 - 1)[None]
    transforms = random_transforms(Augmentation(rotation=20.0, shift=3.0, cubic=cubic), seed=3)
    moved = transforms({"image": image})["image"]
    assert type(moved) is torch.Tensor
    assert not torch.equal(moved, image)
    assert moved.min() >= -1
    assert moved.max() <= 1
    assert float((moved + 1).sum()) == pytest.approx(float((image + 1).sum()), rel=0.02)
    assert float(moved[0, 0].max()) == pytest.approx(-1, abs=0.05 if cubic else 1e-6)  # a spline rings


def test_a_flip_mirrors_left_and_right_only(generator: torch.Generator) -> None:
    image = torch.rand(1, 4, 5, 6, generator=generator) * 2 - 1
    flipped = random_transforms(Augmentation(flip=1.0), seed=0, left_right=0)({"image": image})["image"]
    assert torch.equal(torch.as_tensor(flipped), image.flip(1))


def test_a_store_can_be_augmented(tmp_path: Path, rng: np.random.Generator) -> None:
    spec = PreprocessSpec(spacing=8.0, shape=(8, 8, 8))
    writer = StoreWriter(tmp_path / "heads.h5", spec.shape, spec, covariates=("age",))
    writer.append(Item(rng.uniform(-1, 1, spec.shape).astype(np.float32), "01", covariates={"age": 3.0}))
    writer.finish()
    store = StoreDataset(tmp_path / "heads.h5")
    item = augmented(store, Augmentation(flip=1.0))[0]
    assert torch.equal(torch.as_tensor(item["image"]), store[0]["image"].flip(1))
    assert item["covariates"] == 3


def test_nonsense_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(InputError, match="probabilities"):
        Augmentation(flip=2.0)
    with pytest.raises(InputError, match="at least one scan"):
        head_dataset([], SPEC)
