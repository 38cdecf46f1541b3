"""The multi-modal bound: exact minimisers, Bayes' labels, what the noise term does to learned encoders and what stops it."""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from radiata_core.aggregated_denoisers import AggregatedDenoiser
from radiata_core.aggregated_elbo import AggregatedELBO
from radiata_core.errors import InputError
from radiata_core.modality_laws import ClassLaw, RealLaw
from radiata_core.nets.unet import UNet
from radiata_core.objectives import Constant, MinSNR
from radiata_core.paths import LinearPath, VPPath, add_noise
from radiata_core.seeds import generator_of, generators_of
from radiata_core.shared_modalities import FieldEncoder, SharedModality, modalities_of
from radiata_core.train import TrainOptions, train

_spec = importlib.util.spec_from_file_location(
    "aggregated_world", Path(__file__).with_name("aggregated_world.py")
)
assert _spec is not None and _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules["aggregated_world"] = world
_spec.loader.exec_module(world)

PATH = LinearPath()


def losses(n: int = 320, **bends: float):
    a, b = world.drawn(n, seed=1)
    objective = AggregatedELBO(PATH, companions=("vector",), head_weight=Constant())
    with torch.no_grad():
        return objective(world.exact(**bends), a, generators_of(range(n)), vector=b)


def test_the_exact_posterior_is_the_minimiser():
    """Any bend of the latent or of either head costs; rows and noise are the same, so it is paired (z > 3)."""
    best = losses()
    bends = [{"bend_latent": 1.3}, {"bend_latent": 0.7}, {"bend_a": 1.3}, {"bend_a": 0.7}, {"bend_b": 1.3}]
    for bend in bends:
        worse = losses(**bend).per_sample - best.per_sample
        assert float(worse.mean() / worse.std() * len(worse) ** 0.5) > 3, bend


def test_each_term_is_the_uncertainty_of_its_modality():
    """Exact heads lose tr Cov(x_i | z_t, given)/2 + log sqrt(2 pi) a number: within four standard errors, over the rows."""
    found = losses()
    assert found.noise.shape == found.per_sample.shape and not found.terminal.any()
    for name, column in (("image", 0), ("vector", 1)):
        asked = torch.nonzero(~found.given[:, column])[:, 0].tolist()
        excess = []
        for row in asked:
            flags = tuple(found.given[row].tolist())
            covariance = world.posterior(float(found.t[row]), flags)[1][2 * column : 2 * column + 2]
            variance = float(covariance[:, 2 * column : 2 * column + 2].diagonal().mean())
            wanted = 0.5 * variance + 0.5 * math.log(2 * math.pi)
            excess.append(float(found.heads[name][row]) - wanted)
        excess_t = torch.tensor(excess)
        assert abs(float(excess_t.mean())) < 4 * float(excess_t.std()) / len(excess) ** 0.5, name
        assert not found.heads[name][found.given[:, column]].any()  # what was told is not asked
    share = found.given.double().mean(0)
    assert ((share - 0.3).abs() < 4.5 * (0.3 * 0.7 / len(found.given)) ** 0.5).all()


