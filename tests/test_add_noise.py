"""Adding noise to files: the right amount, the same each time, and nothing else changed."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from nrrn_fiji.jobs.add_noise import add_noise_file
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import NoiseSettings


def grey(value: int = 128, dtype: str = "uint8", depth: int = 4) -> np.ndarray:
    """A stack of one grey value but for two pixels, since a constant image has no grey range."""
    stack = np.full((depth, 64, 64), value, dtype)
    stack[:, 0, :2] = value - 1, value + 1
    return stack


def constant(dtype: str) -> np.ndarray:
    return np.full((4, 64, 64), 5, dtype)


def test_gaussian_noise_has_the_sigma_that_was_asked_for(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "in.tif", grey(), imagej=True, metadata={"axes": "ZYX"})
    add_noise_file(tmp_path / "in.tif", tmp_path / "out.tif", NoiseSettings(gaussian=10.0))
    noisy = tifffile.imread(tmp_path / "out.tif").astype(float)
    assert noisy.std() == pytest.approx(10, rel=0.03)
    assert noisy.mean() == pytest.approx(128, abs=0.5)


def test_poisson_noise_has_the_variance_of_its_peak(tmp_path: Path) -> None:
    # 8 bits would clip what lies above white; 16 bits with a stated range do not.
    tifffile.imwrite(tmp_path / "in.tif", grey(6000, "uint16"), photometric="minisblack")
    settings = NoiseSettings(poisson=20.0, intensity=(1000.0, 11000.0))
    add_noise_file(tmp_path / "in.tif", tmp_path / "out.tif", settings)
    noisy = tifffile.imread(tmp_path / "out.tif")
    assert noisy.dtype == np.uint16
    assert ((noisy - 1000.0) / 10000).var() == pytest.approx(0.5 / 20, rel=0.05)


def test_the_seed_decides_and_slices_differ(tmp_path: Path) -> None:
    def made(name: str, seed: int, array: np.ndarray) -> np.ndarray:
        add_noise_file(array, tmp_path / name, NoiseSettings(gaussian=20.0, seed=seed))
        image: np.ndarray = tifffile.imread(tmp_path / name)
        return image

    first = made("a.tif", 0, grey())
    np.testing.assert_array_equal(first, made("b.tif", 0, grey()))
    assert not np.array_equal(first, made("c.tif", 1, grey()))
    assert not np.array_equal(first[0], first[1])
    # A shorter stack has the same noise in the slices it has.
    np.testing.assert_array_equal(first[:2], made("d.tif", 0, grey(depth=2)))


def test_clipping_keeps_to_the_grey_range(tmp_path: Path) -> None:
    stack = np.linspace(0, 1, 3 * 64 * 64, dtype=np.float32).reshape(3, 64, 64)
    settings = NoiseSettings(gaussian=75.0, intensity=(0.0, 1.0), clipped=True)
    add_noise_file(stack, tmp_path / "out.tif", settings)
    noisy = tifffile.imread(tmp_path / "out.tif")
    assert noisy.min() == 0 and noisy.max() == 1


def test_nan_stays_where_it_was(tmp_path: Path) -> None:
    stack = np.full((2, 32, 32), 0.5, np.float32)
    stack[1, 3, 4] = np.nan
    add_noise_file(stack, tmp_path / "out.tif", NoiseSettings(gaussian=10.0, intensity=(0.0, 1.0)))
    noisy = tifffile.imread(tmp_path / "out.tif")
    assert np.argwhere(np.isnan(noisy)).tolist() == [[1, 3, 4]]


def test_no_noise_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No noise was asked for"):
        add_noise_file(grey(), tmp_path / "out.tif", NoiseSettings())
    with pytest.raises(ValueError, match="same grey value"):
        add_noise_file(constant("uint16"), tmp_path / "out.tif", NoiseSettings(gaussian=5.0))
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "out.tif").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        add_noise_file(grey(), tmp_path / "out.tif", NoiseSettings(gaussian=5.0))
    assert (tmp_path / "out.tif").read_bytes() == b"precious"
    add_noise_file(grey(), tmp_path / "out.tif", NoiseSettings(gaussian=5.0), overwrite=True)
    assert tifffile.imread(tmp_path / "out.tif").shape == (4, 64, 64)


class StopsAt:
    """A user who cancels after a number of slices."""

    def __init__(self, slices: int):
        self.slices, self.done = slices, 0.0

    def update(self, done: float, total: float, text: str = "") -> None:
        self.done = done

    def message(self, text: str) -> None:
        pass

    @property
    def cancelled(self) -> bool:
        return self.done >= self.slices


def test_an_interrupted_run_goes_on_or_begins_again(tmp_path: Path) -> None:
    weak, strong = NoiseSettings(gaussian=10.0), NoiseSettings(gaussian=20.0)
    add_noise_file(grey(), tmp_path / "straight.tif", weak)
    with pytest.raises(Cancelled, match="same command again"):
        add_noise_file(grey(), tmp_path / "out.tif", weak, progress=StopsAt(2))
    assert not (tmp_path / "out.tif").exists()
    with pytest.raises(ValueError, match="--restart"):
        add_noise_file(grey(), tmp_path / "out.tif", strong)
    add_noise_file(grey(), tmp_path / "out.tif", weak)
    straight = tifffile.imread(tmp_path / "straight.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), straight)
    with pytest.raises(Cancelled):
        add_noise_file(grey(), tmp_path / "new.tif", weak, progress=StopsAt(2))
    add_noise_file(grey(), tmp_path / "new.tif", strong, restart=True)
    assert tifffile.imread(tmp_path / "new.tif").std() > 1.5 * straight.std()


def test_an_output_that_the_pattern_of_the_input_matches_is_refused(tmp_path: Path) -> None:
    """The next run would take it for a slice."""
    for number in range(3):
        tifffile.imwrite(tmp_path / f"s{number}.tif", grey()[0], photometric="minisblack")
    with pytest.raises(ValueError, match="would be taken for a slice"):
        add_noise_file(str(tmp_path / "*.tif"), tmp_path / "out.tif", NoiseSettings(gaussian=9.0))
