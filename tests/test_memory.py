"""Memory keeps to what is allowed and does not grow with depth, measured on whole processes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nrrn_fiji import NRRN, save_model

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "memory_depth.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The benchmark that docs/large-volumes.md reports, which makes and measures."""
    spec = importlib.util.spec_from_file_location("memory_depth", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_memory_keeps_to_what_is_allowed(
    tmp_path: Path, benchmark: ModuleType, suffix: str
) -> None:
    model = tmp_path / "tiny.safetensors"
    save_model(model, NRRN(units=1, maps=2), {})
    peaks = []
    for depth, size in (benchmark.SMALL, (16, 512), (200, 512)):
        source, out = tmp_path / f"{depth}.{suffix}", tmp_path / f"{depth}-out.{suffix}"
        benchmark.make_volume(source, depth, size)
        peaks.append(benchmark.measure(source, out, model, "40MB")[0])
        assert out.exists()
    # The last volume has 52 MB, and its result as many; what its file says of its pieces grows.
    assert peaks[2] - peaks[0] < 40
    assert peaks[2] - peaks[1] < 12
