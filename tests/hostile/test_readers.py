"""The smallest inputs that a reader once failed on: each ended in another exception, in memory, or in the process."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from radiata_core.errors import InputError
from radiata_decode.data.arrays import read_trials
from radiata_decode.data.decoded import Decoded, read_decoded, write_decoded
from radiata_decode.data.haxby import read_category_runs
from radiata_decode.data.image_features import read_features
from radiata_decode.data.regions import read_ctab
from radiata_decode.data.resized_pictures import named_pictures, picture_files
from radiata_decode.data.stimuli import read_stimuli, write_stimuli
from radiata_decode.data.subject import read_subject
from radiata_decode.data.subject_writer import write_subject
from radiata_decode.data.surface_files import surface_series
from radiata_decode.data.volumes import hdf5_length, masked_series
from radiata_imaging.manifest import read_manifest
from radiata_imaging.meshnet import read_meshnet
from radiata_imaging.pair_store import PairStore
from radiata_imaging.preprocess import PreprocessSpec
from radiata_imaging.region_tables import read_regions
from radiata_imaging.store import Item, Store, StoreWriter
from radiata_latents.data.arrays import load_arrays
from radiata_latents.data.lfads_files import load_lfads
from radiata_latents.data.matlab import read_positions
from radiata_latents.data.nwb import read_nwb
from radiata_latents.data.population import load_population
from radiata_latents.data.submission import load_submission
from radiata_latents.experiment.presets import read_toml
from radiata_medical.data.degradation_chains import degradation_of, read_degradation
from radiata_medical.data.kspace_files import read_kspace
from radiata_medical.data.label_maps import LabelMap, LabelMaps, write_label_maps
from radiata_medical.data.label_reading import codebook

AFFINE = np.diag([2.0, 2, 2, 1])
SPEC = PreprocessSpec(spacing=8.0, shape=(6, 7, 5))


def refused(read: Callable[[], object], match: str = "expected") -> None:
    with pytest.raises(InputError, match=match) as caught:
        read()
    assert "\n" not in str(caught.value)


def petabyte(path: Path, name: str, **attributes: object) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, (2**47,), "f8", chunks=(1024,))
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("name", "key", "read"),
    [
        ("a.h5", "counts", load_arrays),
        ("a.h5", "train_data", load_lfads),
        ("a.h5", "mc_maze/train_rates_heldin", load_submission),
        ("a.nwb", "units/spike_times", read_nwb),
        ("a.h5", "counts", load_population),
        ("a.h5", "kspace", read_kspace),
        ("a.h5", "features", lambda path: read_features(path, 3)),
        ("decoded.h5", "images", read_decoded),
    ],
)
def test_a_petabyte_without_a_byte_is_refused(
    tmp_path: Path, name: str, key: str, read: Callable[[Path], object]
) -> None:
    """numpy was asked for it."""
    refused(lambda: read(petabyte(tmp_path / name, key)), "at most 8,589,934,592 bytes")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(
    path=st.text(st.sampled_from("./\\a\0~ é"), min_size=1, max_size=12),
    subject=st.text(min_size=1, max_size=6),
)
def test_no_relative_path_leaves_the_folder_and_no_name_is_a_path(
    tmp_path_factory: pytest.TempPathFactory, path: str, subject: str
) -> None:
    folder = tmp_path_factory.mktemp("m")
    table = folder / "m.csv"
    table.write_text(
        f"path,subject\n{path},{subject}\n", encoding="utf-8", errors="surrogatepass", newline=""
    )
    try:
        entries = read_manifest(table).entries
    except InputError:
        return
    for entry in entries:
        assert entry.path.is_absolute() and (
            Path(path.strip()).is_absolute() or entry.path.is_relative_to(folder)
        )
        assert "\0" not in str(entry.path)
        assert "/" not in entry.subject and "\\" not in entry.subject and entry.subject not in (".", "..")
        assert entry.subject[0] not in "=+-@" and entry.subject.isprintable()


@pytest.mark.parametrize(
    "row",
    ["../a.nii,01", "b/../../a.nii,01", "a\0.nii,01", "a.nii,../01", "a.nii,=1+1", "a.nii,@SUM(1)", "a.nii,\x1b[31m",
     '"' + "a" * 200_000 + ",01"],
)  # fmt: skip
def test_rows_of_a_manifest_that_are_not_what_they_seem(tmp_path: Path, row: str) -> None:
    """A name became a part of a path, a formula a cell; a zero byte and a long cell ended in ValueError and csv.Error."""
    (tmp_path / "m.csv").write_text(f"path,subject\n{row}\n")
    refused(lambda: read_manifest(tmp_path / "m.csv"))


def test_a_link_in_a_manifest_is_the_users_own(tmp_path: Path) -> None:
    """Symbolic links are followed, as by every program; the manifest alone leads nowhere else."""
    (tmp_path / "a.nii").symlink_to("/etc/hostname")
    (tmp_path / "m.csv").write_text("path,subject\na.nii,01\n")
    assert read_manifest(tmp_path / "m.csv").entries[0].path == tmp_path / "a.nii"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "subject,a\n01\n"),
        ("r.csv", "\x0b\n\n01"),
        ("r.csv", "subject,region,ml\n01,a\n"),
        ("r.csv", 'subject,a\n01,"' + "1" * 200_000),
        ("aseg.stats", "# ColHeaders Volume_mm3 StructName\n1\n"),
    ],
)
def test_tables_of_volumes_with_cells_missing(tmp_path: Path, name: str, text: str) -> None:
    """IndexError, ValueError, csv.Error."""
    (tmp_path / name).write_text(text)
    refused(lambda: read_regions(tmp_path / name))


def written(path: Path) -> Path:
    writer = StoreWriter(path, SPEC.shape, SPEC, covariates=("age",))
    writer.append(Item(np.zeros(SPEC.shape, np.float32), "01", covariates={"age": 30.0}))
    return writer.finish()


@pytest.mark.parametrize("attribute", ["spec", "covariate_names", "scale", "shape"])
@pytest.mark.parametrize("value", ["[" * 5000, "null", 3.5, np.zeros(0), "3"])
def test_attributes_of_a_store_of_another_kind(tmp_path: Path, attribute: str, value: object) -> None:
    """TypeError, RecursionError, AttributeError."""
    with h5py.File(written(tmp_path / "a.h5"), "r+") as file:
        file.attrs[attribute] = value
    try:
        Store(tmp_path / "a.h5").close()
    except InputError:
        return
    assert attribute == "scale"  # any number will do


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("images", (1, 6, 7, 5), "f4"),
        ("covariates", (2, 1), "f4"),
        ("affines", (1, 3), "f8"),
        ("images", (2**40, 6, 7, 5), "u2"),
        ("subjects", (2**40,), "S9"),
        ("volumes", (2**47, 1), "f8"),
    ],
)
def test_sets_of_a_store_of_another_size(
    tmp_path: Path, name: str, shape: tuple[int, ...], dtype: str
) -> None:
    with h5py.File(written(tmp_path / "a.h5"), "r+") as file:
        del file[name]
        file.create_dataset(name, shape, dtype, chunks=tuple(min(n, 8) for n in shape))
    refused(lambda: Store(tmp_path / "a.h5"))


def test_parts_of_a_store_that_are_damaged(tmp_path: Path) -> None:
    """KeyError, OSError and JSONDecodeError, where a stopped command was started again."""
    item = Item(np.zeros(SPEC.shape, np.float32), "01")
    for damage in ("json", "attribute", "image", "bytes"):
        path = tmp_path / damage / "a.h5"
        writer = StoreWriter(path, SPEC.shape, SPEC)
        writer.append(item)
        [part] = writer.parts.glob("*.part.h5")
        if damage == "json":
            (writer.parts / "store.json").write_text("[1]")
            refused(lambda path=path: StoreWriter(path, SPEC.shape, SPEC))
            continue
        if damage == "bytes":
            part.write_bytes(part.read_bytes()[:500])
        else:
            with h5py.File(part, "r+") as file:
                if damage == "attribute":
                    del file.attrs["split"]
                else:
                    del file["images"]
                    file["images"] = np.zeros(3)
        refused(lambda writer=writer: writer.has(item) and writer.finish(), "unfinished store")


def test_a_file_of_pairs_of_other_columns(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.pairs.h5", "w") as file:
        file.attrs.update({"format": "radiata-pairs/1", "complete": True, "spec": "[" * 5000})
    refused(lambda: PairStore(tmp_path / "a.pairs.h5"))


def test_networks_of_the_browser_nested_or_too_large(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("[" * 100_000)
    refused(lambda: read_meshnet(tmp_path))
    shape = {"name": "a", "dtype": "float32", "shape": [2**31, 2**31]}
    layers = [{"class_name": "InputLayer", "config": {"name": "i"}, "inbound_nodes": []}]
    model = {
        "modelTopology": {"config": {"layers": layers}},
        "weightsManifest": [{"paths": ["a.bin"], "weights": [shape]}],
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "a.bin").write_bytes(b"")
    refused(lambda: read_meshnet(tmp_path), "bytes of weights")


def labelled(path: Path) -> Path:
    codes = np.zeros((4, 4, 4), np.int16)
    codes[:2], codes[2:3] = 2, 3
    write_label_maps(path, [LabelMap("a", "p", "train", codes, np.eye(4), None, "0" * 64)])
    return path


@pytest.mark.parametrize("change", ["fine", "person", "codes", "affine", "group", "index"])
def test_a_store_of_label_maps_with_a_case_that_is_none(tmp_path: Path, change: str) -> None:
    """KeyError and IndexError."""
    with h5py.File(labelled(tmp_path / "m.h5"), "r+") as file:
        if change == "fine":
            del file["a/fine"]
        elif change == "group":
            del file["a"]
            file["a"] = 3
        elif change == "index":
            file["a/fine"][...] = 200
        else:
            del file["a"].attrs[change]

    def read() -> None:
        with LabelMaps(tmp_path / "m.h5") as store:
            store.read("a")

    refused(read)


@pytest.mark.parametrize(
    "description",
    [{"task": ["deblur"]}, {"task": {}}, {"task": "deblur", "fwhm": "wide"}, {"task": "deblur", "fwhm": [[]]},
     {"task": "sr", "measured_spacing": [None]}, {"task": "denoise", "sd": "x"}],
)  # fmt: skip
def test_degradations_of_other_types(description: dict) -> None:
    """An unhashable task was a TypeError."""
    try:
        degradation_of(description)
    except InputError:
        return
    assert "sd" not in description or isinstance(description["task"], str)


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"steps": [' * 400 + "]}" * 400])
def test_degradations_without_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    refused(lambda: read_degradation(tmp_path / "d.json"))


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "a = " + "9" * 5000, "a = 1\na = 2", "\ud800"])
def test_presets_without_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
    refused(lambda: read_toml(tmp_path / "p.toml"))


def test_an_attribute_where_axes_should_be(tmp_path: Path) -> None:
    """A dangling link among the arrays was an AttributeError."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.zeros((3, 4, 5))
        file["bin_s"] = h5py.Empty("f8")
        file["gone"] = h5py.SoftLink("/nowhere")
    refused(lambda: load_arrays(tmp_path / "a.h5"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("30000", "0"),
        ("30000", "x"),
        ("2.0 pix", ". pix"),
        ("yloc uint16", "yloc uint16><yloc uint16"),
        ("2.0", "9" * 400),
    ],
)
def test_tracking_headers_of_other_numbers(tmp_path: Path, old: str, new: str) -> None:
    """ZeroDivisionError, IndexError, ValueError."""
    head = (
        "<Start settings>\nclockrate: 30000\npixel scale: 2.0 pix/cm\n"
        "Fields: <time uint32><xloc uint16><yloc uint16>\n<End settings>\n"
    )
    path = tmp_path / "a.videoPositionTracking"
    path.write_bytes(head.replace(old, new, 1).encode() + bytes(32))
    refused(lambda: read_positions(path))


