"""A set drawn from a known model has its law, and an item does not depend on the batch it was drawn in."""

import pytest
import torch

from radiata_core.analytic import GaussianDenoiser
from radiata_core.covariances import Diagonal
from radiata_core.errors import InputError
from radiata_core.generated_sets import generated_set
from radiata_core.paths import LinearPath
from radiata_core.solvers import dpmpp_2m
from radiata_core.times import KarrasGrid

PATH = LinearPath()
PRIOR = GaussianDenoiser(torch.full((50,), 0.5).double(), Diagonal(torch.full((50,), 0.04).double()), PATH)
TABLE = dpmpp_2m(KarrasGrid(sigma_min=0.01, sigma_max=20.0)(24, PATH), PATH)


def test_samples_have_the_law_of_the_model() -> None:
    """Mean .5 and sd .2 of 10 000 numbers, to 5 standard errors and the solver's few per cent."""
    images = generated_set(PRIOR, 200, (50,), TABLE).images
    assert abs(float(images.mean()) - 0.5) < 5 * 0.2 / 100 + 0.01
    assert float(images.std()) == pytest.approx(0.2, rel=0.05)


def test_an_item_is_its_seed() -> None:
    whole = generated_set(PRIOR, 7, (50,), TABLE, batch_size=4)
    later = generated_set(PRIOR, 2, (50,), TABLE, first_seed=5)
    torch.testing.assert_close(whole[5]["image"], later[0]["image"])
    assert not torch.allclose(whole[5]["image"], whole[4]["image"])
    assert len(whole) == 7


def test_conditions_reach_the_denoiser_and_the_items_by_row() -> None:
    class Told:
        path = PATH

        def __call__(self, x: torch.Tensor, t: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(x) * level

    rows = torch.arange(5.0)[:, None]
    made = generated_set(Told(), 5, (3,), TABLE, batch_size=2, keep=("level",), level=rows)
    torch.testing.assert_close(made.images, rows.expand(5, 3), atol=1e-5, rtol=0)
    assert made[3]["level"].tolist() == [3.0]
    with pytest.raises(InputError, match="a row of conditions each"):
        generated_set(Told(), 4, (3,), TABLE, level=rows)
