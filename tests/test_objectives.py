"""The objectives, against arithmetic done by hand and against what they are meant to reach."""

import numpy as np
import pytest
import torch

from nrrn_fiji.objectives import consensus, weighted_squared_error


def image(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def test_consensus_is_the_formula_of_the_paper() -> None:
    a, b = image(0.0, 1.0), image(1.0, 3.0)
    previous, following = image(2.0, 2.0), image(0.0, 4.0)
    # ½·mean(0, 9) + ½·mean(1, 1) − ¼·mean(1, 4)
    assert consensus(a, b, previous, following).item() == pytest.approx(2.25 + 0.5 - 0.625)


def test_consensus_prefers_the_clean_image_to_the_noisy_ones() -> None:
    rng = np.random.default_rng(0)
    clean = torch.from_numpy(rng.random((1, 1, 200, 200), dtype=np.float32))
    x0, x1, x2 = (
        clean + 0.2 * torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
        for _ in range(3)
    )
    best = consensus(clean, clean, x0, x2)
    for other in (x1, 0.9 * clean, clean + 0.1):
        assert consensus(other, other, x0, x2) > best


def test_consensus_cannot_be_cheated_by_copying_the_neighbour_that_was_seen() -> None:
    rng = np.random.default_rng(1)
    clean = torch.from_numpy(rng.random((1, 1, 200, 200), dtype=np.float32))
    x0, x2 = (
        clean + 0.2 * torch.from_numpy(rng.standard_normal(clean.shape).astype(np.float32))
        for _ in range(2)
    )
    assert consensus(x0, x2, x0, x2) > consensus(clean, clean, x0, x2)


def test_weighted_squared_error_judges_the_mean_of_both_branches() -> None:
    a, b = image(1.0, 0.0), image(3.0, 0.0)
    weight = image(1.0, 0.0)
    # The mean is (2, 0); the second pixel has no weight.
    assert weighted_squared_error(a, b, image(0.0, 9.0), weight).item() == pytest.approx(2.0)


def test_weights_per_sample_scale_that_sample_alone() -> None:
    zeros, ones = torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)
    weight = torch.tensor([1.0, 10.0]).reshape(2, 1, 1, 1)
    assert weighted_squared_error(zeros, zeros, ones, weight).item() == pytest.approx(5.5)
