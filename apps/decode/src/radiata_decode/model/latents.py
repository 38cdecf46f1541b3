r"""Pictures as vectors that a linear model can predict, and back: principal components, autoencoders.

A codec has `encode(images (n, 3, y, x)) -> (n, d)` and `decode((n, d)) -> images`, with pictures in [0, 1]. The ridge
regresses the vectors; the decoded prediction is the low-level guess, the starting picture of a generator. `groups` says
which components share a penalty (None: each its own).

Principal components are the plain choice: they are uncorrelated, ordered by contrast, and squared error in them is squared
error in pixels. A trained autoencoder (`AutoencoderCodec`) trades that for fewer artefacts; hierarchical ones with stacked
latents are in `hierarchical_latents`.

References:
    N. Halko, P. Martinsson, J. Tropp (2011). Finding structure with randomness. SIAM Review 53, algorithm 4.4
    (randomised subspace iteration, used where the pictures are many).
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from radiata_core.errors import InputError
from radiata_core.files import atomic_path, read_json, sha256, write_json
from radiata_core.weights import read_tensors, write_tensors

__all__ = ["AutoencoderCodec", "ImageCodec", "PcaCodec", "check_images"]

_FORMAT = "radiata-picture-basis/1"
_EXACT = 2000  # smaller side up to which all components are computed and the first are kept


@runtime_checkable
class ImageCodec(Protocol):
    """What turns pictures into vectors and back."""

    @property
    def groups(self) -> Tensor | None:
        """Which components share a penalty, (d,) whole numbers; None: each its own."""

    def encode(self, images: Tensor) -> Tensor:
        """Vectors (n, d) of pictures (n, 3, y, x) in [0, 1]."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (n, 3, y, x) in [0, 1] of vectors (n, d)."""


