import numpy as np
import pytest
from scipy.spatial.distance import cdist

from radiata_core.errors import InputError
from radiata_imaging.memorisation import memorisation, nearest, squared_distances


def population(rng, people, scans=3, d=40):
    """Scans of people: variance 1 between, 0.3² within."""
    centres = np.repeat(rng.standard_normal((people, d)), scans, axis=0)
    return centres + 0.3 * rng.standard_normal(centres.shape), np.repeat(np.arange(people), scans).tolist()


def test_copies_are_flagged_and_honest_samples_are_not(rng):
    train, of_train = population(rng, 40)
    held, of_held = population(rng, 20)
    control = train[:20] + 0.02 * rng.standard_normal((20, 40))
    honest = population(rng, 60, scans=1)[0]
    options = {"train_people": of_train, "held_out_people": of_held}
    clean = memorisation(honest, train, held, control, rng, **options)
    assert clean.usable and clean.control_detected == 1.0
    assert clean.flagged.mean() <= 0.05  # 1 % expected of 60: more than 3 has probability 3e-3
    assert clean.nearer_to_train == pytest.approx(0.5, abs=0.12)

    thief = np.concatenate([honest[:30], train[30:60] + 0.05 * rng.standard_normal((30, 40))])
    caught = memorisation(thief, train, held, control, rng, **options)
    assert caught.flagged[30:].all() and caught.flagged[:30].mean() <= 0.1
    np.testing.assert_array_equal(caught.nearest_train[30:], np.arange(30, 60))


def test_features_that_cannot_see_copies_say_so(rng):
    """Control made useless on purpose: volumes of strangers in place of near-copies."""
    train, of_train = population(rng, 30)
    held, of_held = population(rng, 15)
    strangers = population(rng, 20, scans=1)[0]
    result = memorisation(
        strangers, train, held, strangers, rng, train_people=of_train, held_out_people=of_held
    )
    assert not result.usable


def test_distances_equal_scipy(rng):
    x, y = rng.standard_normal((6, 9)) + 1e4, rng.standard_normal((7, 9)) + 1e4
    np.testing.assert_allclose(squared_distances(x, y), cdist(x, y, "sqeuclidean"), rtol=1e-8)
    index, distance = nearest(x, y)
    np.testing.assert_array_equal(index, cdist(x, y).argmin(1))
    np.testing.assert_allclose(distance, cdist(x, y).min(1), rtol=1e-12)


def test_one_held_out_person_is_refused(rng):
    x = rng.standard_normal((4, 3))
    with pytest.raises(InputError, match="two people"):
        memorisation(x, x, x, x, rng, held_out_people=["a"] * 4)
