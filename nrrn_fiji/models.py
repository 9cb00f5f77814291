"""Model files: trained weights and the card that says where they come from, in one file.

A model is a ``.safetensors`` file whose tensors are the ``state_dict`` of
:class:`~nrrn_fiji.network.NRRN` and whose header holds the card, JSON under the key
``nrrn.card``.  Shipped models are found by name, the user's own lie in a user folder.

This module must never unpickle anything but tensors, never write a file in place (a model appears
under its name only when it is whole), and never believe a number in a file before the size of the
file agrees with it.  Listing models reads headers alone, so torch is imported by the functions
that need it and not by the module.

Source: https://huggingface.co/docs/safetensors (file format); nrrn.md of the method (the authors'
checkpoints).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import appdirs

from nrrn_fiji import __version__

from .files import write_whole
from .reports import as_json
from .resources import data_folder

if TYPE_CHECKING:
    from torch import Tensor

    from .network import NRRN

__all__ = [
    "DEFAULT_MODEL",
    "FORMAT_VERSION",
    "Model",
    "ModelEntry",
    "import_checkpoint",
    "install_model",
    "known_models",
    "load_model",
    "remove_model",
    "save_model",
    "shipped_models_dir",
    "user_models_dir",
    "weights_hash",
]

DEFAULT_MODEL = "fibsem-medulla"
FORMAT_VERSION = 1
SUFFIX = ".safetensors"
CHECKPOINT_SUFFIXES = (".pth", ".pt")
CARD_KEY = "nrrn.card"
# A card with the loss history of a month of training stays far below this.
LARGEST_HEADER = 32 * 2**20
AGAIN = "get the file again, or choose another one"
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# The authors' names of the convolutions -> ours.
CHECKPOINT_CONVOLUTIONS = {"nrrn.conv1": "W0", "nrrn.conv3": "W1", "nrrn.conv2": "W2"}
CHECKPOINT_GATES = {
    "Gate_reset_a": "Vr",
    "Gate_reset_b": "Wr",
    "Gate_update_a": "Vu",
    "Gate_update_b": "Wu",
    "Gates2_a": "Vc",
    "Gates2_b": "Wc",
}


@dataclass(frozen=True, eq=False)
class Model:
    """A network that is ready to denoise, and where it comes from."""

    name: str
    """Its shipped or installed name, or the file's name without suffix."""

    network: NRRN
    """fp32, on the CPU, in evaluation mode, without gradients."""

    card: dict[str, Any]
    """What the model is and how it was trained."""

    hash: str
    """SHA-256 (hexadecimal) of the weights, see :func:`weights_hash`."""

    path: Path | None = None
    """The file, if there is one."""

    @property
    def units(self) -> int:
        """Number of building units L."""
        return self.network.units

    @property
    def maps(self) -> int:
        """Number of feature maps C."""
        return self.network.maps

    @property
    def edge(self) -> bool:
        """Whether the first layer is the edge variant."""
        return self.network.edge

    @property
    def intensity(self) -> tuple[float, float] | None:
        """Grey values that were mapped to 0 and 1 in training, if the card says so."""
        pair = self.card.get("intensity")
        return None if pair is None else (float(pair[0]), float(pair[1]))


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded by its name."""

    name: str
    path: Path
    origin: str
    """``"shipped"`` with the package or ``"installed"`` by the user."""

    card: dict[str, Any]
    problem: str = ""
    """One sentence if the file cannot be used (the card is then empty)."""


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of weights: the same for the same weights, whatever the card says.

    Parameters
    ----------
    state
        Tensors by name.  Hashed are, in the order of the names, ``name``, the shape as
        ``(64, 1, 3, 3)`` (UTF-8, a newline after each), and the values as little-endian fp32.

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().cpu().float().contiguous().numpy()
        digest.update(f"{name}\n{tuple(values.shape)}\n".encode())
        digest.update(values.astype("<f4", copy=False).tobytes())
    return digest.hexdigest()


def shipped_models_dir() -> Path:
    """Return the folder of the models that come with the package."""
    return data_folder("models")


def user_models_dir() -> Path:
    """Return the folder of the user's own models; it need not exist.

    The environment variable ``NRRN_MODELS`` names another folder.
    """
    if folder := os.environ.get("NRRN_MODELS"):
        return Path(folder)
    return Path(appdirs.user_data_dir("nrrn-fiji", appauthor=False)) / "models"


def known_models() -> list[ModelEntry]:
    """Return the models that can be loaded by name: the shipped ones, then the user's, by name.

    Only headers are read.  A damaged file is listed with its ``problem``.
    """
    entries = []
    for origin, folder in (("shipped", shipped_models_dir()), ("installed", user_models_dir())):
        for path in sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stem):
            if path.name.startswith("."):
                continue
            try:
                card, problem = read_card(path), ""
            except (OSError, ValueError) as error:
                card, problem = {}, str(error)
            entries.append(ModelEntry(path.stem, path, origin, card, problem))
    return entries


def save_model(path: str | Path, network: NRRN, card: Mapping[str, Any]) -> Model:
    """Write a model file and return the model as it was read back.

    Parameters
    ----------
    path
        The file, ending in ``.safetensors``.  It is replaced if it exists, and only when the new
        one is whole on the disk.
    network
        Its weights are written as fp32.
    card
        Anything that JSON can hold (tuples, paths and NumPy numbers too; NaN and infinities
        become null).  ``format_version``, ``architecture`` and ``package_version`` are filled in.

    Raises
    ------
    ValueError
        If ``path`` has another suffix, or a weight is NaN or infinite.
    TypeError
        If the card holds something that JSON cannot.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"The model file is {path}, but its name must end in {SUFFIX}.")
    state = {
        name: tensor.detach().cpu().float().contiguous()
        for name, tensor in network.state_dict().items()
    }
    check_finite(state, path)
    complete = {
        **card,
        "format_version": FORMAT_VERSION,
        "architecture": {"units": network.units, "maps": network.maps, "edge": network.edge},
        "package_version": __version__,
    }
    write_whole(path, save(state, {CARD_KEY: json.dumps(as_json(complete), allow_nan=False)}))
    return load_file(path)


