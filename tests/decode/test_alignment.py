"""Brains that share responses by construction are brought into one space."""

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from radiata_core.errors import InputError
from radiata_decode.model.alignment import (
    SharedSpace,
    hyperalignment,
    procrustes,
    ridge_to_shared,
    shared_responses,
)


@pytest.fixture
def brains(rng):
    """Three people, 80 stimuli, 6 shared components in 20 to 40 voxels with orthonormal maps; and noise."""
    shared = rng.standard_normal((120, 6)) * np.array([3, 2.5, 2, 1.5, 1.2, 1])

    def brain(voxels, noise):
        weights = ortho_group.rvs(voxels, random_state=rng)[:, :6]
        return (shared @ weights.T + noise * rng.standard_normal((120, voxels)) + 2).astype(np.float32)

    return lambda noise: {"a": brain(20, noise), "b": brain(30, noise), "c": brain(40, noise)}


def test_procrustes_is_scipys(rng):
    a, b = (torch.from_numpy(rng.standard_normal((30, 8))) for _ in range(2))
    assert np.allclose(procrustes(a, b), orthogonal_procrustes(a.numpy(), b.numpy())[0], atol=1e-10)


def test_without_noise_everyone_agrees_on_new_stimuli(brains):
    people = brains(0.0)
    space = shared_responses({name: x[:80] for name, x in people.items()}, 6)
    assert space.losses[-1] < 1e-5
    seen = [space.project(name, x[80:]) for name, x in people.items()]
    assert torch.allclose(seen[0], seen[1], atol=0.05)
    assert torch.allclose(seen[0], seen[2], atol=0.05)
    for name, weights in space.maps.items():
        assert torch.allclose(weights.T @ weights, torch.eye(6), atol=1e-4), name


def test_noise_lowers_agreement_but_not_below_anatomy(brains):
    people = brains(1.0)
    space = shared_responses({name: x[:80] for name, x in people.items()}, 6)
    assert all(
        later <= earlier + 1e-9 for earlier, later in zip(space.losses, space.losses[1:], strict=False)
    )
    a, b = (space.project(name, people[name][80:]).flatten().numpy() for name in "ab")
    before = np.corrcoef(people["a"][80:].ravel(), people["b"][80:, :20].ravel())[0, 1]
    assert np.corrcoef(a, b)[0, 1] > 0.5 > 0.2 > before


def test_a_newcomer_joins_and_changes_nobody(brains):
    people = brains(0.2)
    space = shared_responses({name: people[name][:80] for name in "ab"}, 6)
    larger = space.joined("c", people["c"][:80])
    assert torch.equal(larger.maps["a"], space.maps["a"])
    a, c = (larger.project(name, people[name][80:]).flatten().numpy() for name in "ac")
    assert np.corrcoef(a, c)[0, 1] > 0.95
    decoder, r2 = ridge_to_shared(people["c"][:80], space.shared)
    assert (r2 > 0.8).all()
    assert np.corrcoef(decoder.predict(people["c"][80:]).flatten().numpy(), a)[0, 1] > 0.95


def test_fewer_stimuli_than_voxels_work(brains):
    people = brains(0.1)
    space = shared_responses({name: x[:15] for name, x in people.items()}, 5)
    assert space.shared.shape == (15, 5)
    assert torch.isfinite(space.project("c", people["c"][:1])).all()


def test_hyperalignment_by_fmralign(rng):
    pytest.importorskip("fmralign")
    shared = rng.standard_normal((60, 10))
    people = {name: shared @ ortho_group.rvs(10, random_state=rng) + 1 for name in "abc"}
    space = hyperalignment({name: x[:40] for name, x in people.items()})
    seen = [space.project(name, x[40:]).flatten().numpy() for name, x in people.items()]
    assert np.corrcoef(seen)[0, 1:].min() > 0.99


def test_a_missing_library_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "fmralign", None)
    with pytest.raises(InputError, match=r'pip install "radiata-decode\[align\]"'):
        hyperalignment({"a": np.ones((5, 3)), "b": np.ones((5, 3))})


def test_bad_input_is_refused(brains):
    people = brains(0.1)
    space = shared_responses(people, 3)
    hole = people["a"].copy()
    hole[0, 0] = np.nan
    refused = [
        (lambda: shared_responses({"a": people["a"]}, 3), "two subjects"),
        (lambda: shared_responses(people, 21), "1 to 20 components"),
        (lambda: shared_responses(people | {"d": people["a"][1:]}, 3), "the same 120 stimuli"),
        (lambda: shared_responses(people | {"a": hole}, 3), "finite responses of a"),
        (lambda: space.project("z", people["a"]), "aligned subjects a, b, c"),
        (lambda: space.project("a", people["b"]), "20 voxels"),
        (lambda: space.joined("a", people["a"]), "a new subject"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()
    assert isinstance(space, SharedSpace)
