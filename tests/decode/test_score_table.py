"""The table: the truth is perfect, controls are at chance, and a decoder in between is told from both."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.controls import mean_image, permuted_brain
from radiata_decode.model.extractors import GaborFeatures
from radiata_decode.model.image_scores import resized
from radiata_decode.model.score_table import ScoreRow, score_differences, score_predictions, score_table


@pytest.fixture
def truth(generator: torch.Generator) -> torch.Tensor:
    return resized(torch.rand(24, 3, 6, 6, generator=generator), (24, 24))


@pytest.fixture
def decoded(truth: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return (0.25 * truth + 0.75 * resized(torch.rand(24, 3, 6, 6, generator=generator), (24, 24))).clamp(0, 1)


def cell(rows: list[ScoreRow], decoder: str, metric: str) -> ScoreRow:
    (row,) = [row for row in rows if (row.decoder, row.metric) == (decoder, metric)]
    return row


def test_truth_decoder_and_controls(
    truth: torch.Tensor, decoded: torch.Tensor, rng: np.random.Generator
) -> None:
    runs = np.arange(24) // 6
    rows = score_table(
        truth,
        {"ceiling": truth, "ridge": decoded},
        rng,
        controls={"mean image": mean_image(truth, 24), "permuted": permuted_brain(decoded, rng, runs)},
        extractors=[GaborFeatures(24)],
        runs=runs,
        draws=199,
    )
    metrics = ["pixcorr", "ssim", "ssim_legacy", "pixels 2-way", "gabor 2-way", "gabor distance"]
    assert [row.metric for row in rows] == metrics * 4
    for metric, best in zip(metrics, (1, 1, 1, 1, 1, 0), strict=True):
        assert cell(rows, "ceiling", metric).mean == pytest.approx(best, abs=1e-5)
    ridge = cell(rows, "ridge", "pixels 2-way")
    assert ridge.low < ridge.mean < ridge.high and ridge.p == 1 / 200 and ridge.chance == 0.5
    assert cell(rows, "ridge", "pixcorr").p == 1 / 200
    mean = cell(rows, "mean image", "pixels 2-way")
    assert mean.mean == pytest.approx(0.5, abs=0.03) and mean.p > 0.01 and mean.control
    assert cell(rows, "permuted", "pixels 2-way").p > 0.01
    assert np.isnan(cell(rows, "ridge", "ssim").p) and not ridge.control
    assert ridge.plain()["decoder"] == "ridge"


def test_pictures_of_one_colour_are_counted(
    truth: torch.Tensor, decoded: torch.Tensor, rng: np.random.Generator
) -> None:
    without = cell(score_table(truth[3:], {"a": decoded[3:]}, rng, draws=19), "a", "pixcorr")
    decoded[:3] = 0.4
    rows = score_table(truth, {"a": decoded}, rng, draws=19)
    row = cell(rows, "a", "pixcorr")
    assert (row.cases, row.left_out) == (21, 3) and row.mean == pytest.approx(without.mean)
    assert cell(rows, "a", "pixels 2-way").left_out == 3 and cell(rows, "a", "ssim").left_out == 0


def test_one_picture_has_scores_but_no_interval(
    truth: torch.Tensor, decoded: torch.Tensor, rng: np.random.Generator
) -> None:
    rows = score_table(truth[:1], {"a": decoded[:1]}, rng)
    assert [row.metric for row in rows] == ["pixcorr", "ssim", "ssim_legacy"]
    assert np.isfinite(rows[0].mean) and np.isnan(rows[0].low) and np.isnan(rows[0].p)


def test_the_same_generator_gives_the_same_table(truth: torch.Tensor, decoded: torch.Tensor) -> None:
    one, two = (score_table(truth, {"a": decoded}, np.random.default_rng(4), draws=50) for _ in range(2))
    for name in ("mean", "low", "high", "p"):
        np.testing.assert_array_equal(
            [getattr(row, name) for row in one], [getattr(row, name) for row in two]
        )


def test_differences_are_by_stimulus(
    truth: torch.Tensor, decoded: torch.Tensor, rng: np.random.Generator
) -> None:
    ours = score_predictions(truth, decoded)
    better = score_predictions(truth, 0.55 * truth + 0.45 * decoded)
    found = score_differences(better, ours, rng)["pixcorr"]
    expected = (better.values["pixcorr"] - ours.values["pixcorr"]).mean()
    assert found.difference.mean == pytest.approx(expected) and found.difference.low > 0 and found.p < 0.01


def test_refuses(truth: torch.Tensor, rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="at least one decoder, named unlike any control"):
        score_table(truth, {"a": truth}, rng, controls={"a": truth})
    with pytest.raises(InputError, match="as many decoded pictures"):
        score_table(truth, {"a": truth[1:]}, rng)
