"""Figures carry what they show: the arrays they were given, in the units of their axes; bands and spectra are right."""

import json

import numpy as np
import pytest
from matplotlib.text import Text
from scipy.signal import periodogram
from scipy.stats import lognorm

from radiata_core.errors import InputError
from radiata_core.files import plain
from radiata_imaging.plots import STAMP, NumberedFigure, png
from radiata_latents.experiment import figures_latents, figures_population, figures_scores
from radiata_latents.model.few_shot import FewShotCurve

TIMES = 0.01 + 0.02 * np.arange(20)
FORWARD = np.arange(20) >= 16


def words(figure: NumberedFigure) -> str:
    """All text of a figure, and that it can be drawn."""
    assert png(figure, 40)[:4] == b"\x89PNG"
    assert json.loads(json.dumps(plain(figure.numbers)))["figure"]
    return "\n".join(text.get_text() for text in figure.findobj(Text))


def test_the_band_is_that_of_a_log_normal_law() -> None:
    mean, sd = np.array([0.2, 1.0, 3.0]), np.array([0.1, 0.02, 5.0])
    low, high = figures_population.rate_band(mean, sd)
    for m, s, a, b in zip(mean, sd, low, high, strict=True):
        spread = np.sqrt(np.log(1 + s**2 / m**2))
        law = lognorm(spread, scale=m / np.sqrt(1 + s**2 / m**2))
        assert (law.mean(), law.std()) == pytest.approx((m, s))
        np.testing.assert_allclose([a, b], law.ppf([0.05, 0.95]))
    np.testing.assert_allclose(figures_population.rate_band(mean, 0 * sd), [mean, mean])


def test_rates_against_truth_are_hz_and_as_given(rng: np.random.Generator) -> None:
    rates, truth, sd = rng.gamma(2, 0.2, (3, 2, 20, 4))
    figure = figures_population.rates_against_truth(
        TIMES, rates, bin_s=0.02, names=["a", "b", "c", "d (held out)"], labels=["0", "7"], forward=FORWARD, truth=truth,
        band=figures_population.rate_band(rates, sd), counts=rng.poisson(rates), synthetic=True,
    )  # fmt: skip
    np.testing.assert_array_equal(figure.numbers["rates_hz"], rates / 0.02)
    np.testing.assert_array_equal(figure.numbers["truth_hz"], truth / 0.02)
    drawn = figure.axes[5].lines  # neuron 2 of trial 1: truth, then model
    np.testing.assert_array_equal(drawn[0].get_ydata(), truth[1, :, 2] / 0.02)
    np.testing.assert_array_equal(drawn[1].get_ydata(), rates[1, :, 2] / 0.02)
    highest = figure.axes[5].get_ylim()[1]
    assert highest >= max(truth[:, :, 2].max(), rates[:, :, 2].max()) / 0.02, (
        "a panel of a row cuts another's"
    )
    said = words(figure)
    assert STAMP in said and "(Hz)" in said and "time (s)" in said and "trial 7" in said


def test_counts_and_rates_put_held_out_neurons_on_top(rng: np.random.Generator) -> None:
    counts = rng.poisson(0.5, (2, 20, 5))
    heldout = np.array([True, False, False, True, False])
    figure = figures_population.counts_and_rates(
        TIMES, counts, counts * 0.5, bin_s=0.02, labels=["0", "1"], heldout=heldout, forward=FORWARD
    )
    assert figure.numbers["order_of_neurons"] == [1, 2, 4, 0, 3]
    image = figure.axes[0].get_images()[0]
    np.testing.assert_array_equal(np.asarray(image.get_array()), counts[0][:, [1, 2, 4, 0, 3]].T)
    assert "held out" in words(figure) and STAMP not in words(figure)


def test_density_of_rates_counts_every_bin(rng: np.random.Generator) -> None:
    truth = rng.gamma(2, 0.2, (5, 20, 4))
    figure = figures_population.rates_by_truth(truth, truth, bin_s=0.02)
    density = np.array(figure.numbers["bins"])
    assert density.sum() == truth.size and np.trace(density) == truth.size, "equal rates are on the diagonal"
    for at, _, middle, _ in figure.numbers["truth_hz_5_50_95"]:
        assert middle == pytest.approx(at)
    words(figure)


def test_spectra_are_those_of_scipy_and_sum_to_the_variance(rng: np.random.Generator) -> None:
    for bins in (50, 51):
        states = rng.standard_normal((3, bins, 2)).cumsum(1)
        hz, power = figures_latents.spectrum_of(states, 0.02)
        f, p = periodogram(states, 50.0, axis=1, detrend="constant")
        np.testing.assert_allclose(hz, f[1:])
        np.testing.assert_allclose(power, p.mean(0)[1:], rtol=1e-9)
        np.testing.assert_allclose(power.sum(0) * hz[0], states.var(1).mean(0))


