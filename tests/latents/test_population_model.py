"""The sizes of a population and what they refuse; a read-out that begins at the mean."""

import pytest
import torch
from torch import nn

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.population_model import PopulationModel


def test_sizes_that_do_not_fit_are_refused() -> None:
    for sizes in ((4, 5, 10, 0), (4, 0, 10, 0), (4, 2, 1, 0), (4, 2, 10, -1)):
        with pytest.raises(InputError, match="heldin <= neurons, 2 bins or more"):
            PopulationModel(*sizes)


def test_counts_of_another_shape_are_refused_and_of_this_shape_not() -> None:
    model = PopulationModel(4, 2, 10, 3)
    model.check_counts(torch.zeros(5, 13, 4))
    model.check_seen(torch.zeros(5, 10, 2))
    with pytest.raises(InputError, match=r"10 \+ 3 bins, 4 neurons"):
        model.check_counts(torch.zeros(5, 10, 4))
    with pytest.raises(InputError, match="10 observed bins, 2 held-in"):
        model.check_seen(torch.zeros(5, 13, 2))


def test_generators_are_one_a_trial() -> None:
    counts, rows = torch.zeros(2, 10, 2), generators_of([0, 1])
    assert PopulationModel.check_generators(counts, rows) is rows
    for wrong in (None, rows[:1]):
        with pytest.raises(InputError, match="one generator a trial, 2"):
            PopulationModel.check_generators(counts, wrong)


def test_a_readout_begins_at_the_mean() -> None:
    with torch.random.fork_rng(devices=[]):
        readout = nn.Linear(3, 2)
    PopulationModel.begin_at(readout, torch.tensor([0.5, 0.0]))
    torch.testing.assert_close(readout(torch.zeros(3)).exp(), torch.tensor([0.5, 1e-4]))
