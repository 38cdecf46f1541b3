"""The fast model against the literal loop in every form, and what its latents can and cannot do."""

import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_core.specs import describe, rebuild
from radiata_latents.model.coordinated_dropout import count_masks
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.paper_reference import ReferenceFlow
from radiata_latents.model.paper_switches import CORRECTED, PaperSwitches

RELEASED = PaperSwitches(kernel_spread=1.0)
"""Kernels away from 0, where the released first gradient is 1e12."""
FORMS = {
    "released": RELEASED,
    "current": replace(RELEASED, lagged=False),
    "zeros ahead": replace(RELEASED, feed_last_bin=False),
    "dropout outside": replace(RELEASED, dropout_inside=False, dropout=0.3),
    "no dropout": replace(RELEASED, dropout=0.0),
    "stiff": replace(RELEASED, step=0.3, gamma=0.7, normalised_kernel=False),
    "balanced, true KL": replace(
        RELEASED, balanced_noise=True, variance_as_log_variance=False, sample_as_mean=False
    ),
    "start only, strict": replace(
        RELEASED, transition_term=False, pass_through=False, tfixup=False, shown=0.3
    ),
}


def flow(
    switches: PaperSwitches = RELEASED, dtype: torch.dtype = torch.float64, forward: int = 3
) -> PaperLangevinFlow:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PaperLangevinFlow(7, 5, 6, forward, 8, 16, switches).to(dtype)


def literal(model: PaperLangevinFlow) -> ReferenceFlow:
    with torch.random.fork_rng():
        return ReferenceFlow(model)


