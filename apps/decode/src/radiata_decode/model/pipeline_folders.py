"""Folders of diffusers: which pipeline lies there, whether it is whole, and how to get what is missing.

    FOLDER/model_index.json            the class of the pipeline, and of each component
    FOLDER/COMPONENT/config.json       what it is
    FOLDER/COMPONENT/*.safetensors     its weights

Nothing is fetched unless that is asked for; a hub id is looked up in the local cache otherwise. Everything is checked
before anything is loaded, so a missing file is one line. Only safetensors are read, never a pickle. Parts that a
generator which is told embeddings does not need (safety checker, image encoders of adapters, text encoders where they
are absent) are left out.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radiata_core.errors import InputError
from radiata_core.files import read_json

__all__ = ["PipelineFolder", "diffusers_library", "read_pipeline_folder", "ready"]

_INSTALL = 'pip install "radiata-decode[diffusers]"'
_NEVER = ("safety_checker",)
_WITH_ENCODER = ("StableVideoDiffusionPipeline",)  # it is told pictures, so it needs all of its parts
_IF_THERE = ("text_encoder", "tokenizer", "feature_extractor", "image_feature_extractor", "image_encoder")


def diffusers_library() -> Any:
    """The module diffusers, with transformers beside it.

    Raises:
        InputError: one of them is not installed; the line to install both.
    """
    try:
        import diffusers
        import transformers  # noqa: F401  diffusers' pipelines need it even where no text encoder is used
    except ImportError as error:
        raise InputError(
            f"expected the libraries diffusers and transformers for this generator; got {error}. {_INSTALL}."
        ) from None
    return diffusers


@dataclass(frozen=True)
class PipelineFolder:
    """A whole pipeline on this disk.

    Attributes:
        path: The folder.
        kind: Name of the pipeline's class.
        components: Library and class of each component that is there and needed.
        absent: Components that are given as None when it is loaded.
    """

    path: Path
    kind: str
    components: dict[str, tuple[str, str]]
    absent: tuple[str, ...]

    def load(self, pipeline_class: Any, *, device: str = "cpu", dtype: str = "float32", **given: Any) -> Any:
        """The pipeline, see `ready`.

        Args:
            pipeline_class: Of diffusers; of the folder's kind, or one with the same components.
            device: Where it computes.
            dtype: Of its weights: float32, float16 or bfloat16.
            given: Components that replace those of the folder.

        Raises:
            InputError: the files cannot be read.
        """
        missing = dict.fromkeys(self.absent)
        with _one_line(f"a {self.kind} in {self.path}"):
            pipeline = pipeline_class.from_pretrained(
                str(self.path),
                local_files_only=True,
                use_safetensors=True,
                **(missing | given),
            )
        return ready(pipeline, device=device, dtype=dtype)

    def component(self, name: str, component_class: Any = None) -> Any:
        """One component by itself, None where it is absent.

        Args:
            name: Of the component, its folder.
            component_class: What it is loaded as; None: the class that the index names.

        Raises:
            InputError: no such class, or files that cannot be read.
        """
        import importlib

        if name not in self.components:
            return None
        library, kind = self.components[name]
        with _one_line(f"the component {name} ({kind}) in {self.path}"):
            found = component_class or getattr(importlib.import_module(library), kind)
            return found.from_pretrained(str(self.path / name), local_files_only=True)


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Errors of loading as one line, and torch's random state as before: some layers are drawn before they are filled.

    Raises:
        InputError: what cannot be loaded, and the first line of why.
    """
    import torch

    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except (OSError, ValueError, RuntimeError, LookupError, AttributeError, ImportError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"expected {what}; got files that cannot be loaded ({first}). Fetch them again."
        ) from None


def ready(pipeline: Any, *, device: str = "cpu", dtype: str = "float32") -> Any:
    """The pipeline where it computes, without gradients, silent.

    Args:
        pipeline: Of diffusers.
        device: Where it computes.
        dtype: Of its weights.
    """
    import torch

    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    # By a cast after loading: the argument of from_pretrained changed its name between the versions that are supported.
    return pipeline.to(device) if dtype == "float32" else pipeline.to(device, dtype=getattr(torch, dtype))


def read_pipeline_folder(place: str | Path, kinds: Sequence[str], *, online: bool = False) -> PipelineFolder:
    """What lies at a path, or behind a hub id, after a check of its class and its files.

    Args:
        place: Folder with model_index.json, or an id "organisation/name".
        kinds: Names of the classes that can be used.
        online: Fetch what is not on this disk.

    Raises:
        InputError: no such folder, another class, or a file that is missing.
    """
    path = Path(place).expanduser()
    if not path.is_dir():
        path = _cached(str(place), online)
    index = path / "model_index.json"
    if not index.is_file():
        raise InputError(
            f"expected the folder of a diffusers pipeline with model_index.json; got {path}. Name the folder that "
            "save_pretrained wrote, or a hub id."
        )
    content = read_json(index)
    kind = str(content.get("_class_name", "nothing")) if isinstance(content, dict) else "nothing"
    if kind not in kinds:
        raise InputError(
            f"expected one of {', '.join(kinds)} in {index}; got {kind}. Choose a pipeline that can be told embeddings."
        )
    parts: dict[str, tuple[str, str]] = {}
    absent: list[str] = []
    for name, entry in content.items():
        if name.startswith("_") or not isinstance(entry, list) or len(entry) != 2:
            continue
        may_lack = name in _IF_THERE and kind not in _WITH_ENCODER
        unneeded = name in _NEVER or (may_lack and not (path / name).is_dir())
        if entry[0] is None or unneeded:
            absent.append(name)
            continue
        _check_component(path, name, str(entry[0]), str(entry[1]))
        parts[name] = (str(entry[0]), str(entry[1]))
    return PipelineFolder(path, kind, parts, tuple(absent))


def _check_component(path: Path, name: str, library: str, kind: str) -> None:
    """Refuse a component without configuration or weights.

    Raises:
        InputError: which file is missing.
    """
    folder = path / name
    advice = f"Fetch it: hf download ID --include '{name}/*' --local-dir {path}."
    if not folder.is_dir():
        raise InputError(f"expected the folder {folder} ({kind}); got nothing there. {advice}")
    if (folder / "scheduler_config.json").is_file() or "Tokenizer" in kind or "Processor" in kind:
        return
    if not (folder / "config.json").is_file():
        raise InputError(f"expected the file {folder / 'config.json'} ({kind}); got nothing there. {advice}")
    if not any(folder.glob("*.safetensors")):
        stem = "model" if library == "transformers" else "diffusion_pytorch_model"
        raise InputError(
            f"expected the weights {folder / (stem + '.safetensors')} ({kind}); got no .safetensors there. {advice}"
        )


def _cached(name: str, online: bool) -> Path:
    """The folder of a hub id in the local cache, fetched first where that is asked for.

    Raises:
        InputError: neither a folder nor an id; not in the cache, and how to get it; no answer.
    """
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise InputError(f"expected a folder, or a hub id organisation/name; got {name}. Check the path.")
    library = diffusers_library()
    try:
        return Path(
            library.DiffusionPipeline.download(name, local_files_only=not online, use_safetensors=True)
        )
    except (OSError, ValueError) as error:
        if online:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"expected to fetch {name}; got {first}. Check the id and the network."
            ) from None
        raise InputError(
            f"expected model_index.json of {name} in the local cache; got nothing there. Fetch it once with --online, or "
            f"with hf download {name}, or name a folder."
        ) from None
