"""The network against its equations, written a second time in numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain_engine import published_network, strong_network
from scipy import ndimage

from nrrn_fiji.network import NRRN, EdgeFeatures, noise_attention, receptive_radius


def convolve(maps, weight, bias):
    """3×3 cross-correlation with zero padding, map by map."""
    return np.stack(
        [
            bias[o]
            + sum(
                ndimage.correlate(image, weight[o, i], mode="constant", cval=0.0)
                for i, image in enumerate(maps)
            )
            for o in range(len(weight))
        ]
    )


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def attention(h):
    return h[0] * sigmoid(h.max(axis=0))


def equations(weights, neighbour, centre, units):
    """All noise terms of one branch, from nrrn.md, in fp64."""

    def W(name, maps):
        return convolve(maps, weights[f"{name}.weight"], weights[f"{name}.bias"])

    m = np.maximum(W("W0", [neighbour]), 0)
    s = np.maximum(W("W0", [centre]), 0)
    estimate, terms = centre, []
    for unit in range(units):
        m = np.tanh(W("W1", m))
        r = sigmoid(W(f"BU.{unit}.Vr", m) + W(f"BU.{unit}.Wr", s))
        u = sigmoid(W(f"BU.{unit}.Vu", m) + W(f"BU.{unit}.Wu", s))
        c = np.tanh(W(f"BU.{unit}.Wc", s) + r * W(f"BU.{unit}.Vc", m))
        h = u * m + (1 - u) * c
        terms.append(attention(h))
        estimate = estimate + terms[-1]
        s = np.concatenate([np.tanh(estimate)[None], h[1:]])
    terms.append(attention(W("W2", np.maximum(s, 0))))
    return terms


def images(seed=0, shape=(19, 23)):
    return np.random.default_rng(seed).random((2, *shape))


def as_tensor(image):
    return torch.from_numpy(np.asarray(image, np.float32))[None, None]


@pytest.mark.parametrize(("units", "maps"), [(1, 1), (1, 8), (3, 5), (5, 4)])
def test_branch_follows_the_equations(units, maps):
    network = strong_network(units, maps)
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    neighbour, centre = images()
    expected = equations(weights, neighbour, centre, units)
    got = network.branch(as_tensor(neighbour), as_tensor(centre))
    assert len(got.noise) == units + 1
    for term, right in zip(got.noise, expected, strict=True):
        assert np.abs(right).max() > 1e-2
        np.testing.assert_allclose(term[0, 0].numpy(), right, atol=1e-5)
    f = network(as_tensor(neighbour), as_tensor(centre))[0, 0].numpy()
    np.testing.assert_allclose(f, centre + sum(expected), atol=1e-5)


def test_published_weights_follow_the_equations():
    network = published_network()
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    neighbour, centre = images(1, (11, 13))
    f = network(as_tensor(neighbour), as_tensor(centre))[0, 0].numpy()
    expected = centre + sum(equations(weights, neighbour, centre, 1))
    np.testing.assert_allclose(f, expected, atol=1e-5)


def test_edge_variant_uses_sobel_maps():
    network = strong_network(2, 8, edge=True)
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    x = np.array([-1.0, 0, 1])
    vertical = np.outer([1, 2, 1], x)
    diagonal = np.array([[-2.0, -1, 0], [-1, 0, 1], [0, 1, 2]])
    patterns = np.stack([vertical, vertical.T, diagonal, diagonal[::-1]])
    weights["W0.weight"] = np.concatenate(
        [weights["W0.plain.weight"], weights["W0.factor"] * patterns[:, None]]
    )
    weights["W0.bias"] = np.concatenate([weights["W0.plain.bias"], weights["W0.bias"]])
    neighbour, centre = images(2)
    f = network(as_tensor(neighbour), as_tensor(centre))[0, 0].numpy()
    np.testing.assert_allclose(f, centre + sum(equations(weights, neighbour, centre, 2)), atol=1e-5)


def test_edge_variant_starts_as_plain_sobel_and_is_trained():
    layer = EdgeFeatures(16)
    weight, bias = layer.weight_and_bias
    assert weight.shape == (16, 1, 3, 3)
    assert torch.equal(layer.factor, torch.ones(8, 1, 1, 1))
    assert torch.equal(bias[8:], torch.zeros(8))
    weight[8:].sum().backward()
    assert layer.factor.grad is not None
    with pytest.raises(ValueError, match="multiple of 8"):
        NRRN(1, 12, edge=True)


@pytest.mark.parametrize("units", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stopped", [False, True])
def test_receptive_radius_is_the_gradient_footprint(units, stopped):
    # A network stopped one unit early has no closing term.
    network = strong_network(units + stopped, maps=4).double().requires_grad_(False)
    radius = receptive_radius(units, final=not stopped)
    size = 2 * radius + 5
    middle = size // 2
    generator = torch.Generator().manual_seed(0)
    pair = torch.rand((2, 1, 1, size, size), generator=generator, dtype=torch.float64)
    pair.requires_grad_(True)
    f = network(pair[0], pair[1], units if stopped else None)
    (gradient,) = torch.autograd.grad(f[0, 0, middle, middle], pair)
    rows = (gradient != 0).any(dim=4).flatten(2).any(dim=1)
    reach = [int((row.nonzero() - middle).abs().max()) for row in rows]
    assert reach == [radius, radius - 1]  # neighbour, centre
    assert radius == units + (2 if stopped else 3)


def test_every_gate_matters_in_the_strong_network():
    # The other tests lean on it: a wrong gate must show.
    neighbour, centre = map(as_tensor, images(3))
    network = strong_network(2)
    f = network(neighbour, centre)
    for name, value in network.named_parameters():
        before = value.clone()
        value.zero_()
        assert (network(neighbour, centre) - f).abs().max() > 1e-3, name
        value.copy_(before)


def test_estimates_sum_the_noise_terms():
    network = strong_network(4)
    neighbour, centre = map(as_tensor, images(4))
    branch = network.branch(neighbour, centre)
    assert torch.equal(branch.estimates[0], centre)
    for i, term in enumerate(branch.noise):
        assert torch.equal(branch.estimates[i + 1], branch.estimates[i] + term)
    assert torch.equal(network(neighbour, centre), branch.estimates[-1])


def test_fewer_units_are_the_estimate_on_the_way():
    network = strong_network(4)
    neighbour, centre = map(as_tensor, images(5))
    everything = network.branch(neighbour, centre)
    for units in (1, 2, 3):
        part = network.branch(neighbour, centre, units)
        assert len(part.noise) == units
        assert torch.equal(part.estimates[-1], everything.estimates[units])
    assert torch.equal(network(neighbour, centre, 4), everything.estimates[5])


@pytest.mark.parametrize("units", [0, 5, -1])
def test_units_outside_the_model_are_refused(units):
    with pytest.raises(ValueError, match="choose 1 … 4"):
        strong_network(4).check_units(units)


def test_noise_attention_is_signed():
    h = torch.tensor([[-2.0, 3.0], [1.0, -1.0]]).reshape(1, 2, 1, 2)
    sigmoid_1, sigmoid_3 = 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-3))
    np.testing.assert_allclose(
        noise_attention(h).flatten().numpy(), [-2 * sigmoid_1, 3 * sigmoid_3], rtol=1e-6
    )


@pytest.mark.parametrize("maps", [4, 64])
def test_gates_start_orthogonal_with_their_gains(maps):
    network = NRRN(1, maps)
    for name, gain in (("Vr", 1), ("Wr", 1), ("Vu", 1), ("Wu", 1), ("Vc", 5 / 3), ("Wc", 5 / 3)):
        rows = getattr(network.BU[0], name).weight.detach().flatten(1).double()
        np.testing.assert_allclose(
            (rows @ rows.T).numpy(), gain**2 * np.eye(maps), atol=1e-5, err_msg=name
        )


def test_number_of_parameters_is_the_papers():
    # nrrn.md: 0.296, 0.518, 0.739, 0.961, 1.182 million for 1 … 5 units of 64 maps.
    millions = [
        sum(value.numel() for value in NRRN(units, 64).parameters()) / 1e6 for units in range(1, 6)
    ]
    np.testing.assert_allclose(millions, [0.296, 0.518, 0.739, 0.961, 1.182], atol=5e-4)


@pytest.mark.parametrize(("units", "maps"), [(0, 8), (1, 0)])
def test_empty_networks_are_refused(units, maps):
    with pytest.raises(ValueError, match="at least 1"):
        NRRN(units, maps)