def load_model(name_or_path: str | Path | Model) -> Model:
    """Return a model by its shipped or installed name, or from a ``.safetensors`` file.

    Parameters
    ----------
    name_or_path
        A name (the shipped models come first), a file (anything with the suffix or a folder in
        it), or a model, which is returned as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or no model of that name; the message lists those there are.
    ValueError
        If the file is not a model, is damaged, or was written by a newer version.
    """
    if isinstance(name_or_path, Model):
        return name_or_path
    path = Path(name_or_path).expanduser()
    if path.suffix in CHECKPOINT_SUFFIXES:
        raise ValueError(
            f"{path} is a PyTorch checkpoint, not a model file: import it first with "
            f"`nrrn models import {path}` or nrrn_fiji.import_checkpoint."
        )
    if isinstance(name_or_path, Path) or path.suffix == SUFFIX or path.name != str(name_or_path):
        return load_file(path)
    return load_file(find_entry(str(name_or_path)).path)


def import_checkpoint(path: str | Path) -> Model:
    """Return the model in a published checkpoint, a PyTorch state dict with the authors' names.

    Parameters
    ----------
    path
        A ``.pth`` file; the numbers of units and maps follow from what it holds.  Only tensors
        are ever unpickled.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not such a checkpoint.

    Notes
    -----
    Source: nrrn.md, "File format of published checkpoints": keys ``nrrn.conv1`` = W0,
    ``nrrn.conv3`` = W1, ``nrrn.conv2`` = W2 and ``nrrn.BU.{i}.…`` for the gates, optionally behind
    ``module.``, each with ``.weight`` and ``.bias``.
    """
    path = Path(path).expanduser()
    require_file(path)
    state = {}
    for key, tensor in read_checkpoint(path).items():
        state[checkpoint_name(key, path)] = tensor.float().contiguous()
    network = build_network(state, path)
    card = {
        "format_version": FORMAT_VERSION,
        "architecture": {"units": network.units, "maps": network.maps, "edge": network.edge},
        "package_version": __version__,
        "description": f"Imported from the checkpoint {path.name}.",
        "licence": "that of the checkpoint it was imported from",
        "source": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    return Model(path.stem, network, card, weights_hash(network.state_dict()), path)


def install_model(path: str | Path, name: str | None = None, overwrite: bool = False) -> Model:
    """Put a model into the user's folder, where it is found by its name.

    Parameters
    ----------
    path
        A ``.safetensors`` model, or a published checkpoint (``.pth``), which is converted.
    name
        The name; the file's name without suffix when left out.  Letters, digits, ``.``, ``_``
        and ``-``.
    overwrite
        Replace an installed model of that name.

    Raises
    ------
    FileExistsError
        If the name is taken.
    FileNotFoundError, ValueError
        If the file is not there or not a model, or the name cannot be used.
    """
    path = Path(path).expanduser()
    name = path.stem if name is None else name
    if not NAME_PATTERN.fullmatch(name) or name.endswith((SUFFIX, *CHECKPOINT_SUFFIXES)):
        raise ValueError(
            f"The name is {name!r}, but a model's name is made of letters, digits, dots, "
            "underscores and hyphens, without a suffix: choose another name."
        )
    if (shipped_models_dir() / f"{name}{SUFFIX}").exists():
        raise FileExistsError(f"{name} is a shipped model: choose another name.")
    target = user_models_dir() / f"{name}{SUFFIX}"
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"A model named {name} is installed already: choose another name, or replace it with "
            "--overwrite (overwrite=True)."
        )
    imported = path.suffix in CHECKPOINT_SUFFIXES
    model = import_checkpoint(path) if imported else load_file(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if imported:
        return save_model(target, model.network, model.card)
    write_whole(target, path.read_bytes())
    return load_file(target)


def remove_model(name: str) -> Path:
    """Delete an installed model and return the path that the file had.

    Raises
    ------
    FileNotFoundError
        If no model has that name.
    ValueError
        If the model is a shipped one.
    """
    installed = [
        entry for entry in known_models() if (entry.name, entry.origin) == (name, "installed")
    ]
    if not installed:
        raise ValueError(f"{find_entry(name).name} came with the package and cannot be removed.")
    installed[0].path.unlink()
    return installed[0].path


def find_entry(name: str) -> ModelEntry:
    """Return the known model of that name, or raise a FileNotFoundError that lists them all."""
    entries = known_models()
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    hint = f" Did you mean the file {name}{SUFFIX}?" if Path(f"{name}{SUFFIX}").exists() else ""
    raise FileNotFoundError(
        f"No model is named {name!r}; known models: {known}. Give one of these names, or a "
        f"{SUFFIX} file.{hint}"
    )


def read_header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a safetensors file, checked against the size of the file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a safetensors file, or ends too early.
    """
    require_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise ValueError(f"{path} is not a model file, or is damaged or cut short: {AGAIN}.")
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError(f"{path} is not a model file, or is damaged or cut short: {AGAIN}.")
    return header


def read_card(path: Path) -> dict[str, Any]:
    """Return the card of a model file, without reading its weights.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a model, is damaged, or was written by a newer version.
    """
    metadata = read_header(path).get("__metadata__")
    text = metadata.get(CARD_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f"{path} is a safetensors file, but not an NRRN model, as it has no card "
            f"({CARD_KEY!r} in its header): {AGAIN}."
        )
    try:
        card = json.loads(text)
    except (ValueError, RecursionError):
        card = None
    version = card.get("format_version") if isinstance(card, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{path} is damaged, its card is unreadable: {AGAIN}.")
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version}, but this nrrn-fiji ({__version__}) reads "
            f"versions up to {FORMAT_VERSION}: update nrrn-fiji."
        )
    assert isinstance(card, dict)
    return card


def load_file(path: Path) -> Model:
    """Return the model in a ``.safetensors`` file; see :func:`load_model` for what is raised."""
    from safetensors.torch import load_file as load_tensors

    card = read_card(path)
    try:
        # Checks every shape against the size of the file before it allocates anything.
        state = load_tensors(path)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # whatever goes wrong inside a reader of foreign bytes
        raise ValueError(f"{path} is damaged or cut short: {AGAIN}.") from error
    network = build_network(state, path)
    said = card.get("architecture")
    held = {"units": network.units, "maps": network.maps, "edge": network.edge}
    if said != held:
        raise ValueError(
            f"{path} is damaged, as its card says {said}, but its weights are {held}: {AGAIN}."
        )
    return Model(path.stem, network, card, weights_hash(network.state_dict()), path)


def build_network(state: Mapping[str, Tensor], path: Path) -> NRRN:
    """Return the NRRN that ``state`` (tensors by our names) describes, in fp32 and frozen.

    ``path`` is named in the ValueError that is raised if the tensors are not those of an NRRN.
    """
    import torch

    from .network import NRRN

    units = sum(1 for name in state if re.fullmatch(r"BU\.\d+\.Vr\.weight", name))
    maps = state["W1.weight"].shape[0] if "W1.weight" in state and state["W1.weight"].ndim else 0
    edge = "W0.factor" in state
    hollow = any(not tensor.numel() for tensor in state.values())
    if not units or not maps or hollow or (edge and maps % 8):
        raise ValueError(
            f"{path} is not an NRRN model, as its tensors have other names or shapes: {AGAIN}."
        )
    # Names and shapes first, without memory: a file could ask for any amount of it.
    try:
        with torch.device("meta"):
            expected = {name: t.shape for name, t in NRRN(units, maps, edge).state_dict().items()}
    except RuntimeError as error:  # more weights than can be counted
        raise ValueError(
            f"{path} is damaged, as its {maps} maps cannot be those of a network: {AGAIN}."
        ) from error
    wrong = expected.keys() ^ state.keys()
    wrong = wrong or {name for name, shape in expected.items() if state[name].shape != shape}
    if wrong:
        raise ValueError(
            f"{path} is not an NRRN of {units} units and {maps} maps, or is damaged, as its tensor "
            f"{min(wrong)} is missing, unknown or of a wrong shape: {AGAIN}."
        )
    check_finite(state, path)
    # The initial weights are overwritten at once; drawing them must not shift a user's seed.
    with torch.random.fork_rng(devices=[]):
        network = NRRN(units, maps, edge)
    network.load_state_dict(dict(state))
    return network.float().eval().requires_grad_(False)


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise a ValueError that names ``path`` if a weight is not a finite floating-point number."""
    for name, tensor in state.items():
        # Types of 8 bits cannot be asked whether they are finite.
        if not tensor.is_floating_point() or not tensor.float().isfinite().all():
            raise ValueError(
                f"{path} cannot be a model: its weights {name} are not finite numbers. If a "
                "training wrote it, train again with a lower learning rate."
            )


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a PyTorch checkpoint by their names there; unpickles tensors only."""
    import torch

    # From memory, a length in the file that is too large asks for no more than there is.
    content = io.BytesIO(path.read_bytes())
    try:
        state = torch.load(content, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever goes wrong inside a reader of foreign bytes
        raise ValueError(
            f"{path} is not a checkpoint of weights that PyTorch can read safely: export its "
            "state dict with torch.save(model.state_dict(), …)."
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(tensor, torch.Tensor) for key, tensor in state.items()
    ):
        raise ValueError(f"{path} is not a checkpoint: a state dict (tensors by name) is needed.")
    for name, tensor in state.items():
        # A tensor can claim any size, as a view that repeats what little there is.
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{path} is damaged, as it does not hold all of its tensor {name}: {AGAIN}."
            )
    return dict(state)


def checkpoint_name(key: str, path: Path) -> str:
    """Return our name of the tensor that the authors' checkpoints call ``key``."""
    convolution, _, kind = key.removeprefix("module.").rpartition(".")
    gate = re.fullmatch(r"nrrn\.BU\.(\d+)\.(\w+)", convolution)
    if kind in ("weight", "bias"):
        if convolution in CHECKPOINT_CONVOLUTIONS:
            return f"{CHECKPOINT_CONVOLUTIONS[convolution]}.{kind}"
        if gate and gate[2] in CHECKPOINT_GATES:
            return f"BU.{int(gate[1])}.{CHECKPOINT_GATES[gate[2]]}.{kind}"
    raise ValueError(
        f"{path} is not a published NRRN checkpoint: it holds {key!r}, which has no place in the "
        "network."
    )


def require_file(path: Path) -> None:
    """Raise the FileNotFoundError or ValueError that fits if ``path`` is not a file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a model is a single file: give the file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: check the path.")
