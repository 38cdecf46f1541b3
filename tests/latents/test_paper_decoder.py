"""The decoder against torch's own layer, and what it cannot know."""

import torch
from torch import nn

from radiata_latents.model.paper_decoder import HEADS, TFIXUP, DecoderDropout, PaperDecoder


def features(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(tfixup: bool = True) -> PaperDecoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PaperDecoder(12, 5, 16, tfixup).double()


def test_equals_the_layer_of_torch() -> None:
    made = decoder()
    with torch.random.fork_rng():
        layer = nn.TransformerEncoderLayer(12, HEADS, 16, dropout=0.0, batch_first=True).double()
    theirs = layer.state_dict()
    mine = {
        "self_attn.in_proj_": made.mix,
        "self_attn.out_proj.": made.out,
        "linear1.": made.inner,
        "linear2.": made.outer,
        "norm1.": made.norm_mixed,
        "norm2.": made.norm_outer,
    }
    layer.load_state_dict(
        {name + part: getattr(m, part) for name, m in mine.items() for part in ("weight", "bias")}
    )
    assert theirs.keys() == layer.state_dict().keys()
    x = features()
    torch.testing.assert_close(made(x), made.readout(layer(x)), rtol=1e-12, atol=1e-12)


def test_factors_of_one_drop_nothing() -> None:
    ones = torch.ones(3, 7, 12, dtype=torch.float64)
    nothing = DecoderDropout(
        torch.ones(3, HEADS, 7, 7, dtype=torch.float64), ones, torch.ones(3, 7, 16).double(), ones
    )
    made = decoder()
    torch.testing.assert_close(made(features(), nothing), made(features()), rtol=1e-12, atol=1e-12)


def test_bins_have_no_order_and_later_ones_are_seen() -> None:
    made, x = decoder(), features()
    order = torch.tensor([3, 0, 6, 1, 2, 5, 4])
    torch.testing.assert_close(made(x[:, order]), made(x)[:, order], rtol=1e-12, atol=1e-12)
    later = x.clone()
    later[:, -1] += 1
    assert float((made(later)[:, 0] - made(x)[:, 0]).detach().abs().max()) > 1e-6


def test_tfixup_scales_three_maps() -> None:
    scaled, plain = decoder(), decoder(tfixup=False)
    assert abs(TFIXUP - 0.50909) < 1e-4
    for name, weight in scaled.named_parameters():
        factor = TFIXUP if name in ("out.weight", "inner.weight", "outer.weight") else 1.0
        torch.testing.assert_close(weight, factor * plain.get_parameter(name))
