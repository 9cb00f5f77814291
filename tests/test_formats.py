"""Every job reads and writes every format, crosses included, and gives the same pixels."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from plain_engine import strong_network
from stack_files import StopAt
from volume_files import calibrated, ramp

from nrrn_fiji.api import denoise_file
from nrrn_fiji.cli import main
from nrrn_fiji.formats.table import FORMATS, check_output_name, format_of_output
from nrrn_fiji.models import Model, save_model
from nrrn_fiji.progress import Cancelled
from nrrn_fiji.settings import DenoiseSettings
from nrrn_fiji.volumes import create_volume, open_volume

OUTPUTS = ("out.tif", "out.ome.tif", "out.zarr", "out.ome.zarr", "out.h5", "out.hdf5", "out.mrc")
SETTINGS = DenoiseSettings(tile=32, slab=3, device="cpu", precision="fp32", intensity=(0, 65535))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network that changes an image."""
    folder = tmp_path_factory.mktemp("model")
    return save_model(folder / "strong.safetensors", strong_network(1), {})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One stack (8, 40, 48), 16 bits, 8 × 4 × 4 nm, in every format."""
    folder = tmp_path_factory.mktemp("sources")
    array = np.random.default_rng(0).integers(0, 65535, (8, 40, 48), np.uint16)
    paths = {}
    with calibrated(array) as volume:
        for name in ("in.tif", "in.zarr", "in.h5", "in.mrc"):
            paths[name] = folder / name
            with create_volume(folder / name, volume, slab=8) as writer:
                writer.write(0, array)
                writer.finish()
    return paths


@pytest.fixture(scope="module")
def expected(sources: dict[str, Path], model: Model) -> np.ndarray:
    """What TIFF to TIFF gives."""
    out = sources["in.tif"].with_name("expected.tif")
    denoise_file(sources["in.tif"], out, model, SETTINGS)
    return tifffile.imread(out)


def pixels(path: Path) -> np.ndarray:
    """All slices, read by the library of the format."""
    if path.suffix == ".zarr":
        return np.asarray(zarr.open_array(path / "0", mode="r")[...])
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            return np.asarray(file["data"][...])
    if path.suffix == ".mrc":
        with mrcfile.open(path) as mrc:
            return np.array(mrc.data)
    return tifffile.imread(path)


class StopAtPyramid(StopAt):
    """Stops when all slices are done and the pyramid is begun."""

    def __init__(self) -> None:
        super().__init__(1e9)

    def message(self, text: str) -> None:
        if "pyramid" in text:
            self.slices = -1.0


@pytest.mark.parametrize("out", OUTPUTS)
@pytest.mark.parametrize("source", ["in.tif", "in.zarr", "in.h5", "in.mrc"])
def test_formats_cross_with_the_same_pixels_and_voxels(
    tmp_path: Path,
    sources: dict[str, Path],
    model: Model,
    expected: np.ndarray,
    source: str,
    out: str,
) -> None:
    path = tmp_path / out
    report = denoise_file(sources[source], path, model, SETTINGS, noise_out=tmp_path / f"n{out}")
    assert report.image == path
    made = pixels(path)
    assert made.dtype == np.uint16
    np.testing.assert_array_equal(made, expected)
    original = pixels(sources["in.tif"]).astype(float)
    np.testing.assert_array_equal(pixels(tmp_path / f"n{out}"), original - expected)
    with open_volume(path) as volume:
        sizes, unit = volume.voxel_size, volume.voxel_unit
        assert sizes is not None
        scale = {"nm": 1.0, "Å": 0.1, "µm": 1000.0}[str(unit)]
        assert tuple(size * scale for size in sizes) == pytest.approx((8, 4, 4))
        assert volume.provenance is not None
        name = volume.provenance["model"]
        assert (name if isinstance(name, str) else name["name"]) == "strong"
    assert not path.with_name(out + ".partial").exists()


@pytest.mark.parametrize("out", ["out.zarr", "out.h5", "out.mrc"])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, sources: dict[str, Path], model: Model, expected: np.ndarray, out: str
) -> None:
    path = tmp_path / out
    with pytest.raises(Cancelled, match="1 finished slab is kept"):
        denoise_file(sources["in.tif"], path, model, SETTINGS, progress=StopAt(3))
    assert not path.exists()
    report = denoise_file(sources["in.tif"], path, model, SETTINGS)
    assert report.resumed == 3
    np.testing.assert_array_equal(pixels(path), expected)


def test_a_run_that_was_stopped_before_the_pyramid_goes_on(tmp_path: Path, model: Model) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4, 20, 300), np.uint8)
    with calibrated(array) as volume, create_volume(tmp_path / "in.tif", volume) as writer:
        writer.write(0, array)
    settings = DenoiseSettings(slab=2, device="cpu")
    denoise_file(tmp_path / "in.tif", tmp_path / "whole.zarr", model, settings)
    with pytest.raises(Cancelled, match="2 finished slabs are kept"):
        denoise_file(
            tmp_path / "in.tif", tmp_path / "out.zarr", model, settings, progress=StopAtPyramid()
        )
    denoise_file(tmp_path / "in.tif", tmp_path / "out.zarr", model, settings)
    for number in ("0", "1"):
        whole, again = (
            np.asarray(zarr.open_array(tmp_path / name / number, mode="r")[...])
            for name in ("whole.zarr", "out.zarr")
        )
        np.testing.assert_array_equal(again, whole)
        assert whole.any()


def test_an_output_is_replaced_only_when_asked(
    tmp_path: Path, sources: dict[str, Path], model: Model, expected: np.ndarray
) -> None:
    for out in ("out.zarr", "out.h5", "out.mrc"):
        with calibrated(ramp((2, 300, 300))) as volume:
            create_volume(tmp_path / out, volume).close()
        with pytest.raises(FileExistsError, match="exists already"):
            denoise_file(sources["in.tif"], tmp_path / out, model, SETTINGS)
        denoise_file(sources["in.tif"], tmp_path / out, model, SETTINGS, overwrite=True)
        np.testing.assert_array_equal(pixels(tmp_path / out), expected)
    # What others have put into the folder is not deleted with it.
    (tmp_path / "out.zarr" / "labels").mkdir()
    with pytest.raises(FileExistsError, match="also holds 'labels'"):
        denoise_file(sources["in.tif"], tmp_path / "out.zarr", model, SETTINGS, overwrite=True)


def test_the_input_is_never_the_output(sources: dict[str, Path], model: Model) -> None:
    source = sources["in.h5"]
    for out in (source, source.with_name("x") / ".." / source.name):
        with pytest.raises(ValueError, match="also the input"):
            denoise_file(f"{source}:/data", out, model, SETTINGS, overwrite=True)
    with pytest.raises(ValueError, match="lies in the input folder"):
        denoise_file(sources["in.zarr"], sources["in.zarr"] / "out.zarr", model, SETTINGS)


@pytest.mark.parametrize("source", ["in.zarr", "in.h5", "in.mrc"])
def test_the_other_commands_read_every_format(
    tmp_path: Path,
    sources: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    source: str,
) -> None:
    stack, suffix = str(sources[source]), sources[source].suffix
    noisy = tmp_path / f"noisy{suffix}"
    assert main(["add-noise", stack, str(noisy), "--gaussian", "25"]) == 0
    assert pixels(noisy).std() > 0
    assert main(["metrics", str(noisy), stack]) == 0
    assert "PSNR" in capsys.readouterr().out
    words = ["train", str(noisy), "-o", str(tmp_path / "m.safetensors"), "--steps", "1"]
    more = ["--units", "1", "--maps", "2", "--batch", "1", "--crop", "16", "--device", "cpu"]
    assert main([*words, *more, "--mask-shape", "0,0,0"]) == 0
    assert (tmp_path / "m.safetensors").is_file()


def test_names_choose_the_format() -> None:
    for name, module in (
        ("a.tif", "tiff_output"),
        ("a.OME.ZARR", "ome_zarr_output"),
        ("a.h5", "hdf5"),
        ("a.mrc", "mrc"),
        ("a", "folders"),
    ):
        assert format_of_output(Path(name)).module == module
    with pytest.raises(ValueError, match=r"only \.tif, \.tiff, \.zarr, .* can be written"):
        check_output_name(Path("a.png"))
    suffixes = [suffix for kind in FORMATS for suffix in kind.reads]
    assert len(suffixes) == len(set(suffixes))


def test_a_format_costs_nothing_until_it_is_met() -> None:
    code = (
        "import sys, numpy as np; from nrrn_fiji.volumes import open_volume;"
        "open_volume(np.zeros((2, 3, 4)));"
        "print(sorted({'zarr', 'h5py', 'mrcfile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
