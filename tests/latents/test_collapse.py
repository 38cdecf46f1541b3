"""KL latent by latent: it sums to what the posterior says, and a collapsed one shows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.collapse import collapse_of, kl_per_latent
from radiata_latents.model.gru_smoother import GRUSmoother
from radiata_latents.model.langevin_flow import LangevinFlow
from radiata_latents.model.lfads import LFADS
from radiata_latents.model.paper_flow import PaperLangevinFlow

SIZES = {"neurons": 6, "heldin": 4, "bins": 8, "forward": 2}


def networks() -> dict[str, torch.nn.Module]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return {
            "radiata": LangevinFlow(latents=4, hidden=8, **SIZES),
            "first-order": LangevinFlow(latents=4, hidden=8, dynamics="first-order", **SIZES),
            "lfads": LFADS(hidden=8, latents=5, generator=8, factors=3, start_sd=0.7, **SIZES),
            "lfads with inputs": LFADS(
                hidden=8, latents=5, generator=8, factors=3, inputs=2, controller=4, **SIZES
            ),
            "paper": PaperLangevinFlow(hidden=8, inner=16, **SIZES),
        }


@pytest.mark.parametrize("name", ["radiata", "first-order", "lfads", "lfads with inputs", "paper"])
def test_latents_sum_to_the_posteriors_own_kl(name: str, rng: np.random.Generator) -> None:
    network = networks()[name].eval()
    seen: Tensor = torch.from_numpy(rng.poisson(0.5, (3, 8, 4)).astype(np.float32))
    rows = generators_of(range(3))
    with torch.no_grad():
        posterior = network.encode(seen)
        path = network.path(posterior, rows, rows)
        found = kl_per_latent(posterior, path)
        torch.testing.assert_close(found.sum(1), posterior.kl(path), rtol=1e-5, atol=1e-5)
    assert found.shape[0] == 3 and found.shape[1] >= 4


def test_a_smoother_has_no_latents(rng: np.random.Generator) -> None:
    with torch.random.fork_rng(devices=[]):
        network = GRUSmoother(hidden=4, factors=2, **SIZES).eval()
    posterior = network.encode(torch.zeros(2, 8, 4))
    assert kl_per_latent(posterior, network.path(posterior)) is None


def test_means_in_the_place_of_latents_cost_nothing() -> None:
    """Dynamics "none": read out as they are, so no KL."""
    with torch.random.fork_rng(devices=[]):
        network = LangevinFlow(latents=4, hidden=8, dynamics="none", **SIZES).eval()
    posterior = network.encode(torch.zeros(2, 8, 4))
    assert kl_per_latent(posterior, network.path(posterior)) is None


def test_effective_number_of_known_shares() -> None:
    """Equal shares: all; one alone: one; none: zero. Shares are per trial: a trial with a large KL counts once."""
    equal = collapse_of(np.full((5, 8), 2.0))
    assert equal.effective == pytest.approx(8) and equal.active == 8 and equal.total == pytest.approx(16)
    alone = collapse_of(np.tile([3.0, 0.0, 0.0], (4, 1)))
    assert alone.effective == pytest.approx(1) and alone.active == 1
    nothing = collapse_of(np.zeros((4, 3)))
    assert nothing.effective == 0 and nothing.active == 0 and nothing.share.tolist() == [0, 0, 0]
    uneven = collapse_of(np.array([[100.0, 0.0], [0.0, 1.0]]))
    assert uneven.share.tolist() == [0.5, 0.5] and uneven.kl.tolist() == [50.0, 0.5]


def test_what_is_no_kl_is_refused() -> None:
    with pytest.raises(InputError, match=r"KL of \(trial, latent\)"):
        collapse_of(np.ones(3))
    with pytest.raises(InputError, match="negative"):
        collapse_of(np.array([[-1.0, 2.0]]))
