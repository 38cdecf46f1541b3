"""The MM-DiT block: split invariance, the bound on the logits, the identity at the start, and diffusers' block."""

import math

import pytest
import torch
from torch import Tensor

from radiata_core.errors import InputError
from radiata_core.nets.joint_attention import JointBlock, Stream
from radiata_core.nets.rotary import rotation_at, token_coordinates, widths_of_axes

WIDTH, EMBEDDING = 32, 12


def _block(generator: torch.Generator, ends: bool = False, embedding: int = EMBEDDING) -> JointBlock:
    """A block in float64 whose every parameter is drawn, the zero-initialised too."""
    with torch.random.fork_rng():
        block = JointBlock(heads=4, head=8, embedding=embedding, ends_context=ends).double()
    for parameter in block.parameters():
        parameter.data.normal_(std=0.3, generator=generator)
    return block.eval()


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_with_tied_weights_the_split_does_not_matter(generator: torch.Generator) -> None:
    """T11: nine tokens give the same nine tokens wherever the border of image and context is."""
    block = _block(generator)
    assert block.context is not None
    block.context.load_state_dict(block.image.state_dict())
    tokens, e = _draw(generator, 2, 9, WIDTH), _draw(generator, 2, EMBEDDING)
    outputs = []
    for split in (1, 4, 8):
        x, context = block(tokens[:, :split], tokens[:, split:], e)
        outputs.append(torch.cat([x, context], 1))
    for other in outputs[1:]:
        torch.testing.assert_close(other, outputs[0], rtol=0, atol=1e-12)
    alone, nothing = block(tokens, None, e)
    assert nothing is None
    torch.testing.assert_close(alone, outputs[0], rtol=0, atol=1e-12)


def test_logits_stay_below_their_bound(generator: torch.Generator) -> None:
    """T11: |logit| <= sqrt(d) g_q g_k for inputs of size 1e6, and the bound is reached by q parallel to k."""
    block = _block(generator)
    assert block.context is not None
    with torch.no_grad():
        for stream in (block.image, block.context):
            stream.norm_q.weight.fill_(1.5)
            stream.norm_k.weight.fill_(0.5)
    assert block.logit_bound == pytest.approx(math.sqrt(8) * 0.75)
    e = _draw(generator, 1, EMBEDDING)

    def largest(stream: Stream, tokens: Tensor) -> float:
        (q, k, _), _ = stream.read(tokens, 1e6 * e)
        return float((q @ k.mT / math.sqrt(8)).detach().abs().max())

    tokens = _draw(generator, 1, 50, WIDTH)
    assert all(largest(s, tokens) <= block.logit_bound + 1e-9 for s in (block.image, block.context))
    with torch.no_grad():
        block.image.qkv.weight[WIDTH : 2 * WIDTH].copy_(block.image.qkv.weight[:WIDTH])
        block.image.qkv.bias[WIDTH : 2 * WIDTH].copy_(block.image.qkv.bias[:WIDTH])
    assert largest(block.image, tokens) == pytest.approx(block.logit_bound, rel=1e-6)


