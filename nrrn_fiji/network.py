"""The NRRN, as readable as its equations.

One branch of the network sees a pair of images, a *neighbour* and a *centre*, and returns the
centre with the noise taken out.  The names below are those of the method: ``m`` is the memory
(what the neighbour says), ``s`` the state (what is known of the centre so far), ``W`` and ``V``
are 3×3 convolutions, ``h`` is what a building unit synthesises and ``x̂[l]`` (``estimate``) is the
image after unit ``l``.

This module holds the definition and nothing else: it must never trade legibility for speed.
:mod:`nrrn_fiji.fused` computes the same numbers faster, and a test holds the two equal.

Source: *Noise Reconstruction and Removal Network*, submitted to ICLR 2022; the edge variant
follows EDCNN (Liang et al. 2020).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = [
    "NRRN",
    "Branch",
    "BuildingUnit",
    "EdgeFeatures",
    "TwoBranches",
    "noise_attention",
    "receptive_radius",
]


def receptive_radius(units: int, *, final: bool = True) -> int:
    """Return how far, in pixels, an output pixel of one branch looks along x and y.

    Parameters
    ----------
    units
        Number of building units L that are computed, at least 1.
    final
        Whether the closing term ``NAtt(W2 * ReLU(s[L]))`` is computed too.  It is not when the
        network is stopped early.

    Returns
    -------
    int
        L + 3, or L + 2 without the closing term.  A tile with that many real pixels around it
        gives the result of the whole image.
    """
    return units + 3 if final else units + 2


def conv3x3(maps_in: int, maps_out: int) -> nn.Conv2d:
    """3×3 convolution, stride 1, zero padding 1, with bias: the only kind in the network."""
    return nn.Conv2d(maps_in, maps_out, kernel_size=3, padding=1)


def noise_attention(h: Tensor) -> Tensor:
    """``NAtt(h) = h[0] o sigmoid(max over maps of h)``: the signed noise estimate.

    Parameters
    ----------
    h
        (B, C, H, W).

    Returns
    -------
    Tensor
        (B, 1, H, W), to be *added* to the image.
    """
    return h[:, :1] * torch.sigmoid(h.amax(dim=1, keepdim=True))


class Branch(NamedTuple):
    """Everything one branch computes; all tensors are (B, 1, H, W)."""

    estimates: tuple[Tensor, ...]
    """x̂[0] = centre, x̂[1], …, x̂[L], and last f, the output of the branch."""

    noise: tuple[Tensor, ...]
    """The noise terms: NAtt(h) of units 1 … L, and last NAtt(W2 * ReLU(s[L])).

    ``estimates[i + 1] = estimates[i] + noise[i]``.
    """


class BuildingUnit(nn.Module):
    """One recurrent building unit: gates, candidate and synthesiser.

    Parameters
    ----------
    maps
        Number of feature maps C.
    """

    def __init__(self, maps: int):
        super().__init__()
        self.Vr, self.Wr = conv3x3(maps, maps), conv3x3(maps, maps)
        self.Vu, self.Wu = conv3x3(maps, maps), conv3x3(maps, maps)
        self.Vc, self.Wc = conv3x3(maps, maps), conv3x3(maps, maps)
        for gate in (self.Vr, self.Wr, self.Vu, self.Wu):
            nn.init.orthogonal_(gate.weight, gain=nn.init.calculate_gain("sigmoid"))
        for candidate in (self.Vc, self.Wc):
            nn.init.orthogonal_(candidate.weight, gain=nn.init.calculate_gain("tanh"))

    def forward(self, m: Tensor, s: Tensor) -> Tensor:
        """Return ``h`` (B, C, H, W) from the memory ``m`` and the state ``s`` of that shape."""
        r = torch.sigmoid(self.Vr(m) + self.Wr(s))  # reset gate
        u = torch.sigmoid(self.Vu(m) + self.Wu(s))  # update gate
        c = torch.tanh(self.Wc(s) + r * self.Vc(m))  # candidate
        return u * m + (1 - u) * c


class EdgeFeatures(nn.Module):
    """First layer of the edge variant: half ordinary maps, half trainable Sobel maps.

    The C maps are C/2 of an ordinary convolution followed by C/8 each of vertical, horizontal and
    both diagonal Sobel kernels; every Sobel map has one trainable factor, initialised to 1, and a
    bias, initialised to 0.

    Parameters
    ----------
    maps
        Number of feature maps C, divisible by 8.
    """

    PATTERNS = (
        ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)),
        ((-1, -2, -1), (0, 0, 0), (1, 2, 1)),
        ((-2, -1, 0), (-1, 0, 1), (0, 1, 2)),
        ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)),
    )

    sobel: Tensor
    """The fixed pattern of every Sobel map, (C/2, 1, 3, 3)."""

    def __init__(self, maps: int):
        super().__init__()
        if maps % 8:
            raise ValueError(
                f"maps is {maps}, but the edge variant needs a multiple of 8 "
                "(an eighth of the maps for each of four edge directions): choose 32 or 64, say."
            )
        self.plain = conv3x3(1, maps // 2)
        sobel = torch.tensor(self.PATTERNS, dtype=torch.float32)[:, None]
        self.register_buffer("sobel", sobel.repeat_interleave(maps // 8, dim=0), persistent=False)
        self.factor = nn.Parameter(torch.ones(maps // 2, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(maps // 2))

    @property
    def weight_and_bias(self) -> tuple[Tensor, Tensor]:
        """Kernels (C, 1, 3, 3) and biases (C,) of the one convolution this layer amounts to."""
        weight = torch.cat([self.plain.weight, self.factor * self.sobel])
        assert self.plain.bias is not None  # for the type checker: conv3x3 always has one
        return weight, torch.cat([self.plain.bias, self.bias])

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, C, H, W)."""
        return nn.functional.conv2d(image, *self.weight_and_bias, padding=1)


