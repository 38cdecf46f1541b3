"""Drawing pairs: the same pairs whatever the batch, the shards and the interruptions."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.denoisers import Guided, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.paths import LinearPath, VPPath
from radiata_core.runs import Interrupted
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import integrate
from radiata_core.tables import ddim, sde_dpmpp_2m, unipc_2
from radiata_core.times import LinearGrid, LogSNRGrid
from radiata_imaging import pairs as module
from radiata_imaging.pairs import draw_pairs, fingerprint, open_pairs

EVENT = (1, 4, 3)


class Conditional(nn.Module):
    """A network whose answer depends on an age."""

    def __init__(self, slope=0.5):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, x, level, age):
        return self.slope * x + age.nan_to_num().view(-1, *[1] * (x.ndim - 1))


def teacher(path=None, variance=4.0):
    covariance = Diagonal(torch.full(EVENT, variance))
    return GaussianDenoiser(torch.ones(EVENT), covariance, path or LinearPath())


def ages(seeds):
    return {"age": torch.tensor([[float("nan") if seed % 2 else 0.01 * seed] for seed in seeds])}


def rows(data):
    return {name: torch.stack([item[name] for item in data]) for name in data[0]}


def items(data):
    return [data[index] for index in range(len(data))]


def test_a_pair_is_the_noise_of_its_seed_and_what_the_teacher_makes_of_it(tmp_path):
    assert draw_pairs(teacher(), range(5), tmp_path / "p", event=EVENT, steps=6, dtype="float32") == 5
    drawn = rows(items(open_pairs(tmp_path / "p")))
    noise = noise_of(generators_of(range(5), 0), EVENT)
    assert torch.equal(drawn["noise"], noise)
    wanted = integrate(teacher(), noise, unipc_2(LogSNRGrid()(6, LinearPath()), LinearPath()))
    assert torch.equal(drawn["image"], wanted)


def test_pairs_of_a_gaussian_are_its_flow(tmp_path):
    """Closed form: with many steps x0 = mean + sqrt(variance) noise."""
    draw_pairs(teacher(), range(3), tmp_path, event=EVENT, steps=200, dtype="float32")
    drawn = rows(items(open_pairs(tmp_path)))
    assert torch.allclose(drawn["image"], 1 + 2 * drawn["noise"], atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batches_shards_and_order_do_not_matter(tmp_path, dtype):
    options = {"event": EVENT, "steps": 4, "dtype": dtype}
    draw_pairs(teacher(), range(11), tmp_path / "one", batch=11, **options)
    for number in (2, 0, 1):
        draw_pairs(teacher(), range(11), tmp_path / "many", batch=2, shard=(number, 3), **options)
    one, many = open_pairs(tmp_path / "one"), open_pairs(tmp_path / "many", in_memory=True)
    assert one.seeds == many.seeds == list(range(11))
    assert all(
        torch.equal(a[name], b[name]) for a, b in zip(items(one), items(many), strict=True) for name in a
    )
    some = open_pairs(tmp_path / "many", seeds=[7, 3])
    assert torch.equal(some[1]["image"], one[3]["image"])


def test_small_files_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_JOIN", 3)
    draw_pairs(teacher(), range(8), tmp_path, event=EVENT, steps=2, batch=1)
    names = [file.name for file in tmp_path.iterdir()]
    assert len(names) == 3 and all(name.startswith("pairs-") for name in names)
    assert open_pairs(tmp_path).seeds == list(range(8))


def test_conditions_and_guidance_reach_the_teacher(tmp_path):
    denoiser = NetworkDenoiser(Conditional(), LinearPath(), "sample")
    draw_pairs(
        denoiser, range(6), tmp_path, event=(2,), conditions=ages, guidance=2.0, steps=3, dtype="float32"
    )
    drawn = rows(items(open_pairs(tmp_path)))
    assert torch.equal(drawn["age"].isnan(), ages(range(6))["age"].isnan())
    table = unipc_2(LogSNRGrid()(3, LinearPath()), LinearPath())
    wanted = integrate(Guided(denoiser, 2.0), drawn["noise"], table, age=ages(range(6))["age"])
    assert torch.allclose(drawn["image"], wanted.detach(), atol=1e-6)


def test_stored_noise_is_the_noise_of_the_seed(tmp_path):
    draw_pairs(teacher(), range(3), tmp_path / "stored", event=EVENT, steps=2, store_noise=True)
    draw_pairs(teacher(), range(3), tmp_path / "drawn", event=EVENT, steps=2)
    stored, drawn = rows(items(open_pairs(tmp_path / "stored"))), rows(items(open_pairs(tmp_path / "drawn")))
    assert torch.equal(stored["noise"], drawn["noise"])


def test_a_start_of_ones_own(tmp_path):
    """On a path with alpha_1 > 0 a teacher may start from more than noise."""
    path = VPPath()
    seen = []

    def start(denoiser, noise):
        seen.append(noise)
        return noise + 1

    draw_pairs(
        teacher(path), range(2), tmp_path, event=EVENT, steps=2, start=start, solver=ddim, grid=LinearGrid()
    )
    assert torch.equal(seen[0], noise_of(generators_of(range(2), 0), EVENT))


# -- interruptions ---------------------------------------------------------------------------------------------


def test_a_second_start_draws_what_is_missing(tmp_path):
    calls = []

    class Counted:
        path = LinearPath()

        def __call__(self, x, t, **conditions):
            calls.append(len(x))
            return x

    assert draw_pairs(Counted(), range(4), tmp_path, event=EVENT, steps=1) == 4
    assert draw_pairs(Counted(), range(10), tmp_path, event=EVENT, steps=1) == 6
    assert draw_pairs(Counted(), range(10), tmp_path, event=EVENT, steps=1) == 0
    assert sum(calls) == 10
    with pytest.raises(InputError, match="expected a folder without pairs; got 10 of these"):
        draw_pairs(Counted(), range(10), tmp_path, event=EVENT, steps=1, resume=False)


def test_ctrl_c_finishes_the_batch_and_saves_it(tmp_path):
    class Stops:
        path = LinearPath()
        calls = 0

        def __call__(self, x, t, **conditions):
            Stops.calls += 1
            if Stops.calls == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return x

    with pytest.raises(Interrupted, match="4 of 9 pairs are in"):
        draw_pairs(Stops(), range(9), tmp_path, event=EVENT, steps=1, batch=2)
    assert open_pairs(tmp_path).seeds == [0, 1, 2, 3]
    assert draw_pairs(Stops(), range(9), tmp_path, event=EVENT, steps=1, batch=2) == 5


SCRIPT = """
import sys, time, torch
from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.paths import LinearPath
from radiata_imaging.pairs import draw_pairs
torch.set_num_threads(1)
teacher = GaussianDenoiser(torch.ones(1, 4, 3), Diagonal(torch.full((1, 4, 3), 4.0)), LinearPath())
draw_pairs(teacher, range(100_000), sys.argv[1], event=(1, 4, 3), steps=4, batch=4)
"""


def test_a_kill_loses_the_batch_in_flight_only(tmp_path):
    """SIGKILL at any moment: every file that is there is whole, and what follows is what would have been."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "p")],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    began = time.monotonic()
    while len(list((tmp_path / "p").glob("*.pairs.h5"))) < 5 and time.monotonic() - began < 60:
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = list(open_pairs(tmp_path / "p").seeds)
    assert kept == list(range(len(kept))) and len(kept) >= 20 and len(kept) % 4 == 0
    count = len(kept) + 10
    assert draw_pairs(teacher(), range(count), tmp_path / "p", event=EVENT, steps=4, batch=8) == 10
    draw_pairs(teacher(), range(count), tmp_path / "whole", event=EVENT, steps=4, batch=64)
    again, whole = rows(items(open_pairs(tmp_path / "p"))), rows(items(open_pairs(tmp_path / "whole")))
    assert all(torch.equal(again[name], whole[name]) for name in whole)


