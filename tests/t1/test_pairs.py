"""The conditions of a teacher's pairs."""

import numpy as np
import torch

from radiata_t1.data.pairs import pair_conditions


def test_a_pair_has_the_conditions_of_its_seed_alone() -> None:
    """Odd seeds are free, even ones have a whole row of the known ones; order and company do not matter."""
    known = np.arange(30, dtype=np.float32).reshape(10, 3)
    rows = pair_conditions(range(40), known, 3)
    assert torch.isnan(rows[1::2]).all()
    assert all(any(np.array_equal(row, k) for k in known) for row in rows[::2].numpy())
    assert len({float(row[0]) for row in rows[::2]}) > 5
    torch.testing.assert_close(pair_conditions([6, 3, 2], known, 3), rows[[6, 3, 2]], equal_nan=True)
    assert torch.isnan(pair_conditions([0, 2], None, 3)).all()
