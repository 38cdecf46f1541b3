"""From the options of `train` to a run folder: network, objective, steps, a way back from a loss that is not finite, scores.

    population → network, objective → radiata_core.train → model.safetensors → scores.json

`scores.json` is of the weights that were written, read back from the file. A loss that is not finite sends the training back
to its last checkpoint with half the learning rate (`--retries`); the checkpoint then carries that rate, so a run that is
stopped and resumed after it goes on with it.
"""

import math
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from radiata_core.checkpoints import Checkpoints
from radiata_core.errors import InputError
from radiata_core.files import read_json, write_json
from radiata_core.runs import Run, tidy
from radiata_core.train import Trained, TrainOptions, train
from radiata_latents.data.trials import TrialCounts
from radiata_latents.experiment.models import load_network, metadata_of, network_for
from radiata_latents.experiment.train import Train
from radiata_latents.experiment.validation_scores import COLLAPSED, validation_scores
from radiata_latents.model.objective import TrialBound
from radiata_latents.model.paper_objective import PaperBound
from radiata_latents.model.paper_switches import CORRECTED
from radiata_latents.model.population_model import PopulationModel

__all__ = ["described", "is_finished", "network_of", "objective_of", "train_all", "train_one"]

COMMAND = "radiata-latents train"


def network_of(task: Train, population: xr.Dataset) -> PopulationModel:
    """The network that the options describe, before its first step."""
    options = task.network_options()
    if task.corrected:
        options["switches"] = CORRECTED
    return network_for(task.network, population, options, seed=task.seed)


def objective_of(task: Train, trials: int) -> TrialBound | PaperBound:
    """The bound that the network is trained on."""
    if task.network == "paper":
        return PaperBound(steps_per_epoch=max(1, math.ceil(trials / task.batch_size)))
    return TrialBound(**task.objective_options())


def described(task: Train, population: xr.Dataset) -> str:
    """Resolved options and sizes, a line each."""
    options = _trainer_options(task)
    sizes = sum(parameter.numel() for parameter in network_of(task, population).parameters())
    lines = [f"{name}: {value}" for name, value in task.__dict__.items() if value is not None]
    lines += [
        f"{name}: {getattr(options, name)}"
        for name in ("learning_rate", "clip")
        if getattr(task, name) is None
    ]
    words = population["split"].values
    lines.append(
        f"{(words == 'train').sum()} training and {(words == 'validation').sum()} validation trials of "
        f"{population.sizes['time']} bins and {population.sizes['neuron']} neurons ({int(population['heldout'].sum())} held "
        f"out, {int(population['forward'].sum())} bins forward)"
    )
    return "\n".join([*lines, f"{sizes} parameters"])


def train_all(task: Train, population: xr.Dataset, data: Mapping[str, Any]) -> None:
    """Train one network, or every member of an ensemble that is not finished; say where they are."""
    objective_of(task, 1)  # what it refuses is refused before anything is written
    _trainer_options(task)
    network_of(task, population)
    if task.members == 1:
        _say(train_one(task, population, data))
        print(task.out / "model.safetensors")
        return
    members = [
        replace(task, members=1, seed=task.seed + k, out=task.out / f"member-{k}")
        for k in range(task.members)
    ]
    earlier = task.overwrite and (task.out / "run.json").exists()
    with Run(
        task.out, COMMAND, task, seed=task.seed, data=data, overwrite=task.overwrite, resume=task.resume
    ) as run:
        if earlier:
            _clear(task.out)
        for member in members:
            if is_finished(member):
                tidy(member.out)
            else:
                print(f"member in {member.out}, seed {member.seed}", file=sys.stderr)
                _say(train_one(member, population, data))
        scores = _ensemble_scores(members, population)
        write_json(task.out / "scores.json", scores)
        run.note(members=len(members), scores=scores)
    _say(scores)
    print(task.out)


def train_one(task: Train, population: xr.Dataset, data: Mapping[str, Any]) -> dict[str, Any]:
    """Scores of one trained network; its folder is `task.out`.

    Raises:
        InputError: options, population or folder that do not fit; a loss that is not finite after all retries.
        Interrupted: the step is finished and saved.
    """
    earlier = task.overwrite and (task.out / "run.json").exists()
    with Run(
        task.out, COMMAND, task, seed=task.seed, data=data, overwrite=task.overwrite, resume=task.resume
    ) as run:
        if earlier:
            _clear(task.out)
        trained = _trained(task, population, data, run)
        scores = {"step": trained.step, "finished": trained.finished} | _scores(task.out, population)
        write_json(task.out / "scores.json", scores)
        run.note(scores=scores)
    return scores


