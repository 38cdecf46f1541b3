"""A world of images and labels small enough to enumerate: the exact posterior as the network of a joint denoiser.

n voxels in a chain, one of K classes each; neighbours like to be alike (a Potts chain); the intensity of a voxel is normal
about the mean of its class. All K^n label maps are listed, so every conditional law is a sum.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from radiata_core.joint_denoisers import ClassField, JointDenoiser, RealField
from radiata_core.paths import LinearPath


class Chain:
    """The law of (image, labels): log p(l) = coupling * (equal neighbours) + sum of field[l_i], up to a constant."""

    def __init__(
        self,
        n: int,
        means: Sequence[float],
        spread: float,
        coupling: float,
        field: Sequence[float] | None = None,
    ) -> None:
        self.n, self.classes, self.spread = n, len(means), spread
        self.means = torch.tensor(means, dtype=torch.float64)
        self.maps = torch.tensor(list(itertools.product(range(self.classes), repeat=n)))
        log_p = coupling * (self.maps[:, 1:] == self.maps[:, :-1]).double().sum(1)
        if field is not None:
            log_p = log_p + torch.tensor(field, dtype=torch.float64)[self.maps].sum(1)
        self.log_p = log_p.log_softmax(0)
        self.fields = 2 * torch.nn.functional.one_hot(self.maps, self.classes).double().movedim(-1, 1) - 1
        self.images = self.means[self.maps]

    def posterior(self, image: Tensor, noise: Tensor, field: Tensor, kappa: Tensor) -> Tensor:
        """p(map | image with noise, field with noise kappa), (batch, maps); infinite noise means not seen.

        image (batch, n) and field (batch, K, n) are states divided by alpha.
        """
        noise, kappa = noise.double().reshape(-1, 1), kappa.double().reshape(-1, 1)
        of_image = -((image.double()[:, None] - self.images) ** 2).sum(-1) / (2 * (self.spread**2 + noise**2))
        of_field = -((field.double()[:, None] - self.fields) ** 2).flatten(2).sum(-1) / (2 * kappa**2)
        seen_image = torch.where(noise.isinf(), 0.0, of_image)
        return (self.log_p + seen_image + torch.where(kappa.isinf(), 0.0, of_field)).softmax(1)

    def answers(self, image: Tensor, noise: Tensor, field: Tensor, kappa: Tensor) -> tuple[Tensor, Tensor]:
        """E[image | both], (batch, n), and p(class | both), (batch, K, n)."""
        weights = self.posterior(image, noise, field, kappa)
        mean = weights @ self.images
        gain = self.spread**2 / (self.spread**2 + noise.double().reshape(-1, 1) ** 2)
        probabilities = torch.einsum("bm,mkn->bkn", weights, (self.fields + 1) / 2)
        return mean + gain * (image.double() - mean), probabilities

    def draw(self, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images (rows, 1, n), float32, and labels (rows, n)."""
        labels = self.maps[torch.multinomial(self.log_p.exp(), rows, replacement=True, generator=generator)]
        noise = torch.randn(labels.shape, generator=generator, dtype=torch.float64)
        return (self.means[labels] + self.spread * noise).float()[:, None], labels


class ExactNetwork(torch.nn.Module):
    """What a perfect network would say, from what a network is given: scaled states and levels, nothing else."""

    def __init__(self, chain: Chain, sigma_data: float) -> None:
        super().__init__()
        self.chain, self.sigma_data = chain, sigma_data

    def forward(self, x: Tensor, level: Tensor, target_level: Tensor) -> Tensor:
        grid = x.shape[2:]
        flat = x.double().flatten(2)
        noise, kappa = (
            torch.where(each >= 1.5, torch.inf, (4 * each).exp()).expand(len(x))
            for each in (level.double(), target_level.double())
        )
        seen, given = noise.nan_to_num(posinf=0.0), kappa.nan_to_num(posinf=0.0)
        total = (self.sigma_data**2 + seen**2).reshape(-1, 1)
        image = flat[:, 0] * total.sqrt()
        field = flat[:, 1:] * (1 + given**2).sqrt().reshape(-1, 1, 1)
        mean, p = self.chain.answers(image, noise, field, kappa)
        # D = c_skip x + c_out F, solved for F; where the state shows nothing D = sigma_data F.
        inner = (
            (mean - self.sigma_data**2 / total * image)
            * total.sqrt()
            / (self.sigma_data * seen.reshape(-1, 1))
        )
        raw_image = torch.where(noise.isinf().reshape(-1, 1), mean / self.sigma_data, inner)
        gain = (2 * (1 + given) / given**2).clamp(max=200).reshape(-1, 1, 1)
        state = field / (1 + given.reshape(-1, 1, 1))
        own = torch.where(kappa.isinf().reshape(-1, 1, 1), 0.0, gain * state)
        raw_labels = p.clamp_min(1e-35).log() - own
        return torch.cat([raw_image[:, None], raw_labels], 1).float().reshape(len(x), -1, *grid)


def exact_joint(chain: Chain, sigma_data: float = 0.7) -> JointDenoiser:
    """The joint denoiser of a chain, exact."""
    return JointDenoiser(
        ExactNetwork(chain, sigma_data), LinearPath(), RealField(1, sigma_data), ClassField(chain.classes)
    )
