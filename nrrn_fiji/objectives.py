"""What training minimises.

``a = f(x[j-1], x[j])`` and ``b = f(x[j+1], x[j])`` are the outputs of both branches; all tensors
are (B, 1, H, W) with grey values mapped to [0, 1], and every function returns a scalar.  How
samples are cut, noised and masked is the business of :mod:`nrrn_fiji.triplets`; this module must
stay free of data handling.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["consensus", "weighted_squared_error"]


def consensus(a: Tensor, b: Tensor, previous: Tensor, following: Tensor) -> Tensor:
    """Consensus Noise2Noise, the paper's loss: no clean image is needed.

    ``½ |a − x[j+1]|² + ½ |b − x[j−1]|² − ¼ |a − b|²``, the mean over pixels and samples: each
    branch must predict the neighbour it has *not* seen, whose noise it cannot know, and both must
    not agree more than that asks.

    With adjacent slices the target is the *next* slice, so what differs between slices is blurred,
    more so the longer one trains; with three scans of one slice that does not arise.

    Parameters
    ----------
    a, b
        Outputs of the branches that saw ``previous`` and ``following``.
    previous, following
        The noisy images x[j-1] and x[j+1].
    """
    return (
        0.5 * (a - following).square().mean()
        + 0.5 * (b - previous).square().mean()
        - 0.25 * (a - b).square().mean()
    )


def weighted_squared_error(a: Tensor, b: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Squared error of ½(a + b) against ``target``, weighted.

    It serves two objectives.  *Clean target*: ``target`` is the clean centre and ``weight`` is
    (B, 1, 1, 1), one over the variance of the sample's noise or over its root, so that strong
    noise does not dominate, or 1.  *Masked centre* (after Noise2Void, Krull et al. 2019):
    ``target`` is the noisy centre as it was recorded and ``weight`` (B, 1, H, W) is 1 at the
    pixels that the network's input had replaced and 0 elsewhere, divided by the fraction of
    replaced pixels.

    Parameters
    ----------
    a, b
        Outputs of the two branches.
    target
        What their mean should be.
    weight
        Non-negative, broadcast over ``target``.
    """
    return (weight * (0.5 * (a + b) - target).square()).mean()
