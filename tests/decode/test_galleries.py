"""Galleries and charts say what they are, and keep the numbers they show."""

import numpy as np
import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.experiment.evaluation_figures import confusion_figure, null_figure, score_figure
from radiata_decode.experiment.galleries import labelled_pictures, picture_gallery
from radiata_decode.model.permutation import PermutationTest
from radiata_decode.model.score_table import ScoreRow
from radiata_imaging.plots import NumberedFigure


def words(figure: NumberedFigure) -> str:
    texts = [axes.get_title() + axes.get_ylabel() + axes.get_xlabel() for axes in figure.axes]
    return " ".join([figure.get_supxlabel(), figure.get_suptitle(), *texts]).replace("\n", " ")


def test_a_gallery_shows_the_rows_it_names(generator: torch.Generator) -> None:
    seen = torch.rand(4, 3, 8, 8, generator=generator)
    decoded = torch.rand(4, 3, 5, 5, generator=generator)
    figure = picture_gallery(
        {"seen": seen, "decoder": decoded}, {"best": 2, "worst": 0}, values=np.array([0.1, 0.2, 0.9, 0.3]),
        stimuli=list("abcd"), synthetic=True,
    )  # fmt: skip
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), seen[2].movedim(0, -1))
    np.testing.assert_allclose(figure.axes[3].images[0].get_array(), decoded[0].movedim(0, -1))
    assert figure.numbers["columns"] == {
        "row": ["best", "worst"],
        "stimulus": ["c", "a"],
        "PixCorr": [0.9, 0.1],
    }
    text = words(figure)
    assert "best PixCorr 0.90" in text and "Simulated cortex" in text
    assert "not photographs of thoughts; not for clinical use" in text
    with pytest.raises(InputError, match="same stimuli"):
        picture_gallery({"seen": seen, "decoder": decoded[:2]}, {"best": 0})


def test_labels_stand_above_their_pictures() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((5, 4, 4, 3), np.uint8)
    figure = labelled_pictures(pictures, list("abcde"), across=3)
    shown = {
        axes.get_title(): int(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes if axes.images
    }
    assert shown == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert "Simulated" not in words(figure) and "not for clinical use" in words(figure)
    with pytest.raises(InputError, match="a label for each"):
        labelled_pictures(pictures, ["a"])


def test_permuted_errors_are_drawn_as_errors() -> None:
    """EPE is tested as its negative and drawn as it is."""
    test = PermutationTest(-0.3, np.array([-0.5, -0.4]), 1 / 3)
    figure = null_figure(
        {"epe": test, "gabor distance": PermutationTest(0.8, np.array([0.1]), 0.5)}, "within runs"
    )
    assert figure.axes[0].lines[0].get_xdata()[0] == pytest.approx(0.3)
    assert figure.axes[1].lines[0].get_xdata()[0] == pytest.approx(0.8)
    assert "2 permutations within runs" in words(figure) and "gabor correlation" in words(figure)
    same = PermutationTest(0.1, np.array([0.1, np.nextafter(0.1, 1)]), 1.0)  # a decoder of runs
    assert null_figure({"pixcorr": same}, "within runs").numbers["tests"]["pixcorr"]["p"] == 1
    with pytest.raises(InputError, match="permutation test"):
        null_figure({}, "within runs")


def test_scores_keep_what_they_draw() -> None:
    nan = float("nan")
    rows = [
        ScoreRow("decoder", "epe", 0.4, 0.3, 0.5, 0.01, nan, 9, 0),
        ScoreRow("zero flow", "epe", 0.6, nan, nan, nan, nan, 9, 0, True),
    ]
    figure = score_figure(rows, stimuli=9, synthetic=True)
    assert figure.numbers["columns"]["decoder"] == ["decoder", "zero flow"]
    assert figure.numbers["columns"]["mean"] == [0.4, 0.6]
    assert "lower is better" in words(figure) and "simulated cortex; n = 9" in words(figure)
    with pytest.raises(InputError, match="got ssim"):
        score_figure(rows, ["ssim"], stimuli=9)


def test_confusion_rows_are_what_was_shown() -> None:
    figure = confusion_figure(np.array([[3, 1], [0, 4]]), ["face", "house"], accuracy=7 / 8, chance=0.5)
    np.testing.assert_allclose(figure.axes[0].images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert {text.get_text() for text in figure.axes[0].texts} == {"3", "1", "4"}
    assert "accuracy 0.88, chance 0.50, n = 8" in words(figure)
    with pytest.raises(InputError, match="3 by 3"):
        confusion_figure(np.zeros((2, 2)), ["a", "b", "c"], accuracy=0, chance=0)
