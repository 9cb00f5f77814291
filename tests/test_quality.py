"""The report says the right words about results that are known to be good or bad."""

from __future__ import annotations

import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

import nrrn_fiji as nrrn
from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.jobs.denoise import denoise_file
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.quality.assessment import PerSlice, assess
from nrrn_fiji.quality.page import report_files
from nrrn_fiji.quality.stack_pairs import WINDOW, Both
from nrrn_fiji.quality.verdicts import overall, verdicts
from nrrn_fiji.resources import data_folder


@pytest.fixture(scope="module")
def noisy() -> np.ndarray:
    stack: np.ndarray = tifffile.imread(data_folder("examples") / "fibsem_medulla_noisy.tif")
    return stack[:12, :128, :128]


@pytest.fixture(scope="module")
def denoised(noisy: np.ndarray) -> np.ndarray:
    """What the shipped model makes of it."""
    return np.asarray(nrrn.denoise(noisy, "fibsem-medulla"))


def rounded(stack: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(stack), 0, 255).astype(np.uint8)


def blur(stack: np.ndarray, sigma: float) -> np.ndarray:
    return rounded(ndimage.gaussian_filter(stack.astype(np.float32), (0, sigma, sigma)))


def judged(noisy: np.ndarray, denoised: np.ndarray) -> dict[str, str]:
    found = verdicts(assess(ArraySource(noisy), ArraySource(denoised)))
    return {key: verdict.light for key, verdict in found.items()}


def test_the_shipped_model_is_good(noisy: np.ndarray, denoised: np.ndarray) -> None:
    found = verdicts(assess(ArraySource(noisy), ArraySource(denoised)))
    assert {key: verdict.light for key, verdict in found.items()} == dict.fromkeys(
        ("match", "noise", "detail", "structure", "shift", "lines", "tiles", "slices"), "good"
    )
    assert overall(found).light == "good"
    assert "noise went, and structure stayed" in overall(found).words


def test_a_strong_blur_is_bad_though_it_removes_the_most_noise(
    noisy: np.ndarray, denoised: np.ndarray
) -> None:
    quality = assess(ArraySource(noisy), ArraySource(blur(noisy, 4)))
    found = verdicts(quality)
    assert found["noise"].light == "good"
    assert found["detail"].light == "bad" and "is blurred" in found["detail"].words
    assert found["structure"].light == "bad"
    assert "There is structure in what was removed" in found["structure"].words
    assert overall(found).words == "This is not good: detail kept, structure in what was removed."
    model = assess(ArraySource(noisy), ArraySource(denoised))
    assert quality.noise_left is not None and model.noise_left is not None
    assert quality.noise_left < model.noise_left


def test_a_blur_that_can_just_be_seen_gets_a_warning(noisy: np.ndarray) -> None:
    assert judged(noisy, blur(noisy, 1))["detail"] == "warn"


def test_an_untouched_copy_is_found_out(noisy: np.ndarray) -> None:
    found = verdicts(assess(ArraySource(noisy), ArraySource(noisy.copy())))
    assert list(found) == ["noise"]
    assert found["noise"].light == "bad"
    assert "Nothing was removed" in found["noise"].words


def test_infinite_pixels_do_not_count(noisy: np.ndarray, denoised: np.ndarray) -> None:
    """They are returned unchanged by denoising, so both stacks have them; nothing is said twice."""
    before, after = noisy.astype(np.float32), denoised.astype(np.float32)
    expected = assess(ArraySource(before), ArraySource(after))
    before[3, 5, 7], after[3, 5, 7] = np.inf, np.inf
    quality = assess(ArraySource(before), ArraySource(after))
    np.testing.assert_allclose(quality.slices.removed, expected.slices.removed, rtol=1e-3)
    assert overall(verdicts(quality)).light == "good"


def test_next_to_nothing_removed_is_bad(noisy: np.ndarray, denoised: np.ndarray) -> None:
    mixed = noisy + 0.02 * (denoised.astype(np.float32) - noisy)
    found = verdicts(assess(ArraySource(noisy.astype(np.float32)), ArraySource(mixed)))
    assert found["noise"].light == "bad"
    assert "as noisy as before" in found["noise"].words


def test_what_went_only_in_part_is_seen(noisy: np.ndarray, denoised: np.ndarray) -> None:
    half = (noisy.astype(np.float32) + denoised) / 2
    found = verdicts(assess(ArraySource(noisy.astype(np.float32)), ArraySource(half)))
    assert found["noise"].light == "warn"
    assert "looks like what is left" in found["noise"].words


