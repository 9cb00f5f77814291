"""What a look over a stack finds, and what it must not find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from nrrn_fiji.intensity import ArraySource
from nrrn_fiji.progress import Cancelled, NoProgress
from nrrn_fiji.shifts import band_pass, compare_neighbours, shift_between
from nrrn_fiji.stack_checks import check, findings_table, quick_check, warn

EXAMPLE = Path(__file__).parents[1] / "examples" / "fibsem_medulla.tif"
VOLUMES = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def stack() -> NDArray[np.uint8]:
    """The real stack that is shipped, (24, 192, 192)."""
    array: NDArray[np.uint8] = tifffile.imread(EXAMPLE)
    return array


def with_noise(stack: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    if kind == "gaussian 75":
        noisy = stack + rng.normal(0, 75, stack.shape)
    elif kind == "poisson 1":
        noisy = rng.poisson(stack / 255.0) * 255.0
    else:
        noisy = stack
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def kinds(array: NDArray[np.generic]) -> set[str]:
    return {finding.kind for finding in check(ArraySource(array))}


NOISES = ["none", "gaussian 75", "poisson 1"]


@pytest.mark.parametrize("noise", NOISES)
def test_a_registered_stack_gives_no_alarm_however_noisy(
    stack: NDArray[np.uint8], noise: str
) -> None:
    noisy = with_noise(stack, noise)
    assert check(ArraySource(noisy)) == []
    assert quick_check(ArraySource(noisy)) == []


@pytest.mark.slow
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", ["train1", "train2", "val"])
def test_whole_real_volumes_give_no_alarm(name: str, noise: str) -> None:
    file = VOLUMES / f"fibsem_medulla_{name}.tif"
    if not file.is_file():
        pytest.skip(f"NOT RUN: {file.name} is not in the folder shared/data beside the checkout")
    noisy = with_noise(tifffile.imread(file), noise)
    assert quick_check(ArraySource(noisy)) == []
    part = noisy[:64, :256, :256]
    assert check(ArraySource(part)) == []


def test_a_shift_is_measured_to_a_tenth_of_a_pixel(stack: NDArray[np.uint8]) -> None:
    one = stack[3].astype(float)
    other = ndimage.shift(one, (3.4, -5.2), order=5, mode="mirror")
    found = shift_between(band_pass(one), band_pass(other))
    assert (found.dy, found.dx) == pytest.approx((3.4, -5.2), abs=0.15)
    assert found.correlation > 0.9
    # Of an edge of two pixels the window leaves nothing to look at.
    narrow = shift_between(one[:, :2], other[:, :2])
    assert (narrow.dy, narrow.dx) == (0, 0)


@pytest.mark.parametrize("noise", ["none", "gaussian 75"])
def test_a_stack_that_was_not_registered_is_said_to_drift(
    stack: NDArray[np.uint8], noise: str
) -> None:
    rng = np.random.default_rng(2)
    moved = np.stack(
        [
            ndimage.shift(image.astype(float), rng.normal(0, 2.5, 2), order=3, mode="mirror")
            for image in stack
        ]
    )
    noisy = with_noise(np.clip(moved, 0, 255).astype(np.uint8), noise)
    for findings in (check(ArraySource(noisy)), quick_check(ArraySource(noisy))):
        (found,) = [f for f in findings if f.kind == "drift"]
        assert 2 < found.number < 12
        assert "align it first" in found.sentence
    told: list[str] = []

    class Listens(NoProgress):
        def message(self, text: str) -> None:
            told.append(text)

    warn(ArraySource(noisy), Listens(), scans=True, name="mine")
    (line,) = told
    assert line.startswith("mine: ") and "nrrn register" in line


def test_one_jump_is_drift(stack: NDArray[np.uint8]) -> None:
    jumped = stack.copy()
    jumped[10:] = np.roll(stack[10:], (0, 9, 0), axis=(0, 1, 2))
    (found,) = [f for f in check(ArraySource(jumped)) if f.kind == "drift"]
    assert found.slices == (9,)
    assert found.number == pytest.approx(9, abs=1)
    pairs = compare_neighbours(ArraySource(jumped), [range(8, 12)], 128, NoProgress())
    assert [round(pair.shift.dy) for pair in pairs] == [0, 9, 0]


@pytest.mark.parametrize("noise", ["none", "gaussian 75"])
def test_a_steady_drift_is_found_though_no_step_is_large(
    stack: NDArray[np.uint8], noise: str
) -> None:
    drifting = np.stack(
        [
            ndimage.shift(image.astype(float), (-0.4 * z, 1.2 * z), order=3, mode="mirror")
            for z, image in enumerate(stack)
        ]
    )
    noisy = with_noise(np.clip(drifting, 0, 255).astype(np.uint8), noise)
    (found,) = [f for f in check(ArraySource(noisy)) if f.kind == "drift"]
    assert found.number == pytest.approx(np.hypot(0.4, 1.2), abs=0.4)
    assert "in one direction (x +1." in found.sentence and "align it first" in found.sentence


@pytest.mark.parametrize("noise", NOISES)
def test_scans_that_lie_on_each_other_give_no_alarm(stack: NDArray[np.uint8], noise: str) -> None:
    for z in range(0, 24, 4):
        scans = with_noise(np.repeat(stack[[z]], 3, axis=0), noise)
        if noise == "none":  # they would be copies
            scans = scans + np.arange(3, dtype=np.uint8)[:, None, None]
        assert quick_check(ArraySource(scans), scans=True) == []


def test_two_scans_that_are_shifted_by_two_pixels_are_told_of(stack: NDArray[np.uint8]) -> None:
    scans = with_noise(np.stack([stack[3], np.roll(stack[3], 2, axis=1)]), "gaussian 75")
    (found,) = quick_check(ArraySource(scans), scans=True)
    assert found.kind == "drift" and found.number == pytest.approx(2, abs=0.5)
    assert "--keep" in found.sentence and "Align and Average Scans" in found.sentence


def test_a_scan_that_is_there_twice_is_told_of(stack: NDArray[np.uint8]) -> None:
    one = with_noise(stack[:1], "gaussian 75")
    (found,) = quick_check(ArraySource(np.repeat(one, 2, axis=0)), scans=True)
    assert found.kind == "duplicate"


@pytest.mark.parametrize("noise", ["none", "gaussian 75"])
def test_missing_slices_are_found_where_they_are(stack: NDArray[np.uint8], noise: str) -> None:
    gap = np.delete(with_noise(stack, noise), [11, 12, 13], axis=0)
    (found,) = check(ArraySource(gap))
    assert found.kind == "missing" and found.slices == (10,)
    assert found.number > 2.5


def test_copies_are_found_beside_and_afar(stack: NDArray[np.uint8]) -> None:
    copied = stack.copy()
    copied[6] = stack[5]
    copied[20] = stack[2]
    found = {f.kind: f for f in check(ArraySource(copied))}
    assert found["duplicate"].slices == (6, 20)
    assert "remove the copies" in found["duplicate"].sentence
    # The same picture saved again with losses is a copy, too.
    lossy = with_noise(stack, "gaussian 75")
    lossy[6] = np.clip(lossy[5].astype(int) + np.arange(192) % 2, 0, 255)
    duplicate = [f for f in check(ArraySource(lossy)) if f.kind == "duplicate"]
    assert [f.slices for f in duplicate] == [(6,)]


def test_flicker_is_measured_in_grey_values(stack: NDArray[np.uint8]) -> None:
    bright = stack.astype(np.int16)
    bright[7] += 12
    (found,) = check(ArraySource(bright))
    assert found.kind == "flicker" and found.slices == (7,)
    assert "grey values (slice 7): normalise" in found.sentence
    assert found.number * stack.std() == pytest.approx(12, rel=0.15)


def test_borders_and_empty_slices_are_found(stack: NDArray[np.uint8]) -> None:
    cut = stack.copy()
    cut[:, :20] = 0
    cut[9] = 0
    found = {f.kind: f for f in check(ArraySource(cut))}
    assert set(found) == {"border", "empty"}
    assert found["border"].number == pytest.approx(20 / 192)
    assert found["border"].slices == tuple(z for z in range(24) if z != 9)
    assert found["empty"].slices == (9,)
    lost = stack.astype(np.float32)
    lost[4] = np.nan
    lost[5, 30:90, 30:90] = np.nan
    found = {f.kind: f for f in check(ArraySource(lost))}
    assert found["empty"].slices == (4,) and found["border"].slices == (5,)


def test_inverted_contrast_is_hinted_at(stack: NDArray[np.uint8]) -> None:
    (found,) = check(ArraySource(255 - stack))
    assert found.kind == "inverted" and "hint" in found.sentence


def test_little_and_strange_stacks_are_looked_at_without_complaint() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 20, (6, 40, 50)).astype(np.float32)
    for array in (noise[:1], noise[:2], noise, noise[:, :5, :7]):
        assert kinds(array) == set()
        assert quick_check(ArraySource(array)) == []
    assert kinds(np.zeros((4, 32, 32), np.uint8)) == {"empty"}
    assert quick_check(ArraySource(np.full((4, 32, 32), np.nan, np.float32))) == []


def test_a_quick_check_reads_a_few_slices_and_a_check_reads_one_at_a_time(
    stack: NDArray[np.uint8],
) -> None:
    class Counts(ArraySource):
        def __init__(self, array: NDArray[np.uint8]):
            super().__init__(array)
            self.seen: list[int] = []

        @property
        def shape(self) -> tuple[int, int, int]:
            return (len(self.array) * 100, *self.array.shape[1:])

        def read(self, start: int, stop: int) -> NDArray[np.uint8]:
            assert stop - start == 1
            self.seen.append(start)
            return self.array[start % 24 : start % 24 + 1]

    source = Counts(stack)
    quick_check(source)
    assert len(source.seen) == 20 and source.seen[-1] == 2399


def test_findings_become_a_table(stack: NDArray[np.uint8]) -> None:
    cut = stack.copy()
    cut[:, :, :24] = 0
    table = findings_table(check(ArraySource(cut)))
    assert table.rows[0][0] == "border"
    assert "24 in all" in table.rows[0][1] and table.rows[0][2] == "0.125"


def test_a_check_can_be_stopped(stack: NDArray[np.uint8]) -> None:
    class Stops(NoProgress):
        cancelled = True

    with pytest.raises(Cancelled):
        check(ArraySource(stack), progress=Stops())