def spikes(rows: int = 4, forward: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.poisson(torch.ones(rows, 6 + forward, 7), generator=torch.Generator().manual_seed(1)).to(
        dtype
    )


@pytest.mark.parametrize("forward", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_literal_loop(form: str, dtype: torch.dtype, forward: int) -> None:
    """Log-rates, loss and every gradient, with dropout, noise, coordinated dropout and bins that were not observed."""
    s = FORMS[form]
    model, counts = flow(s, dtype, forward), spikes(4, forward, dtype)
    reference = literal(model)
    generators = generators_of(range(4))
    masks = count_masks(generators, 6, 5, s.shown, pass_through=s.pass_through)
    draws = model.draw(generators, dropout=True)
    observed = torch.ones(4, 6 + forward, dtype=torch.bool)
    observed[1, 2:4] = False
    counts[~observed] = float("nan")

    bound = PaperBound(step=250)
    assert bound.weight(model) == 0.05
    loss = bound.given(model, counts, masks, draws, observed)
    loss.value.backward()
    log_rates, truth = reference(counts, masks, draws, 0.05, observed)
    truth.backward()
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-11}
    torch.testing.assert_close(loss.value, truth, **close)
    seen = masks.shown(torch.where(observed[..., None], counts, 0.0)[:, :6, :5])
    torch.testing.assert_close(model(seen, draws), log_rates, **close)
    covered = 0
    for mine, theirs, rows in reference.pairs(model):
        assert mine.grad is not None and theirs.grad is not None
        assert float(mine.grad.abs().max()) > 0
        torch.testing.assert_close(theirs.grad[rows], mine.grad, **close)
        covered += mine.numel()
    assert covered == sum(p.numel() for p in model.parameters())


def test_alignment_decides_which_bin_is_read() -> None:
    """Lagged: the state of bin t feels bin t - 1 and no later one, the last observed bin only the forward window; current:
    bin t. Nothing later, either way."""
    counts = spikes(1)[:, :6, :5].requires_grad_(True)
    for s, reach in (
        (RELEASED, [0, 0, 1, 2, 3, 4, 5, 5, 5]),
        (replace(RELEASED, lagged=False), [0, 1, 2, 3, 4, 5, 5, 5, 5]),
    ):
        hidden = flow(s).encode(counts).hidden
        for t, last in enumerate(reach):
            (felt,) = torch.autograd.grad(hidden[0, t].sum(), counts, retain_graph=True)
            assert int(felt[0].abs().sum(1).nonzero().max()) == last


def test_start_sees_the_first_bin_only() -> None:
    counts = spikes(1)[:, :6, :5].requires_grad_(True)
    (felt,) = torch.autograd.grad(flow().encode(counts).mean.sum(), counts)
    assert float(felt[0, 0].abs().max()) > 0 == float(felt[0, 1:].abs().max())


def test_zeros_ahead_do_not_repeat_the_last_bin() -> None:
    """With the window fed zeros, the last of the lagged bins is never read at all."""
    counts = spikes(1)[:, :6, :5].requires_grad_(True)
    hidden = flow(replace(RELEASED, feed_last_bin=False)).encode(counts).hidden
    (felt,) = torch.autograd.grad(hidden.sum(), counts)
    assert float(felt[0, 4].abs().max()) > 0 == float(felt[0, 5].abs().max())


def test_latents_move_by_noise_alone() -> None:
    """From the same start, 50 bins of the released dynamics move z by sd 0.13, beside a start of sd 1, and the force of
    a random kernel moves it by less than a fifth of that."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PaperLangevinFlow(3, 3, 51, 0, 64, 8, RELEASED).double()
        free = PaperLangevinFlow(3, 3, 51, 0, 64, 8).double()  # kernels at 0: no force
    free.load_state_dict({**model.state_dict(), "potential.kernel": torch.zeros(4, 4, 3)})
    counts, draws = torch.zeros(64, 51, 3, dtype=torch.float64), model.draw(generators_of(range(64)))
    with torch.no_grad():
        moved, unforced = (m.path(m.encode(counts), draws=draws).position for m in (model, free))
    travelled = unforced[:, -1] - unforced[:, 0]
    assert 0.11 < float(travelled.std()) < 0.15
    assert float((moved - unforced)[:, -1].std()) < 0.2 * float(travelled.std())


def test_a_row_depends_on_its_counts_and_generator_alone() -> None:
    model, counts = flow(), spikes(4)
    bound = PaperBound()
    together = bound(model, counts, generators_of([5, 6, 7, 8])).per_sample
    alone = torch.stack([bound(model, counts[i : i + 1], generators_of([5 + i])).value for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    seen = counts[:, :6, :5]
    rates = model.rates(seen, 2, generators_of([5, 6, 7, 8]))
    torch.testing.assert_close(
        rates[2:3], model.rates(seen[2:3], 2, generators_of([7])), rtol=1e-12, atol=1e-12
    )


def test_passes_are_averaged_as_the_switch_says() -> None:
    """Both from the same draws: the mean of log-rates is below the mean of rates, by Jensen, everywhere."""
    seen = spikes()[:, :6, :5]
    strict = replace(RELEASED, geometric_mean=False)
    geometric, plain = (flow(s).rates(seen, 20, generators_of(range(4))) for s in (RELEASED, strict))
    assert bool((geometric < plain).all())
    generators = generators_of(range(4))
    model = flow(strict)
    drawn = [model(seen, model.draw(generators, dropout=True)).exp() for _ in range(20)]
    torch.testing.assert_close(plain, torch.stack(drawn).mean(0))


def test_dropout_at_prediction_is_a_switch() -> None:
    seen = spikes()[:, :6, :5]
    noisy, calm, none = (
        flow(
            replace(RELEASED, dropout=0.5, dropout_at_prediction=on)
            if on is not None
            else replace(RELEASED, dropout=0.0)
        ).rates(seen, 1, generators_of(range(4)))
        for on in (True, False, None)
    )
    torch.testing.assert_close(calm, none)
    assert float((noisy - none).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("inside", [True, False])
def test_nothing_dropped_is_one_function(inside: bool) -> None:
    """Without draws both places of dropout, and the loop of cells with factors of one, agree."""
    model = flow(replace(RELEASED, dropout_inside=inside))
    seen = spikes()[:, :6, :5]
    draws = model.draw(generators_of(range(4)))
    ones = replace(draws, encoder=torch.ones(4, 9, 8, dtype=torch.float64))
    torch.testing.assert_close(
        model.encode(seen, ones).hidden, model.encode(seen).hidden, rtol=1e-12, atol=1e-12
    )


def test_dropped_units_have_the_stated_share() -> None:
    model = flow(replace(RELEASED, dropout=0.2))
    draws = model.draw(generators_of(range(200)), dropout=True)
    assert draws.encoder is not None and draws.decoder is not None
    for factors in (draws.encoder, *vars(draws.decoder).values()):
        assert set(factors.unique().tolist()) == {0.0, 1.25}
        assert float((factors == 0).double().mean()) == pytest.approx(
            0.2, abs=4.5 * (0.16 / factors.numel()) ** 0.5
        )
    assert abs(float(draws.noise.std()) - 1) < 4.5 * (0.5 / draws.noise.numel()) ** 0.5


def test_windows_are_the_four_blocks() -> None:
    rates = torch.arange(2 * 9 * 7, dtype=torch.float64).reshape(2, 9, 7)
    w = flow().windows(rates)
    rebuilt = torch.cat(
        [torch.cat([w.heldin, w.heldout], 2), torch.cat([w.heldin_forward, w.heldout_forward], 2)], 1
    )
    assert w.heldin.shape == (2, 6, 5) and w.heldout_forward.shape == (2, 3, 2)
    torch.testing.assert_close(rebuilt, rates)


def test_without_a_start_the_mean_counts_are_predicted() -> None:
    model = flow()
    with torch.no_grad():
        model.decoder.readout.weight.zero_()
    mean = torch.linspace(0.1, 0.7, 7, dtype=torch.float64)
    model.set_mean_counts(mean)
    torch.testing.assert_close(model.rates(spikes()[:, :6, :5]), mean.expand(4, 9, 7))


@pytest.mark.parametrize("switches", [RELEASED, CORRECTED])
def test_described_and_rebuilt(switches: PaperSwitches) -> None:
    model = flow(switches)
    with torch.random.fork_rng():
        again = rebuild(json.loads(json.dumps(describe(model)))).double()
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again(spikes()[:, :6, :5]), model(spikes()[:, :6, :5]))
    assert again.switches == switches


@pytest.mark.parametrize(
    "wrong",
    [{"heldin": 8}, {"heldin": 0}, {"bins": 1}, {"forward": -1}, {"hidden": 6}, {"inner": 0}],
)
def test_numbers_that_do_not_fit_are_refused(wrong: dict[str, int]) -> None:
    with torch.random.fork_rng(), pytest.raises(InputError, match="expected"):
        PaperLangevinFlow(**{"neurons": 7, "heldin": 5, "bins": 6, "forward": 0, "hidden": 8} | wrong)


def test_counts_of_another_shape_and_missing_generators_are_refused() -> None:
    model, counts = flow(), spikes()
    with pytest.raises(InputError, match="6 observed bins, 5 held-in"):
        model.encode(counts)
    with pytest.raises(InputError, match="one generator a trial, 4; got 1"):
        model.rates(counts[:, :6, :5], 2, generators_of([0]))