# -- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"denoiser": teacher(VPPath())}, "expected pairs of path .*vp-path"),
        ({"denoiser": teacher(variance=3.0)}, "expected pairs of teacher"),
        ({"event": (1, 1, 3)}, r"expected pairs of event \[1, 1, 3\]; got \[1, 4, 3\]"),
        ({"steps": 3}, "expected pairs of steps 3; got 2"),
        ({"solver": ddim}, 'expected pairs of solver "ddim"'),
        ({"dtype": "float32"}, "expected pairs of dtype"),
    ],
)
def test_a_folder_of_other_pairs_is_refused(tmp_path, changed, message):
    options = {"denoiser": teacher(), "event": EVENT, "steps": 2}
    draw_pairs(seeds=range(2), out=tmp_path, **options)
    with pytest.raises(InputError, match=message):
        draw_pairs(seeds=range(4), out=tmp_path, **options | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": [1, 1]}, "each once"),
        ({"seeds": []}, "expected seeds"),
        ({"seeds": [-1]}, "expected seeds >= 0"),
        ({"batch": 0}, "a batch of 1 or more"),
        ({"shard": (3, 3)}, r"expected a shard \(i, n\)"),
        ({"guidance": 2.0}, "expected conditions for guidance"),
        ({"solver": sde_dpmpp_2m}, "expected a deterministic solver"),
    ],
)
def test_arguments_that_make_no_pairs_are_refused(tmp_path, changed, message):
    options = {"denoiser": teacher(), "seeds": range(2), "out": tmp_path / "p", "event": EVENT, "steps": 2}
    with pytest.raises(InputError, match=message):
        draw_pairs(**options | changed)
    assert not (tmp_path / "p").exists()


