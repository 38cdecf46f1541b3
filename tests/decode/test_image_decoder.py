"""Latents and embeddings from one ridge: each row by itself, honest predictions of the training stimuli."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.image_decoder import ImageDecoder, fit_image_decoder
from radiata_decode.model.ridge import SharedRidge


@pytest.fixture
def problem(rng):
    hidden = rng.standard_normal((140, 10))
    x = hidden @ rng.standard_normal((10, 60)) + 2 * rng.standard_normal((140, 60)) + 1
    latents = hidden @ rng.standard_normal((10, 8)) + 0.3 * rng.standard_normal((140, 8)) + 2
    tokens = (hidden @ rng.standard_normal((10, 15))).reshape(140, 3, 5) + 1
    pooled = hidden[:, :4] + 0.1 * rng.standard_normal((140, 4))
    return tuple(each.astype(np.float32) for each in (x, latents, tokens, pooled))


@pytest.fixture
def fitted(problem):
    x, latents, tokens, pooled = problem
    return fit_image_decoder(
        SharedRidge(x[:100]), latents[:100], {"clip": tokens[:100], "text": pooled[:100]}
    )


def test_the_parts_are_those_of_separate_fits(problem, fitted):
    x, latents, tokens, _ = problem
    shared = SharedRidge(x[:100])
    decoded = fitted.decoder.decode(x[100:], lengthen=False)
    alone = shared.fit(latents[:100])
    rows = shared.kernel_rows(x[100:])
    assert torch.allclose(decoded.low_level, alone.predict(rows), atol=1e-4)
    assert torch.allclose(decoded.loo_r2, alone.loo_r2, atol=1e-5)
    flat = shared.fit(tokens[:100].reshape(100, 15), groups=np.arange(15) // 5)
    assert torch.allclose(decoded.embeddings["clip"].flatten(1), flat.predict(rows), atol=1e-4)
    assert decoded.embeddings["clip"].shape == (40, 3, 5)
    assert decoded.embeddings["text"].shape == (40, 1, 4)
    assert decoded.embedding_r2["clip"].shape == (3, 5)


def test_training_predictions_never_saw_their_trial(problem, fitted):
    """As far from the truth as predictions of new trials are; in-sample ones are much closer."""
    x, latents, _, _ = problem
    error = ((fitted.training.low_level.numpy() - latents[:100]) ** 2).mean()
    inside = ((fitted.decoder.decode(x[:100]).low_level.numpy() - latents[:100]) ** 2).mean()
    new = ((fitted.decoder.decode(x[100:]).low_level.numpy() - latents[100:]) ** 2).mean()
    assert inside < 0.7 * error
    assert 0.7 < error / new < 1.4


@pytest.mark.parametrize("sharpness", [0.0, 0.6, 1.0])
def test_one_response_decodes_as_in_a_set(problem, fitted, sharpness, rng):
    """No statistic of the test set: shuffled, or alone, each gives the same, finite numbers."""
    x = problem[0]
    whole = fitted.decoder.decode(x[100:], sharpness=sharpness)
    order = rng.permutation(40)
    shuffled = fitted.decoder.decode(x[100:][order], sharpness=sharpness)
    one = fitted.decoder.decode(x[107:108], sharpness=sharpness)
    for other, rows in ((shuffled, order), (one, [7])):
        assert torch.allclose(other.low_level, whole.low_level[rows], atol=1e-4)
        assert torch.allclose(other.embeddings["clip"], whole.embeddings["clip"][rows], atol=1e-4)


def test_sharpness_of_latents_and_embeddings_is_apart(problem, fitted):
    x = problem[0][100:]
    soft, both = (fitted.decoder.decode(x, sharpness=each, lengthen=False) for each in (0.0, 1.0))
    mixed = fitted.decoder.decode(x, sharpness=1.0, embedding_sharpness=0.0, lengthen=False)
    assert torch.equal(mixed.low_level, both.low_level)
    assert torch.equal(mixed.embeddings["clip"], soft.embeddings["clip"])
    assert (both.low_level.std(0) > soft.low_level.std(0)).all()


def test_tokens_get_the_length_that_they_have_in_training(problem, fitted):
    x, _, tokens, _ = problem
    lengths = fitted.decoder.decode(x[100:]).embeddings["clip"].norm(dim=2)
    expected = torch.from_numpy(np.linalg.norm(tokens[:100], axis=2).mean(0))
    assert torch.allclose(lengths, expected.expand(40, 3), atol=1e-3)


@pytest.mark.parametrize("latents_too", [True, False])
def test_a_decoder_comes_back_from_its_folder(problem, tmp_path, latents_too):
    x, latents, tokens, _ = problem
    shared = SharedRidge(x)
    fit = fit_image_decoder(shared, latents if latents_too else None, {"clip": tokens})
    fit.decoder.save(tmp_path / "m", metadata={"codec": "pca"})
    back = ImageDecoder.load(tmp_path / "m")
    a, b = (each.decode(x[:3], sharpness=0.5) for each in (back, fit.decoder))
    assert torch.allclose(a.low_level, b.low_level, atol=1e-5)
    assert torch.allclose(a.embeddings["clip"], b.embeddings["clip"], atol=1e-5)
    assert back.ridge.metadata == {"codec": "pca"}
    with pytest.raises(InputError, match="expected"):
        ImageDecoder.load(tmp_path)


def test_bad_input_is_refused(problem, fitted):
    x, latents, tokens, _ = problem
    shared = SharedRidge(x)
    refused = [
        (lambda: fit_image_decoder(shared), "got neither"),
        (lambda: fit_image_decoder(shared, latents[1:]), "a row for each"),
        (lambda: fit_image_decoder(shared, latents, {"a": tokens[..., None]}), "embedding a"),
        (lambda: fitted.decoder.decode(x, sharpness=2.0), "sharpness"),
        (lambda: fitted.decoder.decode(x[:, :3]), "of 60 voxels"),
    ]
    for call, words in refused:
        with pytest.raises(InputError, match=words):
            call()