def test_units_with_a_million_intervals_each(tmp_path: Path) -> None:
    """Every pair of intervals was looked at: 10¹⁰ of a file of 3 MB."""
    count = 100_000
    starts = np.arange(count, dtype=float)
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        table = file.create_group("units")
        table["spike_times"], table["spike_times_index"] = np.arange(4.0), [2, 4]
        rows = np.stack([starts, starts + 0.5], 1)
        table["obs_intervals"], table["obs_intervals_index"] = (
            np.concatenate([rows, rows + 0.1]),
            [count, 2 * count],
        )
    refused(lambda: read_nwb(tmp_path / "a.nwb"), "intervals that the units share")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b"stimulus\n\xff"),
        ("t.csv", b""),
        ("t.csv", b'stimulus\n"' + b"a" * 300_000),
        ("t.csv", b"\0"),
    ],
)
def test_tables_of_trials_that_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: read_trials(tmp_path / name))


@pytest.mark.parametrize("content", [b"1 V1v\n\xff 2\n", b"\xc2\xb2 V1v\n", b"1" * 5000 + b" V1\n"])
def test_colour_tables_of_other_numbers(tmp_path: Path, content: bytes) -> None:
    """UnicodeDecodeError; "²" is a digit to `str.isdigit` and none to `int`."""
    (tmp_path / "a.ctab").write_bytes(content)
    refused(lambda: read_ctab(tmp_path / "a.ctab"))
    (tmp_path / "a.tsv").write_bytes(b"index\tname\n" + content.replace(b" ", b"\t"))
    refused(lambda: codebook(tmp_path / "a.tsv"))