class TwoBranches(nn.Module):
    """What can be trained on triplets: a network that denoises the centre once per neighbour."""

    def branches(
        self, previous: Tensor, centre: Tensor, following: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return a and b, the centre as denoised with the previous and with the following image.

        The denoised image is ½(a + b).  All tensors are (B, 1, H, W).
        """
        raise NotImplementedError


class NRRN(TwoBranches):
    """Noise Reconstruction and Removal Network: one branch f(neighbour, centre).

    Parameters
    ----------
    units
        Number of building units L, at least 1 (the paper: 1 to 5, usually 4).
    maps
        Number of feature maps C, at least 1 (the paper: 64).
    edge
        Use the edge variant of the first layer; ``maps`` must then be divisible by 8.

    Raises
    ------
    ValueError
        If ``units`` or ``maps`` is below 1, or ``maps`` does not suit the edge variant.
    """

    def __init__(self, units: int = 4, maps: int = 64, edge: bool = False):
        super().__init__()
        if units < 1:
            raise ValueError(f"units is {units}, but an NRRN has at least 1 building unit.")
        if maps < 1:
            raise ValueError(f"maps is {maps}, but an NRRN has at least 1 feature map.")
        self.maps = maps
        self.edge = edge
        self.W0 = EdgeFeatures(maps) if edge else conv3x3(1, maps)
        self.W1 = conv3x3(maps, maps)
        self.W2 = conv3x3(maps, maps)
        self.BU = nn.ModuleList(BuildingUnit(maps) for _ in range(units))

    @property
    def units(self) -> int:
        """Number of building units L."""
        return len(self.BU)

    def branch(self, neighbour: Tensor, centre: Tensor, units: int | None = None) -> Branch:
        """Compute one branch and keep every intermediate result.

        Parameters
        ----------
        neighbour, centre
            (B, 1, H, W) images whose useful grey range is about [0, 1].
        units
            Stop after this many units, 1 … L.  Below L the result is x̂[units], without the
            closing term; L and None compute everything.

        Returns
        -------
        Branch
            All estimates and noise terms.

        Raises
        ------
        ValueError
            If ``units`` is not in 1 … L.
        """
        last = self.check_units(units)
        m = torch.relu(self.W0(neighbour))
        s = torch.relu(self.W0(centre))
        estimates, noise = [centre], []
        for unit in list(self.BU)[:last]:
            m = torch.tanh(self.W1(m))
            h = unit(m, s)
            noise.append(noise_attention(h))
            estimates.append(estimates[-1] + noise[-1])
            s = torch.cat([torch.tanh(estimates[-1]).to(h.dtype), h[:, 1:]], dim=1)
        if last == self.units:
            noise.append(noise_attention(self.W2(torch.relu(s))))
            estimates.append(estimates[-1] + noise[-1])
        return Branch(tuple(estimates), tuple(noise))

    def forward(self, neighbour: Tensor, centre: Tensor, units: int | None = None) -> Tensor:
        """Return the denoised centre, (B, 1, H, W); see :meth:`branch` for the arguments."""
        return self.branch(neighbour, centre, units).estimates[-1]

    def branches(
        self, previous: Tensor, centre: Tensor, following: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return both branches, f(previous, centre) and f(following, centre), as one batch."""
        a, b = self(torch.cat([previous, following]), torch.cat([centre, centre])).chunk(2)
        return a, b

    def check_units(self, units: int | None) -> int:
        """Return the number of units to compute for a request of ``units`` (None: all)."""
        if units is None:
            return self.units
        if not 1 <= units <= self.units:
            raise ValueError(
                f"units is {units}, but this model has {self.units} building "
                f"unit{'s' if self.units > 1 else ''}: choose 1 … {self.units}, or leave it out."
            )
        return units
