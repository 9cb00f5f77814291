"""Kernels rounded to signed bytes such that results change least, and convolutions with them.

What rounding changes on average goes into the biases, and numbers of a kernel that are not rounded
yet make up for those that are.  This module must never see a user's image: how a kernel is rounded
depends on the weights and on the ranges that they make.

Source: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers, 2022 (arXiv:2210.17323).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..fused import FusedNRRN, Kernel
from ..network import NRRN
from .activations import Range, Ranges

__all__ = ["ByteKernel", "Packed", "Scale", "convolve", "quantise", "round_together"]

STEPS = 255
"""Largest byte."""

LARGEST_WEIGHT = 127

MARGIN = 1.1
"""Values beyond the range that was seen are cut; a little more than that is expected."""

DAMPING = 0.01
"""Part of the mean variance that is added to each: inputs never vary quite as the made images."""

SMALLEST_SPAN = 0.1
"""Least range of a map: one that is 0 everywhere has none."""


class Scale(NamedTuple):
    """How values of a layer become bytes: byte = value · factor + zero, rounded."""

    factor: Tensor
    """(C,)."""
    zero: Tensor
    """The byte that stands for 0, (C,)."""
    mean: Tensor
    """Mean of byte − zero, (9 C,)."""
    covariance: Tensor
    """Of bytes, (9 C, 9 C)."""

    @classmethod
    def of(cls, seen: Range, turned: Tensor, *, positive: bool = False) -> Scale:
        """Spread the range that was seen, and 0, over all bytes.

        ``turned`` has the places of a turned kernel's numbers in the kernel, (9,).  ``positive``:
        values below 0 count as 0.
        """
        low = torch.zeros_like(seen.low) if positive else seen.low.clamp(max=0) * MARGIN
        high = seen.high.clamp(min=0) * MARGIN
        factor = STEPS / (high - low).clamp(min=SMALLEST_SPAN)
        order = (9 * torch.arange(len(factor))[:, None] + turned).flatten()
        each = factor.repeat_interleave(9)
        covariance = seen.covariance[order][:, order] * each * each[:, None]
        return cls(factor, torch.round(-low * factor), seen.mean[order] * each, covariance)

    @property
    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """``factor`` and ``zero``."""
        return self.factor.numpy(), self.zero.numpy()


class ByteKernel(NamedTuple):
    """A convolution of bytes, packed for the processor; its result is fp32."""

    packed: Tensor
    scale: Tensor
    """What a sum of products is worth, (maps out,)."""
    offset: Tensor
    """Bias, less what the bytes that stand for 0 contribute; (maps out,)."""
    nothing: Tensor
    """Zero points of the kernels: 0, int32 (maps out,)."""


class Packed(NamedTuple):
    """All kernels of a network as bytes, and the scales of what they read and write."""

    features: Scale
    memory: list[Scale]
    state: list[Scale]
    W1: list[ByteKernel]
    """One kernel, but what it reads has a range of its own in each unit."""
    V: list[list[ByteKernel]]
    W: list[list[ByteKernel]]
    W2: ByteKernel

    @classmethod
    def of(cls, network: NRRN, ranges: Ranges, orientation: int) -> Packed:
        """Round the kernels of a network."""
        exact = FusedNRRN(
            network, device=torch.device("cpu"), orientation=orientation, merged=False
        )
        turned = exact.turn(torch.arange(9).reshape(3, 3)).flatten()
        features = Scale.of(ranges.features, turned, positive=True)
        memory = [Scale.of(one, turned) for one in ranges.memory]
        state = [Scale.of(one, turned) for one in ranges.state[:-1]]
        state.append(Scale.of(ranges.state[-1], turned, positive=True))  # behind a ReLU
        read = [features, *memory]
        return cls(
            features,
            memory,
            state,
            [quantise([exact.W1], scale)[0] for scale in read[:-1]],
            [quantise(kernels, one) for kernels, one in zip(exact.V, memory, strict=True)],
            [
                quantise(kernels, one)
                for kernels, one in zip(exact.W, [features, *state[:-1]], strict=True)
            ],
            quantise([exact.W2], state[-1])[0],
        )


def quantise(kernels: Sequence[Kernel], scale: Scale) -> list[ByteKernel]:
    """Round kernels to signed bytes, for inputs on a scale.

    What the rounding changes on average goes into the biases, so that grey values do not shift.
    """
    weight = torch.cat([weight for weight, _ in kernels]) / scale.factor[:, None, None]
    bias = torch.cat([bias for _, bias in kernels]).double()
    step = weight.abs().amax(dim=(1, 2, 3)).clamp(min=1e-12) / LARGEST_WEIGHT
    exact = (weight / step[:, None, None, None]).flatten(1).double()
    rounded = round_together(exact, scale.covariance)
    zero = scale.zero.double().repeat_interleave(9)
    offset = bias + step * ((exact - rounded) @ scale.mean.double() - rounded @ zero)
    packed = []
    for part in torch.arange(len(step)).chunk(len(kernels)):
        kernel = rounded[part].reshape(-1, *weight.shape[1:]).to(torch.int8)
        packed.append(
            ByteKernel(
                torch.ops.onednn.qconv_prepack(
                    kernel, step[part], 1.0, 0, [1, 1], [0, 0], [1, 1], 1, None
                ),
                step[part],
                offset[part].float(),
                torch.zeros(len(part), dtype=torch.int32),
            )
        )
    return packed


def round_together(exact: Tensor, covariance: Tensor) -> Tensor:
    """Round kernels (maps out, 9 C) so that their results change least.

    Number by number, those first that are multiplied with what varies most; the numbers that are
    not rounded yet make up, as far as inputs vary together, for the error of those that are.
    Halves the error of a result, compared with rounding each number alone.

    Source: Frantar et al., GPTQ, 2022, equations 2 and 3 and "Cholesky reformulation".
    """
    variance = covariance.diagonal().double()
    order = variance.argsort(descending=True)
    damped = covariance.double()[order][:, order]
    damped.diagonal().add_(DAMPING * variance.mean() + 1e-6)
    upper = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True).float()
    left = exact[:, order].float().T.contiguous()
    rounded = torch.empty_like(left)
    for i in range(len(left)):
        rounded[i] = left[i].round().clamp_(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        error = (left[i] - rounded[i]) / upper[i, i]
        left[i + 1 :].addr_(upper[i, i + 1 :], error, alpha=-1)
    result = torch.empty_like(exact)
    result[:, order] = rounded.T.double()
    return result


def convolve(x: Tensor, kernel: ByteKernel) -> Tensor:
    """Convolve bytes (1, C, H + 2, W + 2), the border included: (1, C, H, W) in fp32."""
    result: Tensor = torch.ops.onednn.qconv2d_pointwise(
        x,
        1.0,
        0,
        kernel.packed,
        kernel.scale,
        kernel.nothing,
        kernel.offset,
        [1, 1],
        [0, 0],
        [1, 1],
        1,
        1.0,
        0,
        torch.float32,
        "none",
        [],
        "",
    )
    return result