def test_labels_of_other_digits(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones((3, 4, 5, 2), np.float32), AFFINE)
    nib.save(image, tmp_path / "bold.nii.gz")
    nib.save(nib.Nifti1Image(np.ones((3, 4, 5), np.uint8), AFFINE), tmp_path / "mask.nii.gz")
    (tmp_path / "attributes.txt").write_text("face ²\nhouse 0\n")
    refused(lambda: read_category_runs(tmp_path))


@pytest.mark.parametrize("change", ["empty", "words", "categories"])
def test_decoded_files_of_other_types(tmp_path: Path, change: str) -> None:
    """TypeError: an empty set has no length."""
    arrays = {"probabilities": np.ones((1, 2), np.float32)}
    write_decoded(tmp_path / "decoded.h5", Decoded(["a"], arrays, "image", "test", ("cat", "house")))
    with h5py.File(tmp_path / "decoded.h5", "r+") as file:
        if change == "categories":
            file["probabilities"].attrs["categories"] = 3.5
        else:
            del file["stimulus"]
            file["stimulus"] = h5py.Empty("f4") if change == "empty" else np.zeros(1)
    refused(lambda: read_decoded(tmp_path))


def test_responses_and_stimuli_that_are_groups(tmp_path: Path) -> None:
    """AttributeError: a group has no shape."""
    trials = pd.DataFrame({"stimulus": ["a", "b"], "split": ["train", "test"]})
    write_subject(tmp_path / "s", np.ones((2, 3), np.float32), trials)
    write_stimuli(tmp_path / "s", pd.DataFrame({"stimulus": ["a"]}), images=np.zeros((1, 4, 4, 3), np.uint8))
    for file, name in (("responses.h5", "responses"), ("stimuli.h5", "images")):
        with h5py.File(tmp_path / "s" / file, "r+") as opened:
            del opened[name]
            opened.create_group(name)
    refused(lambda: read_subject(tmp_path / "s"))
    refused(lambda: read_stimuli(tmp_path / "s"))
    with h5py.File(tmp_path / "s" / "stimuli.h5", "r+") as opened:
        opened.attrs["format"] = [1, 2]  # compared with a word it had no truth value
    refused(lambda: read_stimuli(tmp_path / "s"))
    refused(lambda: hdf5_length(tmp_path / "s" / "responses.h5", "responses"))


