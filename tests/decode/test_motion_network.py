"""The classifier of motion: what it may see, that it learns what is there, and that places are told apart."""

import math

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.specs import describe, rebuild
from radiata_decode.model.motion_network import CodeCrossEntropy, MotionNetwork


@pytest.fixture
def make():
    """Networks whose initial weights are always the same."""

    def built(**options) -> MotionNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return MotionNetwork((4, 4), 1, 3, width=16, hidden=16, dropout=0.0, **options)

    return built


def fit(network: MotionNetwork, codes: torch.Tensor, steps: int = 50, **seen: torch.Tensor) -> float:
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = CodeCrossEntropy()(network, codes.float(), [], **seen).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_at_first_all_codes_have_the_same_chance(make, generator: torch.Generator) -> None:
    network = make(voxels=5)
    loss = CodeCrossEntropy()(
        network, torch.zeros(2, 1, 4, 4), [], responses=torch.randn(2, 5, generator=generator)
    )
    torch.testing.assert_close(loss.per_sample, torch.full((2,), math.log(3.0)))


def test_what_the_brain_says_and_where_is_learned(make, generator: torch.Generator) -> None:
    """The upper half does what voxel 0 says, the lower half what voxel 1 says: an MLP's vector and the place suffice."""
    x = torch.randn(64, 2, generator=generator)
    codes = torch.zeros(64, 1, 4, 4, dtype=torch.long)
    codes[:, :, :2] = (x[:, 0] > 0).long().reshape(-1, 1, 1, 1)
    codes[:, :, 2:] = 2 * (x[:, 1] > 0).long().reshape(-1, 1, 1, 1)
    assert fit(make(voxels=2), codes, responses=x) < 0.3


def test_the_image_alone_cannot_know_what_only_the_brain_knows(make, generator: torch.Generator) -> None:
    x, picture = torch.randn(256, 1, generator=generator), torch.randn(256, 1, 4, 4, generator=generator)
    codes = (x[:, 0] > 0).long().reshape(-1, 1, 1, 1).expand(256, 1, 4, 4)
    assert (
        fit(make(features=1), codes, 40, features=picture) > 0.55
    )  # ln 2 = .69, less what it can learn by heart
    assert fit(make(voxels=1, features=1), codes, 40, responses=x, features=picture) < 0.3


def test_a_network_is_rebuilt_from_its_card(make) -> None:
    network = make(voxels=3, features=2, guess=2)
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(network))
    assert again.options == network.options
    again.load_state_dict(network.state_dict())


def test_inputs_that_are_not_there(make) -> None:
    with pytest.raises(InputError, match="expected responses"):
        make(voxels=3)(features=torch.zeros(1, 2, 4, 4))
    with pytest.raises(InputError, match="neither"):
        make()
