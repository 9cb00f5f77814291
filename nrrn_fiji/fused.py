"""The same network as :mod:`nrrn_fiji.network`, arranged so that a stack costs less.

Three facts are used.  The memory m[l] and its three V-convolutions depend on the neighbour alone,
so both centres beside a neighbour share them.  The three W-convolutions of the first unit depend
on the centre alone, so both branches of a centre share them.  And what a unit adds to the image
is summed apart from the image, in fp32 whatever the precision of the convolutions, so that a
network that changes nothing returns exactly its input.

This module must never compute anything else than the equations of :mod:`nrrn_fiji.network`; a
test holds them equal to 1e-5 in fp32.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .network import NRRN, BuildingUnit, EdgeFeatures
from .one_pass import gates_in_one_pass, missing_for_one_pass

__all__ = ["Centre", "FusedNRRN"]

Kernel = tuple[Tensor, Tensor]


class Centre(NamedTuple):
    """A centre slice, ready for both of its branches."""

    image: Tensor
    """(B, 1, H, W), fp32."""

    gates: tuple[Tensor, ...]
    """Wr, Wu and Wc of the first unit applied to s[0]; (B, C, H, W) each."""


class FusedNRRN:
    """A network whose weights lie on one device in one precision, for inference only.

    Parameters
    ----------
    network
        The network, fp32; it is not changed.
    device
        Where to compute.
    dtype
        Precision of convolutions and gates: float32, bfloat16 or float16.  Images, the first
        convolution and the sums of noise estimates stay in float32.
    units
        Stop after this many units; all when left out.
    every
        Return the change after every unit, not only the last one.
    orientation
        0 … 7: give what the network gives of the turned image, turned back.  It is the number of
        quarter turns, and 4 more for a flip before them.  Turned kernels do that: an image and its
        tiles stay as they are.
    merged
        Compute the three convolutions of one input as one with three times the maps.  When left
        out: not on CPUs, where it is no faster and scatters the gates in memory (measured: a
        fifth more time for the gates), else yes, because it fills the device better.

    Raises
    ------
    ValueError
        If ``units`` is not in 1 … L.
    """

    def __init__(
        self,
        network: NRRN,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        units: int | None = None,
        every: bool = False,
        orientation: int = 0,
        merged: bool | None = None,
    ):
        self.device, self.dtype, self.every = device, dtype, every
        self.orientation = orientation
        self.units = network.check_units(units)
        self.closes = self.units == network.units
        self.merged = device.type != "cpu" if merged is None else merged
        missing = missing_for_one_pass(device)
        self.one_pass = missing is None
        self.lacks = missing if device.type == "cuda" else None
        """What a GPU would need to compute gates in one pass; None if nothing, or no GPU."""
        self.W0 = self._kernel(network.W0, torch.float32)
        self.W1 = self._kernel(network.W1, dtype)
        self.W2 = self._kernel(network.W2, dtype)
        used = [unit for unit in network.BU if isinstance(unit, BuildingUnit)][: self.units]
        self.V = [self._kernels(unit.Vr, unit.Vu, unit.Vc) for unit in used]
        self.W = [self._kernels(unit.Wr, unit.Wu, unit.Wc) for unit in used]

    def load(self, image: Tensor) -> Tensor:
        """Bring images (B, 1, H, W), float32, to the device."""
        return image.to(self.device, non_blocking=True)

    @torch.inference_mode()
    def centre(self, image: Tensor) -> Centre:
        """Compute what both branches of a centre (B, 1, H, W) share."""
        with exact_convolutions():
            return Centre(image, self._three(self._features(image), self.W[0]))

    def release(self, centre: Centre) -> None:
        """Tell that a centre is needed no more; it must not be used again."""

    @torch.inference_mode()
    def branches(self, neighbour: Tensor, centres: Sequence[Centre]) -> list[Tensor]:
        """Compute the branches f(neighbour, centre) of all ``centres`` beside one neighbour.

        Parameters
        ----------
        neighbour
            (B, 1, H, W).
        centres
            One or more, of the same shape.

        Returns
        -------
        list of Tensor
            For each centre (E, B, 1, H, W) in float32: x̂[l] − centre for l = 1 … L and f − centre
            with ``every`` (without the closing term for fewer units than the model has), else the
            last of these alone (E = 1).
        """
        with exact_convolutions():
            return self._branches(neighbour, centres)

    def _branches(self, neighbour: Tensor, centres: Sequence[Centre]) -> list[Tensor]:
        batch, count = neighbour.shape[0], len(centres)
        parts = [slice(i * batch, (i + 1) * batch) for i in range(count)]
        images = torch.cat([centre.image for centre in centres])
        change = torch.zeros_like(images)
        changes = []
        m = self._features(neighbour)
        s = torch.empty(0)
        for unit in range(self.units):
            m = self._convolve(m, self.W1).tanh_()
            v = self._three(m, self.V[unit])
            h = torch.empty(
                (count * batch, *m.shape[1:]),
                dtype=self.dtype,
                device=self.device,
                memory_format=torch.channels_last,
            )
            w = None if unit == 0 else self._three(s, self.W[unit])
            for i, part in enumerate(parts):
                mine = centres[i].gates if w is None else tuple(gate[part] for gate in w)
                if self.one_pass:
                    gates_in_one_pass(v, mine, m, images[part], change[part], h[part])
                else:
                    # A centre's other branch needs its gates again.
                    _gates(v, mine, m, images[part], change[part], h[part], keep=w is None)
            del v, w
            if self.every:
                changes.append(change.clone())
            s = h
        if self.closes:
            change += _noise(self._convolve(s.relu_(), self.W2))
            changes.append(change)
        kept = torch.stack(changes) if self.every else change[None]
        return [kept[:, part] for part in parts]

    def _features(self, image: Tensor) -> Tensor:
        """ReLU(W0 * image), computed in fp32: bf16 holds no 8-bit grey value exactly."""
        weight, bias = self.W0
        maps = functional.conv2d(image, weight, bias, padding=1).relu_()
        return maps.to(self.dtype).contiguous(memory_format=torch.channels_last)

    def _three(self, x: Tensor, kernels: list[Kernel]) -> tuple[Tensor, ...]:
        """Three convolutions of one input; views of one result where kernels are merged."""
        results = [self._convolve(x, kernel) for kernel in kernels]
        return results[0].chunk(3, dim=1) if self.merged else tuple(results)

    @staticmethod
    def _convolve(x: Tensor, kernel: Kernel) -> Tensor:
        weight, bias = kernel
        return functional.conv2d(x, weight, bias, padding=1)

    def _kernels(self, *convolutions: nn.Module) -> list[Kernel]:
        kernels = [self._kernel(convolution, self.dtype) for convolution in convolutions]
        if not self.merged:
            return kernels
        weight = torch.cat([weight for weight, _ in kernels])
        return [
            (
                weight.contiguous(memory_format=torch.channels_last),
                torch.cat([bias for _, bias in kernels]),
            )
        ]

    def _kernel(self, layer: nn.Module, dtype: torch.dtype) -> Kernel:
        """Copy the weights of a layer to the device, once."""
        if isinstance(layer, EdgeFeatures):
            weight, bias = layer.weight_and_bias
        elif isinstance(layer, nn.Conv2d) and layer.bias is not None:
            weight, bias = layer.weight, layer.bias
        else:
            raise TypeError(f"{layer} is not a layer of an NRRN.")
        return (
            self.turn(weight.detach())
            .to(self.device, dtype)
            .contiguous(memory_format=torch.channels_last),
            bias.detach().to(self.device, dtype),
        )

    def turn(self, kernels: Tensor) -> Tensor:
        """Turn kernels (…, 3, 3) as the orientation says."""
        kernels = torch.rot90(kernels, self.orientation % 4, (-2, -1))
        return kernels.flip(-1) if self.orientation >= 4 else kernels


def _gates(
    v: tuple[Tensor, ...],
    w: tuple[Tensor, ...],
    m: Tensor,
    image: Tensor,
    change: Tensor,
    h: Tensor,
    *,
    keep: bool,
) -> None:
    """Compute the next state and add its noise estimate to the change.

    The parameters are those of :func:`nrrn_fiji.one_pass.gates_in_one_pass`; unless ``keep``, ``w``
    is overwritten.
    """
    if keep:
        r, u = torch.add(w[0], v[0]).sigmoid_(), torch.add(w[1], v[1]).sigmoid_()
        c = torch.addcmul(w[2], r, v[2]).tanh_()
    else:
        r, u = w[0].add_(v[0]).sigmoid_(), w[1].add_(v[1]).sigmoid_()
        c = w[2].addcmul_(r, v[2]).tanh_()
    torch.lerp(c, m, u, out=h)  # u o m + (1 - u) o c
    change += _noise(h)
    h[:, :1] = torch.tanh(image + change)


def _noise(h: Tensor) -> Tensor:
    """NAtt(h) in fp32, from maps of any precision."""
    top = h.amax(dim=1, keepdim=True).float()
    return h[:, :1].float() * torch.sigmoid(top)


def exact_convolutions() -> AbstractContextManager[None]:
    """Keep CUDA from rounding fp32 to TF32 (an error of 1e-3), and from results that vary."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
