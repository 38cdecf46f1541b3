"""Real BOLD: eight categories in the slice that ships, blocks held out run by run."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from radiata_core.errors import InputError
from radiata_decode.data.subject import write_subject
from radiata_decode.experiment.category_decoding import decode_blocks, decode_positions, decode_subject
from radiata_decode.experiment.prepare import Prepare


def test_blocks_of_the_shipped_slice_are_told_apart() -> None:
    """Golden: decode_blocks(permutations=19) gave .865, all options chosen within training runs; chance is .125."""
    found = decode_blocks(permutations=19)
    assert found.accuracy == pytest.approx(0.8646, abs=0.02) and found.chance == 0.125
    assert found.p == 0.05 and found.null.max() < 0.4
    assert set(found.chosen) == set(range(1, 13)) and found.interval[0] < found.accuracy < found.interval[1]
    assert found.confusion.sum() == 96


def test_a_blocks_place_in_its_run_explains_little_of_it() -> None:
    """Golden: 24 or 26 of 96 blocks, .25 or .271. Above chance, so it belongs beside the accuracy; far below it.

    Categories tie where they came equally often at a place, and the processor's rounding decides: seen 24 and 26.
    """
    found = decode_positions(permutations=0)
    assert 96 * found.accuracy == pytest.approx(25, abs=3) and found.chance == 0.125


def test_a_prepared_subject_is_decoded_as_it_is(tmp_path: Path) -> None:
    """The same numbers as the one preparation that was written into the folder."""
    from radiata_decode.data.subject import read_subject

    Prepare("from-haxby", tmp_path / "out", lag=2.5).run()
    kept, direct = (
        decode_subject(read_subject(tmp_path / "out"), permutations=0),
        decode_blocks(lags_s=[2.5], permutations=0),
    )
    assert kept.accuracy == direct.accuracy
    np.testing.assert_allclose(kept.scores, direct.scores, atol=1e-5)


def test_bad_input(tmp_path: Path, rng: np.random.Generator) -> None:
    table = pd.DataFrame({"stimulus": [f"s{k}" for k in range(6)], "split": "train"})
    subject = write_subject(tmp_path / "s", rng.normal(size=(6, 4)), table)
    with pytest.raises(InputError, match=r"a category of each trial"):
        decode_subject(subject)
    with pytest.raises(InputError, match=r"at least one lag"):
        decode_blocks(lags_s=[])
    with pytest.raises(InputError, match=r"as many blocks at each lag|lag of 0 to 30"):
        decode_blocks(lags_s=[2.5, 31.0])
