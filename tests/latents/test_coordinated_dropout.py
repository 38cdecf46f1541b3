"""How much of itself a model is shown: the released form leaks p (1 - p), the other nothing; measured in gradients too."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.coordinated_dropout import block, count_masks

ROWS, BINS, HELDIN = 40, 50, 20
N = ROWS * BINS * HELDIN


@pytest.mark.parametrize("share", [0.3, 0.5, 0.6])
def test_shares_and_leak(share: float) -> None:
    """Binomial shares of 40,000 entries, within 4.5 standard errors."""

    def near(measured: torch.Tensor, truth: float) -> bool:
        return abs(float(measured) - truth) < 4.5 * (truth * (1 - truth) / N) ** 0.5

    released, strict = (
        count_masks(generators_of(range(ROWS)), BINS, HELDIN, share, pass_through=form)
        for form in (True, False)
    )
    assert near(released.keep.float().mean(), share)
    assert near(released.leak(), share * (1 - share))
    assert near(released.scored.float().mean(), 1 - share + share * (1 - share))
    assert float(strict.leak()) == 0
    assert bool((strict.keep ^ strict.scored).all())
    assert bool((strict.keep == released.keep).all())


def test_gradients_of_a_model_that_copies() -> None:
    """d loss / d weight of rate = weight · shown: entries that are both shown and scored are all that teaches it to copy."""
    counts = torch.ones(ROWS, BINS, HELDIN)
    for form, share_of_gradient in ((True, 0.25), (False, 0.0)):
        masks = count_masks(generators_of(range(ROWS)), BINS, HELDIN, 0.5, pass_through=form)
        copying = torch.zeros(ROWS, BINS, HELDIN, requires_grad=True)
        error = (copying * masks.shown(counts) - counts).square()
        block(error, masks.scored).sum().backward()
        assert copying.grad is not None
        taught = float((copying.grad != 0).float().mean())
        assert taught == pytest.approx(share_of_gradient, abs=4.5 * (0.25 * 0.75 / N) ** 0.5)
        assert form or taught == 0


def test_what_is_shown_is_right_on_average() -> None:
    counts = torch.full((ROWS, BINS, HELDIN), 3.0)
    masks = count_masks(generators_of(range(ROWS)), BINS, HELDIN, 0.3, pass_through=True)
    shown = masks.shown(counts)
    assert bool((shown[masks.keep] == 10).all() and (shown[~masks.keep] == 0).all())
    assert float(shown.mean()) == pytest.approx(3, abs=4.5 * 10 * (0.3 * 0.7 / N) ** 0.5)


def test_heldout_neurons_and_the_forward_window_are_always_scored() -> None:
    masks = count_masks(generators_of([1, 2]), 4, 3, 0.5, pass_through=False)
    everything = masks.scored_of_all(6, 5)
    assert bool((everything[:, :4, :3] == masks.scored).all())
    assert bool(everything[:, 4:].all() and everything[:, :, 3:].all())


def test_blocking_keeps_the_numbers() -> None:
    x = torch.arange(4.0, requires_grad=True)
    blocked = block(x * 2, torch.tensor([True, False, True, False]))
    assert blocked.tolist() == [0, 2, 4, 6]
    blocked.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [2, 0, 2, 0]


def test_a_row_depends_on_its_generator_alone() -> None:
    together = count_masks(generators_of([3, 4, 5]), 6, 4, 0.5, pass_through=True)
    alone = count_masks(generators_of([5]), 6, 4, 0.5, pass_through=True)
    assert bool((together.keep[2:] == alone.keep).all() and (together.scored[2:] == alone.scored).all())


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_probability_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(InputError, match="share kept"):
        count_masks(generators_of([0]), 2, 2, share, pass_through=True)


def test_no_generators_are_refused() -> None:
    with pytest.raises(InputError, match="one generator a trial"):
        count_masks([], 2, 2, 0.5, pass_through=False)
