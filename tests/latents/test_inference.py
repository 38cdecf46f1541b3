"""Rates of a population: in its own order, the same in any batch, and of an ensemble the mean."""

import numpy as np
import pytest
import torch
import xarray as xr

from radiata_core.errors import InputError
from radiata_latents.data.rates_file import check_belongs
from radiata_latents.data.trials import heldin_first
from radiata_latents.experiment.inference import infer_rates

from .conftest import tiny_network, wavy_population

KINDS = ("radiata", "gru", "lfads", "paper")


@pytest.fixture(scope="module")
def networks(wavy: xr.Dataset) -> dict[str, torch.nn.Module]:
    return {kind: tiny_network(wavy, kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_rates_are_the_networks_own_in_the_populations_order(
    kind: str, wavy: xr.Dataset, networks: dict[str, torch.nn.Module]
) -> None:
    """Neurons 2 and 5 are held out and stand last in the network; in the file they stand where they were."""
    found = infer_rates([networks[kind]], wavy, model="m", kind=kind)
    order = heldin_first(wavy)
    seen = torch.from_numpy(wavy["counts"].values[:, :17][..., order[:8]].astype(np.float32))
    with torch.no_grad():
        own = networks[kind].rates(seen).numpy()
    np.testing.assert_allclose(found["rates"].values[..., order], own, rtol=1e-5)
    assert found.attrs["kind"] == kind
    check_belongs(found, wavy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passes", [0, 3])
def test_a_trial_does_not_depend_on_its_batch(
    kind: str, passes: int, wavy: xr.Dataset, networks: dict[str, torch.nn.Module]
) -> None:
    """Alone in a batch, with all others, or among the validation trials only."""
    network = [networks[kind]]
    whole = infer_rates(network, wavy, passes, seed=2, batch_size=64)
    parted = infer_rates(network, wavy, passes, seed=2, batch_size=7)
    few = infer_rates(network, wavy, passes, seed=2, splits=("validation",))
    for name in whole.data_vars:
        np.testing.assert_allclose(parted[name].values, whole[name].values, rtol=1e-4, atol=1e-6)
        rows = whole["split"].values == "validation"
        np.testing.assert_allclose(few[name].values, whole[name].values[rows], rtol=1e-4, atol=1e-6)


def test_draws_have_a_seed(wavy: xr.Dataset, networks: dict[str, torch.nn.Module]) -> None:
    once, again, other = (infer_rates([networks["radiata"]], wavy, 4, seed=s) for s in (1, 1, 2))
    xr.testing.assert_identical(once, again)
    assert np.abs(other["rates"].values - once["rates"].values).max() > 1e-3


@pytest.mark.parametrize("passes", [0, 4])
def test_two_equal_members_are_one(
    passes: int, wavy: xr.Dataset, networks: dict[str, torch.nn.Module]
) -> None:
    one = infer_rates([networks["radiata"]], wavy, passes)
    two = infer_rates([networks["radiata"]] * 2, wavy, passes)
    for name in one.data_vars:
        np.testing.assert_allclose(two[name].values, one[name].values, rtol=1e-6, atol=1e-7)


def test_an_ensemble_is_the_mean_of_rates(wavy: xr.Dataset, networks: dict[str, torch.nn.Module]) -> None:
    both = infer_rates([networks["radiata"], networks["gru"]], wavy)
    each = [infer_rates([networks[kind]], wavy)["rates"].values for kind in ("radiata", "gru")]
    np.testing.assert_allclose(both["rates"].values, np.mean(each, 0), rtol=1e-5)


def test_spread_of_draws(wavy: xr.Dataset, networks: dict[str, torch.nn.Module]) -> None:
    """The smoother draws nothing: no spread. The flow's spread over 40 draws is that of a second set of draws, within the
    noise of standard deviations: the ratio of their means is 1 within 5 %."""
    smoother = infer_rates([networks["gru"]], wavy, 3)
    assert smoother["rates_sd"].values.max() < 1e-6
    one, two = (infer_rates([networks["radiata"]], wavy, 40, seed=s)["rates_sd"].values for s in (0, 1))
    assert one.mean() > 0.01
    assert one.mean() / two.mean() == pytest.approx(1, abs=0.05)


def test_what_is_inferred_beside_the_rates(wavy: xr.Dataset, networks: dict[str, torch.nn.Module]) -> None:
    flow = infer_rates([networks["radiata"]], wavy)
    trials = wavy.sizes["trial"]
    assert flow["latents"].shape == (trials, 20, 8)  # positions and velocities of four
    assert flow["drive"].shape == (trials, 16, 8)  # steps between 17 observed bins
    assert flow["kl"].shape == (trials, 4) and (flow["kl"].values > 0).any()
    assert set(infer_rates([networks["gru"]], wavy).data_vars) == {"rates"}


def test_other_trials_do_not_enter(
    networks: dict[str, torch.nn.Module],
) -> None:
    """Counts of other trials do not enter a trial's rates."""
    cells = wavy_population()
    other = cells.copy(deep=True)
    other["counts"][:10] = 3
    one, two = (infer_rates([networks["gru"]], p)["rates"].values for p in (cells, other))
    np.testing.assert_allclose(one[10:], two[10:], rtol=1e-5)
    assert np.abs(one[:10] - two[:10]).max() > 1e-3


def test_what_does_not_fit_is_refused(wavy: xr.Dataset, networks: dict[str, torch.nn.Module]) -> None:
    network = networks["radiata"]
    with pytest.raises(InputError, match="17 \\+ 3 bins, 10 neurons"):
        infer_rates([network], wavy.isel(time=slice(1, None)))
    with pytest.raises(InputError, match="expected 8 neurons held in"):
        infer_rates([network], wavy_population(heldout=False))
    with pytest.raises(InputError, match="expected a network"):
        infer_rates([], wavy)
    with pytest.raises(InputError, match="--passes >= 0"):
        infer_rates([network], wavy, -1)
