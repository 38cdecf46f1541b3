"""What a condition refuses, how its rows are cut, and which generators take it."""

from dataclasses import replace

import pytest
import torch

from radiata_core.errors import InputError
from radiata_decode.model.conditions import (
    Condition,
    FeatureSpec,
    Generator,
    check_requirements,
    features_of,
)


class Painter:
    """Takes embeddings of four numbers."""

    requires, optional, provides = frozenset({"image_embeds"}), frozenset({"init_image"}), "image"
    features = (FeatureSpec("image_embeds", 2, 4, "an encoder"),)

    def __call__(self, condition, *, seeds, **_):
        check_requirements(self, condition, seeds)
        return torch.zeros(len(seeds), 3, 2, 2)


@pytest.fixture
def condition(generator):
    draw = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    return Condition(
        init_image=draw(3, 3, 4, 4),
        init_latents=draw(3, 7),
        reliability=draw(7),
        image_embeds=draw(3, 2, 4),
        control=[draw(3, 5, 4, 4), draw(3, 5, 2, 2)],
        flow=draw(3, 2, 2, 4, 4),
    )


def test_rows_are_cut_from_every_part_but_the_reliability(condition):
    some = condition.rows(slice(1, 3))
    assert condition.count == 3 and some.count == 2
    assert torch.equal(some.init_image, condition.init_image[1:])
    assert torch.equal(some.control[1], condition.control[1][1:])
    assert torch.equal(some.reliability, condition.reliability)
    assert some.given == condition.given == {
        "init_image", "init_latents", "reliability", "image_embeds", "control", "flow"
    }  # fmt: skip
    assert some.prompt_embeds is None


def test_reliability_alone_is_no_row(condition):
    with pytest.raises(InputError, match="at least one condition"):
        Condition(reliability=torch.ones(4))
    with pytest.raises(InputError, match="at least one condition"):
        Condition()


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("init_image", torch.zeros(3, 4, 4), "init_image with 4 axes"),
        ("image_embeds", torch.zeros(2, 2, 4), "as many rows"),
        ("control", [torch.zeros(2, 1, 4, 4)], "as many rows"),
        ("flow", torch.full((3, 1, 2, 4, 4), float("nan")), "finite numbers in flow"),
        ("class_weights", torch.zeros(3), "class_weights with 2 axes"),
    ],
)
def test_what_cannot_be_a_condition(condition, part, value, message):
    with pytest.raises(InputError, match=message):
        replace(condition, **{part: value})


def test_a_generator_says_what_it_needs(condition):
    painter = Painter()
    assert isinstance(painter, Generator) and features_of(painter) == Painter.features
    assert painter(condition, seeds=[1, 2, 3]).shape == (3, 3, 2, 2)
    with pytest.raises(InputError, match="expected image_embeds for this generator"):
        painter(replace(condition, image_embeds=None), seeds=[1, 2, 3])
    with pytest.raises(InputError, match="3 seeds"):
        painter(condition, seeds=[1, 2])
    with pytest.raises(InputError, match=r"4 numbers a token \(an encoder\); got 5"):
        painter(replace(condition, image_embeds=torch.zeros(3, 2, 5)), seeds=[1, 2, 3])
    assert features_of(object()) == ()
