"""Counted operations are those that torch's own counter sees, and the cost of a head of 1 mm."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from radiata_core.errors import InputError
from radiata_core.nets.transformer import Transformer
from radiata_core.nets.transformer_cost import cost_of

CASES = [
    ({"dims": 0, "patch": 1}, (9,), 0),
    ({"dims": 1, "context": 3, "covariates": 2, "destination": True}, (9,), 2),
    ({"dims": 2, "context": 3, "shared_modulation": True}, (7, 8), 0),
    ({"dims": 2, "windows": "WG", "window": (2, 3), "context": 3}, (10, 8), 2),
    ({"dims": 3, "patch": (4, 2, 1), "conv_stem": True, "final_conv": True, "skips": False}, (8, 4, 3), 0),
]


@pytest.mark.parametrize(("options", "grid", "words"), CASES)
def test_it_is_what_torch_counts(
    options: dict[str, object], grid: tuple[int, ...], words: int, generator: torch.Generator
) -> None:
    with torch.random.fork_rng():
        network = Transformer(**{"depth": 3, "heads": 2, "head": 12, "frequencies": 8} | options)  # type: ignore[arg-type]
    context = torch.randn(2, words, 3, generator=generator) if words else None
    x = torch.randn(2, 1, *grid, generator=generator)
    counter = FlopCounterMode(display=False)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        counter,
    ):  # the fused kernel of CPUs is not in its table
        network(x, torch.zeros(2), None, context)
    cost = cost_of(network, grid, batch=2, words=words)
    assert cost.flops == counter.get_total_flops()
    assert 0 < cost.attention_flops < cost.flops
    assert cost.parameters == sum(p.numel() for p in network.parameters())


def test_a_head_of_one_millimetre() -> None:
    """The numbers of docs/backbones.md: 2016 tokens, by hand 24 N d^2 + 4 N^2 d a block beside embedding, head and skips."""
    with torch.device("meta"):
        plain = Transformer(dims=3, patch=16, depth=12, heads=6, head=64, skips=False)
    cost = cost_of(plain, (192, 224, 192))
    n, d = 12 * 14 * 12, 384
    assert cost.tokens == n == 2016
    assert cost.attention_flops == 12 * 4 * n * n * d
    layers = 12 * 24 * n * d * d + 2 * 2 * n * d * 16**3
    assert 0 < cost.flops - cost.attention_flops - layers < 1e-3 * cost.flops  # modulation
    with pytest.raises(InputError, match="3 axes"):
        cost_of(plain, (192, 224))
