"""Flow from responses: linear motion is decoded, shrinkage is calibrated, ablations see what they may."""

from pathlib import Path

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.codebook_decoder import CodebookMotion, calibrated_temperature
from radiata_decode.model.flow_codebook import FlowCodebook
from radiata_decode.model.motion_decoder import (
    ContinuousMotion,
    calibrated_shrinkage,
    combined_motion,
    fit_continuous,
)
from radiata_decode.model.motion_network import MotionNetwork


def world(generator: torch.Generator, count: int, noise: float = 1.0):
    """Flow of two components; voxels see the first, the picture's features the second."""
    maps = torch.randn(2, 1, 2, 4, 4, generator=torch.Generator().manual_seed(5))
    causes = torch.randn(count, 2, generator=generator)
    flow = torch.einsum("nk,kscyx->nscyx", causes, maps)
    mixing = torch.randn(1, 20, generator=torch.Generator().manual_seed(6))
    responses = causes[:, :1] @ mixing + noise * torch.randn(count, 20, generator=generator)
    features = causes[:, 1].reshape(-1, 1, 1, 1) + 0.3 * torch.randn(count, 1, 4, 4, generator=generator)
    return flow, responses, features


def epe(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    return float((predicted - truth).norm(dim=2).mean())


def test_each_input_decodes_its_part_and_both_decode_more(generator: torch.Generator) -> None:
    flow, responses, features = world(generator, 120)
    fresh, new_responses, new_features = world(generator, 60)
    errors = {}
    for inputs in ("brain", "image", "both"):
        fit = fit_continuous(flow, responses, features, inputs=inputs)
        errors[inputs] = epe(fit.decoder.predict(new_responses, new_features), fresh)
    zero = epe(torch.zeros_like(fresh), fresh)
    assert errors["both"] < 0.5 * min(errors["brain"], errors["image"])
    assert max(errors["brain"], errors["image"]) < 0.9 * zero


def test_leave_one_out_tells_the_error_on_new_films(generator: torch.Generator) -> None:
    flow, responses, _ = world(generator, 150, noise=3.0)
    fresh, new, _ = world(generator, 150, noise=3.0)
    fit = fit_continuous(flow, responses)
    assert epe(fit.loo, flow) == pytest.approx(epe(fit.decoder.predict(new), fresh), rel=0.1)


def test_shrinkage_is_the_best_of_a_fine_search(generator: torch.Generator) -> None:
    truth = torch.randn(20, 1, 2, 4, 4, generator=generator)
    guess = 0.4 * truth + 0.8 * torch.randn(20, 1, 2, 4, 4, generator=generator)
    grid = np.linspace(0, 1.5, 301)
    best = grid[np.argmin([epe(float(s) * guess, truth) for s in grid])]
    assert calibrated_shrinkage(guess, truth) == pytest.approx(best, abs=0.02)
    assert (
        calibrated_shrinkage(torch.randn(200, 1, 2, 4, 4, generator=generator), torch.zeros(200, 1, 2, 4, 4))
        < 0.02
    )


def test_a_film_alone_and_a_decoder_from_its_files_say_the_same(
    generator: torch.Generator, tmp_path: Path
) -> None:
    flow, responses, features = world(generator, 40)
    decoder = fit_continuous(flow, responses, features, inputs="both").decoder
    predicted = decoder.predict(responses, features)
    torch.testing.assert_close(
        decoder.predict(responses[7:8], features[7:8]), predicted[7:8], atol=1e-5, rtol=0
    )
    again = ContinuousMotion.load(tmp_path, decoder.save(tmp_path))
    torch.testing.assert_close(again.predict(responses, features), predicted)


def test_reliable_voxels_count_more(generator: torch.Generator) -> None:
    flow, responses, _ = world(generator, 80, noise=1.0)
    fresh, new, _ = world(generator, 80, noise=1.0)
    spoilt, new_spoilt = (
        torch.cat([part, 20 * torch.randn(80, 20, generator=generator)], 1) for part in (responses, new)
    )
    weights = np.r_[np.ones(20), np.zeros(20)]
    known = fit_continuous(flow, spoilt, voxel_weights=weights).decoder.predict(new_spoilt)
    plain = fit_continuous(flow, spoilt).decoder.predict(new_spoilt)
    assert epe(known, fresh) < epe(plain, fresh)
    alone = fit_continuous(flow, responses).decoder.predict(new)
    torch.testing.assert_close(known, alone, atol=1e-4, rtol=0)


def network(**options) -> CodebookMotion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = MotionNetwork((4, 4), 1, 3, dropout=0.5, **options)
        torch.nn.init.normal_(made.classifier.weight)
    return CodebookMotion(made.eval(), FlowCodebook(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])))


def test_codebook_flow_is_within_its_codes_and_row_by_row(generator: torch.Generator) -> None:
    decoder, x = network(voxels=6, guess=2), torch.randn(70, 6, generator=generator)
    guess = torch.randn(70, 1, 2, 4, 4, generator=generator)
    flow = decoder.predict(x, None, guess)
    assert flow.min() >= 0
    assert flow.sum(2).max() <= 1 + 1e-6
    torch.testing.assert_close(decoder.predict(x[68:69], None, guess[68:69]), flow[68:69], atol=1e-5, rtol=0)


def test_a_network_that_knows_nothing_is_cooled_down(generator: torch.Generator) -> None:
    """With codes drawn at random, less certainty has the smaller error; with its own choices as truth, more has."""
    decoder, x = network(voxels=6), torch.randn(60, 6, generator=generator)
    chosen = decoder.codebook.vectors[decoder.probabilities(x).argmax(2)].movedim(-1, 2)
    random = decoder.codebook.vectors[torch.randint(0, 3, (60, 1, 4, 4), generator=generator)].movedim(-1, 2)
    assert calibrated_temperature(decoder, chosen, responses=x) == 0.5
    assert calibrated_temperature(decoder, random, responses=x) == 4.0


def test_the_mean_of_both(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 3, 1, 2, 4, 4, generator=generator)
    torch.testing.assert_close(combined_motion(a, b, 0.25), 0.25 * a + 0.75 * b)
    with pytest.raises(InputError, match="one shape"):
        combined_motion(a, b[:2])


def test_inputs_that_do_not_fit(generator: torch.Generator) -> None:
    flow, responses, features = world(generator, 20)
    decoder = fit_continuous(flow, responses).decoder
    with pytest.raises(InputError, match="20 voxels"):
        decoder.predict(responses[:, :19])
    with pytest.raises(InputError, match="got none"):
        fit_continuous(flow, responses, inputs="both")
    with pytest.raises(InputError, match="brain, image, both"):
        fit_continuous(flow, responses, inputs="eyes")
    with pytest.raises(InputError, match="of 6 voxels"):
        network(voxels=6).predict(torch.zeros(2, 5))
    with pytest.raises(InputError, match="as many"):
        fit_continuous(flow, responses, features[:10], inputs="both")
