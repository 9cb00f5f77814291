"""The fast form of the network equals the plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_engine import identity_network, published_network, strong_network

from nrrn_fiji.fused import FusedNRRN

CPU = torch.device("cpu")


def three(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((3, *shape), generator=generator)


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("units", "maps", "edge"), [(1, 1, False), (1, 8, True), (3, 8, False), (5, 4, False)]
)
def test_branches_equal_the_plain_network(units, maps, edge, merged):
    network = strong_network(units, maps, edge)
    engine = FusedNRRN(network, device=CPU, every=True, merged=merged)
    before, here, after = three((2, 1, 17, 21))
    centres = [engine.centre(before), engine.centre(after)]
    for centre, change in zip(centres, engine.branches(here, centres), strict=True):
        expected = torch.stack(network.branch(here, centre.image).estimates[1:])
        assert change.shape == (units + 1, 2, 1, 17, 21)
        assert (change.abs() > 1e-2).any()
        torch.testing.assert_close(centre.image + change, expected, atol=1e-5, rtol=0)


def test_a_centre_can_be_used_twice():
    # Both branches of a centre use the same gates, which must not be overwritten.
    network = strong_network(2)
    engine = FusedNRRN(network, device=CPU)
    before, here, after = three((1, 1, 16, 16))
    centre = engine.centre(here)
    first = engine.branches(before, [centre])[0]
    engine.branches(after, [centre])
    assert torch.equal(engine.branches(before, [centre])[0], first)


def test_published_weights():
    network = published_network()
    engine = FusedNRRN(network, device=CPU)
    before, here, _ = three((1, 1, 40, 56))
    change = engine.branches(before, [engine.centre(here)])[0][-1]
    assert change.abs().max() > 0.1
    torch.testing.assert_close(here + change, network(before, here), atol=1e-5, rtol=0)


@pytest.mark.parametrize("units", [1, 2, 3])
def test_stopping_early_leaves_the_closing_term_out(units):
    network = strong_network(3)
    engine = FusedNRRN(network, device=CPU, units=units, every=True)
    before, here, _ = three((1, 1, 16, 16))
    change = engine.branches(before, [engine.centre(here)])[0]
    expected = torch.stack(network.branch(before, here, units).estimates[1:])
    assert len(change) == (units if units < 3 else 4)
    torch.testing.assert_close(here + change, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_network_that_changes_nothing_adds_exactly_nothing(dtype):
    engine = FusedNRRN(identity_network(), device=CPU, dtype=dtype)
    before, here, _ = three((1, 1, 9, 9))
    assert not engine.branches(before, [engine.centre(here)])[0].any()


def test_bf16_is_close_and_sums_in_fp32():
    network = strong_network(3, 16)
    before, here, _ = three((1, 1, 64, 64))
    engine = FusedNRRN(network, device=CPU, dtype=torch.bfloat16)
    change = engine.branches(before, [engine.centre(here)])[0][-1]
    error = (here + change - network(before, here)).numpy()
    assert change.dtype == torch.float32
    # bf16 rounds to 2^-9 of a value; an image in bf16 alone would be off by 1.1e-3 rms.
    assert 0 < np.sqrt(np.mean(error**2)) < 2e-2
    # Sums kept in bf16 could only hit few of these values.
    assert len(np.unique((here + change).numpy())) > 3000


def test_the_network_is_left_alone():
    network = strong_network(2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    engine = FusedNRRN(network, device=CPU, dtype=torch.bfloat16)
    images = three((1, 1, 12, 12))
    kept = images.clone()
    engine.branches(images[0], [engine.centre(images[1])])
    assert torch.equal(images, kept)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("edge", [False, True])
def test_orientations_are_those_of_the_turned_image(edge):
    network = strong_network(2, edge=edge)
    before, here, _ = three((1, 1, 17, 21))
    found = []
    for orientation in range(8):
        engine = FusedNRRN(network, device=CPU, orientation=orientation)
        change = engine.branches(before, [engine.centre(here)])[0][-1]
        # Independently: the image is turned, and what the plain network makes of it turned back.
        turns, flipped = orientation % 4, orientation >= 4

        def turn(image, turns=turns, flipped=flipped):
            return torch.rot90(image.flip(3) if flipped else image, -turns, (2, 3))

        def back(image, turns=turns, flipped=flipped):
            image = torch.rot90(image, turns, (2, 3))
            return image.flip(3) if flipped else image

        expected = back(network(turn(before), turn(here)))
        torch.testing.assert_close(here + change, expected, atol=1e-5, rtol=0)
        found.append(change)
    # All eight differ, so none stands for another.
    for i in range(8):
        assert all((found[i] - found[j]).abs().max() > 1e-3 for j in range(i))
