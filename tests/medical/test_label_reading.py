"""Label maps are read as such, and images are not taken for them."""

from pathlib import Path

import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.nifti import write_volume
from radiata_imaging.volume import Volume, centred_affine
from radiata_medical.data.example_head import example_head
from radiata_medical.data.label_reading import codebook, equal_neighbours, read_labels


def written(path: Path, array: np.ndarray, dtype: str = "int16") -> Path:
    return write_volume(path, Volume(array, centred_affine(array.shape)), dtype=dtype)


def blocks(*codes: int) -> np.ndarray:
    return np.repeat(np.array([0, *codes, 0]), 4)[:, None, None] * np.ones((1, 8, 8))


def test_codes_of_finer_maps_become_their_structures(tmp_path: Path) -> None:
    """Parcellated cortex is cortex, a lesion of the white matter white matter; the rest stays."""
    codes, volume = read_labels(written(tmp_path / "a.nii.gz", blocks(1005, 2030, 77, 10)))
    assert np.unique(codes).tolist() == [0, 2, 3, 10, 42]
    assert codes.shape == volume.shape


def test_an_eight_bit_image_is_no_label_map(tmp_path: Path, rng: np.random.Generator) -> None:
    image = np.clip(rng.normal(120, 20, (12, 12, 12)), 1, 255).round()
    assert equal_neighbours(image) < 0.2 < equal_neighbours(blocks(2, 3))
    with pytest.raises(InputError, match="expected a label map; got an image"):
        read_labels(written(tmp_path / "a.nii.gz", image))
    with pytest.raises(InputError, match="fractions or negative"):
        read_labels(written(tmp_path / "b.nii.gz", image + 0.5, "float32"))


def test_a_real_eight_bit_head_is_an_image() -> None:
    """Colin27 holds 0 ... 255 and is no label map, though an average of 27 scans is smooth."""
    with pytest.raises(InputError, match="got an image"):
        read_labels(example_head())


def test_unknown_codes_and_a_table_of_ones_own(tmp_path: Path) -> None:
    path = written(tmp_path / "a.nii.gz", blocks(1, 7))
    with pytest.raises(InputError, match="got 1, which is none of them"):
        read_labels(path)
    table = tmp_path / "names.tsv"
    table.write_text("index\tname\n0\tair\n1\tlesion\n7\toedema\n8\toedema\n")
    book = codebook(table)
    assert book.structures == {"lesion": (1,), "oedema": (7, 8)}
    assert np.unique(read_labels(path, book)[0]).tolist() == [0, 1, 7]
    with pytest.raises(InputError, match=r"codes of the table in .*; got 5 too"):
        read_labels(written(tmp_path / "b.nii.gz", blocks(5)), book)
    (tmp_path / "bad.tsv").write_text("code\tname\n1\tx\n")
    with pytest.raises(InputError, match="columns index and name"):
        codebook(tmp_path / "bad.tsv")
