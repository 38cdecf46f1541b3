"""The literal loop's own parts against the equations; its agreement with the fast model is `test_paper_flow`."""

import math

import torch

from radiata_core.seeds import generators_of
from radiata_latents.model.paper_flow import PaperLangevinFlow
from radiata_latents.model.paper_reference import ReferenceFlow
from radiata_latents.model.paper_switches import PaperSwitches


def reference() -> tuple[PaperLangevinFlow, ReferenceFlow]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PaperLangevinFlow(4, 3, 5, 2, 8, 16, PaperSwitches(kernel_spread=1.0)).double()
        return model, ReferenceFlow(model)


def test_every_number_is_copied_once() -> None:
    model, literal = reference()
    mine, theirs = 0, torch.cat([p.detach().flatten() for p in model.parameters()])
    for here, there, rows in literal.pairs(model):
        assert torch.equal(here, there[rows]) and here is not there
        mine += here.numel()
    assert mine == theirs.numel() == sum(p.numel() for p in literal.parameters())


def test_one_step_by_hand() -> None:
    """h = 0.01, gamma = 0.55: z + h v, 0.45 (v - h grad U) + sqrt(1.1) eps, grad U by central differences."""
    model, literal = reference()
    noise = model.draw(generators_of(range(2)))
    z, v = noise.start.unbind(1)
    positions, velocities, means = literal.dynamics(z.clone(), v, noise.noise)
    gradient = torch.zeros_like(z)
    for k in range(8):
        nudge = torch.zeros_like(z)
        nudge[:, k] = 1e-5
        for row in range(2):
            up, down = (z + nudge)[row : row + 1], (z - nudge)[row : row + 1]
            gradient[row, k] = (literal.potential(up) - literal.potential(down)) / 2e-5
    torch.testing.assert_close(positions[1], z + 0.01 * v)
    mean = 0.45 * (v - 0.01 * gradient)
    torch.testing.assert_close(means[0], mean, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(velocities[1], mean + math.sqrt(1.1) * noise.noise[:, 0], rtol=1e-8, atol=1e-8)


def test_first_bin_is_read_twice() -> None:
    model, literal = reference()
    seen = torch.ones(1, 5, 3, dtype=torch.float64) * torch.arange(1.0, 6.0, dtype=torch.float64)[:, None]
    states = literal.hidden(seen, model.draw(generators_of([0])))
    first = literal.cell(seen[:, 0])
    torch.testing.assert_close(states[0], first)
    torch.testing.assert_close(states[1], literal.cell(seen[:, 0], first))
    torch.testing.assert_close(states[6], literal.cell(seen[:, 4], states[5]))
