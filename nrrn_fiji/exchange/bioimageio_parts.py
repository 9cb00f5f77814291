"""The files of a package for bioimage.io: weights, the network's source, test images, a cover.

This module must never need ``bioimageio.spec``, nor put anything into a file that was not computed
from the model.
"""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import __version__, network
from ..denoising import denoise_slabs, make_plan
from ..intensity import ArraySource, grey_range, to_unit
from ..models import Model
from ..network import NRRN, receptive_radius
from ..plots import before_after
from ..resources import data_folder
from ..settings import DenoiseSettings
from ..volumes import StackSource, open_volume

__all__ = [
    "TestImages",
    "ThreeSlices",
    "architecture_source",
    "cover",
    "smallest",
    "test_images",
    "write_weights",
]

TEST_SIZE = 96
"""Edge of the test images, in pixels."""
COVER_SIZE = 192
STEP = 16
"""Test images have a multiple of this size; the network takes any."""


class ThreeSlices(nn.Module):
    """The NRRN for programs that hand over a stack as channels.

    Parameters
    ----------
    units, maps, edge
        As for :class:`NRRN`.
    """

    def __init__(self, units: int, maps: int, edge: bool = False):
        super().__init__()
        self.network = NRRN(units, maps, edge)

    def forward(self, slices: Tensor) -> Tensor:
        """Return the middle slice denoised, (B, 1, H, W).

        Parameters
        ----------
        slices
            (B, 3, H, W): previous, centre and following slice, grey values on about [0, 1].  At
            an end of the stack give the one neighbour there is twice.
        """
        a, b = self.network.branches(slices[:, 0:1], slices[:, 1:2], slices[:, 2:3])
        return 0.5 * (a + b)


class TestImages(NamedTuple):
    """What a package is tested with."""

    slices: NDArray[np.float32]
    """(3, Y, X) in grey values."""
    intensity: tuple[float, float]
    """Grey values that map to 0 and 1."""
    denoised: NDArray[np.float32]
    """(Y, X), the middle slice in grey values."""


def smallest(halo: int) -> int:
    """Return the smallest size that leaves something inside the halo, a multiple of the step."""
    return STEP * (2 * halo // STEP + 1)


def test_images(
    model: Model, stack: str | Path | None, intensity: tuple[float, float] | None
) -> TestImages:
    """Cut three slices out of the middle of a stack, and denoise them as nrrn does."""
    with open_volume(stack or data_folder("examples") / "fibsem_medulla_noisy.tif") as volume:
        depth, height, width = volume.shape[2:]
        edge = smallest(receptive_radius(model.units))
        if depth < 3 or min(height, width) < edge:
            raise ValueError(
                f"stack is {depth} × {height} × {width} (Z, Y, X), but test images need 3 slices "
                f"of {edge} px at least: give a larger stack, or leave it out."
            )
        edges = [min(TEST_SIZE, size // STEP * STEP) for size in (height, width)]
        top, left = ((size - edge) // 2 for size, edge in zip((height, width), edges, strict=True))
        first = (depth - 3) // 2
        slices = StackSource(volume).read(first, first + 3)
    slices = slices[:, top : top + edges[0], left : left + edges[1]].astype(np.float32)
    slices = np.ascontiguousarray(slices)
    span = grey_range(ArraySource(slices), asked=intensity)
    used = (span.low, span.high)
    return TestImages(slices, used, _denoised(slices, 1, model, used))


def write_weights(model: Model, folder: Path) -> None:
    """Write the weights as a state dict and as TorchScript."""
    wrapped = ThreeSlices(model.units, model.maps, model.edge)
    wrapped.network.load_state_dict(model.network.state_dict())
    wrapped.eval().requires_grad_(False)
    torch.save(wrapped.state_dict(), folder / "weights.pt")
    size = smallest(receptive_radius(model.units))
    with warnings.catch_warnings():
        # TorchScript is on its way out of PyTorch, but it is what other programs run today.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(wrapped, torch.zeros(1, 3, size, size), check_trace=False)
        torch.jit.save(traced, folder / "weights-torchscript.pt")


def architecture_source() -> str:
    """Return the network as one file that needs nothing but PyTorch."""
    return (
        f"# From nrrn-fiji {__version__}, licence BSD-3-Clause.\n"
        f"{inspect.getsource(network)}\n\n{inspect.getsource(ThreeSlices)}"
    )


def cover(model: Model, stack: str | Path | None, span: tuple[float, float], path: Path) -> None:
    """Draw a slice before and after."""
    with open_volume(stack or data_folder("examples") / "fibsem_medulla_noisy.tif") as volume:
        z = volume.shape.z // 2
        slices = StackSource(volume).read(max(0, z - 1), z + 2)
    top, left = (max(0, (edge - COVER_SIZE) // 2) for edge in slices.shape[1:])
    part = slices[:, top : top + COVER_SIZE, left : left + COVER_SIZE].astype(np.float32)
    part, middle = np.ascontiguousarray(part), len(part) // 2
    images = [("Noisy", part[middle]), ("Denoised", _denoised(part, middle, model, span))]
    before_after([(title, to_unit(image, span)) for title, image in images], path)


def _denoised(
    stack: NDArray[np.float32], z: int, model: Model, span: tuple[float, float]
) -> NDArray[np.float32]:
    """Return a denoised slice, computed exactly: on the CPU, in float32."""
    settings = DenoiseSettings(device="cpu", precision="fp32")
    plan = make_plan(stack.shape, stack.dtype, model.network, settings, span)
    blocks = denoise_slabs(ArraySource(stack), model.network, plan, slices=range(z, z + 1))
    return np.concatenate([block.image for block in blocks])[0]
