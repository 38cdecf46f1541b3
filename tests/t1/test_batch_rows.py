"""The largest batch that fits, from a made-up memory and from one that is measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from radiata_core.errors import InputError
from radiata_t1.experiment.draw_many import Ready
from radiata_t1.experiment.sample import Sample
from radiata_t1.model import batch_rows
from radiata_t1.model.batch_rows import SHARE, free_bytes, measured_bytes, rows_that_fit


def line(base: float, slope: float) -> tuple[Callable[[int], float], list[int]]:
    """A memory that grows evenly, and what it was asked for."""
    asked: list[int] = []

    def peak(rows: int) -> float:
        asked.append(rows)
        return base + slope * rows

    return peak, asked


@pytest.mark.parametrize("free", [150.0, 151.0, 199.0, 200.0, 1e4])
def test_one_more_row_would_not_fit(free: float) -> None:
    """Memory 100 + 50 b, asked for one and two rows only; at most 12."""
    peak, asked = line(100.0, 50.0)
    rows = rows_that_fit(peak, free, 12)
    assert asked == [1, 2]
    assert peak(rows) <= free and (rows == 12 or peak(rows + 1) > free)


def test_a_row_that_does_not_fit_is_refused_and_one_is_not_measured_twice() -> None:
    peak, asked = line(2.0**30, 2.0**20)
    with pytest.raises(InputError, match=r"expected memory for one row, 1025 MiB; got 512 MiB"):
        rows_that_fit(peak, 2.0**29, 8)
    assert rows_that_fit(peak, 2.0**40, 1) == 1
    assert asked == [1, 1]
    assert rows_that_fit(lambda rows: 5.0, 6.0, 8) == 8  # so small that the second row is not seen


def test_a_process_takes_its_share_of_a_fake_memory(tiny_run: Path, tmp_path: Path, monkeypatch) -> None:
    """A network of 10 + 5 b MiB in 100 MiB: 70 are taken, 12 rows; two processes 35, 5 rows; never more than heads."""
    verb = Sample(out=tmp_path, model=str(tiny_run), batch_size="auto")
    ready = Ready.of(verb)
    monkeypatch.setattr("radiata_t1.experiment.draw_many.free_bytes", lambda device: 100 * 2.0**20)
    monkeypatch.setattr(
        "radiata_t1.experiment.draw_many.measured_bytes",
        lambda denoiser, event, given, rows: (10 + 5 * rows) * 2.0**20,
    )
    assert SHARE == 0.7
    assert ready.rows("auto", 50, 1) == 12
    assert ready.rows("auto", 50, 2) == 5
    assert ready.rows("auto", 4, 2) == 2
    assert ready.rows(7, 4, 2) == 7


@pytest.mark.slow  # the peak of a process that held more before says nothing of this call
def test_a_large_map_is_measured() -> None:
    """A network whose only map is 8 MiB a row: the peak grows by that, within a quarter."""

    class Widening(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return x.repeat(1, 64, 1, 1, 1).mul_(self.weight).sum(1, keepdim=True)

    one, three = (measured_bytes(Widening(), (1, 32, 32, 32), {}, rows) for rows in (1, 3))
    assert 0.75 < (three - one) / (2 * 8 * 2**20) < 1.25
    assert free_bytes(torch.device("cpu")) > three


def test_where_no_peak_can_be_reset_its_growth_counts(monkeypatch) -> None:
    monkeypatch.setattr(batch_rows, "_reset_peak", lambda: False)
    monkeypatch.setattr(batch_rows, "_resident", lambda key: 2.0**20)
    monkeypatch.setattr(batch_rows, "peak_memory_mib", lambda: {"process": 3.0})
    identity = torch.nn.Identity()
    identity.weight = torch.nn.Parameter(torch.ones(1))
    identity.forward = lambda x, t: x
    assert measured_bytes(identity, (1, 4, 4, 4), {}, 2) == 2 * 2**20
