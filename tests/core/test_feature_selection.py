"""The choice of a place: the best on validation, whatever the training says; features gathered as rows alone."""

import pytest
import torch
from torch import nn

from radiata_core.denoiser_features import DenoiserFeatures
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.feature_selection import Places, accuracy, explained, gathered, select
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.probes import logistic_probe, ridge_probe
from radiata_core.seeds import generator_of

FITS = {"weak": lambda z, y: ridge_probe(z, y, 1e-3), "strong": lambda z, y: ridge_probe(z, y, 10.0)}


def world(rows: int = 60) -> tuple[Places, torch.Tensor]:
    """Ten places of noise, of which one ("c", 0.3) holds the target; one more fits 30 training rows by its many features."""
    y = torch.randn(rows, generator=generator_of(1), dtype=torch.float64)
    places = Places()
    for index, layer in enumerate("abcde"):
        for level in (0.1, 0.3):
            noise = torch.randn(
                rows, 3, generator=generator_of(2, index, int(10 * level)), dtype=torch.float64
            )
            places[layer, level] = noise
    places["c", 0.3] = places["c", 0.3] * 0.3 + y[:, None]
    places["many", 0.1] = torch.randn(rows, 80, generator=generator_of(3), dtype=torch.float64)
    return places, y


def test_the_choice_is_the_place_that_holds_the_target_and_not_the_one_that_fits() -> None:
    places, y = world()
    train, validation = slice(0, 30), slice(30, 45)
    found = select(places.rows(train), y[train], places.rows(validation), y[validation], FITS, explained)
    assert found.place == ("c", 0.3)
    assert found.best.fit == "weak"
    assert len(found.table) == len(places) * len(FITS)
    assert max(found.table, key=lambda row: row.score) == found.best
    fitted = FITS["weak"](places["many", 0.1][train], y[train])(places["many", 0.1][train])
    assert explained(fitted, y[train]) > 0.99  # what a choice on the training rows would have taken
    assert explained(found(places.rows(slice(45, 60))), y[45:60]) > 0.8
    assert found.by_level()[0.3] == found.best.score > found.by_level()[0.1]


def test_the_choice_follows_validation_alone() -> None:
    """With validation targets of another place, that place is taken, though the training is the same."""
    places, y = world()
    train, validation = slice(0, 30), slice(30, 60)
    targets = torch.where(
        torch.arange(60) < 30, y, FITS["weak"](places["a", 0.1][train], y[train])(places["a", 0.1])[:, 0]
    )
    found = select(
        places.rows(train), y[train], places.rows(validation), targets[validation], FITS, explained
    )
    assert found.place == ("a", 0.1) and found.best.score == pytest.approx(1.0)


def test_scores_in_closed_form() -> None:
    y = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert explained(y[:, None], y) == 1.0
    assert explained(torch.full((4, 1), 1.5), y) == 0.0
    assert explained(y[:, None] + 1, y) == pytest.approx(1 - 1 / 1.25)
    assert accuracy(torch.eye(3)[[0, 1, 1]], torch.tensor([0, 1, 2])) == pytest.approx(2 / 3)


class Layered(nn.Module):
    """A network of the user's own: any names, any parameter for the noise."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = nn.Conv1d(1, 4, 3, padding=1), nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).tanh())


def test_gathering_in_pieces_is_gathering_at_once() -> None:
    denoiser = NetworkDenoiser(Layered(), LinearPath(), Prediction.X0)
    features = DenoiserFeatures(denoiser, (0.1, 1.0), ("network.first",), share=1.0)
    x = torch.randn(7, 1, 12, generator=generator_of(4))
    whole, pieces = gathered(features, x, range(7), 3), gathered(features, x, range(7), 3, batch_size=2)
    assert list(whole) == [(name, level) for level in (0.1, 1.0) for name in ("network.first", "estimate")]
    assert whole["network.first", 0.1].shape == (7, 12)
    for place in whole:
        torch.testing.assert_close(whole[place], pieces[place])
    same = gathered(features, x[:1].expand(3, -1, -1), [5, 5, 6])["network.first", 1.0]
    torch.testing.assert_close(same[0], same[1])
    assert not torch.allclose(same[0], same[2])


def test_bad_input_is_named() -> None:
    places, y = world()
    with pytest.raises(InputError, match="the same places in both"):
        select(places, y, Places(), y, FITS, explained)
    with pytest.raises(InputError, match="score that is a number"):
        select(places, y, places, y, FITS, lambda a, b: float("nan"))
    features = DenoiserFeatures(
        NetworkDenoiser(Layered(), LinearPath(), Prediction.X0), layers=("network.first",)
    )
    with pytest.raises(InputError, match="one seed a row, 2; got 3"):
        gathered(features, torch.zeros(2, 1, 4), range(3))
    with pytest.raises(InputError, match="Leave out"):
        logistic_probe(torch.zeros(2, 1), torch.tensor([-1, 0]))
