"""Streamed predictions are those of the fit that keeps everything."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.ridge import SharedRidge
from radiata_decode.model.streamed_ridge import StreamedRidge, ridge_flops, target_blocks


@pytest.fixture
def problem(rng):
    x = rng.standard_normal((50, 120)).astype(np.float32)
    y = (x[:, :24] @ rng.standard_normal((24, 24)) + 4 * rng.standard_normal((50, 24)) + 2).astype(np.float32)
    return x, y, rng.standard_normal((7, 120)).astype(np.float32), rng.uniform(0.3, 2, 50)


@pytest.mark.parametrize("voxels", [120, 20])
def test_blocks_get_what_a_fit_of_groups_gives(problem, voxels):
    x, y, new, weights = problem
    shared = SharedRidge(x[:, :voxels], sample_weights=weights)
    fit = shared.fit(y, groups=np.arange(24) // 6)
    blocks = list(StreamedRidge(shared, new[:, :voxels]).predict(target_blocks(y, 6)))
    expected = fit.predict(shared.kernel_rows(new[:, :voxels]))
    assert torch.allclose(torch.cat([block.values for block in blocks], 1), expected, atol=1e-4)
    assert np.allclose([block.alpha for block in blocks], fit.alphas[::6])
    assert all(block.loo_r2 <= 1 for block in blocks)


def test_loo_r2_of_a_block_pools_its_columns(problem):
    x, y, new, weights = problem
    shared = SharedRidge(x, sample_weights=weights)
    (block,) = StreamedRidge(shared, new).predict(target_blocks(y, 24), subset=24)
    fit = shared.fit(y, alphas=block.alpha)
    w, z = weights[:, None], y.astype(np.float64)
    mean = (w * z).sum(0) / w.sum()
    other = (w.sum() * mean - w * z) / (w.sum() - w)  # mean of the other trials
    error = (w * (z - fit.loo.numpy()) ** 2).sum() / (w * (z - other) ** 2).sum()
    assert abs(block.loo_r2 - (1 - error)) < 1e-4


def test_a_memory_map_and_tokens_are_read_in_blocks(problem, tmp_path):
    x, y, new, _ = problem
    np.save(tmp_path / "y.npy", y.reshape(50, 4, 6))
    tokens = np.load(tmp_path / "y.npy", mmap_mode="r")
    shared = SharedRidge(x)
    stream = StreamedRidge(shared, new)
    by_token = [block.values for block in stream.predict(target_blocks(tokens), alphas=30.0)]
    assert [tuple(block.shape) for block in by_token] == [(7, 6)] * 4
    expected = shared.fit(y, alphas=30.0).predict(shared.kernel_rows(new))
    assert torch.allclose(torch.cat(by_token, 1), expected, atol=1e-4)
    (one,) = StreamedRidge(shared, new[:1]).predict([y], alphas=30.0)
    assert torch.allclose(one.values, expected[:1], atol=1e-4)
    assert np.isnan(one.loo_r2)


def test_hdf5_columns_are_read_as_well(problem, tmp_path):
    import h5py

    with h5py.File(tmp_path / "y.h5", "w") as file:
        data = file.create_dataset("y", data=problem[1])
        assert np.array_equal(np.concatenate(list(target_blocks(data, 5)), 1), problem[1])


def test_bad_blocks_are_refused(problem):
    x, y, new, _ = problem
    shared = SharedRidge(x)
    with pytest.raises(InputError, match="of 120 voxels"):
        StreamedRidge(shared, new[:, 1:])
    with pytest.raises(InputError, match="a row for each training trial"):
        list(StreamedRidge(shared, new).predict([y[1:]]))


def test_operations_at_the_size_of_nsd():
    """The counts that the chapter states: about 780 TFLOP in a loop over 257 tokens."""
    flops = ridge_flops(8859, 15724, 982, 257 * 768, 257)
    loop, shared = (sum(v for k, v in flops.items() if k.startswith(each)) for each in ("loop", "shared"))
    assert 7e14 < loop < 9e14
    assert 1e13 < shared < 1.4e13