def is_finished(task: Train) -> bool:
    """Whether the folder holds a network trained for so many steps, its scores, and the record of a run that ended."""
    path, record = task.out / "scores.json", task.out / "run.json"
    if not all(file.is_file() for file in (path, record, task.out / "model.safetensors")):
        return False
    if read_json(record).get("state") != "done":  # killed after its scores
        return False
    scores = read_json(path)
    return bool(scores.get("finished")) and scores.get("step") == task.steps


def _trained(task: Train, population: xr.Dataset, data: Mapping[str, Any], run: Run) -> Trained:
    dataset = TrialCounts(population)
    checkpoints = Checkpoints(task.out / "checkpoints", task.keep)
    options = _trainer_options(task)
    halved = _halvings(options, checkpoints, task.retries) if task.resume else 0
    metadata = metadata_of(population, task.network) | {
        "training": {"population": dict(data), "trials": len(dataset)}
    }
    objective: Any = objective_of(task, len(dataset))
    while True:
        network = network_of(task, population)
        run.note(parameters=sum(p.numel() for p in network.parameters()), trials=len(dataset), retries=halved)
        try:
            return train(
                network,
                objective,
                dataset,
                task.out,
                replace(options, learning_rate=options.learning_rate * 0.5**halved),
                validation=_validation(task, population),
                metadata=metadata,
            )
        except InputError as error:
            if not str(error).startswith("expected a finite loss") or halved >= task.retries:
                raise
            halved += 1
            rate = options.learning_rate * 0.5**halved
            step = _slowed(checkpoints, rate)
            options = replace(options, resume=True)
            print(
                f"{str(error).split(';')[1].split('.')[0].strip()}; back to step {step}, learning rate {rate:g}",
                file=sys.stderr,
            )


def _halvings(options: TrainOptions, checkpoints: Checkpoints, most: int) -> int:
    """How often the rate of the run that is resumed was halved already."""
    state = checkpoints.newest()
    kept = None if state is None else state["identity"].get("learning_rate")
    return next((k for k in range(most + 1) if kept == options.learning_rate * 0.5**k), 0)


def _slowed(checkpoints: Checkpoints, rate: float) -> int:
    """Step of the newest checkpoint, which now carries this rate; 0 if there is none, and training begins again."""
    state = checkpoints.newest()
    if state is None:
        return 0
    state["identity"]["learning_rate"] = rate
    checkpoints.write(int(state["step"]), state)
    return int(state["step"])


def _trainer_options(task: Train) -> TrainOptions:
    given = task.trainer_options()
    names = TrainOptions.__dataclass_fields__
    kept = {name: value for name, value in given.items() if name in names}
    return TrainOptions(**kept, condition_dropout=0.0, validation_draws=1)


def _validation(task: Train, population: xr.Dataset) -> Any:
    """Some validation trials, spread over all; None where there are none."""
    if not (population["split"].values == "validation").any():
        return None
    trials = TrialCounts(population, ("validation",))
    chosen = torch.linspace(0, len(trials) - 1, min(task.validation_trials, len(trials))).long()
    return torch.utils.data.Subset(trials, chosen.tolist())


def _scores(folder: Path, population: xr.Dataset) -> dict[str, Any]:
    if not (population["split"].values == "validation").any():
        return {}
    return validation_scores([load_network(folder).network], population)


def _ensemble_scores(members: list[Train], population: xr.Dataset) -> dict[str, Any]:
    """Scores of the mean rates, and of each member."""
    each = [read_json(member.out / "scores.json") for member in members]
    scores: dict[str, Any] = {"members": each}
    if (population["split"].values == "validation").any():
        scores |= validation_scores([load_network(member.out).network for member in members], population)
    return scores


def _say(scores: Mapping[str, Any]) -> None:
    """The scores in a line, and a warning where latents carry nothing."""
    if scores.get("finished") is False:
        print(f"stopped at step {scores['step']}; go on with --resume")
    if "score" not in scores and "members" not in scores:
        print(
            "warning: no validation trials, so nothing is scored (prepare with --validation)", file=sys.stderr
        )
        return
    words = [
        f"{name.replace('_', '-')} {scores[name]:.3f}"
        for name in ("co_bps", "hidden_bps", "fp_bps")
        if name in scores
    ]
    print(f"{scores.get('trials', 0)} validation trials: {', '.join(words)}")
    shares = scores.get("informed") or {}
    if shares and max(shares.values()) < COLLAPSED:
        said = ", ".join(f"{name} {value:.3f}" for name, value in shares.items())
        print(
            f"warning: the latents carry next to nothing (informed share: {said}); lower --beta, train for longer, or "
            "take another network than the released one",
            file=sys.stderr,
        )


def _clear(folder: Path) -> None:
    """Remove what an earlier `train` left in the folder."""
    for pattern in ("model*.safetensors", "model*.json", "scores.json"):
        for path in folder.glob(pattern):
            path.unlink()
    for path in folder.glob("member-*"):
        if (path / "run.json").is_file():
            shutil.rmtree(path)
