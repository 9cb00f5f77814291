"""The checkpoints that the method's authors publish: PyTorch state dicts with names of their own.

This module must never unpickle anything but tensors, nor believe the size that one claims.

Source: nrrn.md of the method, "File format of published checkpoints".
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nrrn_fiji import __version__

from .model_files import (
    AGAIN,
    FORMAT_VERSION,
    Model,
    architecture,
    build_network,
    require_file,
    weights_hash,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CHECKPOINT_SUFFIXES", "import_checkpoint"]

CHECKPOINT_SUFFIXES = (".pth", ".pt")

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
        "architecture": architecture(network),
        "package_version": __version__,
        "description": f"Imported from the checkpoint {path.name}.",
        "licence": "that of the checkpoint it was imported from",
        "source": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
    }
    return Model(path.stem, network, card, weights_hash(network.state_dict()), path)


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
