"""Sizes as people write them, and limits that reach the network."""

import pytest
import torch

from radiata_core.denoisers import MedForJInput, NetworkDenoiser
from radiata_core.errors import InputError
from radiata_core.nets.medforj import MedForJUNet
from radiata_core.paths import LinearPath, VPPath
from radiata_core.predictions import Prediction
from radiata_core.provenance import peak_memory_mib
from radiata_t1.model.memory import bytes_of, limit_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 * 2**30), ("800 MiB", 800 * 2**20), ("2.5G", 5 * 2**29), ("1tb", 2**40), ("512", 512)],
)
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "four", "-1GiB", "0", "4 heads"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="size of memory"):
        bytes_of(text)


def test_a_limited_denoiser_says_the_same(generator: torch.Generator) -> None:
    small = MedForJUNet(
        channels=(8, 16), num_res_blocks=1, attention_levels=(False, True), num_head_channels=8
    )
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    denoiser = NetworkDenoiser(small, LinearPath(), Prediction.VELOCITY, MedForJInput(flip=True))
    x = torch.randn(1, 1, 8, 8, 8, generator=generator)
    with torch.no_grad():
        want = denoiser(x, torch.tensor(0.5))
        held = peak_memory_mib()["process"]
        limit_memory(denoiser, f"{held + 64:.1f}MiB")
        assert small.max_memory is not None and 0 < small.max_memory <= 65 * 2**20
        torch.testing.assert_close(denoiser(x, torch.tensor(0.5)), want, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="hold; got 1MiB"):
        limit_memory(denoiser, "1MiB")


def test_other_networks_are_refused() -> None:
    denoiser = NetworkDenoiser(torch.nn.Identity(), VPPath(), Prediction.X0)
    with pytest.raises(InputError, match="MedForJ"):
        limit_memory(denoiser, "4GiB")
