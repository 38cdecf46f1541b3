"""The network against MONAI's, tensor by tensor and number by number."""

import pytest
import torch
from monai.networks.nets import DiffusionModelUNet

from radiata_core.errors import InputError
from radiata_core.nets.medforj import MEDFORJ, MedForJUNet
from radiata_core.nets.medforj_blocks import sinusoid
from radiata_core.specs import describe, rebuild

SMALL = {
    "in_channels": 1,
    "out_channels": 1,
    "channels": (8, 16, 24),
    "num_res_blocks": 1,
    "attention_levels": (False, False, True),
    "norm_num_groups": 4,
    "num_head_channels": 8,
}
CASES = {
    "medforj-like 3-D": SMALL | {"spatial_dims": 3},
    "medforj-like 2-D": SMALL | {"spatial_dims": 2},
    "attention everywhere, two blocks": SMALL
    | {"spatial_dims": 2, "num_res_blocks": (2, 1, 2), "attention_levels": (True, True, True)},
    "resolution changed by residual blocks": SMALL | {"spatial_dims": 3, "resblock_updown": True},
    "combined q, k, v without a last layer": SMALL
    | {"spatial_dims": 2, "use_combined_linear": True, "include_fc": False, "num_head_channels": (8, 4, 6)},
    "fork's epsilon, several channels": SMALL
    | {"spatial_dims": 3, "norm_eps": 1e-5, "in_channels": 2, "out_channels": 3},
}


def monai_network(options: dict, seed: int = 0) -> DiffusionModelUNet:
    """MONAI's network with every tensor random (its own initialisation leaves whole branches at zero)."""
    with torch.random.fork_rng(devices=[]):
        network = DiffusionModelUNet(**options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            scale = 0.3 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
            if ".norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return network.eval()


@pytest.mark.parametrize("name", CASES)
def test_equals_monai(name: str, generator: torch.Generator) -> None:
    options = CASES[name]
    theirs = monai_network(options)
    ours = MedForJUNet(**options)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, options["in_channels"], *(8, 12, 16)[: options["spatial_dims"]], generator=generator)
    steps = torch.tensor([3.25, 998.0])
    with torch.no_grad():
        want, got = theirs(x, steps), ours(x, steps)
    assert (got - want).norm() <= 1e-5 * (want - want.mean()).norm()


def test_gradients_equal_monai(generator: torch.Generator) -> None:
    options = CASES["medforj-like 2-D"]
    theirs = monai_network(options)
    ours = MedForJUNet(**options)
    ours.load_state_dict(theirs.state_dict())
    x, steps = torch.randn(2, 1, 8, 8, generator=generator), torch.tensor([10.0, 500.0])
    for network in (theirs, ours):
        network(x, steps).square().mean().backward()
    want = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        # Keys shift all scores of a query alike, so the gradient of their bias is zero but for rounding.
        torch.testing.assert_close(parameter.grad, want[name], rtol=1e-3, atol=1e-6)


def test_medforj_has_its_published_size() -> None:
    with torch.device("meta"):
        ours, theirs = MedForJUNet(), DiffusionModelUNet(**MEDFORJ)
    mine = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    assert mine == {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert len(mine) == 394
    assert sum(parameter.numel() for parameter in ours.parameters()) == 41_245_217


@pytest.mark.slow
def test_medforj_itself_equals_monai(generator: torch.Generator) -> None:
    theirs = monai_network(dict(MEDFORJ))
    ours = MedForJUNet(**MEDFORJ)
    ours.load_state_dict(theirs.state_dict())
    x, step = torch.randn(1, 1, 32, 48, 32, generator=generator), torch.tensor([400.0])
    with torch.no_grad():
        want, got = theirs(x, step), ours(x, step)
    assert (got - want).norm() <= 1e-5 * want.norm()


def test_traces_run_on_one_axis(generator: torch.Generator) -> None:
    """One axis, which MONAI's network cannot do, equals a plane whose kernels are zero across that axis."""
    line = MedForJUNet(**SMALL, spatial_dims=1)
    plane = MedForJUNet(**SMALL, spatial_dims=2)
    flat = {}
    for name, tensor in monai_network(SMALL | {"spatial_dims": 2}).state_dict().items():
        flat[name] = tensor[..., tensor.shape[-1] // 2] if tensor.ndim == 4 else tensor
    line.load_state_dict(flat)
    wide = {}
    for name, tensor in plane.state_dict().items():
        if tensor.ndim == 4:
            wide[name] = torch.zeros_like(tensor)
            wide[name][..., tensor.shape[-1] // 2] = flat[name]
        else:
            wide[name] = flat[name]
    plane.load_state_dict(wide)
    x, step = torch.randn(2, 1, 16, generator=generator), torch.tensor([7.0, 70.0])
    with torch.no_grad():
        want = plane(x[..., None].expand(-1, -1, -1, 4).contiguous(), step)[..., 1]
        torch.testing.assert_close(line(x, step), want, rtol=1e-4, atol=1e-5)


def test_sinusoid_has_the_stated_columns() -> None:
    row = sinusoid(torch.tensor([2.5]), 7)[0]
    rates = [10000 ** (-j / 3) for j in range(3)]
    want = [torch.cos(torch.tensor(2.5 * r)) for r in rates] + [
        torch.sin(torch.tensor(2.5 * r)) for r in rates
    ]
    torch.testing.assert_close(row, torch.stack([*want, torch.tensor(0.0)]))


def test_building_is_repeatable_and_draws_from_no_global_state() -> None:
    first, second = MedForJUNet(**SMALL, spatial_dims=2), MedForJUNet(**SMALL, spatial_dims=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
    assert torch.equal(first.out[-1].conv.weight, torch.zeros_like(first.out[-1].conv.weight))


def test_description_rebuilds_the_network() -> None:
    network = MedForJUNet(**CASES["attention everywhere, two blocks"], covariates=3)
    again = rebuild(describe(network))
    assert again.options == network.options
    again.load_state_dict(network.state_dict(), strict=True)


def test_covariates_count_only_where_given(generator: torch.Generator) -> None:
    network = MedForJUNet(**SMALL, spatial_dims=2, covariates=2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    x, step = torch.randn(1, 1, 8, 8, generator=generator).expand(3, -1, -1, -1), torch.full((3,), 50.0)
    rows = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [float("nan"), float("nan")]])
    out = network(x, step, rows)
    assert out.isfinite().all()
    assert (out[0] - out[1]).abs().max() > 1e-3, "zero and not-given differ"
    assert (out[1] - out[2]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"spatial_dims": 4}, "spatial axes"),
        ({"channels": (8, 10, 24)}, "groups"),
        ({"attention_levels": (True,)}, "level"),
        ({"num_head_channels": 5}, "head"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, word: str) -> None:
    with pytest.raises(InputError, match=word):
        MedForJUNet(**(SMALL | arguments))


def test_inputs_that_do_not_fit() -> None:
    network = MedForJUNet(**SMALL, spatial_dims=2)
    step = torch.zeros(1)
    with pytest.raises(InputError, match="multiple of 4"):
        network(torch.zeros(1, 1, 8, 10), step)
    with pytest.raises(InputError, match="expected rows"):
        network(torch.zeros(1, 2, 8, 8), step)
    with pytest.raises(InputError, match="covariates"):
        network(torch.zeros(1, 1, 8, 8), step, torch.ones(1, 2))