def test_a_series_whose_header_lies(tmp_path: Path) -> None:
    """Memory for 30 000 volumes was asked for."""
    image = nib.Nifti1Image(np.ones((3, 4, 5, 2), np.float32), AFFINE)
    nib.save(image, tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[48:50] = struct.pack("<h", 30_000)
    (tmp_path / "a.nii").write_bytes(content)
    refused(lambda: masked_series(tmp_path / "a.nii", np.ones((3, 4, 5), bool)), "cannot hold")


def test_a_surface_that_reads_another_file(tmp_path: Path) -> None:
    """GIFTI may name a file for its values: any file of the machine came back as numbers."""
    (tmp_path / "secret").write_bytes(np.arange(8, dtype="<f4").tobytes())
    array = nib.gifti.GiftiDataArray(np.zeros(8, np.float32), encoding="GIFTI_ENCODING_B64GZ")
    nib.save(nib.gifti.GiftiImage(darrays=[array]), tmp_path / "a.func.gii")
    text = (tmp_path / "a.func.gii").read_text().replace("GZipBase64Binary", "ExternalFileBinary")
    text = text.replace('ExternalFileName=""', 'ExternalFileName="secret"')
    (tmp_path / "b.func.gii").write_text(text)
    refused(lambda: surface_series(tmp_path / "b.func.gii"), "another file")


def test_a_picture_of_a_terabyte(tmp_path: Path) -> None:
    import zlib

    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((8, 8, 3), 90, np.uint8))
    content = (tmp_path / "a.png").read_bytes()
    chunk = b"IHDR" + struct.pack(">II", 600_000, 600_000) + content[24:29]
    (tmp_path / "a.png").write_bytes(
        content[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + content[33:]
    )
    refused(lambda: named_pictures(picture_files(tmp_path), 8, ["a"]).images[0:1])
