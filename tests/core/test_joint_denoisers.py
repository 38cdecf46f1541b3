"""Joint denoisers against a world whose every conditional law is a finite sum."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from scipy.stats import chi2

from radiata_core.checkpoint import load_model, save_model
from radiata_core.denoisers import Denoiser
from radiata_core.errors import InputError
from radiata_core.joint_denoisers import ClassField, JointDenoiser, RealField
from radiata_core.nets.unet import UNet
from radiata_core.paths import LinearPath, VPPath, add_noise
from radiata_core.seeds import generators_of, noise_of
from radiata_core.solvers import dpmpp_2m, integrate
from radiata_core.specs import describe, rebuild
from radiata_core.times import LogSNRGrid

_spec = importlib.util.spec_from_file_location("joint_world", Path(__file__).with_name("joint_world.py"))
assert _spec is not None and _spec.loader is not None
world = importlib.util.module_from_spec(_spec)
sys.modules["joint_world"] = world
_spec.loader.exec_module(world)

CHAIN = world.Chain(2, (-0.6, 0.1, 0.8), 0.5, 0.8, (0.0, 0.3, -0.2))
PATH = LinearPath()


class Silent(torch.nn.Module):
    """A network that says nothing: what remains is what the heads know by themselves."""

    def forward(self, x: torch.Tensor, level: torch.Tensor, target_level: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(x)


def time(*values: float) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], dtype=torch.float64)


@pytest.mark.parametrize("t", [0.0, 0.05, 0.4, 0.8, 1.0])
@pytest.mark.parametrize("path", [LinearPath(), VPPath()], ids=["linear", "vp"])
def test_a_silent_network_leaves_bayes_rule_with_a_flat_prior_and_the_wiener_mean(t, path, generator):
    joint = JointDenoiser(Silent(), path, RealField(1, 0.7), ClassField(3))
    labels = torch.randint(3, (4, 5), generator=generator)
    noise = torch.randn(4, 3, 5, generator=generator)
    state = add_noise(path, joint.labels.encode(labels), noise, time(t))
    image = torch.randn(4, 1, 5, generator=generator)
    found = joint(image, time(t), state, time(t))
    c = path.coefficients(time(t))
    alpha, sigma = float(c.alpha), max(float(c.sigma), 0.02)
    vertices = (2 * torch.eye(3) - 1).double()
    log_density = -((state.double()[:, None] - alpha * vertices[..., None]) ** 2).sum(2) / (2 * sigma**2)
    torch.testing.assert_close(found.probabilities.double(), log_density.softmax(1), atol=2e-5, rtol=0)
    wiener = alpha * 0.49 / (alpha**2 * 0.49 + float(c.sigma) ** 2)
    torch.testing.assert_close(found.image, wiener * image, atol=1e-5, rtol=1e-5)


def test_a_perfect_network_gives_the_exact_posterior_at_every_pair_of_times(generator):
    """The scaled states and the two levels hold all that is needed, in the corners of the square too."""
    joint = world.exact_joint(CHAIN)
    times = [0.0, 0.02, 0.3, 0.7, 0.95, 1.0]
    pairs = torch.tensor([(a, b) for a in times for b in times], dtype=torch.float64)
    x0, labels = CHAIN.draw(len(pairs), generator)
    image = add_noise(PATH, x0, torch.randn(x0.shape, generator=generator), pairs[:, 0])
    clean = joint.labels.encode(labels)
    field = add_noise(PATH, clean, torch.randn(clean.shape, generator=generator), pairs[:, 1])
    found = joint(image, pairs[:, 0], field, pairs[:, 1])
    noise, kappa = (pairs / (1 - pairs)).unbind(1)
    alpha = (1 - pairs).clamp_min(1e-9)
    mean, p = CHAIN.answers(
        image[:, 0] / alpha[:, :1], noise, field / alpha[:, 1:, None], kappa.clamp_min(1e-3)
    )
    torch.testing.assert_close(found.probabilities.double(), p, atol=2e-4, rtol=0)
    seen = pairs[:, 0] < 1  # infinite noise divided out above
    torch.testing.assert_close(found.image[seen, 0].double(), mean[seen], atol=1e-3, rtol=0)


def test_where_alpha_is_zero_the_state_is_not_seen(generator):
    """At u = 1 the answer is that of an ordinary segmenter: the same for all noise, p(l | x) exactly."""
    joint = world.exact_joint(CHAIN)
    x0, _ = CHAIN.draw(6, generator)
    a, b = (joint(x0, time(0.0), torch.randn(6, 3, 2, generator=generator), time(1.0)) for _ in range(2))
    assert torch.equal(a.probabilities, b.probabilities)
    infinite = torch.full((6,), torch.inf)
    _, p = CHAIN.answers(x0[:, 0], torch.zeros(6), torch.zeros(6, 3, 2), infinite)
    torch.testing.assert_close(a.probabilities.double(), p, atol=1e-4, rtol=0)


def test_sampled_labels_of_an_image_have_the_posterior_frequencies():
    """Pearson's chi-square on the nine label maps at the level 1e-3: the test fails once in a thousand seeds."""
    joint = world.exact_joint(CHAIN)
    image = torch.tensor([[[-0.2, 0.35]]])
    rows = 3000
    table = dpmpp_2m(LogSNRGrid(5.0)(40, PATH), PATH)
    noise = noise_of(generators_of(range(rows)), (3, 2))
    field = integrate(joint.labels_given_image(image), noise, table)
    maps = field.argmax(1)
    counts = torch.bincount(maps[:, 0] * 3 + maps[:, 1], minlength=9).double()
    infinite = torch.tensor([torch.inf])
    expected = rows * CHAIN.posterior(image[:, 0], torch.zeros(1), torch.zeros(1, 3, 2), infinite)[0]
    assert float(((counts - expected) ** 2 / expected).sum()) < chi2.ppf(0.999, 8)


