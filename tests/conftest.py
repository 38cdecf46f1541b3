"""One thread, no screen, no change of a global: the same suite on every machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("ACCELERATE_USE_CPU", "true")

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The contract of all applications takes longest: where processes share the files, it must not be the last to start.
    items.sort(key=lambda item: item.path.name != "test_contract.py")
    if SHARED_DATA.is_dir():
        return
    reason = pytest.mark.skip(reason="needs the data folder beside the checkout, which is absent")
    for item in items:
        if "needs_shared" in item.keywords:
            item.add_marker(reason)


@pytest.fixture
def shared_data() -> Path:
    """The data beside the checkout; a test that asks for it carries the marker `needs_shared`."""
    return SHARED_DATA


@pytest.fixture
def generator() -> torch.Generator:
    """A torch generator with a fixed seed."""
    return torch.Generator().manual_seed(20240)


@pytest.fixture
def rng() -> np.random.Generator:
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(20240)


@pytest.fixture
def bids_errors() -> Callable[[Path], list[str]]:
    """A function: the errors that the BIDS validator finds in a folder; without the validator the test is skipped."""
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("needs the BIDS validator: pip install bids-validator-deno")

    def errors(folder: Path) -> list[str]:
        call = [str(validator), str(folder), "--format", "json"]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        found = json.loads(done.stdout)["issues"]["issues"]
        keys = ("location", "code", "subCode", "issueMessage")
        return [
            " ".join(str(one.get(key, "")) for key in keys) for one in found if one["severity"] == "error"
        ]

    return errors


@pytest.fixture(autouse=True)
def no_global_changes() -> Iterator[None]:
    """A test (and the code under it) that draws from, or reseeds, a global random state fails."""
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), np.random.get_state()[2]  # noqa: NPY002
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    yield
    after = torch.get_rng_state(), np.random.get_state()[1], np.random.get_state()[2]  # noqa: NPY002
    changed = [
        name
        for name, same in {
            "torch's global random state": torch.equal(before[0], after[0]),
            "numpy's global random state": np.array_equal(before[1], after[1]) and before[2] == after[2],
            "torch's default dtype": torch.get_default_dtype() == dtype,
            "torch's number of threads": torch.get_num_threads() == threads,
        }.items()
        if not same
    ]
    torch.set_rng_state(before[0])
    torch.set_default_dtype(dtype)
    torch.set_num_threads(threads)
    assert not changed, f"the test changed {', '.join(changed)}; pass a generator instead"


@pytest.fixture(autouse=True)
def figures_closed() -> Iterator[None]:
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
