"""The benchmark's file: what is written comes back, what breaks the format is refused."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from radiata_core.errors import InputError
from radiata_latents.data.submission import group_name, load_submission, save_submission


def predictions(rng: np.random.Generator, bins: int = 35) -> dict[str, np.ndarray]:
    shapes = {"train_rates_heldin": (6, bins, 4), "train_rates_heldout": (6, bins, 2)}
    shapes |= {"eval_rates_heldin": (5, bins, 4), "eval_rates_heldout": (5, bins, 2)}
    shapes |= {"eval_rates_heldin_forward": (5, 10, 4), "eval_rates_heldout_forward": (5, 10, 2)}
    return {key: rng.uniform(0.01, 0.5, shape) for key, shape in shapes.items()}


def test_comes_back_as_float32_under_the_benchmarks_names(tmp_path: Path, rng: np.random.Generator) -> None:
    made = {"mc_maze_small": predictions(rng, 140), "mc_maze_small_20": predictions(rng)}
    save_submission(tmp_path / "a.h5", made)
    found = load_submission(tmp_path / "a.h5")
    assert {g: set(parts) for g, parts in found.items()} == {g: set(parts) for g, parts in made.items()}
    for group, parts in made.items():
        for key, rates in parts.items():
            np.testing.assert_array_equal(found[group][key], rates.astype(np.float32))
    with h5py.File(tmp_path / "a.h5") as file:
        written = file["mc_maze_small_20/eval_rates_heldout"]
        assert written.dtype == np.float32 and written.compression == "gzip"


def test_names_carry_the_bin() -> None:
    assert group_name("mc_rtt", 5) == "mc_rtt" and group_name("mc_rtt", 20) == "mc_rtt_20"
    for name, bin_ms in (("maze", 5), ("mc_rtt", 10)):
        with pytest.raises(InputError, match="expected one of mc_maze"):
            group_name(name, bin_ms)


def test_rates_in_hz_are_refused_and_leave_no_file(tmp_path: Path, rng: np.random.Generator) -> None:
    made = predictions(rng)
    counts = {"eval_spikes_heldin": rng.poisson(made["eval_rates_heldin"])}
    save_submission(tmp_path / "good.h5", {"mc_rtt_20": made}, {"mc_rtt_20": counts})
    hertz = {key: rates / 0.02 for key, rates in made.items()}
    with pytest.raises(InputError, match=r"counts a bin; their mean is .*Multiply rates in Hz"):
        save_submission(tmp_path / "bad.h5", {"mc_rtt_20": hertz}, {"mc_rtt_20": counts})
    tiny = {key: 0.02 * rates for key, rates in made.items()}
    with pytest.raises(InputError, match="counts a bin"):
        save_submission(tmp_path / "bad.h5", {"mc_rtt_20": tiny}, {"mc_rtt_20": counts})
    assert [file.name for file in tmp_path.iterdir()] == ["good.h5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eval_rates_heldin": None}, "missing: eval_rates_heldin,"),
        ({"eval_rates_heldout_forward": None}, "missing: eval_rates_heldout_forward,"),
        ({"rates": np.ones((5, 35, 2))}, "unknown: rates"),
        ({"eval_rates_heldout": np.ones((5, 34, 2))}, r"3[45] bins"),
        ({"eval_rates_heldout": np.ones((4, 35, 2))}, "of 5 trials"),
        ({"train_rates_heldout": np.ones((6, 35, 3))}, "2 neurons"),
        ({"eval_rates_heldout_forward": np.ones((5, 10, 4))}, "2 neurons"),
        ({"eval_rates_heldout": -np.ones((5, 35, 2))}, "finite rates >= 0"),
        ({"eval_rates_heldout": np.full((5, 35, 2), np.nan)}, "finite rates >= 0"),
        ({"eval_rates_heldout": np.ones((35, 2))}, "finite rates >= 0"),
    ],
)
def test_what_breaks_the_format_is_refused(
    tmp_path: Path, rng: np.random.Generator, change: dict[str, np.ndarray | None], message: str
) -> None:
    made = {key: rates for key, rates in (predictions(rng) | change).items() if rates is not None}
    with pytest.raises(InputError, match=message):
        save_submission(tmp_path / "a.h5", {"mc_rtt_20": made})
    with h5py.File(tmp_path / "b.h5", "w") as file:
        for key, rates in made.items():
            file[f"mc_rtt_20/{key}"] = rates
    with pytest.raises(InputError, match=message):
        load_submission(tmp_path / "b.h5")


def test_files_and_groups_that_are_none_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match=r"ending in \.h5"):
        save_submission(tmp_path / "a.npz", {"mc_rtt": predictions(rng)})
    with pytest.raises(InputError, match="got 'mc_rtt_5'"):
        save_submission(tmp_path / "a.h5", {"mc_rtt_5": predictions(rng)})
    with pytest.raises(InputError, match="of a data set; got none"):
        save_submission(tmp_path / "a.h5", {})
    with pytest.raises(InputError, match="no such file"):
        load_submission(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("rates")
    with pytest.raises(InputError, match="cannot be read"):
        load_submission(tmp_path / "text.h5")
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["mc_rtt"] = np.ones(3)
    with pytest.raises(InputError, match=r"which holds mc_rtt\. Write one by infer --submission"):
        load_submission(tmp_path / "flat.h5")
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(InputError, match="is empty"):
        load_submission(tmp_path / "empty.h5")