class Reader(nn.Module):
    """A small network of a voxel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs + 2, 48), nn.SiLU(), nn.Linear(48, 48), nn.SiLU(), nn.Linear(48, outputs)
        )

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        told = level.expand(len(x))[:, None].to(x)
        return self.layers(torch.cat([x[:, :, 0], told / 3, told.tanh()], 1))[:, :, None]


def test_the_labels_head_learns_bayes_posterior():
    """Two-dimensional classes of known means: after a training of seconds, p(k | z_t) is off by less than 0.06 on average.

    The marginal (1/3 each) is off by far more, and so is the posterior of the image alone: the state holds the label too.
    """
    means, sd = torch.tensor([[1.0, 0.2], [-0.8, 0.7], [0.1, -1.0]]), 0.5
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Reader(4, 4 + 12)
    parts = modalities_of(
        {"image": RealLaw(2), "labels": ClassLaw(3)}, dims=1, latent=4, features=12, vectors=("labels",),
        weights={"labels": 0.4}, cells=1,
    )  # fmt: skip
    denoiser = AggregatedDenoiser(network, PATH, parts, 4, conditional=False)
    optimiser = torch.optim.Adam(denoiser.parameters(), 4e-3)
    g = generator_of(0)

    def batch(n: int) -> tuple[Tensor, Tensor]:
        k = torch.randint(3, (n,), generator=g)
        return (means[k] + sd * torch.randn(n, 2, generator=g))[:, :, None], k

    for step in range(300):  # the head's and the noise's term of the bound, all rows drawn at once
        x, k = batch(384)
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 - step / 300)
        z0, t = denoiser.aggregate({"image": x, "labels": k}, (1,)), torch.rand(384, generator=g)
        noise = torch.randn(z0.shape, generator=g)
        found = denoiser.read(add_noise(PATH, z0, noise, t), t.double())
        regression = (found.prediction - (noise - z0)).square().mean()
        head = MinSNR(1.0)(t, PATH) * ClassLaw(3).surprise(found.said["labels"], k)
        loss = regression + head.float().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    image, labels = denoiser.modalities["image"], denoiser.modalities["labels"]
    a = image.weight * image.encoder.isometry.matrix()
    codes = labels.weight * labels.encoder.isometry.matrix() @ ClassLaw(3).numbers(torch.arange(3)).T
    for t in (0.3, 0.5, 0.7):
        x, k = batch(500)
        z0 = denoiser.aggregate({"image": x, "labels": k}, (1,))
        z = (1 - t) * z0 + t * torch.randn(z0.shape, generator=g)
        covariance = (1 - t) ** 2 * sd**2 * a @ a.T + t * t * torch.eye(4)
        centres = (1 - t) * (means @ a.T + codes.T)
        normal = torch.distributions.MultivariateNormal(centres, covariance)
        bayes = normal.log_prob(z[:, None, :, 0]).softmax(1)
        with torch.no_grad():
            said = denoiser.read(z, torch.tensor(t, dtype=torch.float64)).said["labels"].softmax(1)
        assert float((said - bayes).abs().mean()) < 0.06, t
        assert float((bayes - 1 / 3).abs().mean()) > 0.1


class Linear(nn.Module):
    """A free linear encoder of a voxel, with or without its variance held at 1."""

    def __init__(self, held: bool, seed: int = 0) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(4, 2, generator=generator_of(seed)))
        self.norm = nn.BatchNorm1d(4, affine=False, momentum=1.0) if held else nn.Identity()

    def forward(self, numbers: Tensor, grid: object) -> Tensor:
        return self.norm(torch.einsum("lc,bc...->bl...", self.matrix, numbers))


class Wiener(nn.Module):
    """The best linear answer for whatever law the encoder makes, not differentiated: a backbone that has converged."""

    def __init__(self, encoder: nn.Module, data: Tensor) -> None:
        super().__init__()
        self.encoder, self.data = [encoder], data

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        covariance = spectrum_of(self.encoder[0], self.data)
        t = torch.sigmoid(-level)[:, None, None].to(x)
        signal = (1 - t) ** 2 * covariance
        gain = (1 - t) * covariance @ torch.linalg.inv(signal + t**2 * torch.eye(4))
        return gain @ (x * ((1 - t) ** 2 + t**2).sqrt())


class Recall(nn.Module):
    """The best linear reading of the modality from the latent's mean, not differentiated in its own weights."""

    def __init__(self, encoder: nn.Module, data: Tensor) -> None:
        super().__init__()
        self.encoder, self.data = [encoder], data

    def forward(self, latent: Tensor, features: Tensor) -> Tensor:
        with torch.no_grad():
            code = self.encoder[0](self.data, (1,))[:, :, 0]
            back = torch.linalg.pinv(code, rtol=1e-4) @ self.data[:, :, 0]
        return torch.einsum("lc,bl...->bc...", back, latent)


def spectrum_of(encoder: nn.Module, data: Tensor) -> Tensor:
    with torch.no_grad():
        code = encoder(data, (1,))[:, :, 0]
    return code.T @ code / len(code)


def learned(encoder: nn.Module, share: float, steps: int = 60) -> tuple[float, float]:
    """Root mean square of the aggregate after the training over that before it, and its largest eigenvalue's share."""
    data = torch.randn(400, 2, 1, generator=generator_of(3))
    head = Recall(encoder, data)
    part = SharedModality(RealLaw(2, sd=0.15), encoder, head, share=share)
    denoiser = AggregatedDenoiser(
        Wiener(encoder, data), PATH, {"image": part}, 4, "sample", conditional=False
    )
    objective = AggregatedELBO(PATH)
    optimiser = torch.optim.Adam(encoder.parameters(), 5e-2)
    before = spectrum_of(encoder, data).trace()
    g = generator_of(4)
    for _ in range(steps):
        rows = data[torch.randint(400, (40,), generator=g)]
        loss = objective(denoiser, rows, [g] * len(rows)).value
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    spectrum = torch.linalg.eigvalsh(spectrum_of(encoder, data))
    return float((spectrum.sum() / before).sqrt()), float(spectrum[-1] / spectrum.sum())


