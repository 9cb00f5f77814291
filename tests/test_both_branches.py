"""What training computes equals the plain network: results, losses and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from plain_engine import strong_network

from nrrn_fiji.both_branches import both_branches
from nrrn_fiji.objectives import consensus


@pytest.mark.parametrize(
    ("units", "maps", "edge"), [(1, 1, False), (2, 8, True), (3, 8, False), (5, 4, False)]
)
def test_losses_and_gradients_equal_those_of_the_plain_network(units, maps, edge):
    plain = strong_network(units, maps, edge).requires_grad_(True)
    shared = copy.deepcopy(plain)
    generator = torch.Generator().manual_seed(1)
    previous, centre, following = torch.rand((3, 2, 1, 13, 17), generator=generator)
    results = []
    for network, branches in (
        (plain, plain.branches),
        (shared, lambda *images: both_branches(shared, *images)),
    ):
        a, b = branches(previous, centre, following)
        loss = consensus(a, b, previous, following)
        loss.backward()
        gradients = {name: value.grad for name, value in network.named_parameters()}
        results.append((a, b, loss, gradients))
    assert not torch.allclose(results[0][0], results[0][1], atol=1e-3)
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-5)


def test_every_weight_is_trained():
    network = strong_network(2).requires_grad_(True)
    a, b = both_branches(network, *torch.rand(3, 1, 1, 9, 9))
    (a.sum() + b.sum()).backward()
    assert all(value.grad is not None and value.grad.any() for value in network.parameters())
