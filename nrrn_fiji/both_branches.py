"""Both branches of a triplet in training: the same numbers as the network's, in less time.

In training both branches have the same centre, so its first maps and the three W-convolutions of
the first unit are computed once for both.  The gates are written in fused operations, of which
fewer intermediate maps are kept for the gradients.

This module must never compute anything else than the equations of :mod:`nrrn_fiji.network`: a test
holds losses and gradients equal to 1e-5.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .network import NRRN, BuildingUnit, noise_attention

__all__ = ["both_branches"]


def both_branches(
    network: NRRN, previous: Tensor, centre: Tensor, following: Tensor
) -> tuple[Tensor, Tensor]:
    """Return f(previous, centre) and f(following, centre), with gradients.

    Parameters
    ----------
    network
        The network.
    previous, centre, following
        (B, 1, H, W) each.
    """
    m = torch.relu(network.W0(torch.cat([previous, following])))
    s = torch.relu(network.W0(centre))
    estimate = torch.cat([centre, centre])
    for number, unit in enumerate(network.BU):
        assert isinstance(unit, BuildingUnit)
        m = torch.tanh(network.W1(m))
        w = [gate(s) for gate in (unit.Wr, unit.Wu, unit.Wc)]
        if number == 0:  # of the centre alone so far
            w = [torch.cat([one, one]) for one in w]
        r = torch.sigmoid(unit.Vr(m) + w[0])
        u = torch.sigmoid(unit.Vu(m) + w[1])
        c = torch.tanh(torch.addcmul(w[2], r, unit.Vc(m)))
        h = torch.lerp(c, m, u)  # u o m + (1 - u) o c
        estimate = estimate + noise_attention(h)
        s = torch.cat([torch.tanh(estimate).to(h.dtype), h[:, 1:]], dim=1)
    estimate = estimate + noise_attention(network.W2(torch.relu(s)))
    a, b = estimate.chunk(2)
    return a, b
