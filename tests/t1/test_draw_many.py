"""Seeds over processes: the same bytes as from one, finished heads kept, one bad machine named."""

from dataclasses import replace
from pathlib import Path

import pytest

from radiata_core.errors import InputError
from radiata_core.runs import read_log
from radiata_t1.experiment.draw_many import Ready, drawn
from radiata_t1.experiment.sample import Sample, file_name


def command(tiny_run: Path, out: Path, **options: object) -> Sample:
    return Sample(out=out, model=str(tiny_run), steps=3, seeds=(4, 0, 9, 2, 7), **options)  # type: ignore[arg-type]


def test_a_batch_drawn_for_others_is_the_commands_own(tiny_run: Path, tmp_path: Path) -> None:
    """In batches of two and whatever the order: byte for byte; the model is loaded once."""
    command(tiny_run, tmp_path / "one").run()
    verb = command(tiny_run, tmp_path / "two")
    settings = Ready.of(verb).settings
    loads = []
    of = Ready.of
    try:
        Ready.of = classmethod(lambda cls, verb: loads.append(verb) or of(verb))  # type: ignore[method-assign]
        for seeds in ((7,), (9, 2), (4, 0)):
            assert drawn(seeds, verb, 2, settings) == seeds
    finally:
        Ready.of = of  # type: ignore[method-assign]
    assert len(loads) == 1
    for seed in verb.seeds:
        for suffix in (".nii.gz", ".json"):
            name = file_name(seed).replace(".nii.gz", suffix)
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_machine_with_another_model_is_named(tiny_run: Path, tmp_path: Path) -> None:
    verb = command(tiny_run, tmp_path)
    settings = Ready.of(verb).settings | {"ModelSHA256": "0" * 64}
    with pytest.raises(InputError, match="expected the model model of the command on all machines"):
        drawn((1,), verb, 2, settings)
    assert not list(tmp_path.glob("*.nii.gz"))


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(tiny_run: Path, tmp_path: Path, capsys) -> None:
    """Byte for byte, every seed logged once; a second start draws only what is missing."""
    command(tiny_run, tmp_path / "one").run()
    verb = command(tiny_run, tmp_path / "two", processes=2)
    verb.run()
    assert "in each of 2 processes" in capsys.readouterr().out
    for seed in verb.seeds:
        assert (tmp_path / "one" / file_name(seed)).read_bytes() == (
            tmp_path / "two" / file_name(seed)
        ).read_bytes()
    assert sorted(r["seed"] for r in read_log(tmp_path / "two" / "log.jsonl")) == sorted(verb.seeds)
    kept = {seed: (tmp_path / "two" / file_name(seed)).stat().st_mtime_ns for seed in (4, 9, 7)}
    for seed in (0, 2):
        (tmp_path / "two" / file_name(seed)).unlink()
    verb.run()
    assert {seed: (tmp_path / "two" / file_name(seed)).stat().st_mtime_ns for seed in kept} == kept
    assert (tmp_path / "two" / file_name(0)).read_bytes() == (tmp_path / "one" / file_name(0)).read_bytes()
    with pytest.raises(InputError, match="expected at least 1 process"):
        replace(verb, processes=0).run()
