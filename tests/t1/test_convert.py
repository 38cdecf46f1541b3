"""Released weights, in every spelling and nesting, become the same network; everything else is refused in one line."""

import hashlib
import json
import pickle
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet
from safetensors.torch import save_file
from torch import Tensor

from radiata_core.commands import main
from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.medforj import MEDFORJ
from radiata_core.paths import DiscreteVPPath, LinearPath, add_noise
from radiata_core.predictions import Prediction, target_of
from radiata_t1.experiment.convert import Convert
from radiata_t1.model.medforj_weights import STRATEGIES, medforj_denoiser, read_released, strategy_named_in

SMALL = dict(MEDFORJ) | {"channels": (8, 16), "num_res_blocks": 1, "attention_levels": (False, True)}
Weights = dict[str, Tensor]


def random_network(options: dict[str, Any] = SMALL) -> DiffusionModelUNet:
    """MONAI's network with every tensor random."""
    with torch.device("meta"):
        network = DiffusionModelUNet(**options)
    network = network.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture(scope="module")
def theirs() -> DiffusionModelUNet:
    return random_network()


def fork_names(state: Weights) -> Weights:
    """As MedForJ's fork of MONAI spells the head of the network."""
    return {
        name.replace("out.0.", "out_norm.", 1).replace("out.2.", "out_conv.", 1)
        if name.startswith("out.")
        else name: t
        for name, t in state.items()
    }


def generative_names(state: Weights) -> Weights:
    """As GenerativeModels spelled attention and upsampling."""
    return {
        name.replace(".attn.to_", ".to_")
        .replace(".attn.out_proj", ".proj_attn")
        .replace(".postconv", ".conv"): t
        for name, t in state.items()
    }


def prefixed(state: Weights, prefix: str) -> Weights:
    return {prefix + name: tensor for name, tensor in state.items()}


def half_of(state: Weights) -> Weights:
    return {name: tensor / 2 for name, tensor in state.items()}


def assert_same(got: Weights, want: Weights) -> None:
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_names_of_2025(tmp_path: Path, theirs: DiffusionModelUNet) -> None:
    state = theirs.state_dict()
    torch.save({"model": OrderedDict(state), "epoch": 3}, tmp_path / "velocity.pt")
    weights = read_released(tmp_path / "velocity.pt")
    assert (weights.scheme, weights.branch, weights.norm_eps) == ("monai", "model", 1e-6)
    assert_same(weights.tensors, state)


def test_names_of_2026(tmp_path: Path, theirs: DiffusionModelUNet) -> None:
    state = fork_names(theirs.state_dict())
    assert "out_conv.conv.weight" in state
    save_file(state, tmp_path / "MedForj-weights-rflow_ema.safetensors")
    weights = read_released(tmp_path / "MedForj-weights-rflow_ema.safetensors")
    assert (weights.scheme, weights.branch, weights.norm_eps) == ("medforj-fork", "", 1e-5)
    assert_same(weights.tensors, theirs.state_dict())


@pytest.mark.parametrize(
    "options", [SMALL, SMALL | {"attention_levels": (True, True), "num_res_blocks": (1, 2)}]
)
def test_names_of_generative_models(tmp_path: Path, options: dict[str, Any]) -> None:
    """Our renaming and MONAI's own migration of the same old file end in the same network."""
    state = random_network(options).state_dict()
    old = generative_names(state)
    assert not any("postconv" in name or ".attn." in name for name in old)
    torch.save(old, tmp_path / "old.pt")
    weights = read_released(tmp_path / "old.pt")
    assert weights.scheme == "generative-models"
    assert_same(weights.tensors, state)
    with torch.device("meta"):
        migrated = DiffusionModelUNet(**options)
    migrated = migrated.to_empty(device="cpu")
    migrated.load_old_state_dict(dict(old))
    assert_same(dict(migrated.state_dict()), weights.tensors)


