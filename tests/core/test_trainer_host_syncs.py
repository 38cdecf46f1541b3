"""A training step never waits for the device: nothing of a tensor is read on the host between two lines of the log."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import radiata_core as core
from radiata_core import coefficients, denoisers, predictions
from radiata_core.feeding import HIDE
from radiata_core.seeds import generators_of
from radiata_core.specs import buildable
from radiata_core.train_options import TrainOptions, hide
from radiata_core.trainer import Trainer

READING = {
    "aten::_local_scalar_dense",  # .item(), float(), int(), bool(), .tolist() of one number
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::repeat_interleave",
    "aten::allclose",
}
"""Operations whose result, or whose shape, the host has to wait for."""


class HostReads(TorchDispatchMode):
    """Counts operations for which the host waits, but for those on `known` tensors, which live on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.known: set[int] = set()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().split(".")[0]
        if name in READING and args[0].untyped_storage().data_ptr() not in self.known:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


@buildable("denoiser-of-sync-tests")
class Network(torch.nn.Module):
    """A convolution that sees the noise level and one covariate."""

    def __init__(self) -> None:
        super().__init__()
        self.options: dict[str, Any] = {}
        self.layer = torch.nn.Conv3d(3, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, level: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        told = torch.nan_to_num(covariates[:, :1], nan=-3.0)
        maps = [value.to(x.dtype).reshape(-1, 1, 1, 1, 1).expand_as(x) for value in (level, told)]
        return self.layer(torch.cat([x, *maps], 1))


def network_of() -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Network()


def trainer_of(folder: Path, kind: str) -> Trainer:
    path, network = core.paths.LinearPath(), network_of()
    if kind == "preconditioned":
        denoiser: Any = core.denoisers.EDMDenoiser(network, path, sigma_data=0.5)
    else:
        denoiser = core.denoisers.NetworkDenoiser(network, path, "velocity")
    law = core.times.LogNormalSNR(0.0, 1.0)
    objective = core.objectives.Regression(path, law, target=denoiser.prediction)
    options = TrainOptions(
        steps=20, batch_size=4, accumulate=2, clip=1.0, condition_dropout=0.3, covariate_dropout=0.1, tensorboard=False
    )  # fmt: skip
    return Trainer(denoiser, objective, folder, options, {})


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    return [{"image": draw(2, 1, 6, 6, 6), "covariates": draw(2, 2)} for _ in range(count)]


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors count as an accelerator's: what is checked on the CPU alone is not. Torch's own state is put back."""
    for module in (coefficients, predictions, denoisers):
        monkeypatch.setattr(module, "readable", lambda values: False)
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.usefixtures("accelerator")
@pytest.mark.parametrize("kind", ["velocity", "preconditioned"])
def test_a_step_reads_nothing_of_the_device(tmp_path: Path, kind: str) -> None:
    """Five steps of two pieces with clipping, averages and dropout: no read; those of the log, two a step, are seen."""
    trainer = trainer_of(tmp_path, kind)
    loader = iter(batches(12))
    trainer.one_step(loader)
    with HostReads() as reads:
        # torch keeps AdamW's count of steps on the host, whatever the device of the weights.
        steps = [state["step"] for state in trainer.optimizer.optimizer.state.values()]
        reads.known = {step.untyped_storage().data_ptr() for step in steps}
        for _ in range(5):
            trainer.one_step(loader)
    assert reads.found == {}
    with HostReads() as reads:
        trainer.check_losses()
    assert reads.found == {"aten::_local_scalar_dense": 12}
    trainer.log.close()


def test_the_count_sees_what_it_should() -> None:
    with HostReads() as reads:
        x = torch.ones(3)
        assert bool((x > 0).any()) and float(x[0]) == 1 and len(x.nonzero()) == 3 and torch.equal(x, x)
    assert reads.found == {"aten::_local_scalar_dense": 2, "aten::nonzero": 1, "aten::equal": 1}


def test_hiding_draws_as_it_always_did() -> None:
    """Row by row from its own generator: one number for the row, then one for each value, names in order."""
    generators = generators_of(range(50), HIDE)
    options = TrainOptions(condition_dropout=0.2, covariate_dropout=0.3)
    given = {"b": torch.arange(50), "a": torch.ones(50, 2, 3, dtype=torch.float64)}
    hidden = hide(given, generators, options)
    assert {value.dtype for value in hidden.values()} == {torch.float32}
    for row, generator in enumerate(generators_of(range(50), HIDE)):
        whole = float(torch.rand((), generator=generator)) < 0.2
        for name in ("a", "b"):
            gone = (torch.rand(given[name][row].shape, generator=generator) < 0.3) | whole
            assert torch.equal(hidden[name][row].isnan(), gone)
            assert torch.equal(hidden[name][row][~gone], given[name][row].float()[~gone])


def test_times_are_checked_where_nobody_waits() -> None:
    """On the CPU, and by the objective before they are sent; on a device (here: of no numbers at all) they are not read."""
    with pytest.raises(core.errors.InputError, match="times in"):
        coefficients.checked_times(torch.tensor([1.5]))
    assert coefficients.checked_times(torch.empty(3, device="meta")).shape == (3,)
    path = core.paths.LinearPath()
    x = torch.empty(3, 1, 4, device="meta")
    t = torch.empty(3, device="meta")
    assert predictions.target_of(x, x, t, path, predictions.Prediction.SCORE).device.type == "meta"

    class Late(core.times.UniformTime):
        def on(self, path: core.paths.Path, t: torch.Tensor) -> torch.Tensor:
            return t + 1.5

    network = core.denoisers.NetworkDenoiser(network_of(), path, "velocity")
    objective = core.objectives.Regression(path, Late(), target=network.prediction)
    with pytest.raises(core.errors.InputError, match="times in"):
        objective(network, torch.zeros(2, 1, 4, 4, 4), generators_of([0, 1]), covariates=torch.zeros(2, 1))