def test_a_new_block_is_the_identity(generator: torch.Generator) -> None:
    """T11: adaLN-zero, and a step of the optimiser leaves it."""
    with torch.random.fork_rng():
        block = JointBlock(heads=2, head=4, embedding=5).double()
    x, context, e = _draw(generator, 2, 6, 8), _draw(generator, 2, 3, 8), _draw(generator, 2, 5)
    after_x, after_context = block(x, context, e)
    assert torch.equal(after_x, x)
    assert torch.equal(after_context, context)
    (after_x.square().sum() + after_context.pow(3).sum()).backward()
    moved = {name for name, p in block.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {f"{s}.modulation.{n}" for s in ("image", "context") for n in ("weight", "bias")}


def test_the_last_block_only_reads_the_context(generator: torch.Generator) -> None:
    block = _block(generator, ends=True)
    x, context, e = (
        _draw(generator, 2, 5, WIDTH),
        _draw(generator, 2, 3, WIDTH),
        _draw(generator, 2, EMBEDDING),
    )
    after, same = block(x, context, e)
    assert same is context
    other, _ = block(x, context + 1.0 * _draw(generator, 2, 3, WIDTH), e)
    assert (after - other).abs().max() > 1e-3


def test_absent_context_is_as_if_it_were_not_there(generator: torch.Generator) -> None:
    block = _block(generator)
    x, context, e = (
        _draw(generator, 2, 5, WIDTH),
        _draw(generator, 2, 4, WIDTH),
        _draw(generator, 2, EMBEDDING),
    )
    given = torch.tensor([[True, True, False, False], [False] * 4])
    masked, _ = block(x, context, e, given)
    two, _ = block(x[:1], context[:1, :2], e[:1])
    none, _ = block(x[1:], None, e[1:])
    torch.testing.assert_close(masked, torch.cat([two, none]), rtol=0, atol=1e-12)


def test_bad_input_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(InputError, match="heads, head"):
        JointBlock(heads=0, head=4, embedding=5)
    with torch.random.fork_rng():
        alone = JointBlock(heads=2, head=4, embedding=5, has_context=False).double()
    with pytest.raises(InputError, match="one stream"):
        alone(_draw(generator, 1, 2, 8), _draw(generator, 1, 2, 8), _draw(generator, 1, 5))


def _weights_for_diffusers(block: JointBlock, ends: bool) -> dict[str, Tensor]:
    """The same block under diffusers' names."""
    found: dict[str, Tensor] = {}
    streams = [
        ("image", block.image, "norm1", ("to_q", "to_k", "to_v"), "to_out.0", ("norm_q", "norm_k"), "ff"),
        (
            "context",
            block.context,
            "norm1_context",
            ("add_q_proj", "add_k_proj", "add_v_proj"),
            "to_add_out",
            ("norm_added_q", "norm_added_k"),
            "ff_context",
        ),
    ]
    for name, stream, norm, projections, out, norms, ff in streams:
        assert isinstance(stream, Stream)
        last = ends and name == "context"
        for part in ("weight", "bias"):
            modulation = getattr(stream.modulation, part)
            if last:  # diffusers' continuous norm has (scale, shift)
                modulation = torch.cat(modulation.chunk(2)[::-1])
            found[f"{norm}.linear.{part}"] = modulation
            pieces = list(getattr(stream.qkv, part).chunk(2 if last else 3))
            if last:  # what nobody reads
                pieces.insert(0, torch.zeros_like(pieces[0]))
            for projection, piece in zip(projections, pieces, strict=True):
                found[f"attn.{projection}.{part}"] = piece
            if not last:
                found[f"attn.{out}.{part}"] = getattr(stream.out, part)
                found[f"{ff}.net.0.proj.{part}"] = getattr(stream.mlp[0], part)
                found[f"{ff}.net.2.{part}"] = getattr(stream.mlp[2], part)
        found[f"attn.{norms[0]}.weight"] = stream.norm_k.weight if last else stream.norm_q.weight
        found[f"attn.{norms[1]}.weight"] = stream.norm_k.weight
    return found


@pytest.mark.parametrize("ends", [False, True], ids=["both streams", "context read only"])
def test_it_is_diffusers_block(ends: bool, generator: torch.Generator) -> None:
    """T11: another program's block with the same weights, to the float32 in which it takes root mean squares."""
    attention = pytest.importorskip("diffusers.models.attention")
    block = _block(generator, ends, embedding=WIDTH)
    with torch.random.fork_rng():
        theirs = attention.JointTransformerBlock(
            dim=WIDTH, num_attention_heads=4, attention_head_dim=8, context_pre_only=ends, qk_norm="rms_norm"
        ).double()
    theirs.load_state_dict(_weights_for_diffusers(block, ends))
    x, context, e = _draw(generator, 2, 6, WIDTH), _draw(generator, 2, 3, WIDTH), _draw(generator, 2, WIDTH)
    expected_context, expected = theirs(hidden_states=x, encoder_hidden_states=context, temb=e)
    given, given_context = block(x, context, e)
    torch.testing.assert_close(given, expected, rtol=0, atol=2e-6)
    if not ends:
        torch.testing.assert_close(given_context, expected_context, rtol=0, atol=2e-6)


def test_with_places_it_is_flux(generator: torch.Generator) -> None:
    """Another program's block on a 3-D grid: image tokens turn after the norms of q and k, words (ids 0) do not."""
    flux = pytest.importorskip("diffusers.models.transformers.transformer_flux")
    block = _block(generator, embedding=WIDTH)
    with torch.random.fork_rng():
        theirs = flux.FluxTransformerBlock(dim=WIDTH, num_attention_heads=4, attention_head_dim=8).double()
    theirs.load_state_dict(_weights_for_diffusers(block, ends=False))
    places = token_coordinates((2, 1, 3), spacing=(1.0, 2.0, 0.7))
    ids = torch.cat([torch.zeros(4, 3), places[0]])  # Flux puts the words first
    x, context, e = (_draw(generator, 2, n, WIDTH) for n in (6, 4, 1))
    expected_context, expected = theirs(
        hidden_states=x,
        encoder_hidden_states=context,
        temb=e[:, 0],
        image_rotary_emb=flux.FluxPosEmbed(theta=100, axes_dim=widths_of_axes(8, 3))(ids),
    )
    rotation = rotation_at(places, 8, dtype=torch.float64)
    given, given_context = block(x, context, e[:, 0], rotation=rotation)
    torch.testing.assert_close(given, expected, rtol=0, atol=5e-6)
    torch.testing.assert_close(given_context, expected_context, rtol=0, atol=5e-6)
    assert (block(x, context, e[:, 0])[0] - given).abs().max() > 1e-3
