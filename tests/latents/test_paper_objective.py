"""The released loss by hand, its scale beside the bound's, and its ramp."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.seeds import generators_of
from radiata_latents.model.coordinated_dropout import CountMasks, count_masks
from radiata_latents.model.elbo_terms import poisson_cost
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.paper_switches import CORRECTED, PaperSwitches

ROWS, BINS, FORWARD, NEURONS, HELDIN = 3, 6, 2, 7, 5


def flow(switches: PaperSwitches) -> PaperLangevinFlow:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PaperLangevinFlow(NEURONS, HELDIN, BINS, FORWARD, 8, 16, switches).double()


def spikes() -> Tensor:
    rates = torch.ones(ROWS, BINS + FORWARD, NEURONS)
    return torch.poisson(rates, generator=torch.Generator().manual_seed(1)).double()


def masks_of(switches: PaperSwitches) -> CountMasks:
    return count_masks(
        generators_of(range(ROWS)), BINS, HELDIN, switches.shown, pass_through=switches.pass_through
    )


def test_released_loss_is_a_mean_beside_a_sum() -> None:
    """And its transition part a penalty of v² / 0.2 beside a constant."""
    s = PaperSwitches(kernel_spread=1.0)
    model, counts, masks = flow(s), spikes(), masks_of(s)
    draws = model.draw(generators_of(range(ROWS)), dropout=True)
    posterior = model.encode(masks.shown(counts[:, :BINS, :HELDIN]), draws)
    path = model.path(posterior, draws=draws)
    mean = poisson_cost(model.log_rates(path), counts).mean()
    kl = posterior.kl().mean() + path.velocity[:, 1:].square().sum((1, 2)).mean() / 0.2
    loss = PaperBound().given(model, counts, masks, draws).value
    remainder = float((loss - mean - 0.1 * kl).detach() / 0.1)
    number = (BINS + FORWARD - 1) * 8
    constant = 0.5 * (torch.tensor(0.1).log() - 1.1 + torch.tensor(1.1).exp() / 0.1 - 1)
    assert remainder == pytest.approx(number * float(constant), rel=1e-6)


def test_released_scale_is_a_beta_of_weight_times_counts() -> None:
    """The gradient of the KL relative to that of the cost: released over bound is kl_weight × (T + F) × N, all counts
    being scored."""
    gradients = []
    for mean_against_sum, weight in ((True, 0.1), (False, 1.0)):
        s = PaperSwitches(
            dropout=0.0,
            transition_term=False,
            mean_against_sum=mean_against_sum,
            kl_weight=weight,
            pass_through=False,
        )
        model, counts = flow(s), spikes()
        nothing = torch.zeros(ROWS, BINS, HELDIN, dtype=torch.bool)
        masks = CountMasks(nothing, ~nothing, 1e-12)
        draws = model.draw(generators_of(range(ROWS)))
        parts = []
        for part in (0.0, weight):
            model.switches = replace(s, kl_weight=part)
            value = PaperBound().given(model, counts, masks, draws).value
            parts.append(torch.autograd.grad(value, model.start.bias)[0])
        cost, both = parts
        gradients.append((both - cost).norm())
    entries = (BINS + FORWARD) * NEURONS
    torch.testing.assert_close(gradients[0] / gradients[1], torch.tensor(0.1 * entries, dtype=torch.float64))


@pytest.mark.parametrize("pass_through", [True, False])
def test_sum_form_estimates_the_cost_of_the_whole_trial(pass_through: bool) -> None:
    """A read-out that ignores its input: the loss over 400 masks averages to cost over entries within 4.5 errors."""
    s = replace(CORRECTED, pass_through=pass_through, kl_weight=0.0, dropout=0.0)
    model, counts = flow(s), spikes()[:1]
    with torch.no_grad():
        model.decoder.readout.weight.zero_()
        model.decoder.readout.bias.copy_(torch.linspace(-1, 1, NEURONS))
    bias = model.decoder.readout.bias.detach()
    entries = counts[0].numel()
    truth = float(poisson_cost(bias.expand(counts.shape), counts).sum())
    totals = []
    for seed in range(400):
        masks = count_masks(generators_of([seed]), BINS, HELDIN, s.shown, pass_through=pass_through)
        share = 0.75 if pass_through else 0.5
        scored = masks.scored.sum() / share + entries - BINS * HELDIN
        with torch.no_grad():
            loss = PaperBound().given(model, counts, masks, model.draw(generators_of([seed]))).value
        totals.append(loss * scored)
    drawn = torch.stack(totals)
    assert abs(float(drawn.mean()) - truth) < 4.5 * float(drawn.std()) / 20


def test_gradients_come_from_scored_counts_only() -> None:
    for s in (PaperSwitches(), CORRECTED):
        model, masks = flow(replace(s, kl_weight=0.0, dropout=0.0)), masks_of(s)
        counts = spikes().requires_grad_(True)
        draws = model.draw(generators_of(range(ROWS)))
        with torch.no_grad():
            model.encoder.weight_ih_l0.zero_()  # counts then act as targets only
        PaperBound().given(model, counts, masks, draws).value.backward()
        assert counts.grad is not None
        assert bool(((counts.grad != 0) == masks.scored_of_all(BINS + FORWARD, NEURONS)).all())


def test_ramp_counts_epochs() -> None:
    model = flow(PaperSwitches())
    bound = PaperBound(steps_per_epoch=10)
    weights = [bound.at(step).weight(model) for step in (0, 9, 10, 2500, 5000, 9000)]
    assert weights == pytest.approx([0, 0, 0.1 / 500, 0.05, 0.1, 0.1])
    assert bound.weight(model) == 0.1


def test_a_trial_that_was_not_observed_costs_its_kl_only() -> None:
    s = replace(CORRECTED, dropout=0.0)
    model, masks = flow(s), masks_of(s)
    observed = torch.ones(ROWS, BINS + FORWARD, dtype=torch.bool)
    observed[1] = False
    draws = model.draw(generators_of(range(ROWS)))
    loss = PaperBound().given(model, spikes(), masks, draws, observed)
    kl = model.encode(torch.zeros(ROWS, BINS, HELDIN, dtype=torch.float64)).kl()
    torch.testing.assert_close(loss.per_sample[1], kl[1])


def test_trains_under_the_bound_of_the_other_model_too() -> None:
    """The interface is that of `langevin_flow`: a step of `TrialBound` has a gradient in every part."""
    model = flow(replace(CORRECTED, kernel_spread=1.0))
    TrialBound()(model, spikes(), generators_of(range(ROWS))).value.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_few_steps_reduce_the_loss() -> None:
    model, counts = flow(PaperSwitches()), spikes()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    bound, values = PaperBound(step=0), []
    for _ in range(40):
        optimizer.zero_grad()
        loss = bound(model, counts, generators_of(range(ROWS))).value
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < values[0] - 0.1


def test_bad_input_is_refused() -> None:
    model = flow(PaperSwitches())
    with pytest.raises(InputError, match=r"6 \+ 2 bins, 7 neurons"):
        PaperBound()(model, spikes()[:, :6], generators_of(range(ROWS)))
    with pytest.raises(InputError, match="one step an epoch"):
        PaperBound(steps_per_epoch=0)