def test_images_sampled_for_labels_and_pairs_sampled_jointly():
    """Means and spreads of images, and the law of label maps, within four standard errors."""
    joint, rows = world.exact_joint(CHAIN), 1500
    table = dpmpp_2m(LogSNRGrid(5.0)(30, PATH), PATH)
    field = joint.labels.encode(torch.tensor([[0, 2]]))
    noise = noise_of(generators_of(range(rows)), (1, 2))
    image = integrate(joint.image_given_labels(field), noise, table)[:, 0]
    torch.testing.assert_close(image.mean(0), torch.tensor([-0.6, 0.8]), atol=4 * 0.5 / rows**0.5, rtol=0)
    torch.testing.assert_close(
        image.std(0), torch.tensor([0.5, 0.5]), atol=4 * 0.5 / (2 * rows) ** 0.5, rtol=0
    )
    both = integrate(joint.jointly(), noise_of(generators_of(range(rows)), (4, 2)), table)
    maps = both[:, 1:].argmax(1)
    counts = torch.bincount(maps[:, 0] * 3 + maps[:, 1], minlength=9).double()
    expected = rows * CHAIN.log_p.exp()
    assert float(((counts - expected) ** 2 / expected).sum()) < chi2.ppf(0.999, 8)
    residual = both[:, 0] - CHAIN.means[maps].float()
    torch.testing.assert_close(residual.mean(0), torch.zeros(2), atol=4 * 0.5 / rows**0.5, rtol=0)


def test_the_prior_of_images_does_not_know_labels(generator):
    """Without labels the view is the marginal mixture: E over labels of the answer told the labels."""
    joint = world.exact_joint(CHAIN)
    x = torch.randn(5, 1, 2, generator=generator)
    alone = joint.image_given_labels()
    assert isinstance(alone, Denoiser)
    t = time(0.4)
    weights = CHAIN.posterior(
        x[:, 0] / 0.6, torch.full((5,), 0.4 / 0.6), torch.zeros(5, 3, 2), torch.full((5,), torch.inf)
    )
    told = torch.stack([joint.image_given_labels(f[None].float())(x, t) for f in CHAIN.fields], 1)
    torch.testing.assert_close(
        alone(x, t).double(), torch.einsum("bm,bmcn->bcn", weights, told.double()), atol=1e-4, rtol=0
    )