MISTAKES = {
    "does not show what": lambda clean: clean[:, ::-1],
    "is one slice too late": lambda clean: np.roll(clean, 1, axis=0),
    "is one slice too early": lambda clean: np.roll(clean, -1, axis=0),
    r"moved by \+3 px along x and -2 px along y": lambda clean: np.roll(clean, (-2, 3), (1, 2)),
    "on different grey scales": lambda clean: clean.astype(np.float32) / 255,
    "Bright and dark are exchanged": lambda clean: 255 - clean,
    "not show": lambda clean: np.full_like(clean, 90),
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_named_and_nothing_else_is_judged(
    noisy: np.ndarray, denoised: np.ndarray, words: str
) -> None:
    found = verdicts(assess(ArraySource(noisy), ArraySource(MISTAKES[words](denoised))))
    assert list(found) == ["match"]
    assert found["match"].light == "bad"
    assert re.search(words, found["match"].words)
    assert overall(found).words == f"{found['match'].words} Nothing else was judged."


@pytest.mark.parametrize(("levels", "light"), [(5, "warn"), (30, "bad")])
def test_a_grey_shift_is_seen(
    noisy: np.ndarray, denoised: np.ndarray, levels: int, light: str
) -> None:
    found = verdicts(assess(ArraySource(noisy), ArraySource(rounded(denoised + float(levels)))))
    assert found["shift"].light == light
    assert "Brightness has moved" in found["shift"].words
    assert found["detail"].light == "good"  # and nothing else is blamed


def test_lost_contrast_is_seen_by_grey_level(noisy: np.ndarray, denoised: np.ndarray) -> None:
    """The mean stays, but dark becomes brighter and bright darker."""
    flat = denoised.mean() + 0.7 * (denoised - denoised.mean())
    quality = assess(ArraySource(noisy), ArraySource(rounded(flat)))
    assert abs(quality.shift.mean) < 1
    assert quality.shift.by_level[0] > 5 and quality.shift.by_level[-1] < -5
    assert verdicts(quality)["shift"].light == "warn"


def test_a_bad_slice_is_named(noisy: np.ndarray, denoised: np.ndarray) -> None:
    broken = denoised.copy()
    broken[6] = 128
    found = verdicts(assess(ArraySource(noisy), ArraySource(broken)))
    assert found["slices"].light == "warn"
    assert "from slice 6 (counted from 0)" in found["slices"].words


def test_the_ends_of_a_stack_may_differ_a_little() -> None:
    removed = np.full(30, 5.0) + np.random.default_rng(0).normal(0, 0.02, 30)
    for place, expected in ((0, []), (29, []), (12, [12])):
        values = removed.copy()
        values[place] *= 0.85
        assert PerSlice(np.arange(30), values, np.zeros(30)).outliers == expected
    removed[0] = 0  # but not this much
    assert PerSlice(np.arange(30), removed, np.zeros(30)).outliers == [0]


def test_uneven_work_is_seen(noisy: np.ndarray, denoised: np.ndarray) -> None:
    half = denoised.copy()
    half[:, :, 64:] = noisy[:, :, 64:]  # a run that left out half of the tiles
    assert judged(noisy, half)["tiles"] == "bad"


def test_stripes_are_named(noisy: np.ndarray, denoised: np.ndarray) -> None:
    stripes = np.random.default_rng(0).normal(0, 4, (12, 128, 1))
    found = verdicts(assess(ArraySource(noisy), ArraySource(rounded(denoised + stripes))))
    assert found["lines"].light == "bad"
    assert found["lines"].words.startswith("Whole rows became brighter or darker")
    assert found["tiles"].light == "good"  # and nothing else is blamed


def test_seams_are_named(noisy: np.ndarray, denoised: np.ndarray) -> None:
    tiled = denoised.astype(np.float64)
    tiled[:, :, 80:] += 8
    found = verdicts(assess(ArraySource(noisy), ArraySource(rounded(tiled))))
    assert found["lines"].light == "warn"
    assert "seams before column 80 (counted from 0)" in found["lines"].words


def test_what_only_coarse_detail_shows_is_not_called_good(noisy: np.ndarray) -> None:
    """Drowned in noise, 16 px say nothing, and a blur of 2 px hardly touches 32 px."""
    drowned = noisy[:8].astype(np.float32) + np.random.default_rng(0).normal(0, 160, (8, 128, 128))
    blurred = ndimage.gaussian_filter(drowned, (0, 2, 2))
    quality = assess(ArraySource(drowned), ArraySource(blurred))
    assert quality.detail is not None and np.isnan(quality.detail.kept_at(16))
    assert verdicts(quality)["detail"].light in ("unknown", "warn")


def test_what_cannot_be_measured_is_unknown_with_a_reason(
    noisy: np.ndarray, denoised: np.ndarray
) -> None:
    found = verdicts(assess(ArraySource(noisy[:2]), ArraySource(denoised[:2])))
    assert found["detail"].light == "unknown"
    assert "The stack has 2 slices; telling detail from noise needs" in found["detail"].words
    assert found["noise"].light == "good"
    assert found["slices"].light == "unknown"
    tiny = np.random.default_rng(0).integers(90, 110, (5, 12, 12)).astype(np.uint8)
    found = verdicts(assess(ArraySource(tiny), ArraySource(np.full_like(tiny, 100))))
    assert found["detail"].light == "unknown"
    assert found["noise"].light == "unknown"


def test_padding_does_not_count(noisy: np.ndarray, denoised: np.ndarray) -> None:
    padded, clean = noisy.copy(), denoised.copy()
    padded[:, :48] = clean[:, :48] = 0
    quality = assess(ArraySource(padded), ArraySource(clean))
    whole = assess(ArraySource(noisy[:, 48:]), ArraySource(denoised[:, 48:]))
    # But for single black pixels that touch the padding.
    np.testing.assert_allclose(quality.slices.removed, whole.slices.removed, rtol=1e-3)
    np.testing.assert_allclose(quality.slices.change, whole.slices.change, atol=0.04)
    # Padding is neither flat nor calm: it is no image.
    assert quality.noise_left == pytest.approx(whole.noise_left, rel=0.1)
    assert quality.unevenness < 0.1
    assert np.isnan(quality.tiles[:2]).all() and np.isfinite(quality.tiles[3:]).all()


def test_saturated_places_are_not_flat(noisy: np.ndarray, denoised: np.ndarray) -> None:
    noisy, denoised = noisy.copy(), denoised.copy()
    noisy[:, 40:, :50] = denoised[:, 40:, :50] = 255
    quality = assess(ArraySource(noisy), ArraySource(denoised))
    assert quality.sigma is not None and quality.sigma[0] > 20


def test_a_stack_without_any_image_is_refused() -> None:
    empty = ArraySource(np.full((4, 64, 64), np.nan, np.float32))
    with pytest.raises(ValueError, match="no pixel that holds an image in both stacks"):
        assess(empty, empty)


class OneByOne(ArraySource):
    """A deep stack of large slices that is never read but slice by slice, or four at a time."""

    def read(self, start: int, stop: int) -> np.ndarray:
        assert stop - start <= 4
        return super().read(start, stop)


def test_of_large_slices_the_middle_alone_is_kept() -> None:
    image = np.random.default_rng(0).integers(90, 110, (1, 1100, 900), np.uint8)
    both = Both(ArraySource(image), ArraySource(image + 1))
    middle = both.middle(0)
    y, x = (1100 - WINDOW) // 2, (900 - WINDOW) // 2
    np.testing.assert_array_equal(middle.noisy, image[0, y : y + WINDOW, x : x + WINDOW])
    assert middle.noisy.base is None and middle.denoised.base is None


def test_memory_does_not_grow_with_depth() -> None:
    image = np.random.default_rng(0).integers(90, 110, (1, 96, 96), np.uint8)
    peaks = []
    for depth in (32, 256):
        noisy = OneByOne(np.broadcast_to(image, (depth, 96, 96)))
        denoised = OneByOne(np.broadcast_to(image // 2 + 50, (depth, 96, 96)))
        tracemalloc.start()
        assess(noisy, denoised)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_stacks_must_belong_together(noisy: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"denoised stack is \(11, 128, 128\).*own denoised form"):
        assess(ArraySource(noisy), ArraySource(noisy[1:]))


# --- the page ------------------------------------------------------------------------------------


def test_the_page_has_it_all(noisy: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "noisy.tif",
        noisy[:5, :64, :64],
        imagej=True,
        resolution=(0.1, 0.1),
        metadata={"axes": "ZYX", "unit": "nm", "spacing": 10},
    )
    denoise_file(tmp_path / "noisy.tif", tmp_path / "clean.tif")
    report = report_files(tmp_path / "noisy.tif", tmp_path / "clean.tif", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert report.data["overall"] in text.lower() or report.data["overall"] == "warn"
    for words in (
        "clean compared with noisy: 5 × 64 × 64",
        "Is the denoised stack good?",
        "Noise removed",
        "16 px (160 nm)",
        "fibsem-medulla",  # the settings, from the file's metadata
        "What was removed",
    ):
        assert words in text, words
    assert len(re.findall('src="data:image/png;base64,iVBOR', text)) == 6
    assert report.table is not None
    for row in report.table.rows:
        assert row[3].replace("'", "&#39;") in text
    assert json.loads(json.dumps(report.data["verdicts"]))["noise"]["light"] == "good"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "clean.tif",
        "noisy.tif",
        "r.html",
    ]


def test_an_existing_page_is_kept_unless_asked(noisy: np.ndarray, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    page.write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        report_files(noisy[:4], noisy[:4], page)
    assert page.read_text() == "mine"
    report_files(noisy[:4], noisy[:4].copy(), page, overwrite=True)
    assert "Nothing was removed" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "words"),
    [("r.pdf", "ends in .html"), ("missing/r.html", "does not exist: create it")],
)
def test_names_that_cannot_be(noisy: np.ndarray, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        report_files(noisy, noisy, tmp_path / name)


class Stopper:
    """Stops at once."""

    cancelled = True

    def update(self, done: float, total: float, text: str = "") -> None:
        raise AssertionError

    def message(self, text: str) -> None:
        pass


def test_a_stopped_report_writes_nothing(noisy: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(Cancelled, match="nothing was written"):
        report_files(noisy, noisy, tmp_path / "r.html", progress=Stopper())
    assert not list(tmp_path.glob("*.html"))
