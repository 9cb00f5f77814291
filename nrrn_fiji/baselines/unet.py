"""The U-Net that the paper compares with.

Depth 4, plain: no residual, a linear 1×1 output.  It halves images four times, so what it is
given must be a multiple of :data:`UNET_MULTIPLE` pixels along both axes; padding and tiling are
the business of :mod:`nrrn_fiji.baselines.inference`.  This module must stay the paper's network,
31,042,369 parameters with one input, whatever would be better.

Source: nrrn.md of the method, "What the paper compares with"; Ronneberger, Fischer and Brox,
*U-Net*, MICCAI 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["UNET_MULTIPLE", "UNET_RADIUS", "UNet"]

MAPS = (64, 128, 256, 512, 1024)
"""Feature maps at every depth."""

UNET_MULTIPLE = 2 ** (len(MAPS) - 1)
"""Edges of images must be multiples of this, and tiles must begin at multiples of it."""

UNET_RADIUS = 107
"""How far an output pixel looks, at most: two 3×3 convolutions at every depth on the way down (30
pixels), at the bottom (32) and on the way up (30), and 15 for where it lies in its pooling
windows."""


def double_convolution(maps_in: int, maps_out: int) -> nn.Sequential:
    """Twice a 3×3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(maps_in, maps_out, 3, padding=1),
        nn.BatchNorm2d(maps_out),
        nn.ReLU(),
        nn.Conv2d(maps_out, maps_out, 3, padding=1),
        nn.BatchNorm2d(maps_out),
        nn.ReLU(),
    )


class UNet(nn.Module):
    """U-Net of depth 4.

    Parameters
    ----------
    inputs
        Number of images it is given, as channels.
    maps
        Feature maps at every depth, the paper's unless a test asks for fewer.
    """

    def __init__(self, inputs: int = 1, maps: tuple[int, ...] = MAPS):
        super().__init__()
        self.down = nn.ModuleList(
            double_convolution(before, after)
            for before, after in zip((inputs, *maps[:-1]), maps, strict=True)
        )
        deeper = list(zip(maps[:0:-1], maps[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(d, s, 2, stride=2) for d, s in deeper)
        self.merge = nn.ModuleList(double_convolution(2 * s, s) for _, s in deeper)
        self.out = nn.Conv2d(maps[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the denoised image, (B, inputs, H, W) -> (B, 1, H, W)."""
        x = images
        skipped = []
        for number, layer in enumerate(self.down):
            x = layer(x if number == 0 else nn.functional.max_pool2d(x, 2))
            skipped.append(x)
        for up, merge, skip in zip(self.up, self.merge, skipped[-2::-1], strict=True):
            x = merge(torch.cat([skip, up(x)], dim=1))
        denoised: Tensor = self.out(x)
        return denoised
