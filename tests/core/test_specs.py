"""Descriptions rebuild what they describe, and nothing that is not on the list."""

from dataclasses import dataclass, field

import pytest

from radiata_core.errors import InputError
from radiata_core.specs import buildable, describe, rebuild


@buildable("leaf-of-tests")
@dataclass(frozen=True)
class Leaf:
    size: float = 1.0
    names: tuple[str, ...] = ()


@buildable("tree-of-tests")
@dataclass(frozen=True)
class Tree:
    leaf: Leaf = field(default_factory=Leaf)
    more: tuple[Leaf, ...] = ()


def test_round_trip():
    tree = Tree(Leaf(0.1, ("a", "b")), (Leaf(), Leaf(3.0)))
    assert rebuild(describe(tree)) == tree


def test_refuses_what_is_not_registered():
    with pytest.raises(InputError, match="subprocess"):
        rebuild({"kind": "subprocess.run", "args": "true"})
    with pytest.raises(InputError, match="another version"):
        rebuild({"kind": "leaf-of-tests", "colour": 1})
    with pytest.raises(TypeError, match="register it"):
        describe(object())


def test_two_classes_cannot_share_a_name():
    with pytest.raises(ValueError, match="two classes"):

        @buildable("leaf-of-tests")
        class Other:
            pass