def test_real_fields_as_labels_have_means_and_no_probabilities(generator):
    joint = JointDenoiser(Silent(), PATH, RealField(1, 0.5), RealField(2, 0.8))
    state = torch.randn(3, 2, 4, generator=generator)
    found = joint(torch.zeros(3, 1, 4), time(0.2), state, time(0.5, 0.6, 1.0))
    gain = torch.tensor([0.5 * 0.64 / (0.25 * 0.64 + 0.25), 0.4 * 0.64 / (0.16 * 0.64 + 0.36), 0.0])
    torch.testing.assert_close(found.labels, gain.reshape(3, 1, 1) * state)
    with pytest.raises(InputError, match="real field"):
        _ = found.probabilities


@pytest.fixture
def small():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(
            dims=2, in_channels=4, out_channels=4, channels=(8, 8), down_blocks=(0, 1), up_blocks=(1, 1),
            attention=(False, False), destination=True, norm="channel", embedding=16, frequencies=8,
        )  # fmt: skip
        return JointDenoiser(net, PATH, RealField(1, 0.45), ClassField(3))


def test_a_file_rebuilds_it(small, tmp_path, generator):
    with torch.random.fork_rng(devices=[]):
        assert describe(rebuild(describe(small))) == describe(small)
    save_model(tmp_path / "joint.safetensors", small, metadata={"dims": 2})
    loaded = load_model(tmp_path / "joint.safetensors").denoiser
    x, field = torch.randn(2, 1, 8, 8, generator=generator), torch.randn(2, 3, 8, 8, generator=generator)
    with torch.no_grad():
        a, b = (each(x, time(0.1), field, time(0.6, 0.9)) for each in (small, loaded))
    assert torch.equal(a.image, b.image) and torch.equal(a.labels, b.labels)


def test_the_labels_level_starts_silent_and_then_speaks(small, generator):
    x = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        for name, p in small.network.named_parameters():
            if "embed_destination" not in name:  # the rest of the network is at work
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
        level = torch.tensor(0.2)
        before = [small.network(x, level, target_level=torch.tensor(v)) for v in (-1.0, 1.0)]
        assert torch.equal(*before)
        for p in small.network.embed_destination.parameters():
            p.add_(0.3)
        after = [small.network(x, level, target_level=torch.tensor(v)) for v in (-1.0, 1.0)]
        assert not torch.allclose(*after)


def test_noise_without_signal_is_hidden_from_any_network(small, generator):
    """A network at work, given two noises at alpha = 0: one answer; just before the end two."""
    with torch.no_grad():
        for p in small.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
        x = torch.randn(1, 1, 8, 8, generator=generator)
        noises = torch.randn(2, 1, 3, 8, 8, generator=generator)
        at_end = [small(x, time(0.3), noise, time(1.0)) for noise in noises]
        assert torch.equal(at_end[0].image, at_end[1].image) and torch.equal(
            at_end[0].labels, at_end[1].labels
        )
        before = [small(x, time(0.3), noise, time(0.99)) for noise in noises]
        assert not torch.equal(before[0].image, before[1].image)


def test_encoding_of_classes():
    field = ClassField(3).encode(torch.tensor([[2, -1, 0]]))
    assert field[0].T.tolist() == [[-1, -1, 1], [0, 0, 0], [1, -1, -1]]
    with pytest.raises(InputError, match="expected classes 0 … 2; got 3"):
        ClassField(3).encode(torch.tensor([[3]]))
    with pytest.raises(InputError, match="at least 2"):
        ClassField(1)


def test_bad_input(small):
    x, field = torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8)
    with pytest.raises(InputError, match="expected 3 channels of the labels; got 2"):
        small(x, time(0.1), field[:, :2], time(0.1))
    with pytest.raises(InputError, match="1 or 2 rows"):
        small.labels_given_image(torch.zeros(3, 1, 8, 8))(field, time(0.5))
    with pytest.raises(InputError, match="pure noise"):
        JointDenoiser(Silent(), VPPath(), RealField(), ClassField(3)).image_given_labels()
