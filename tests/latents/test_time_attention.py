"""Attention over bins: zero at first, near bins first, the same whenever a trial begins."""

import torch

from radiata_latents.model.time_attention import TimeAttention


def made() -> TimeAttention:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = TimeAttention(6, width=8)
        torch.nn.init.normal_(layer.out.weight)
    return layer


def test_a_new_layer_adds_nothing() -> None:
    with torch.random.fork_rng(devices=[]):
        assert not TimeAttention(6)(torch.ones(2, 5, 6)).any()


@torch.no_grad()
def test_it_is_the_softmax_written_out() -> None:
    layer, x = made(), torch.randn(1, 7, 6, generator=torch.Generator().manual_seed(1))
    q, k, v = layer.mix(layer.norm(x))[0].chunk(3, 1)
    parts = []
    for head in range(2):
        rows = slice(4 * head, 4 * head + 4)
        apart = (torch.arange(7)[:, None] - torch.arange(7)).abs()
        logits = q[:, rows] @ k[:, rows].T / 2 - layer.decay[head].exp() * apart
        parts.append(logits.softmax(1) @ v[:, rows])
    torch.testing.assert_close(layer(x)[0], layer.out(torch.cat(parts, 1)))


@torch.no_grad()
def test_a_steep_slope_sees_its_own_bin_only() -> None:
    layer, x = made(), torch.randn(2, 9, 6, generator=torch.Generator().manual_seed(2))
    layer.decay.fill_(6.0)
    alone = torch.cat([layer(x[:, t : t + 1]) for t in range(9)], 1)
    torch.testing.assert_close(layer(x), alone, rtol=1e-4, atol=1e-4)
