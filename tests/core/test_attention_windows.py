"""Windows: what they leave out is exactly what lies outside of them."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from backbones import answer, backbone, picture, told

from radiata_core.attention_windows import window_of, windowed, windowed_attention
from radiata_core.errors import InputError
from radiata_core.sites import sites_of

CASES = [
    ((8,), (4,), (0,)), ((8,), (4,), (2,)), ((7,), (3,), (1,)),
    ((6, 4), (3, 2), (0, 0)), ((6, 5), (3, 2), (1, 1)), ((6, 5), (3, 9), (2, 4)), ((5, 7), (2, 3), (1, 2)),
    ((4, 4, 4), (2, 2, 2), (1, 0, 1)), ((3, 5, 4), (2, 3, 4), (1, 2, 3)),
]  # fmt: skip


def drawn(generator, grid, words=0, queries=None, batch=2):
    count = torch.Size(grid).numel()
    shape = (batch, 3, count + words, 4)
    q, k, v = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(3))
    return q if queries is None else q[:, :, :queries], k, v


def members(grid, window, shift):
    """Window of every token, by counting: displaced windows that end at the edges of the grid, no seam."""
    names = {}
    for token in itertools.product(*map(range, grid)):
        key = []
        for i, n, w, s in zip(token, grid, window, shift, strict=True):
            key.append(0 if w >= n else (i - s % w) // w)
        names[token] = tuple(key)
    labels = sorted(set(names.values()))
    return torch.tensor([labels.index(names[token]) for token in itertools.product(*map(range, grid))])


def reference(q, k, v, grid, window, shift, words=0, mask=None):
    """Softmax over all keys with those of other windows at minus infinity."""
    own = members(grid, window, shift)
    seen = F.pad(own[:, None] == own[None], (0, words, 0, words), value=True)[: q.shape[2]]
    seen = seen.expand(len(q), 1, -1, -1)
    if mask is not None:
        seen = seen & F.pad(mask, (len(own), 0), value=True)[:, None, None]
    logits = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return logits.softmax(-1) @ v


@pytest.mark.parametrize(("grid", "window", "shift"), CASES)
def test_it_is_softmax_within_displaced_windows(generator, grid, window, shift):
    """Against a mask over all pairs; windows are cut at the edges of the grid, not wrapped around it."""
    q, k, v = drawn(generator, grid)
    torch.testing.assert_close(
        windowed_attention(q, k, v, grid, window, shift), reference(q, k, v, grid, window, shift)
    )


@pytest.mark.parametrize(("grid", "window", "shift"), CASES[1::2])
@pytest.mark.parametrize("asking", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_words_are_in_every_window_and_see_everything(generator, grid, window, shift, asking, given):
    count = torch.Size(grid).numel()
    q, k, v = drawn(generator, grid, words=3, queries=None if asking else count)
    mask = torch.tensor([[True, False, True], [True, True, False]]) if given else None
    found = windowed_attention(q, k, v, grid, window, shift, words=3, mask=mask)
    torch.testing.assert_close(found, reference(q, k, v, grid, window, shift, 3, mask))


@pytest.mark.parametrize("grid", [(6,), (4, 5), (2, 3, 4)])
def test_one_window_is_global_to_the_bit(generator, grid):
    q, k, v = drawn(generator, grid)
    found = windowed_attention(q, k, v, grid, window_of(grid, 1), (1,) * len(grid))
    assert torch.equal(found, F.scaled_dot_product_attention(q, k, v))


def test_gradients_are_those_of_the_mask(generator):
    """Padding and seams in the way, and no NaN of a row without keys."""
    grid, window, shift = (5, 7), (2, 3), (1, 2)
    given = drawn(generator, grid)
    leaves = [[part.clone().requires_grad_() for part in given] for _ in range(2)]
    windowed_attention(*leaves[0], grid, window, shift).square().sum().backward()
    reference(*leaves[1], grid, window, shift).square().sum().backward()
    for one, other in zip(*leaves, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_windows_of_a_grid():
    assert window_of((9, 8), 2) == (5, 4)
    assert window_of((9, 8, 7), (3, 1, 2)) == (3, 8, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda q: windowed_attention(q, q, q, (4, 4), (2,)), "one size"),
        (lambda q: windowed_attention(q, q, q, (4, 4), (2, 0)), "one size"),
        (lambda q: windowed_attention(q, q, q, (5, 4), (2, 2)), "20 tokens on a grid of 5x4"),
        (lambda q: window_of((4, 4), 0), "splits"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call(torch.zeros(1, 1, 16, 2))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["unet", "unet-3d", "medforj", "monai", "diffusers"])
def test_a_windowed_network_is_one_whose_attention_sees_windows(name):
    """Against the same network with a mask over all pairs added to its attention."""
    network, x, level = backbone(name), picture(name), told(name)
    if name == "monai":
        [
            setattr(m, "use_flash_attention", True)
            for m in network.modules()
            if hasattr(m, "use_flash_attention")
        ]
    own = F.scaled_dot_product_attention
    order = iter(range(100))

    def masked(query, key, value, **options):
        side = round(query.shape[2] ** (1 / (x.ndim - 2)))
        grid, window = (side,) * (x.ndim - 2), (side // 2,) * (x.ndim - 2)
        label = members(grid, window, (side // 4 * (next(order) % 2),) * len(grid))
        return own(query, key, value, attn_mask=label[:, None] == label[None], scale=options.get("scale"))

    with windowed(network, 2, sites=ordered(network, x, level)):
        found = answer(network, x, level)
    F.scaled_dot_product_attention = masked
    try:
        wanted = answer(network, x, level)
    finally:
        F.scaled_dot_product_attention = own
    torch.testing.assert_close(found, wanted)


def ordered(network, x, level):
    """Attention sites in the order in which they run."""
    names, modules = [], dict(network.named_modules())
    sites = sites_of(network, "attention")
    hooks = [
        modules[s.name].register_forward_pre_hook(lambda *_, name=name: names.append(name))
        for name, s in sites.items()
    ]
    answer(network, x, level)
    [hook.remove() for hook in hooks]
    return names


def test_words_stay_in_every_window_of_a_network():
    """MMDiT: the token that no window shows to the first is still known to it through the words only."""
    network, x, level = backbone("mmdit"), picture("mmdit"), told("mmdit")
    words = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    far = x.clone()
    far[:, :, 8:, 8:] += 1

    def corner(context, change):
        with torch.no_grad(), windowed(network, 2, shift=lambda _: (0.0,)):
            return network(change, level, context=context)[:, :, :2, :2]

    assert torch.equal(corner(None, x), corner(None, far))
    assert (corner(words, x) - corner(words, far)).abs().max() > 1e-6
    with torch.no_grad(), windowed(network, 1):
        one = network(x, level, context=words)
    with torch.no_grad(), windowed(network, window=(8, 8)):
        torch.testing.assert_close(network(x, level, context=words), one)


def test_attention_of_another_kind_is_refused():
    network = backbone("unet")
    attention = network.down[-1].attention[0]
    attention.forward = lambda h: h
    with windowed(network, 2), pytest.raises(InputError, match="attention of another kind"):
        answer(network, picture("unet"), told("unet"))
