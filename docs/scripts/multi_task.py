"""The figure of docs/multi-task.md: what weights of aggregation mean, what learned encoders do, and digits with labels.

python docs/scripts/multi_task.py
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

from radiata_core.aggregated_elbo import AggregatedELBO
from radiata_core.aggregation import AggregationChain
from radiata_core.seeds import generator_of, generators_of
from radiata_core.shared_modalities import FieldEncoder

ROOT = Path(__file__).resolve().parents[2]
ALPHAS = tuple(1 - (1e-4 + (0.02 - 1e-4) * s / 999) for s in range(1000))
CHAINS = {
    "at once: $w_1 = 1$": AggregationChain.at_once(ALPHAS),
    "evenly over 300 steps": AggregationChain(
        ALPHAS, tuple(1 / 300 if s < 300 else 0.0 for s in range(1000))
    ),
    "late: $w_{600} = 1$": AggregationChain(ALPHAS, tuple(float(s == 599) for s in range(1000))),
}
TRAINING = 300


class Free(nn.Module):
    """A free linear encoder of two numbers into four, with or without its variance held at 1."""

    def __init__(self, held: bool) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 2, generator=generator_of(0)))
        self.norm = nn.BatchNorm1d(4, affine=False) if held else nn.Identity()

    def forward(self, numbers: Tensor, grid: object) -> Tensor:
        return self.norm(torch.einsum("lc,bc...->bl...", self.matrix, numbers))


def noise_term(encoder: nn.Module, steps: int = 150) -> tuple[list[float], list[float]]:
    """Root mean square of the code, and the largest eigenvalue's share, while the noise term alone trains the encoder.

    The denoiser is the best linear one for the code of the moment, so the curves are those of a backbone that has converged.
    """
    g, optimiser = generator_of(1), torch.optim.Adam(encoder.parameters(), 3e-2)
    sizes, shares = [], []
    for _ in range(steps):
        code = encoder(torch.randn(512, 2, 1, generator=g), (1,))[:, :, 0]
        covariance = (code.T @ code / len(code)).detach()
        values = torch.linalg.eigvalsh(covariance)
        sizes.append(float(values.mean().sqrt()))
        shares.append(float(values[-1] / values.sum()))
        t = torch.rand(512, 1, 1, generator=g)
        signal = (1 - t) ** 2 * covariance
        gain = (1 - t) * covariance @ torch.linalg.inv(signal + t**2 * torch.eye(4))
        state = (1 - t) * code[:, :, None] + t * torch.randn(512, 4, 1, generator=g)
        loss = (gain @ state - code[:, :, None]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return sizes, shares


def drawn_digits() -> tuple[Tensor, Tensor]:
    """Ten free draws with their labels over ten that were given a label, after a short training."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import additions_multitask as digits

    images, labels, _, _ = digits.digits()
    objective = AggregatedELBO(digits.PATH, digits.LAW, ("labels",))

    def loss(denoiser, rows, generators):
        return objective(denoiser, images[rows], generators, labels=labels[rows]).value

    denoiser = digits.fitted(digits.shared(0, 1.0), loss, len(images), TRAINING, 0)
    free = denoiser.sample(generators_of(range(10), 3), digits.GRID)
    told = denoiser.sample(generators_of(range(10), 4), digits.GRID, {"labels": torch.arange(10)})
    return torch.cat([free["image"], told["image"]])[:, 0], torch.cat([free["labels"], told["labels"]])


def main() -> None:
    torch.set_num_threads(1)
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.6), gridspec_kw={"width_ratios": [1, 1, 1.5]})
    for name, chain in CHAINS.items():
        snr = chain.coefficients.square() / (1 - chain.alpha_bar)
        steps = torch.arange(1, 1001)
        seen = snr > 0
        axes[0].semilogy(steps[seen], snr[seen], label=f"{name}, $c_T$ = {float(chain.coefficients[-1]):.3f}")
    axes[0].set(xlabel="step t", ylabel=r"SNR of $E(X)$: $c_t^2/(1-\bar\alpha_t)$", ylim=(1e-5, 1e4))
    axes[0].legend(fontsize=7)

    encoders = {
        "free": Free(held=False),
        "variance held at 1": Free(held=True),
        "isometry": FieldEncoder(2, 4, learned=True),
    }
    for (name, encoder), colour in zip(encoders.items(), ("C3", "C1", "C0"), strict=True):
        sizes, shares = noise_term(encoder)
        axes[1].plot(sizes, colour, label=f"{name}: rms")
        axes[1].plot(shares, colour, linestyle=":", label=f"{name}: largest share")
        print(
            f"{name}: rms {sizes[0]:.2f} -> {sizes[-1]:.2f}, largest share {shares[0]:.2f} -> {shares[-1]:.2f}"
        )
    axes[1].set(
        xlabel="training step, noise term alone", ylabel="code: rms; eigenvalue's share", ylim=(0, 1.2)
    )
    axes[1].legend(fontsize=6.5, ncol=1)

    pictures, labels = drawn_digits()
    rows = pictures.reshape(2, 10, 8, 8).permute(0, 2, 1, 3).reshape(16, 80)
    axes[2].imshow(rows, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    for k, label in enumerate(labels.tolist()):
        place = (k % 10 * 8 + 3.5, -1.0 if k < 10 else 18.5)
        axes[2].text(*place, str(label), ha="center", va="center", color="C0" if k < 10 else "C3")
    axes[2].set_title("drawn with their labels (above), given a label (below)", fontsize=9, pad=14)
    axes[2].set_axis_off()
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / "multi-task.png", dpi=110)
    for name, chain in CHAINS.items():
        print(f"{name}: c_T {float(chain.coefficients[-1]):.4f}, clearest at step {chain.clearest}")


if __name__ == "__main__":
    main()
