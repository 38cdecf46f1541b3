import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_imaging.region_tables import read_regions

STATS = """# Title Segmentation Statistics
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean
  1   4      6300     6298.4  Left-Lateral-Ventricle  34.1
  2  10      7800     7801.0  Left-Thalamus  84.5
"""


def test_every_format_gives_the_same_millilitres(tmp_path):
    files = {
        "synthseg.csv": "subject,Left-Lateral-Ventricle,Left-Thalamus\nsub-1,6298.4,7801.0\n",
        "table.tsv": "Measure:volume\tLeft-Lateral-Ventricle\tLeft-Thalamus\nsub-1\t6298.4\t7801.0\n",
        "ml.csv": "participant_id,Left-Lateral-Ventricle_ml,Left-Thalamus_ml\nsub-1,6.2984,7.801\n",
        "long.csv": "subject,region,mm3\nsub-1,Left-Lateral-Ventricle,6298.4\nsub-1,Left-Thalamus,7801.0\n",
        "bom.csv": "\ufeffsubject,Left-Lateral-Ventricle,Left-Thalamus\nsub-1,6298.4,7801.0\n",
    }
    stats = tmp_path / "fastsurfer" / "sub-1" / "stats" / "aseg.stats"
    stats.parent.mkdir(parents=True)
    stats.write_text(STATS)
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for path in [*(tmp_path / name for name in files), stats, tmp_path / "fastsurfer"]:
        table = read_regions(path)
        assert table.subjects == ("sub-1",), path
        assert table.regions == ("Left-Lateral-Ventricle", "Left-Thalamus"), path
        np.testing.assert_allclose(table.ml, [[6.2984, 7.801]], rtol=1e-12)


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "subject,x\ns,many\n", "subject,x,y\ns,1\n", "subject,x\ns,-3\n", "subject,x\ns,nan\n",
     "subject,region,pints\ns,x,3\n"],
)  # fmt: skip
def test_broken_tables_are_one_line(tmp_path, text):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match="expected") as error:
        read_regions(path)
    assert "\n" not in str(error.value)


def test_binary_and_empty_folder(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="text table"):
        read_regions(tmp_path / "x.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"\*\.stats"):
        read_regions(tmp_path / "empty")
