"""What is not finite is found, named by step and time, at once or at the end."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.finiteness import FiniteWatch


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_bad_element_is_enough(bad: float, dtype: torch.dtype) -> None:
    value = torch.zeros(2, 3, 5, dtype=dtype)
    watch = FiniteWatch()
    watch.see(value, 0, 1.0)
    value[1, 2, 3] = bad
    with pytest.raises(
        InputError, match=r"^expected finite values from the denoiser; got .* step 4, t=0\.25\. "
    ):
        watch.see(value, 4, 0.25)


def test_put_off_it_names_the_first() -> None:
    """As on an accelerator: nothing is read before the end, and the step that broke first is the one named."""
    watch = FiniteWatch("the flow map", deferred=True)
    for index, number in enumerate((1.0, float("nan"), 2.0, float("inf"))):
        watch.see(torch.full((3,), number), index, 1 - index / 4)
    with pytest.raises(InputError, match=r"from the flow map; got NaN or infinity at step 1, t=0\.75"):
        watch.finish()


def test_finite_values_pass_however_many() -> None:
    """Half precision would overflow in the sum; and nothing seen is nothing wrong."""
    FiniteWatch().finish()
    for deferred in (None, True):
        watch = FiniteWatch(deferred=deferred)
        watch.see(torch.full((100_000,), 60_000.0, dtype=torch.float16), 0, 1.0)
        watch.see(torch.ones(3, requires_grad=True), 1, 0.5)
        watch.finish()
