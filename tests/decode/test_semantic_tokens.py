"""A context from tokens: its shape, a refining branch that starts as nothing, the loss by hand."""

import pytest
import torch

from radiata_core.errors import InputError
from radiata_core.specs import describe, rebuild
from radiata_decode.model.semantic_tokens import SemanticTokens, semantic_error


@pytest.fixture
def head():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SemanticTokens(65, 24, 7, 10)


def test_context_has_the_texts_shape(head, generator):
    context = head(torch.randn(3, 65, 24, generator=generator))
    assert context.shape == (3, 7, 10)
    torch.testing.assert_close(context.mean(-1), torch.zeros(3, 7), atol=1e-5, rtol=0)  # LayerNorm
    with torch.random.fork_rng(devices=[]):
        paper = SemanticTokens(257, 1024, 77, 1024, hidden=128)
    assert [tuple(paper.mix[i].weight.shape) for i in (0, 2)] == [(128, 257, 1), (77, 128, 1)]


def test_refining_begins_where_pretraining_ended(head, generator):
    tokens = torch.randn(2, 65, 24, generator=generator)
    with torch.random.fork_rng(devices=[]):
        refined = head.refined()
    assert torch.equal(refined(tokens), head(tokens))
    semantic_error(refined(tokens), torch.zeros(2, 7, 10)).sum().backward()
    assert float(refined.branch.weight.grad.abs().sum()) > 0  # it is at zero, not dead
    with torch.random.fork_rng(devices=[]):
        again = rebuild(describe(refined))
    again.load_state_dict(refined.state_dict())
    assert torch.equal(again(tokens), refined(tokens))


def test_semantic_error_is_the_mean_square(generator):
    context, target = torch.randn(2, 4, 3, generator=generator), torch.randn(2, 4, 3, generator=generator)
    torch.testing.assert_close(semantic_error(context, target)[1], (context[1] - target[1]).square().mean())
    torch.testing.assert_close(
        semantic_error(context, target[:, 0])[0], (context[0].mean(0) - target[0, 0]).square().mean()
    )
    with pytest.raises(InputError, match="embeddings"):
        semantic_error(context, torch.zeros(2, 9))


def test_tokens_of_another_encoder_are_refused(head):
    with pytest.raises(InputError, match="tokens"):
        head(torch.zeros(1, 64, 24))
