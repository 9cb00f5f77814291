"""What the engine's tests compare with: the plain network, slice by slice, and small sources.

Nothing here uses the engine: neighbours, averages and the grey mapping are spelt out from nrrn.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nrrn_fiji.network import NRRN

FIXTURE = Path(__file__).parent / "data" / "published_format_1unit"


class ArraySource:
    """An array as a source."""

    def __init__(self, array: NDArray[Any]):
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype

    def read(self, start: int, stop: int) -> NDArray[Any]:
        return self.array[start:stop]


def strong_network(units: int, maps: int = 8, edge: bool = False, seed: int = 0) -> NRRN:
    """A random network in which every gate matters: the convolutions are 1.5 times the usual."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = NRRN(units, maps, edge).eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("factor"):
                value.copy_(torch.linspace(-1, 2, value.numel()).reshape(value.shape))
            else:
                value.mul_(1.5)
    return network.requires_grad_(False)


def identity_network(units: int = 2, maps: int = 8) -> NRRN:
    """A network of zeros: it changes nothing."""
    network = strong_network(units, maps)
    with torch.no_grad():
        for value in network.parameters():
            value.zero_()
    return network


def shifting_network(shift: float, units: int = 1, maps: int = 4) -> NRRN:
    """A network that adds about ``shift`` (if large) to every pixel in its closing term."""
    network = identity_network(units, maps)
    with torch.no_grad():
        # NAtt(h) = h[0] · sigmoid(max of h); another map keeps the sigmoid at 1.
        network.W2.bias[0] = shift
        network.W2.bias[1] = 50.0
    return network


def published_network() -> NRRN:
    """The fixture's random weights in the published file format."""
    names = {
        "nrrn.conv1": "W0",
        "nrrn.conv3": "W1",
        "nrrn.conv2": "W2",
        "nrrn.BU.0.Gate_reset_a": "BU.0.Vr",
        "nrrn.BU.0.Gate_reset_b": "BU.0.Wr",
        "nrrn.BU.0.Gate_update_a": "BU.0.Vu",
        "nrrn.BU.0.Gate_update_b": "BU.0.Wu",
        "nrrn.BU.0.Gates2_a": "BU.0.Vc",
        "nrrn.BU.0.Gates2_b": "BU.0.Wc",
    }
    saved = torch.load(FIXTURE.with_suffix(".pth"), weights_only=True, map_location="cpu")
    weights = {}
    for key, value in saved.items():
        layer, _, part = key.removeprefix("module.").rpartition(".")
        weights[f"{names[layer]}.{part}"] = value.float()
    network = NRRN(units=1, maps=64).eval()
    network.load_state_dict(weights)
    return network.requires_grad_(False)


def branch(
    network: NRRN, neighbour: NDArray[Any], centre: NDArray[Any], units: int | None = None
) -> NDArray[np.float32]:
    """x̂[1] … and last f(neighbour, centre), (E, Y, X), with the plain network."""
    pair = [torch.from_numpy(np.asarray(x, np.float32))[None, None] for x in (neighbour, centre)]
    with torch.inference_mode():
        estimates = network.branch(*pair, units).estimates[1:]
    return torch.cat(estimates)[:, 0].numpy()


def plain_stack(
    network: NRRN, stack: NDArray[np.float32], images: int = 3, units: int | None = None
) -> NDArray[np.float32]:
    """All estimates (E, Z, Y, X) of a stack on the [0, 1] scale, as nrrn.md says."""
    depth = len(stack)
    result = []
    for j, centre in enumerate(stack):
        if images == 1 or depth == 1:
            result.append(branch(network, centre, centre, units))
            continue
        before, after = j - 1, j + 1
        if j == 0:
            before = after
        if j == depth - 1:
            after = before
        y = branch(network, stack[after], centre, units)
        if images == 3:
            y = (y + branch(network, stack[before], centre, units)) / 2
        result.append(y)
    return np.stack(result, axis=1)