def check_images(images: Tensor, size: tuple[int, ...] | None = None) -> None:
    """Refuse what is not pictures.

    Raises:
        InputError: not (n, 3, y, x), of another size than `size`, or with values outside [0, 1] or NaN.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) < 1 or not images.is_floating_point():
        raise InputError(
            f"expected pictures (n, 3, y, x) with numbers in [0, 1]; got {tuple(images.shape)} {images.dtype}. "
            "Divide 8-bit pictures by 255."
        )
    if size is not None and tuple(images.shape[1:]) != tuple(size):
        raise InputError(f"expected pictures of {tuple(size)}; got {tuple(images.shape[1:])}. Resize them.")
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-4 and high <= 1 + 1e-4):
        raise InputError(f"expected pictures in [0, 1]; got {low:g} to {high:g}. Divide 8-bit ones by 255.")


class PcaCodec:
    """Principal components of pictures.

    Args:
        mean: Mean picture, flattened, (p,).
        components: Orthonormal rows, (d, p), by falling variance.
        sd: Standard deviation of each component over the training pictures, (d,).
        shape: Of a picture, (3, y, x).
    """

    groups = None

    def __init__(self, mean: Tensor, components: Tensor, sd: Tensor, shape: tuple[int, ...]) -> None:
        self.mean, self.components, self.sd, self.shape = mean, components, sd, tuple(shape)

    @classmethod
    def fit(
        cls, images: Tensor, components: int = 300, *, generator: torch.Generator | None = None
    ) -> "PcaCodec":
        """The basis of training pictures.

        Args:
            images: (n, 3, y, x) in [0, 1].
            components: At most this many; never more than n - 1 or the numbers of a picture.
            generator: Of the random projection where n and the picture are both large; None: one of seed 0.

        Raises:
            InputError: not pictures, fewer than two, or no components.
        """
        check_images(images)
        if len(images) < 2 or components < 1:
            raise InputError(
                f"expected two pictures and one component at least; got {len(images)} and {components}."
            )
        flat = images.flatten(1).float()
        mean = flat.mean(0)
        centred = flat - mean
        kept = min(components, len(flat) - 1, flat.shape[1])
        rows = _principal_axes(centred, kept, generator or torch.Generator().manual_seed(0))
        peak = rows.gather(1, rows.abs().argmax(1, keepdim=True))
        rows = rows * torch.where(peak < 0, -1.0, 1.0)  # a sign that does not depend on the library
        return cls(mean, rows, (centred @ rows.T).std(0), tuple(images.shape[1:]))

    @property
    def dimensions(self) -> int:
        """d."""
        return len(self.components)

    def encode(self, images: Tensor) -> Tensor:
        """Coordinates (n, d), in units of pixel values.

        Raises:
            InputError: not pictures, or of another size.
        """
        check_images(images, self.shape)
        return (images.flatten(1).float() - self.mean) @ self.components.T

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in [0, 1]: what lies outside is cut.

        Raises:
            InputError: another number of components.
        """
        return self.decode_unclipped(latents).clamp(0, 1)

    def decode_unclipped(self, latents: Tensor) -> Tensor:
        """Pictures as the components add up to, also outside of [0, 1]."""
        if latents.ndim != 2 or latents.shape[1] != self.dimensions:
            raise InputError(
                f"expected vectors (n, {self.dimensions}); got {tuple(latents.shape)}. Use their own basis."
            )
        return torch.addmm(self.mean, latents.float(), self.components).unflatten(1, self.shape)

    def save(self, path: str | Path) -> None:
        """Write `path` (.safetensors) and its .json.

        Raises:
            InputError: another suffix.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(
                f"expected a name that ends in .safetensors; got {path.name}. Rename the output."
            )
        with atomic_path(path) as part:
            write_tensors(part, {"mean": self.mean, "components": self.components, "sd": self.sd})
            checksum = sha256(part)
        card = {"format": _FORMAT, "kind": "pca", "shape": list(self.shape), "sha256": checksum}
        write_json(path.with_suffix(".json"), card)

    @classmethod
    def load(cls, path: str | Path) -> "PcaCodec":
        """The basis in `path`; stored in half precision it comes back in float32.

        Raises:
            InputError: no such file, a truncated one, or one of another kind.
        """
        path = Path(path)
        tensors, card = read_tensors(path), read_json(path.with_suffix(".json"))
        names = ("mean", "components", "sd")
        if not isinstance(card, dict) or card.get("format") != _FORMAT or not set(names) <= tensors.keys():
            raise InputError(f"expected a picture basis ({_FORMAT}) in {path}; got another file.")
        if card.get("sha256") != sha256(path):
            raise InputError(
                f"expected the numbers {path.stem}.json was written for; got others. Copy both again."
            )
        mean, components, sd = (tensors[name].float() for name in names)
        return cls(mean, components, sd, tuple(card["shape"]))


def _principal_axes(centred: Tensor, kept: int, generator: torch.Generator) -> Tensor:
    """First right singular vectors as rows, (kept, p)."""
    if min(centred.shape) <= _EXACT:
        small = centred if centred.shape[1] <= centred.shape[0] else centred.T
        vectors = torch.linalg.eigh((small.T @ small).double())[1].flip(1)[:, :kept].float()
        if small is centred:
            return vectors.T.contiguous()
        return torch.linalg.qr(centred.T @ vectors)[0].T.contiguous()
    drawn = torch.randn(centred.shape[1], kept + 10, generator=generator)
    basis = torch.linalg.qr(centred @ drawn.to(centred))[0]
    for _ in range(4):
        basis = torch.linalg.qr(centred @ torch.linalg.qr(centred.T @ basis)[0])[0]
    return torch.linalg.svd(basis.T @ centred, full_matrices=False)[2][:kept]


class AutoencoderCodec:
    """Latents of an autoencoder of the diffusers kind (AutoencoderKL, AutoencoderTiny, or a module like them).

    Args:
        module: `encode(x)` gives `.latent_dist` (its mode is taken) or `.latents`; `decode(z)` gives `.sample`;
            pictures are in [-1, 1]. Its `config.scaling_factor` and `shift_factor`, where there are any, are applied:
            latents are those that a diffusion model of the same family starts from.
        shape: Of a picture, (3, y, x).
        batch: Pictures at a time.
    """

    def __init__(self, module: nn.Module, shape: tuple[int, int, int], *, batch: int = 8) -> None:
        if not callable(getattr(module, "encode", None)) or not callable(getattr(module, "decode", None)):
            raise InputError(
                f"expected an autoencoder with encode and decode; got {type(module).__name__}. "
                "Name the folder of a diffusers vae."
            )
        self.module, self.shape, self.batch = module.eval(), tuple(shape), batch
        config: Any = getattr(module, "config", None)
        self.factor = float(getattr(config, "scaling_factor", None) or 1.0)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)
        with torch.no_grad():
            self.latent_shape = tuple(self._encoded(torch.full((1, *self.shape), 0.5)).shape[1:])

    @property
    def groups(self) -> Tensor:
        """Components of one latent channel share a penalty."""
        channels, *rest = self.latent_shape
        return torch.arange(channels).repeat_interleave(int(torch.Size(rest).numel()))

    def _encoded(self, images: Tensor) -> Tensor:
        first = next(self.module.parameters(), images)
        found = self.module.encode((2 * images - 1).to(first))  # type: ignore[operator]
        latents = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return (latents.float().cpu() - self.shift) * self.factor

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents, flattened, (n, d), scaled.

        Raises:
            InputError: not pictures, or of another size.
        """
        check_images(images, self.shape)
        return torch.cat([self._encoded(part).flatten(1) for part in images.float().split(self.batch)])

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Pictures in [0, 1] of flattened latents.

        Raises:
            InputError: another number of components.
        """
        number = torch.Size(self.latent_shape).numel()
        if latents.ndim != 2 or latents.shape[1] != number:
            raise InputError(
                f"expected vectors (n, {number}); got {tuple(latents.shape)}. Use their own codec."
            )
        first = next(self.module.parameters(), latents)
        shaped = (latents.float() / self.factor + self.shift).unflatten(1, self.latent_shape)
        parts = [self.module.decode(part.to(first)).sample for part in shaped.split(self.batch)]  # type: ignore[operator]
        return ((torch.cat(parts).float().cpu() + 1) / 2).clamp(0, 1)