def test_the_noise_term_shrinks_a_free_encoder_and_a_head_or_a_fixed_scale_stops_it():
    """The trap: a latent of nothing is denoised perfectly. With its variance held it flattens to one number instead; an
    isometry can do neither."""
    alone, _ = learned(Linear(held=False), share=0.0)
    told, flat_with_head = learned(Linear(held=False), share=1.0)
    held, flat = learned(Linear(held=True), share=0.0)
    isometry, round_ = learned(FieldEncoder(2, 4, learned=True), share=0.0)
    assert alone < 0.5
    assert told > 0.9 and flat_with_head < 0.8
    assert held == pytest.approx(1.0, abs=0.05) and flat > 0.95
    assert isometry == pytest.approx(1.0, abs=1e-3) and round_ < 0.6


def unet(inputs: int, outputs: int) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return UNet(
            dims=2, in_channels=inputs, out_channels=outputs, patch=1, channels=(8, 8), down_blocks=(1, 1),
            up_blocks=(1, 1), attention=(False, False), embedding=16,
        )  # fmt: skip


def small(path=PATH) -> AggregatedDenoiser:
    parts = modalities_of(
        {"image": RealLaw(1), "labels": ClassLaw(3)}, dims=2, latent=3, features=5, vectors=("labels",)
    )
    return AggregatedDenoiser(unet(8, 8), path, parts, 3)


def test_rows_stand_alone_and_missing_modalities_train_the_rest(generator):
    denoiser, objective = small(), AggregatedELBO(PATH, companions=("labels",))
    x0, labels = torch.randn(4, 1, 4, 4, generator=generator), torch.tensor([0, 2, -1, 1])
    whole = objective(denoiser, x0, generators_of(range(4)), labels=labels)
    for row in range(4):
        one = objective(denoiser, x0[row : row + 1], generators_of([row]), labels=labels[row : row + 1])
        torch.testing.assert_close(one.per_sample, whole.per_sample[row : row + 1], rtol=1e-4, atol=1e-5)
    assert float(whole.heads["labels"][2].detach()) == 0.0 and not bool(whole.given[2, 1])
    without = objective(denoiser, x0[2:3], generators_of([2]))
    torch.testing.assert_close(without.per_sample, whole.per_sample[2:3], rtol=1e-4, atol=1e-5)


def test_the_end_of_a_path_that_keeps_some_data_is_counted():
    """VP keeps 0.0066 of the aggregate: the KL of the end, which no backbone can lower."""
    path = VPPath()
    denoiser, x0 = small(path), torch.full((1, 1, 4, 4), 3.0)
    found = AggregatedELBO(path)(denoiser, x0, generators_of([0]))
    z0 = denoiser.aggregate({"image": x0}, (4, 4)).double()
    end = path.coefficients(torch.ones((), dtype=torch.float64))
    per = 0.5 * (end.alpha**2 * z0.square().mean() + end.sigma**2 - 1 - (end.sigma**2).log())
    assert float(found.terminal) == pytest.approx(float(per), rel=1e-3) and float(per) > 0


def test_the_training_loop_takes_it(tmp_path, generator):
    """Companions are not hidden by the dropout of conditions, and what is written is read back."""
    items = [
        {"image": torch.randn(1, 4, 4, generator=generator), "labels": torch.tensor(k % 3)} for k in range(8)
    ]
    options = TrainOptions(
        steps=3, batch_size=4, warmup=1, log_every=1, checkpoint_every=3, validate_every=3, tensorboard=False,
        condition_dropout=1.0,
    )  # fmt: skip
    seen = []

    class Watched(AggregatedELBO):
        def __call__(self, denoiser, x0, generators, **conditions):
            seen.append(conditions["labels"])
            return super().__call__(denoiser, x0, generators, **conditions)

    trained = train(
        small(), Watched(PATH, companions=("labels",)), items, tmp_path, options, validation=items
    )
    assert trained.finished and all(bool((labels >= 0).all()) for labels in seen)


def test_what_is_refused():
    x0 = torch.zeros(2, 1, 4, 4)
    with pytest.raises(InputError, match=r"given in \[0, 1\) and at_once in \[0, 1\]; got 1"):
        AggregatedELBO(PATH, given=1.0)
    with pytest.raises(InputError, match="expected a denoiser on"):
        AggregatedELBO(VPPath())(small(), x0, generators_of(range(2)))
    with pytest.raises(InputError, match="one generator a row, 2; got 1"):
        AggregatedELBO(PATH)(small(), x0, generators_of([0]))
