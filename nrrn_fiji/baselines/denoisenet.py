"""DenoiseNet as the paper compares with it.

A chain of 21 convolutions, each of which puts its first map aside as an estimate of the noise; the
image plus all estimates is the result.  As the paper has it, the ReLU acts on the estimates of the
20 later layers too; Remez et al. take theirs before it.  This module must stay the paper's
network, 728,832 parameters with three inputs, whatever would be better.

Source: nrrn.md of the method, "What the paper compares with"; Remez et al., *Deep Class-Aware
Image Denoising*, ICIP 2017.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DENOISENET_RADIUS", "DenoiseNet"]

LAYERS = 20
MAPS = 64

DENOISENET_RADIUS = LAYERS + 1
"""How far an output pixel looks."""


class DenoiseNet(nn.Module):
    """DenoiseNet: a linear convolution, then 20 with ReLU.

    Parameters
    ----------
    inputs
        Number of images it is given, as channels; the noise of the middle one is estimated.
    layers, maps
        The paper's unless a test asks for fewer.
    """

    def __init__(self, inputs: int = 1, layers: int = LAYERS, maps: int = MAPS):
        super().__init__()
        self.first = nn.Conv2d(inputs, maps, 3, padding=1)
        self.rest = nn.ModuleList(nn.Conv2d(maps - 1, maps, 3, padding=1) for _ in range(layers))

    def forward(self, images: Tensor) -> Tensor:
        """Return the denoised middle image, (B, inputs, H, W) -> (B, 1, H, W)."""
        middle = images.shape[1] // 2
        image = images[:, middle : middle + 1]
        x = self.first(images)
        for layer in self.rest:
            image = image + x[:, :1]
            x = layer(x[:, 1:]).relu()
        return image + x[:, :1]