@pytest.mark.parametrize(
    ("wrap", "branch"),
    [
        (lambda s: {"state_dict": prefixed(s, "module.")}, "state_dict.module"),
        (lambda s: {"model": half_of(s), "ema": s, "epoch": 1}, "ema"),
        (lambda s: {"model": half_of(s), "ema": {"decay": 0.9, "shadow": s}}, "ema.shadow"),
        (
            lambda s: (
                prefixed(half_of(s), "online_model.") | prefixed(s, "ema_model.") | {"step": torch.tensor(3)}
            ),
            "ema_model",
        ),
        (lambda s: {"model": prefixed(s, "_orig_mod.module.")}, "model._orig_mod.module"),
    ],
)
def test_nesting_and_prefixes(tmp_path: Path, theirs: DiffusionModelUNet, wrap: Any, branch: str) -> None:
    """Averaged weights win over the last ones."""
    torch.save(wrap(theirs.state_dict()), tmp_path / "w.pt")
    weights = read_released(tmp_path / "w.pt")
    assert weights.branch == branch
    assert_same(weights.tensors, theirs.state_dict())


@pytest.mark.parametrize("scheme", ["monai", "fork"])
def test_the_network_computes_what_monai_computes(
    tmp_path: Path, theirs: DiffusionModelUNet, scheme: str, generator: torch.Generator
) -> None:
    state = theirs.state_dict() if scheme == "monai" else fork_names(theirs.state_dict())
    save_file(state, tmp_path / "velocity.safetensors")
    denoiser = medforj_denoiser(
        read_released(tmp_path / "velocity.safetensors"), STRATEGIES["velocity"], architecture=SMALL
    )
    reference = random_network(SMALL | {"norm_eps": 1e-6 if scheme == "monai" else 1e-5})
    x, index = torch.randn(1, 1, 8, 8, 8, generator=generator), 417
    with torch.no_grad():
        want = reference(x, torch.tensor([float(index)]))
        got = denoiser.predict(x, DiscreteVPPath().time_of_index(index))
    assert (got - want).norm() <= 1e-5 * want.norm()


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_reads_its_own_target(name: str, generator: torch.Generator) -> None:
    """A network that says exactly MedForJ's training target is, through the strategy, the exact denoiser."""
    strategy = STRATEGIES[name]
    x0, noise = torch.randn(2, 3, 1, 4, 4, 4, generator=generator, dtype=torch.float64).unbind(0)
    t = torch.tensor([0.2, 0.531, 0.9], dtype=torch.float64)
    c = strategy.path.coefficients(t)
    a, b = c.alpha.view(-1, 1, 1, 1, 1), c.sigma.view(-1, 1, 1, 1, 1)
    published = {
        "sample": x0,
        "epsilon": noise,
        "velocity": a * noise - b * x0,
        "flow": noise - x0,
        "rflow": x0 - noise,
    }
    heard: list[Tensor] = []

    class Oracle(torch.nn.Module):
        def forward(self, x: Tensor, noise_level: Tensor, covariates: Tensor | None = None) -> Tensor:
            heard.append(noise_level)
            return published[name]

    denoiser = NetworkDenoiser(Oracle(), strategy.path, strategy.prediction, MedForJInput(flip=strategy.flip))
    x = add_noise(strategy.path, x0, noise, t)
    torch.testing.assert_close(denoiser(x, t), x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(heard[0], 1000 * t - (0 if name == "rflow" else 1), rtol=0, atol=1e-9)
    want = target_of(x0, noise, t, strategy.path, strategy.prediction)
    torch.testing.assert_close(denoiser.predict(x, t), want, rtol=0, atol=1e-10)


def test_prediction_types_from_file_names() -> None:
    expected = {
        "MedForj-weights-noise_ema.safetensors": Prediction.EPSILON,
        "MedForj-weights-clean_ema.safetensors": Prediction.X0,
        "MedForj-weights-velocity_ema.safetensors": Prediction.V,
        "MedForj-weights-flow_ema.safetensors": Prediction.FLOW,
        "MedForj-weights-rflow_ema.safetensors": Prediction.VELOCITY,
        "sample.pt": Prediction.X0,
    }
    assert {name: strategy_named_in(name).prediction for name in expected} == expected
    assert isinstance(strategy_named_in("x-rflow.pt").path, LinearPath)
    for name in ("weights.pt", "flow-or-rflow.pt"):
        with pytest.raises(InputError, match="--prediction"):
            strategy_named_in(name)
    with pytest.raises(InputError, match="ldm_rflow"):
        strategy_named_in("MedForj-weights-ldm_rflow_ema.safetensors")


class Evil:
    """Unpickling it would leave a mark on the disk."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("container", ["zip", "legacy", "bare"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, theirs: DiffusionModelUNet, container: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "velocity.pt"
    content = {"model": theirs.state_dict(), "extra": Evil(mark)}
    if container == "bare":
        path.write_bytes(pickle.dumps(Evil(mark), protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(InputError, match="expected") as refusal:
        read_released(path)
    assert "\n" not in str(refusal.value)
    assert not mark.exists()
    torch.load(path, weights_only=False) if container != "bare" else pickle.loads(path.read_bytes())
    assert mark.exists(), "the file was dangerous indeed"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, theirs: DiffusionModelUNet, suffix: str, kept: float) -> None:
    path = tmp_path / f"velocity{suffix}"
    if suffix == ".pt":
        torch.save({"model": theirs.state_dict()}, path)
    else:
        save_file(theirs.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(InputError, match="Download it again") as refusal:
        read_released(path)
    assert "\n" not in str(refusal.value)


def changed(state: Weights, kind: str) -> Any:
    state = dict(state)
    match kind:
        case "missing":
            del state["middle_block.resnet_1.conv1.conv.bias"]
        case "unknown":
            state["extra.weight"] = torch.zeros(2)
        case "shape":
            state["conv_in.conv.bias"] = torch.zeros(9)
        case "nan":
            state["conv_in.conv.bias"] = torch.full((8,), torch.nan)
        case "twice":
            state["out_norm.weight"] = state["out.0.weight"].clone()
        case "other":
            return {"encoder.weight": torch.zeros(3)}
        case "list":
            return [torch.zeros(3)]
        case "beside":
            return prefixed(state, "module.") | {"vae.weight": torch.zeros(3, 3)}
        case "two":
            return prefixed(state, "a.") | prefixed(state, "b.")
    return state


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "1 missing, 0 unknown, 0 of another shape"),
        ("unknown", "0 missing, 1 unknown"),
        ("shape", r"1 of another shape \(conv_in.conv.bias is \(9,\), not \(8,\)"),
        ("nan", "NaN or infinity"),
        ("twice", "two spellings"),
        ("other", "no conv_in.conv.weight"),
        ("list", "got list"),
        ("beside", "vae.weight"),
        ("two", "got 2"),
    ],
)
def test_other_networks(tmp_path: Path, theirs: DiffusionModelUNet, kind: str, says: str) -> None:
    torch.save(changed(theirs.state_dict(), kind), tmp_path / "velocity.pt")
    with pytest.raises(InputError, match=says) as refusal:
        medforj_denoiser(read_released(tmp_path / "velocity.pt"), STRATEGIES["velocity"], architecture=SMALL)
    assert "\n" not in str(refusal.value)


def test_arguments_of_another_kind(tmp_path: Path, theirs: DiffusionModelUNet) -> None:
    torch.save(theirs.state_dict(), tmp_path / "flow.pt")
    weights = read_released(tmp_path / "flow.pt")
    with pytest.raises(InputError, match="architecture"):
        medforj_denoiser(weights, STRATEGIES["flow"], architecture=SMALL | {"channels": 16})


def test_latent_networks(tmp_path: Path) -> None:
    state = random_network(SMALL | {"in_channels": 4, "out_channels": 4}).state_dict()
    save_file(fork_names(state), tmp_path / "rflow.safetensors")
    with pytest.raises(InputError, match="latents"):
        medforj_denoiser(
            read_released(tmp_path / "rflow.safetensors"), STRATEGIES["rflow"], architecture=SMALL
        )


def architecture_file(folder: Path) -> Path:
    path = folder / "small.json"
    path.write_text(
        json.dumps({name: SMALL[name] for name in ("channels", "num_res_blocks", "attention_levels")})
    )
    return path


def test_command_writes_a_model_that_loads(
    tmp_path: Path, theirs: DiffusionModelUNet, capsys: pytest.CaptureFixture[str], generator: torch.Generator
) -> None:
    from radiata_core.checkpoint import load_model

    source, out = tmp_path / "MedForj-weights-rflow_ema.safetensors", tmp_path / "out"
    save_file(fork_names(theirs.state_dict()), source)
    Convert(source=source, out=out, architecture=architecture_file(tmp_path)).run()
    assert str(out) in capsys.readouterr().out.splitlines()[-1]
    model = load_model(out / "model.safetensors")
    x, t = torch.randn(1, 1, 8, 8, 8, generator=generator), torch.tensor(0.4)
    reference = random_network(SMALL | {"norm_eps": 1e-5})
    with torch.no_grad():
        want = x + 0.4 * reference(x, torch.tensor([400.0]))
        got = model.denoiser(x, t)
    assert (got - want).norm() <= 1e-5 * want.norm()
    told = model.metadata["source"]
    assert (model.metadata["prediction"], model.metadata["voxel_size_mm"]) == ("rflow", [1.0, 1.0, 1.0])
    assert told["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (told["scheme"], told["prediction"], told["norm_eps"]) == ("medforj-fork", "rflow", 1e-5)
    bundle = json.loads((out / "configs" / "metadata.json").read_text())
    assert bundle["source"] == told
    assert bundle["network_def"]["norm_eps"] == 1e-5
    assert json.loads((out / "run.json").read_text())["state"] == "done"


def test_command_takes_stated_prediction_and_epsilon(tmp_path: Path, theirs: DiffusionModelUNet) -> None:
    from radiata_core.checkpoint import load_model

    source, out = tmp_path / "weights.pt", tmp_path / "out"
    torch.save({"model": theirs.state_dict()}, source)
    command = {"source": source, "out": out, "architecture": architecture_file(tmp_path)}
    with pytest.raises(InputError, match="--prediction"):
        Convert(**command).run()
    assert not out.exists(), "nothing is left of a refused conversion"
    Convert(**command, prediction="flow", norm_eps=1e-5).run()
    denoiser = load_model(out / "model.safetensors").denoiser
    assert isinstance(denoiser, NetworkDenoiser)
    assert denoiser.prediction == Prediction.FLOW
    assert denoiser.network.options["norm_eps"] == 1e-5
    with pytest.raises(InputError, match="--overwrite"):
        Convert(**command, prediction="velocity").run()
    Convert(**command, prediction="velocity", overwrite=True).run()
    assert load_model(out / "model.safetensors").denoiser.prediction == Prediction.V


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"norm_eps": 0.0}, "norm-eps"),
        ({"source": Path("nowhere.pt")}, "no file"),
        ({"architecture": "bad"}, "channels"),
    ],
)
def test_command_refuses(
    tmp_path: Path, theirs: DiffusionModelUNet, options: dict[str, Any], says: str
) -> None:
    source = tmp_path / "flow.pt"
    torch.save(theirs.state_dict(), source)
    (tmp_path / "bad.json").write_text('{"chanels": [1]}')
    if "architecture" in options:
        options = {"architecture": tmp_path / "bad.json"}
    with pytest.raises(InputError, match=says):
        Convert(**({"source": source, "out": tmp_path / "out"} | options)).run()
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path: Path, theirs: DiffusionModelUNet, capsys: pytest.CaptureFixture[str]) -> None:
    """Help, and one line with exit 1 for a truncated file."""
    verbs = {"convert": Convert}
    assert main("radiata-t1", "test", verbs, ["convert", "--help"]) == 0
    assert "--norm-eps" in capsys.readouterr().out
    source = tmp_path / "flow.pt"
    torch.save(theirs.state_dict(), source)
    source.write_bytes(source.read_bytes()[:5000])
    assert main("radiata-t1", "test", verbs, ["convert", str(source), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "truncated" in error


def test_naming_the_verb_imports_no_torch() -> None:
    code = "import sys, radiata_t1.experiment.convert; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("fork", [False, True])
def test_the_released_architecture(tmp_path: Path, fork: bool) -> None:
    """The whole network of 41,245,217 parameters, in both spellings, as the command is used."""
    from radiata_core.checkpoint import load_model

    state = random_network(dict(MEDFORJ)).state_dict()
    if fork:
        source = tmp_path / "MedForj-weights-velocity_ema.safetensors"
        save_file(fork_names(state), source)
    else:
        source = tmp_path / "velocity.pt"
        torch.save({"model": state}, source)
    Convert(source=source, out=tmp_path / "out").run()
    denoiser = load_model(tmp_path / "out" / "model.safetensors").denoiser
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == 41_245_217
    assert_same(dict(denoiser.network.state_dict()), dict(state))
