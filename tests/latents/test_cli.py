"""The help of every verb: what its docstring shows by example reaches the reader."""

import re

import pytest

from radiata_latents import cli


@pytest.mark.parametrize("name", cli.VERBS)
def test_examples_of_a_docstring_stand_in_the_help(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A section `Examples:` is taken for a list of parameters and dropped; paragraphs `Example: …` are shown."""
    verb = cli.VERBS[name]
    commands = re.findall(r"radiata-latents \w+ -.*|radiata-latents \w+ \S+ .*", verb.__doc__ or "")
    assert cli.run([name, "--help"]) == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert commands and [command for command in commands if command not in shown] == []