def test_a_teacher_that_gives_nan_is_named_with_step_and_time(tmp_path):
    class Bad:
        path = LinearPath()

        def __call__(self, x, t, **conditions):
            return x * float("nan")

    with pytest.raises(InputError, match="step 0"):
        draw_pairs(Bad(), range(2), tmp_path, event=EVENT, steps=2)


def test_opening_other_pairs_is_refused(tmp_path):
    draw_pairs(teacher(), range(2), tmp_path / "p", event=EVENT, steps=2)
    with pytest.raises(InputError, match=r"expected pairs on .*vp-path"):
        open_pairs(tmp_path / "p", path=VPPath())
    with pytest.raises(InputError, match="expected pairs of shape 1×2; got 1×4×3"):
        open_pairs(tmp_path / "p", event=(1, 2))
    with pytest.raises(InputError, match="expected pairs of the teacher abc"):
        open_pairs(tmp_path / "p", teacher="abc")
    with pytest.raises(InputError, match="1 are missing, the first 5"):
        open_pairs(tmp_path / "p", seeds=[0, 5])
    with pytest.raises(InputError, match="got no file"):
        open_pairs(tmp_path)
    same = open_pairs(tmp_path / "p", path=LinearPath(), event=EVENT, teacher=fingerprint(teacher()))
    assert same.path == LinearPath() and len(same) == 2


def test_mixed_pairs_are_refused(tmp_path):
    draw_pairs(teacher(), range(2), tmp_path / "a", event=EVENT, steps=2)
    draw_pairs(teacher(VPPath()), range(2, 4), tmp_path / "b", event=EVENT, steps=2)
    with pytest.raises(InputError, match="expected pairs of path"):
        open_pairs([tmp_path / "a", tmp_path / "b"])


def test_a_file_for_a_folder_is_refused(tmp_path):
    Path(tmp_path / "p").write_text("x")
    with pytest.raises(InputError, match="expected a folder for the pairs"):
        draw_pairs(teacher(), range(2), tmp_path / "p", event=EVENT)


def test_the_fingerprint_is_that_of_the_numbers():
    assert fingerprint(teacher()) == fingerprint(teacher())
    assert fingerprint(teacher()) != fingerprint(teacher(variance=4.1))
    first, second = (NetworkDenoiser(Conditional(slope), LinearPath(), "velocity") for slope in (0.5, 0.25))
    assert fingerprint(first) != fingerprint(second)
