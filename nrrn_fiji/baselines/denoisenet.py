"""DenoiseNet, a plain chain of convolutions that the paper compares with.

Every layer makes one estimate of the noise, and the image plus all of them is the result.  The
estimates are signed, as Remez et al. have them: only the maps that go on pass a ReLU.  This module
must stay the paper's network, 728,832 parameters with three inputs, whatever would be better.

Source: nrrn.md of the method, "What the paper compares with"; Remez et al., *Deep Class-Aware
Image Denoising*, ICIP 2017.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

__all__ = ["DENOISENET_RADIUS", "DenoiseNet"]

DENOISENET_RADIUS = 21
"""How far an output pixel looks: one pixel for each of the 21 convolutions."""


class DenoiseNet(nn.Module):
    """A linear convolution and 20 with ReLU; map 0 of each is added to the image.

    Parameters
    ----------
    inputs
        Number of images it is given, as channels; odd, the one to denoise in the middle.
    layers, maps
        Convolutions after the first, and maps of each: the paper's unless a test asks for fewer.
    """

    def __init__(self, inputs: int = 1, layers: int = DENOISENET_RADIUS - 1, maps: int = 64):
        super().__init__()
        widths = [inputs, *[maps - 1] * layers]
        self.layers = nn.ModuleList(nn.Conv2d(width, maps, 3, padding=1) for width in widths)

    def forward(self, images: Tensor) -> Tensor:
        """Return the denoised image, (B, inputs, H, W) -> (B, 1, H, W)."""
        middle = images.shape[1] // 2
        denoised = images[:, middle : middle + 1]
        going_on = images
        for number, layer in enumerate(self.layers):
            made = layer(going_on)
            denoised = denoised + made[:, :1]
            going_on = made[:, 1:] if number == 0 else relu(made[:, 1:])
        return denoised