def test_figures_of_latents_carry_their_numbers(rng: np.random.Generator) -> None:
    states = rng.standard_normal((12, 20, 6)).cumsum(1)
    labels = np.repeat([5, 6, 9], 4)
    paths = figures_latents.trajectories(states, labels, bin_s=0.02, synthetic=True)
    assert set(paths.numbers["PC"]["paths"]) == {"5", "6", "9"}
    axes = np.array(paths.numbers["PC"]["axes"])
    np.testing.assert_allclose(
        paths.numbers["PC"]["paths"]["6"], (states[4:8].mean(0) - states.mean((0, 1))) @ axes, atol=1e-9
    )
    assert "Hz" in words(paths) and "condition 9" in words(paths)
    unlabelled = figures_latents.trajectories(states, np.full(12, -1), bin_s=0.02)
    assert "trial 0" in words(unlabelled)

    hz, damping = np.array([0.5, 2.0, 4.0]), np.array([0.2, 0.4, 1.5])
    learned = figures_latents.frequencies(hz, damping, (0.3, 8.0), states[..., :3], bin_s=0.02)
    assert learned.numbers["frequency_hz"] == hz.tolist() and learned.numbers["damping"] == damping.tolist()
    assert "damping ratio ζ" in words(learned)

    kl = np.array([[0.01, 4.0, 1.0], [0.03, 6.0, 1.0]])
    cost = figures_latents.kl_by_latent(kl)
    assert cost.numbers["latent"] == [1, 2, 0] and cost.numbers["active"] == 2
    np.testing.assert_allclose(cost.numbers["kl_nats"], [5.0, 1.0, 0.02])
    assert "nats" in words(cost)

    grid = np.linspace(-2, 2, 9)
    bowl = (grid[:, None] ** 2 + 2 * grid**2) / 2
    slices = figures_latents.energy_slices({(0, 2): bowl}, grid, states.reshape(-1, 6))
    np.testing.assert_array_equal(slices.numbers["energy"]["0,2"], bowl)
    assert "kT" in words(slices)

    noise = rng.standard_normal((12, 19, 6))
    pushed = figures_latents.drive(noise, TIMES[1:], labels=range(12))
    np.testing.assert_array_equal(pushed.numbers["shown"], noise[:3])
    np.testing.assert_allclose(pushed.numbers["rms_5_50_95"][1], np.median(np.sqrt((noise**2).mean(2)), 0))
    words(pushed)


def test_figures_of_scores_carry_their_numbers(rng: np.random.Generator) -> None:
    dots = figures_scores.score_dots(
        ["a", "b"],
        {"co-bps": [(0.5, 0.4, 0.6), None], "R²": [(-3.0, -4.0, -2.0), (0.2, float("nan"), float("nan"))]},
    )
    assert dots.numbers["scores"]["co-bps"] == [[0.5, 0.4, 0.6], None]
    assert "-3.000" in words(dots), "a score off the axis is still said"

    measured = rng.standard_normal((5, 20, 2)).cumsum(1)
    measured[0, :3] = np.nan
    decoded = figures_scores.decoded_behaviour(
        TIMES, measured, measured + 0.1, channels=["x (cm)", "y (cm)"], labels=range(5), r2=[0.9, 0.8]
    )
    np.testing.assert_array_equal(decoded.numbers["measured"], measured[[0, 1, 2, 4]])
    assert "R² = 0.900, 97 bins" in words(decoded)

    curve = FewShotCurve(np.array([1, 4]), rng.random((2, 5)))
    shots = figures_scores.few_shot({"m": curve})
    np.testing.assert_array_equal(shots.numbers["curves"]["m"]["bits"], curve.bits)
    words(shots)

    log = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "loss": None},
        {"step": 3, "loss": 1.0, "validation_co_bps": 0.4},
    ]
    training = figures_scores.training_curves(log)
    assert training.numbers["curves"]["loss"] == {"step": [1.0, 3.0], "value": [2.0, 1.0]}
    assert training.numbers["curves"]["validation_co_bps"]["value"] == [0.4]
    words(training)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: figures_population.rates_by_truth(np.ones((2, 3)), np.ones((2, 2)), bin_s=0.02),
            "one shape",
        ),
        (lambda: figures_scores.training_curves([{"step": 1}]), "a loss in the log"),
        (lambda: figures_scores.score_dots(["a"], {"x": []}), "a value for each of 1 models"),
        (lambda: figures_latents.energy_slices({}, np.ones(2), np.ones((1, 2))), "one pair"),
    ],
)
def test_what_cannot_be_drawn_is_said(call, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
