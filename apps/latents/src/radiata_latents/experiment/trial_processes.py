"""Trainings of a search, here or in processes of one thread each, and which of them failed by their own fault.

A training that is interrupted is resumed when it is asked for again; one whose loss is not finite after all retries has
failed, which is a result: the options that were drawn cannot be trained. Any other error ends the search.
"""

import contextlib
import dataclasses
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import xarray as xr

from radiata_core.errors import InputError
from radiata_core.files import read_json
from radiata_latents.data.population import load_population
from radiata_latents.experiment.train import Train
from radiata_latents.experiment.training_run import train_one

__all__ = ["failure", "trained"]


def trained(
    tasks: Mapping[int, Train], population: xr.Dataset, data: Mapping[str, Any], jobs: int
) -> Iterator[tuple[int, str]]:
    """(trial, why it failed or nothing) as trials end."""
    if jobs == 1 or len(tasks) < 2:
        for k, task in tasks.items():
            yield k, _one(task, population, data)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(tasks)), context, _begin) as pool:
        waiting = {pool.submit(_alone, task, data): k for k, task in tasks.items()}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool:
            raise InputError(
                f"expected {jobs} processes that work; got one that was killed, perhaps for want of memory. Go on with "
                "--resume and fewer --jobs."
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()  # SIGTERM: a training saves its step first
            raise


def _begin() -> None:
    import torch

    torch.set_num_threads(1)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes; the first one passes it on


def _end_with(parent: Any) -> None:
    """A search that was killed leaves nobody who trains on: what goes on with it finds the checkpoints."""
    parent.join()
    os._exit(1)


def _alone(task: Train, data: Mapping[str, Any]) -> str:
    """`_one` in a process of its own, which reads the population again."""
    return _one(task, load_population(task.population), data)


def _one(task: Train, population: xr.Dataset, data: Mapping[str, Any]) -> str:
    """Train it; why it failed, if its loss was not finite. What it says goes to its own folder."""
    said = io.StringIO()
    task = dataclasses.replace(task, resume=(task.out / "run.json").exists())
    try:
        with contextlib.redirect_stderr(said):
            train_one(task, population, data)
    except InputError as error:
        if not _is_of_training(str(error)):
            raise
        return str(error)
    finally:
        if said.getvalue().strip() and task.out.is_dir():
            (task.out / "said.txt").write_text(said.getvalue(), encoding="utf-8")
    return ""


def _is_of_training(error: str) -> bool:
    """A loss that is not finite is the fault of the options that were drawn; all other errors end the search."""
    return "expected a finite loss" in error


def failure(folder: Path) -> str:
    """Why an earlier training of this folder failed, if its options are to blame; else nothing."""
    path = folder / "run.json"
    error = str(read_json(path).get("error", "")) if path.exists() else ""
    return error.partition(": ")[2] if _is_of_training(error) else ""
