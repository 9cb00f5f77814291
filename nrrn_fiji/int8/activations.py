"""Which values the maps of a network have: it is run on a few made images.

:mod:`.engine` rounds maps to 255 steps of these ranges.  They depend on the weights
alone, so that neither tiles nor the volume decide how a pixel is rounded.  This module must never
look at a user's images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from ..network import NRRN

__all__ = ["Observed", "Range", "Ranges", "made_images", "observe"]

MADE_SIZE = 64
"""Edge in pixels of the made images."""

PATCHES = 200
"""Places of each image, in each branch, that covariances are taken from."""


class Range(NamedTuple):
    """Which values the maps of a layer have on the made images; float32."""

    low: Tensor
    """(C,)."""
    high: Tensor
    """(C,)."""
    mean: Tensor
    """(9 C,), of the numbers that a kernel (C, 3, 3) is multiplied with."""
    covariance: Tensor
    """(9 C, 9 C), of the same."""


class Ranges(NamedTuple):
    """Ranges of everything that a convolution C → C reads."""

    features: Range
    """m[0] and s[0]."""

    memory: tuple[Range, ...]
    """m[1] … m[L]."""

    state: tuple[Range, ...]
    """s[1] … s[L]; the last one after its ReLU, as W2 reads it."""


def made_images() -> Tensor:
    """Make the images whose activations set the ranges: (6, 3, 1, H, W), float32 in [0, 1].

    A smooth field with membranes (its steep level sets), three slices each a little further, as
    they are and with Gaussian noise of sigma 25 and 75 and Poisson noise of peak 8 and 1, clipped
    to [0, 1]: the noise that models are trained on, at its ends.  The last one is brighter: with
    peak 1 it has wide areas of nothing but white, where single maps reach further than anywhere
    else (a pixel there was 5 grey levels off without it).
    """
    rng = np.random.default_rng(20220)
    size = MADE_SIZE
    field = ndimage.gaussian_filter(rng.standard_normal((16, size, size)), (2, 4, 4), mode="wrap")
    field = field[6:9] / field.std()
    membranes = np.exp(-((field / 0.15) ** 2))
    texture = ndimage.gaussian_filter(rng.standard_normal((3, size, size)), (0.5, 1, 1))
    clean = 0.62 + 0.16 * field - 0.55 * membranes + 0.08 * texture / texture.std()
    clean = np.clip(clean, 0, 1)
    made = [
        clean,
        clean + rng.normal(0, 25 / 255, clean.shape),
        clean + rng.normal(0, 75 / 255, clean.shape),
        rng.poisson(8 * clean) / 8,
        rng.poisson(clean),
        rng.poisson(1.6 * clean),
    ]
    return torch.from_numpy(np.clip(np.stack(made), 0, 1)[:, :, None].astype(np.float32))


class Observed(NamedTuple):
    """What a network does with the made images."""

    ranges: Ranges
    change: Tensor
    """½ (a + b) − centre, (6, 1, H, W): what the network adds to the centre of each."""


@torch.inference_mode()
def observe(network: NRRN) -> Observed:
    """Run a network on the made images and return which values its maps have.

    Parameters
    ----------
    network
        The network, fp32; it is not changed.

    Returns
    -------
    Observed
        Lowest, highest and mean value of every map over all images, pixels and both branches, and
        the result.
    """
    seen: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}
    places = torch.randperm(MADE_SIZE**2, generator=torch.Generator().manual_seed(0))[:PATCHES]

    def watch(name: str, values: Tensor) -> None:
        patches = nn.functional.unfold(values, 3, padding=1)[:, :, places]
        one = values.amin((0, 2, 3)), values.amax((0, 2, 3)), patches.movedim(1, 0).flatten(1)
        seen.setdefault(name, []).append(one)

    def unit_hook(number: int) -> Callable[[nn.Module, tuple[Tensor, Tensor]], None]:
        def hook(unit: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
            watch(f"m{number + 1}", inputs[0])
            watch(f"s{number}", inputs[1])

        return hook

    def last_hook(layer: nn.Module, inputs: tuple[Tensor]) -> None:
        watch(f"s{network.units}", inputs[0])

    hooks = [unit.register_forward_pre_hook(unit_hook(i)) for i, unit in enumerate(network.BU)]
    hooks.append(network.W2.register_forward_pre_hook(last_hook))
    try:
        device = next(network.parameters()).device
        changes = []
        for before, here, after in made_images().to(device):
            results = network(torch.stack([before, after]), torch.stack([here, here]))
            changes.append(results.mean(dim=0) - here)
    finally:
        for handle in hooks:
            handle.remove()

    def of(name: str) -> Range:
        low, high, patches = zip(*seen.pop(name), strict=True)
        joined = torch.cat(patches, dim=1)
        covariance = torch.cov(joined, correction=0)
        of_all = torch.stack(low).amin(0), torch.stack(high).amax(0), joined.mean(1), covariance
        return Range(*(values.cpu() for values in of_all))

    units = range(1, network.units + 1)
    memory, state = (tuple(of(f"{kind}{i}") for i in units) for kind in "ms")
    return Observed(Ranges(of("s0"), memory, state), torch.stack(changes))
