"""The shared ridge against scikit-learn and against leaving each trial out by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from radiata_core.errors import InputError
from radiata_decode.model.penalty_groups import looked_at
from radiata_decode.model.reliability_weights import repeat_weights, voxel_weights
from radiata_decode.model.ridge import RidgeDecoder, SharedRidge

SHAPES = [(60, 150, 7), (90, 30, 5), (40, 40, 3), (50, 1, 2), (31, 30, 4), (31, 29, 4)]


def problem(rng, trials, voxels, targets):
    x = rng.standard_normal((trials, voxels)) * rng.uniform(0.3, 3, voxels) + rng.uniform(-5, 5, voxels)
    y = x @ rng.standard_normal((voxels, targets)) / voxels**0.5 + rng.standard_normal((trials, targets)) + 3
    return x.astype(np.float32), y.astype(np.float32), rng.uniform(0.2, 3, trials)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_predictions_are_those_of_scikit_learn(rng, shape, weighted, dtype):
    x, y, s = problem(rng, *shape)
    new = problem(rng, *shape)[0][:20]
    q = rng.uniform(0, 2, shape[1]) if weighted else None
    shared = SharedRidge(x, sample_weights=s if weighted else None, voxel_weights=q, dtype=dtype)
    for alpha in (20.0, 300.0, 3000.0) if dtype == torch.float32 else (0.01, 1.0):
        fit = shared.fit(y, alphas=alpha)
        scaled = np.float64(x) * (1 if q is None else q), np.float64(new) * (1 if q is None else q)
        theirs = Ridge(alpha=alpha).fit(scaled[0], np.float64(y), sample_weight=s if weighted else None)
        expected = theirs.predict(scaled[1]).reshape(len(new), -1)
        for found in (fit.predict(shared.kernel_rows(new)), shared.decoder(fit).predict(new)):
            assert np.abs(found.numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3])
def test_leave_one_out_is_exact(rng, shape, weighted, alpha):
    """Every trial predicted by a model that never saw it, by hand."""
    x, y, s = problem(rng, *shape)
    x, y = x.astype(np.float64), y.astype(np.float64)
    if not weighted:
        s = np.ones(len(x))
    fit = SharedRidge(x, sample_weights=s, dtype=torch.float64).fit(y, alphas=alpha)
    for left in range(0, len(x), 7):
        kept = np.arange(len(x)) != left
        model = Ridge(alpha=alpha, solver="svd").fit(x[kept], y[kept], sample_weight=s[kept])
        assert np.abs(model.predict(x[[left]]) - fit.loo[left].numpy()).max() < 1e-6


def test_penalties_are_those_of_ridge_cv(rng):
    x, y, _ = problem(rng, 80, 200, 12)
    y[:, :4] = rng.standard_normal((80, 4))  # nothing to find: other penalties than for the rest
    grid = [1.0, 30.0, 1000.0, 30000.0]
    theirs = RidgeCV(alphas=grid, alpha_per_target=True).fit(np.float64(x), np.float64(y))
    fit = SharedRidge(x).fit(y, alphas=grid)
    assert np.allclose(fit.alphas, theirs.alpha_)
    assert len(set(theirs.alpha_)) > 1


def test_a_group_shares_the_penalty_of_its_summed_error(rng):
    x, y, _ = problem(rng, 60, 90, 10)
    groups = np.array([7, 7, 7, 2, 2, 2, 2, 7, 7, 2])
    grid = [1.0, 10.0, 100.0, 1000.0]
    fit = SharedRidge(x).fit(y, groups, grid)
    for group in (2, 7):
        theirs = RidgeCV(alphas=grid).fit(np.float64(x), np.float64(y[:, groups == group]))
        assert set(fit.alphas[groups == group].tolist()) == {theirs.alpha_}


def test_r2_of_the_leave_one_out_mean_is_zero(rng):
    """A penalty beyond all signal predicts the mean of the others, which is the baseline of R²; constants have none."""
    x, y, s = problem(rng, 30, 50, 3)
    y[:, 2] = 4.0
    fit = SharedRidge(x, sample_weights=s, dtype=torch.float64).fit(y, alphas=1e12)
    assert fit.loo_r2.abs().max() < 1e-6
    assert torch.allclose(fit.loo[:, 2], torch.tensor(4.0, dtype=torch.float64))


def test_r2_agrees_with_the_predictions(rng):
    x, y, _ = problem(rng, 60, 20, 4)
    fit = SharedRidge(x).fit(y)
    mean = (y.sum(0) - y) / (len(y) - 1)
    expected = 1 - ((y - fit.loo.numpy()) ** 2).sum(0) / ((y - mean) ** 2).sum(0)
    assert np.allclose(fit.loo_r2, expected, atol=1e-4)
    assert (expected > 0.2).any()


def test_standardised_voxels_do_not_depend_on_their_units(rng):
    x, y, _ = problem(rng, 40, 60, 3)
    units = rng.uniform(0.01, 100, 60).astype(np.float32)
    x[:, 5] = 0.3  # never changes: no weight, no NaN
    found = [
        SharedRidge(each, standardise=True).fit(y, alphas=10.0).loo for each in (x, x * units + units * 2)
    ]
    assert torch.allclose(*found, atol=1e-3)
    assert SharedRidge(x, standardise=True).scale.weight[5] == 0


def test_chunks_and_memory_maps_change_nothing(rng, tmp_path):
    x, y, _ = problem(rng, 40, 60, 9)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    whole = SharedRidge(x).fit(y)
    mapped = SharedRidge(np.load(tmp_path / "x.npy", mmap_mode="r"))
    parts = mapped.fit(np.load(tmp_path / "y.npy", mmap_mode="r"), chunk=2)
    for name in ("alphas", "dual", "loo", "loo_r2", "target_mean"):
        assert torch.allclose(getattr(whole, name), getattr(parts, name), atol=1e-5), name


def test_permuting_trials_permutes_their_predictions(rng):
    x, y, s = problem(rng, 40, 60, 3)
    order = rng.permutation(40)
    fit = SharedRidge(x, sample_weights=s, dtype=torch.float64).fit(y)
    other = SharedRidge(x[order], sample_weights=s[order], dtype=torch.float64).fit(y[order])
    assert torch.allclose(fit.loo[torch.from_numpy(order)], other.loo, atol=1e-8)


@pytest.mark.parametrize("targets", [1, 200])
def test_a_decoder_comes_back_from_its_files(rng, tmp_path, targets):
    """Few targets keep weights, many keep the training responses."""
    x, y, s = problem(rng, 30, 200, targets)
    shared = SharedRidge(x, sample_weights=s)
    fit = shared.fit(y)
    decoder = shared.decoder(fit)
    assert (decoder.weights is None) == (targets == 200)
    decoder.save(tmp_path / "d.safetensors", metadata={"subject": "sub-01"})
    back = RidgeDecoder.load(tmp_path / "d.safetensors")
    assert torch.allclose(back.predict(x[:3]), decoder.predict(x[:3]), atol=1e-5)
    assert back.metadata == {"subject": "sub-01"}
    assert torch.allclose(back.predict(x[:1]), fit.predict(shared.kernel_rows(x))[:1], atol=1e-4)
    numbers = (tmp_path / "d.safetensors").read_bytes()
    (tmp_path / "d.safetensors").write_bytes(numbers[:-1] + bytes([numbers[-1] ^ 1]))
    with pytest.raises(InputError, match="Copy both again"):
        RidgeDecoder.load(tmp_path / "d.safetensors")


def test_bad_input_is_refused_in_one_line(rng):
    x, y, _ = problem(rng, 20, 30, 2)
    shared = SharedRidge(x)
    hole = x.copy()
    hole[3, 7] = np.nan
    refused = [
        (lambda: SharedRidge(hole), "first in 7"),
        (lambda: SharedRidge(x[:2]), "at least three trials"),
        (lambda: SharedRidge(x[0]), "at least three trials"),
        (lambda: SharedRidge(np.ones((5, 3))), "that vary"),
        (lambda: SharedRidge(x, sample_weights=np.zeros(20)), "weight > 0"),
        (lambda: SharedRidge(x, voxel_weights=np.ones(29)), "voxel weight"),
        (lambda: shared.fit(y[:-1]), "a row for each training trial"),
        (lambda: shared.fit(y[:, 0]), "Flatten"),
        (lambda: shared.fit(y * np.inf), "finite targets"),
        (lambda: shared.fit(y, alphas=[0.0, 1.0]), "alpha > 0"),
        (lambda: shared.fit(y, groups=[1]), "a group for each"),
        (lambda: shared.kernel_rows(x[:, :-1]), "of 30 voxels"),
        (lambda: shared.decoder(shared.fit(y)).predict(x[:, :-1]), "of 30 voxels"),
        (lambda: shared.kernel_rows(hole), "NaN or infinity"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_only_some_of_a_large_group_choose_its_penalty(rng):
    """At least eight of each group, all of a small one, none twice."""
    label = torch.from_numpy(rng.permutation(np.repeat([0, 1, 2], [500, 3, 40])))
    chosen = looked_at(label, 60, torch.Generator().manual_seed(0))
    assert label[chosen].bincount().tolist() == [20, 3, 20]
    assert len(chosen.unique()) == len(chosen)
    assert looked_at(label, 1, torch.Generator().manual_seed(0)).shape == (8 + 3 + 8,)


def test_weights_of_repeats_go_from_their_number_to_one(rng):
    repeats = np.array([1, 2, 3])
    assert np.allclose(repeat_weights(repeats, 0.0), repeats / 2)
    assert np.allclose(repeat_weights(repeats, 1e4), 1.0)
    middle = repeat_weights(repeats, np.full(5, 0.5))
    assert (np.diff(middle) > 0).all()
    assert np.isclose(middle.mean(), 1)
    with pytest.raises(InputError, match="repeats ≥ 1"):
        repeat_weights(np.array([0, 1]))
    assert np.allclose(voxel_weights(np.array([0.25, np.nan, 1.0])), [0.5, 0, 1])


def test_arrays_that_may_not_be_written_to_are_read(rng):
    """Columns of a data frame and memory maps come read-only."""
    x, y, s = problem(rng, 20, 30, 2)
    q = rng.uniform(0, 1, 30)
    for each in (x, y, s, q):
        each.setflags(write=False)
    shared = SharedRidge(x, sample_weights=s, voxel_weights=q)
    fit = shared.fit(y)
    assert torch.isfinite(shared.decoder(fit).predict(x)).all()


def test_a_large_mean_of_targets_is_not_signal(rng):
    x, y, s = problem(rng, 40, 60, 3)
    small, large = (SharedRidge(x, sample_weights=s).fit(y + shift, alphas=10.0) for shift in (0.0, 3000.0))
    assert torch.allclose(large.loo - 3000, small.loo, atol=5e-3)
    assert torch.allclose(large.loo_r2, small.loo_r2, atol=1e-3)
