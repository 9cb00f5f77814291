"""Model files: trained weights and the card that says where they come from, in one file.

A model is a ``.safetensors`` file whose tensors are the ``state_dict`` of
:class:`~nrrn_fiji.network.NRRN` and whose header holds the card, JSON under the key
``nrrn.card``.

This module must never write a file in place (a model appears under its name only when it is
whole), and never believe a number in a file before the size of the file agrees with it.  Cards are
read without torch, which is imported by the functions that need it and not by the module.

Source: https://huggingface.co/docs/safetensors (file format).
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nrrn_fiji import __version__

from .files import write_whole
from .reports import as_json
from .training_facts import pair

if TYPE_CHECKING:
    from torch import Tensor

    from .network import NRRN

__all__ = [
    "AGAIN",
    "FORMAT_VERSION",
    "SUFFIX",
    "Model",
    "architecture",
    "build_network",
    "load_file",
    "read_card",
    "require_file",
    "save_model",
    "weights_hash",
]

FORMAT_VERSION = 1
SUFFIX = ".safetensors"
CARD_KEY = "nrrn.card"
# A card with the loss history of a month of training stays far below this.
LARGEST_HEADER = 32 * 2**20
AGAIN = "get the file again, or choose another one"


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
        return pair(self.card.get("intensity"))


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


def architecture(network: NRRN) -> dict[str, Any]:
    """Return what a card says of a network."""
    return {"units": network.units, "maps": network.maps, "edge": network.edge}


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
        "architecture": architecture(network),
        "package_version": __version__,
    }
    write_whole(path, save(state, {CARD_KEY: json.dumps(as_json(complete), allow_nan=False)}))
    return load_file(path)


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
    held = architecture(network)
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


def require_file(path: Path) -> None:
    """Raise the FileNotFoundError or ValueError that fits if ``path`` is not a file."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder, but a model is a single file: give the file.")
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: check the path.")
