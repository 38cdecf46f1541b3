"""Readers of models and of what a run leaves: weights, cards, states, logs, presets, released weights."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from reader import Reader

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import NetworkDenoiser
from radiata_core.files import read_json
from radiata_core.logs import Log, read_log
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath
from radiata_core.predictions import Prediction
from radiata_core.training_state import load_state, save_state
from radiata_core.weights import read_tensors, write_tensors
from radiata_t1.experiment.train import Train
from radiata_t1.model.medforj_weights import read_released

__all__ = ["READERS"]

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.ones(4, dtype=torch.int64)}


def _denoiser() -> NetworkDenoiser:
    with torch.random.fork_rng(devices=[]):
        network = UNet(
            dims=2,
            channels=(4, 8),
            down_blocks=(1, 1),
            up_blocks=(1, 1),
            attention=(False, True),
            embedding=8,
            frequencies=4,
        )
    return NetworkDenoiser(network, LinearPath(), Prediction.VELOCITY)


def _model(folder: Path) -> None:
    save_model(folder / "model.safetensors", _denoiser(), metadata={"spacing": 4.0})


def _state(folder: Path) -> None:
    save_state(folder / "state", {"step": 3, "optimiser": {0: TENSORS["a"], 1: [1.5, None]}, "name": "x"})


def _log(folder: Path) -> None:
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n')


def _read_log(folder: Path) -> None:
    read_log(folder / "log.jsonl")
    with Log(folder / "log.jsonl") as log:
        log.keep(lambda record: record.get("step") != 2)
        log.write(step=3)


def _preset(folder: Path) -> None:
    (folder / "p.toml").write_text(
        'steps = 100\nbatch_size = 2\nchannels = [8, 16]\nlearning_rate = 1e-3\nprediction = "rflow"\nseed = 3\n'
    )


def _read_preset(folder: Path) -> None:
    names = {field.name for field in dataclasses.fields(Train)}
    task: Any = Train(store=folder / "s.h5", out=folder / "out", preset=folder / "p.toml")
    assert names
    task._with_preset()


def _released(folder: Path) -> dict[str, torch.Tensor]:
    return {
        "conv_in.conv.weight": torch.ones(4, 1, 3, 3, 3),
        "conv_in.conv.bias": torch.zeros(4),
        "out.2.conv.weight": torch.ones(1, 4, 3, 3, 3),
    }


READERS = (
    Reader(
        "json",
        lambda f: (f / "a.json").write_text(json.dumps({"format": "x", "tree": [1, {"b": 2.5}]})),
        lambda f: read_json(f / "a.json"),
        (("a.json", "json"),),
    ),
    Reader(
        "safetensors",
        lambda f: write_tensors(f / "a.safetensors", TENSORS),
        lambda f: read_tensors(f / "a.safetensors"),
        (("a.safetensors", "safetensors"),),
    ),
    Reader(
        "model",
        _model,
        lambda f: load_model(f),
        (("model.json", "json"), ("model.json", "json"), ("model.safetensors", "safetensors")),
    ),
    Reader(
        "training state",
        _state,
        lambda f: load_state(f / "state"),
        (("state/state.json", "json"), ("state/state.safetensors", "safetensors")),
    ),
    Reader("log", _log, _read_log, (("log.jsonl", "text"),)),
    Reader("preset, t1", _preset, _read_preset, (("p.toml", "toml"),)),
    Reader(
        "released, pt",
        lambda f: torch.save(_released(f), f / "a.pt"),
        lambda f: read_released(f / "a.pt"),
        (("a.pt", "torch"),),
    ),
    Reader(
        "released, safetensors",
        lambda f: write_tensors(f / "a.safetensors", _released(f)),
        lambda f: read_released(f / "a.safetensors"),
        (("a.safetensors", "safetensors"),),
    ),
)
