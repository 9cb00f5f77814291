"""The filters do what their names say, and tuning finds what is best."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nrrn_fiji.baselines import filters
from nrrn_fiji.baselines.clipping import clipped_mean, undo_clipping
from nrrn_fiji.baselines.filters import (
    BM3D,
    FILTERS,
    FILTERS_3D,
    Filter,
    bm3d_is_installed,
    filter_named,
    tune,
)
from nrrn_fiji.metrics import psnr
from nrrn_fiji.noise import add_noise


def test_gaussian_spreads_a_point_as_a_gaussian():
    point = np.zeros((31, 31), np.float32)
    point[15, 15] = 1
    result = filter_named("gaussian")(point, {"sigma": 2.0})
    y, x = np.mgrid[-15:16, -15:16]
    expected = np.exp(-(x**2 + y**2) / 8) / (2 * math.pi * 4)
    np.testing.assert_allclose(result, expected, atol=3e-4)


@pytest.mark.parametrize("radius", [1, 1.5, 2.5])
def test_median_is_the_median_of_a_disk(radius):
    image = np.random.default_rng(0).random((15, 17), np.float32)
    result = filter_named("median")(image, {"radius": radius})
    y, x = np.mgrid[:15, :17]
    for at in ((7, 8), (5, 10)):
        disk = (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2
        assert result[at] == np.median(image[disk])


@pytest.mark.parametrize(("h", "noise"), [(1e3, 0.0), (0.01, 1.0)])
def test_non_local_means_is_the_plain_mean_when_all_patches_count_as_equal(h, noise):
    image = np.random.default_rng(1).random((24, 24), np.float32)
    result = filter_named("nlm")(image, {"patch": 5, "distance": 3, "h": h, "noise": noise})
    # The search window is 7 x 7.
    assert result[12, 10] == pytest.approx(image[9:16, 7:14].mean(), abs=1e-5)


def test_non_local_means_changes_nothing_when_no_other_patch_is_alike():
    image = np.random.default_rng(1).random((24, 24), np.float32)
    setting = {"patch": 5, "distance": 3, "h": 1e-3, "noise": 0.0}
    np.testing.assert_allclose(filter_named("nlm")(image, setting), image, atol=1e-6)


def test_non_local_means_keeps_an_edge_that_a_gaussian_blurs():
    edge = np.repeat([0.3, 0.7], 20).astype(np.float32)[None].repeat(40, 0)
    noisy = add_noise(edge, sigma=15, rng=np.random.default_rng(2))
    setting = {"patch": 5, "distance": 5, "h": 0.05, "noise": 15 / 255}
    sharp, blurred = (
        filter_named("nlm")(noisy, setting),
        filter_named("gaussian")(noisy, {"sigma": 2}),
    )
    step = [float(np.mean(image[:, 20] - image[:, 19])) for image in (sharp, blurred)]
    assert step[0] > 0.35 and step[1] < 0.15


@pytest.mark.parametrize("candidate", FILTERS, ids=lambda f: f.name)
def test_every_filter_tuned_improves_a_noisy_slice(candidate):
    y, x = np.mgrid[:48, :48]
    clean = (0.5 + 0.25 * np.sign(np.sin(x / 9) * np.cos(y / 11))).astype(np.float32)
    pairs = [
        (clean, add_noise(clean, sigma=40, rng=np.random.default_rng(seed), clip=True))
        for seed in range(3)
    ]
    [tuned] = tune(candidate, [clean], [pairs[0][1]])
    for _, noisy in pairs[1:]:
        result = candidate(noisy, tuned.setting)
        assert result.dtype == np.float32
        assert psnr(clean, result) > psnr(clean, noisy) + 4


@pytest.mark.parametrize("kind", ["gaussian", "median"])
def test_a_filter_in_3d_is_the_one_of_a_slice_where_neighbours_have_no_weight(kind):
    triplet = np.random.default_rng(3).random((3, 20, 23), np.float32)
    flat, alone = {
        "gaussian": ({"sigma": 1.3}, {"sigma": 1.3, "neighbours": 0}),
        "median": ({"radius": 2}, None),
    }[kind]
    if alone:
        result = filter_named("gaussian3d")(triplet, alone)
        np.testing.assert_allclose(result, filter_named("gaussian")(triplet[1], flat), atol=1e-6)
        result = filter_named("gaussian3d")(triplet, {"sigma": 1.3, "neighbours": 1})
        mean = filter_named("gaussian")(triplet.mean(0), flat)
        np.testing.assert_allclose(result, mean, atol=1e-6)
    else:
        result = filter_named("median3d")(triplet, {"radius": 2, "outer": 1})
        y, x = np.mgrid[:20, :23]
        distance = (y - 9) ** 2 + (x - 11) ** 2
        values = [
            *triplet[1][distance <= 4],
            *triplet[0][distance <= 1],
            *triplet[2][distance <= 1],
        ]
        assert result[9, 11] == np.median(values)
        # Three equal slices with equal disks: the filter of one slice, at borders too.
        same = filter_named("median3d")(triplet[[1, 1, 1]], {"radius": 2, "outer": 2})
        np.testing.assert_array_equal(same, filter_named("median")(triplet[1], flat))


@pytest.mark.parametrize("candidate", FILTERS_3D, ids=lambda f: f.name)
def test_a_filter_in_3d_beats_that_of_a_slice_where_slices_are_alike(candidate):
    y, x = np.mgrid[:48, :48]
    clean = (0.5 + 0.25 * np.sign(np.sin(x / 9) * np.cos(y / 11))).astype(np.float32)
    rng = np.random.default_rng(4)
    triplet = np.stack([add_noise(clean, sigma=40, rng=rng, clip=True) for _ in range(3)])
    [tuned] = tune(candidate, [clean], [triplet])
    [flat] = tune(filter_named(candidate.name.removesuffix("3d")), [clean], [triplet[1]])
    assert candidate(triplet, tuned.setting).shape == clean.shape
    assert tuned.psnr > flat.psnr + 1


def test_bm3d_does_better_than_any_gaussian_where_the_image_repeats():
    if not bm3d_is_installed():
        pytest.skip("BM3D IS NOT TESTED: the extra bm3d (non-commercial licence) is not installed")
    y, x = np.mgrid[:64, :64]
    clean = (0.5 + 0.25 * np.sign(np.sin(x / 4) * np.cos(y / 5))).astype(np.float32)
    noisy = add_noise(clean, sigma=25, rng=np.random.default_rng(0))
    result = BM3D(noisy, {"sigma": 25 / 255})
    [best] = tune(filter_named("gaussian"), [clean], [noisy])
    assert result.dtype == np.float32
    assert psnr(clean, result) > best.psnr + 3


def test_bm3d_that_is_not_installed_names_its_licence(monkeypatch):
    monkeypatch.setattr(filters, "bm3d_is_installed", lambda: False)
    with pytest.raises(ImportError, match=r"non-commercial use only.*nrrn-fiji\[bm3d\]"):
        BM3D(np.zeros((16, 16), np.float32), {"sigma": 0.1})


def test_a_slow_filter_is_tuned_on_one_small_crop():
    seen = []

    def spy(image, strength):
        seen.append(image.copy())
        return image

    slow = Filter("slow", "Slow", ("strength",), lambda n: [{"strength": 1}], spy, tuning_pixels=8)
    clean = np.random.default_rng(0).random((3, 20, 31), np.float32)
    [tuned] = tune(slow, list(clean), list(clean + np.float32(0.1)))
    [crop] = seen
    np.testing.assert_array_equal(crop, clean[0, 6:14, 11:19] + np.float32(0.1))
    assert tuned.setting == {"strength": 1}


def test_tuning_takes_the_best_of_the_grid_for_every_finish():
    clean = np.full((16, 16), 0.5, np.float32)
    noisy = np.full((16, 16), 0.4, np.float32)
    grid = [{"shift": s} for s in (-0.1, 0.0, 0.1, 0.2)]
    shift = Filter("shift", "Shift", ("shift",), lambda noise: grid, lambda i, shift: i + shift)
    plain, after = tune(shift, [clean], [noisy], (lambda i: i, lambda i: i - 0.1))
    assert plain.setting == {"shift": 0.1}
    assert after.setting == {"shift": 0.2}
    assert plain.psnr > 60


def test_more_noise_asks_for_a_wider_gaussian():
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:64, :64]
    clean = (0.5 + 0.3 * np.sin(x / 3) * np.cos(y / 4)).astype(np.float32)
    sigmas = []
    for noise in (5, 25, 75):
        [tuned] = tune(filter_named("gaussian"), [clean], [add_noise(clean, sigma=noise, rng=rng)])
        sigmas.append(tuned.setting["sigma"])
    assert sigmas == sorted(set(sigmas))


@pytest.mark.parametrize(
    "level", [{"peak": 1}, {"peak": 4}, {"peak": 2.5}, {"sigma": 10}, {"sigma": 75}]
)
def test_expectation_under_clipping_agrees_with_drawing_it(level):
    grey = np.array([0.0, 0.05, 0.4, 0.9, 1.0])
    drawn = add_noise(
        np.repeat(grey[:, None], 400_000, 1), **level, rng=np.random.default_rng(6), clip=True
    )
    # Five standard errors of a mean of 400 000 values with a spread below 0.5.
    np.testing.assert_allclose(clipped_mean(grey, **level), drawn.mean(1), atol=0.004)


@pytest.mark.parametrize("level", [{"peak": 1}, {"peak": 30}, {"sigma": 10}, {"sigma": 75}])
def test_the_correction_undoes_the_expectation(level):
    grey = np.linspace(0.01, 0.99, 50)
    np.testing.assert_allclose(undo_clipping(clipped_mean(grey, **level), **level), grey, atol=2e-4)
    assert undo_clipping([-1.0, 2.0], **level).tolist() == [0, 1]


def test_poisson_peak_1_shrinks_grey_values_as_the_formula_says():
    # At most one photon counts: the expectation is 1 - exp(-x).
    grey = np.linspace(0, 1, 11)
    np.testing.assert_allclose(clipped_mean(grey, peak=1), 1 - np.exp(-grey), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: filter_named("wiener"), "'wiener'.*gaussian, median, .*bm3d, gaussian3d"),
        (
            lambda: FILTERS[0](np.zeros((4, 4)), {"radius": 1}),
            "gaussian filter takes exactly sigma",
        ),
        (lambda: tune(FILTERS[0], [], []), "at least one"),
        (lambda: clipped_mean(0.5), "exactly one"),
        (lambda: clipped_mean(0.5, peak=1, sigma=5), "exactly one"),
        (lambda: clipped_mean(0.5, sigma=0), "above 0"),
    ],
)
def test_misuse_gets_one_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
