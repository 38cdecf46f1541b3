"""Means of tissues in a scan."""

import numpy as np
import pytest
import torch

from radiata_imaging.contrast import T1_CLASSES
from radiata_medical.data.contrasts import CONTRASTS, GROUPS, group_of, means_of
from radiata_medical.data.structures import CODES


def value(means: torch.Tensor, group: str) -> float:
    return float(means[list(GROUPS).index(group)])


def test_every_code_has_the_group_that_names_it() -> None:
    for number, labels in enumerate(GROUPS.values()):
        if list(GROUPS)[number] == "cerebral cortex":
            labels = tuple(set(labels) - {25, 57})  # lesions, which have a group of their own
        if list(GROUPS)[number] == "air cavity wall":
            continue  # its one code is the spinal cord's
        assert group_of(labels).tolist() == [number] * len(labels)
    soft = list(GROUPS).index("soft tissue")
    assert group_of([77]) != soft and group_of([258])[0] == soft
    assert (group_of([code for code in CODES if code not in (165, 258)]) != soft).all()


def test_without_spread_the_means_are_the_table_and_t1_is_the_cohorts() -> None:
    means = means_of("t1", torch.Generator().manual_seed(0), spread=0.0)
    for name, tissue in T1_CLASSES.items():
        assert value(means, name) == pytest.approx(tissue.mean / 160.0)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("t1", ("cerebral white matter", "cerebral cortex", "cerebrospinal fluid")),
        ("t2", ("cerebrospinal fluid", "cerebral cortex", "cerebral white matter")),
        ("flair", ("white matter lesion", "cerebral cortex", "cerebral white matter", "cerebrospinal fluid")),
        ("pd", ("cerebrospinal fluid", "cerebral cortex", "cerebral white matter")),
    ],
)
def test_tissues_stand_in_the_order_radiologists_know(name: str, order: tuple[str, ...]) -> None:
    """In the table, and in the mean of 200 draws."""
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([means_of(name, generator) for _ in range(200)]).mean(0)
    for means in (means_of(name, generator, spread=0.0), drawn):
        values = [value(means, group) for group in order]
        assert values == sorted(values, reverse=True) and (means >= 0).all()


def test_spread_is_that_of_the_draws_and_air_stays() -> None:
    """Sd over 400 draws within 5 standard errors (sd/sqrt(2 n)); the background is the table's in each."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.stack([means_of("t1", generator, spread=0.07) for _ in range(400)])
    white = drawn[:, list(GROUPS).index("cerebral white matter")]
    assert abs(float(white.std()) - 0.07) < 5 * 0.07 / np.sqrt(800)
    assert float(drawn[:, 0].std()) == 0.0


def test_any_contrast_is_uniform_and_a_function_of_the_generator() -> None:
    generator = torch.Generator().manual_seed(3)
    drawn = torch.stack([means_of("random", generator) for _ in range(500)])
    assert CONTRASTS["random"] is None
    assert abs(float(drawn[:, 1:].mean()) - 0.5) < 5 * np.sqrt(1 / 12 / 500 / (len(GROUPS) - 1))
    dark = float((drawn[:, 0] == 0).float().mean())
    assert abs(dark - 0.8) < 5 * np.sqrt(0.16 / 500)
    again = torch.Generator().manual_seed(3)
    assert torch.equal(drawn[:3], torch.stack([means_of("random", again) for _ in range(3)]))
