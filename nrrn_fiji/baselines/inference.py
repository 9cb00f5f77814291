"""How a trained network denoises the middle one of three slices, whatever its kind.

Slices are padded by reflection to what the network can halve, and cut into tiles where they are
large; tiles overlap by more than the network looks, so the result does not depend on them.  This
module must never blend tiles, nor clip or rescale what a network returns.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..network import TwoBranches
from ..tiles import windows

__all__ = ["VIEWS", "OnTriplets", "denoise_middle", "multiply_adds"]

Image = NDArray[np.float32]

TILE = 1024
"""Edge in pixels of tiles, without halo: smaller slices are denoised whole."""

VIEWS = ("single", "mean", "three", "pairs")
"""What of a triplet a network may be given."""


class OnTriplets(TwoBranches):
    """A network of images that is given triplets in one of the paper's ways.

    Parameters
    ----------
    network
        (B, inputs, H, W) -> (B, 1, H, W).
    view
        ``"single"``: the centre; ``"mean"``: the mean of the three; ``"three"``: the three as
        channels, the centre in the middle; ``"pairs"``: ½(centre + neighbour), once for each
        neighbour, as Noise2Noise needs it.
    multiple
        Edges of what the network is given must be multiples of this.
    """

    def __init__(self, network: nn.Module, view: str, multiple: int = 1):
        super().__init__()
        if view not in VIEWS:
            raise ValueError(f"view is {view!r}, but it must be one of {', '.join(VIEWS)}.")
        self.network, self.view, self.multiple = network, view, multiple

    def branches(
        self, previous: Tensor, centre: Tensor, following: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the denoised centre as both branches, or, for pairs, one for each neighbour."""
        if self.view == "pairs":
            both = torch.cat([0.5 * (centre + previous), 0.5 * (centre + following)])
            a, b = self.denoised(both).chunk(2)
            return a, b
        if self.view == "single":
            images = centre
        elif self.view == "mean":
            images = (previous + centre + following) / 3
        else:
            images = torch.cat([previous, centre, following], dim=1)
        denoised = self.denoised(images)
        return denoised, denoised

    def denoised(self, images: Tensor) -> Tensor:
        """Run the network on images padded at their end, and cut the padding away."""
        height, width = images.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        padded = nn.functional.pad(images, (0, right, 0, below), mode="reflect")
        result: Tensor = self.network(padded)
        return result[..., :height, :width]


@torch.no_grad()
def denoise_middle(
    network: TwoBranches,
    triplet: Image,
    *,
    radius: int,
    multiple: int = 1,
    device: torch.device | str = "cpu",
    tile: int = TILE,
) -> Image:
    """Return ½(a + b) of a network's branches on three slices.

    Parameters
    ----------
    network
        The network, in evaluation mode on ``device``.
    triplet
        Slices (3, Y, X), float32, grey values on [0, 1].
    radius
        How far, in pixels, an output pixel of the network looks.
    multiple
        What the edges of slices are padded to, and where tiles may begin.
    device
        Where to compute, in fp32.
    tile
        Edge of the tiles in pixels; a multiple of ``multiple``.

    Returns
    -------
    ndarray of float32
        (Y, X).
    """
    _, height, width = triplet.shape
    ends = (0, -height % multiple), (0, -width % multiple)
    padded = np.pad(triplet, ((0, 0), *ends), mode="reflect")
    blocks = padded.shape[1] // multiple, padded.shape[2] // multiple
    result = np.empty(padded.shape[1:], np.float32)
    for y, x in windows(blocks, tile // multiple, -(-radius // multiple)):
        part = padded[
            :, y.start * multiple : y.stop * multiple, x.start * multiple : x.stop * multiple
        ]
        images = torch.from_numpy(np.ascontiguousarray(part)).to(device)[:, None, None]
        a, b = network.branches(*images)
        result[y.first * multiple : y.last * multiple, x.first * multiple : x.last * multiple] = (
            (0.5 * (a + b))[
                0,
                0,
                (y.first - y.start) * multiple : (y.last - y.start) * multiple,
                (x.first - x.start) * multiple : (x.last - x.start) * multiple,
            ]
            .cpu()
            .numpy()
        )
    return result[:height, :width]


def multiply_adds(network: TwoBranches, size: int = 256) -> int:
    """Return how many multiply-adds the network's convolutions take for one slice of ``size``².

    Everything that :meth:`~nrrn_fiji.network.TwoBranches.branches` computes counts, so both
    branches of an NRRN.
    """
    hollow = copy.deepcopy(network).to("meta").eval()
    image = torch.empty(1, 1, size, size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        hollow.branches(image, image, image)
    return int(counter.get_total_flops()) // 2
