"""What every test shares: no test touches the user's own models, and skips say why."""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from fake_commands import Run

# Small arrays on a shared machine: more threads only cost time.  Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Plots are written to files; no test opens a window.
os.environ.setdefault("MPLBACKEND", "Agg")

# The same examples each time, and as long as they take: whether a test passes must not depend on
# luck or on how busy the machine is.  NRRN_TEST_LUCK=1 looks at others.
settings.register_profile(
    "nrrn",
    deadline=None,
    derandomize="NRRN_TEST_LUCK" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("nrrn")


@pytest.fixture(autouse=True)
def user_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the user's own models."""
    folder = tmp_path / "user-models"
    monkeypatch.setenv("NRRN_MODELS", str(folder))
    return folder


@pytest.fixture
def data() -> Path:
    """The folder with the tests' own small files."""
    return Path(__file__).parent / "data"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the real command line; returns exit code, standard output and standard error."""
    import fake_commands

    from nrrn_fiji import cli

    def run(line: str) -> tuple[int, str, str]:
        code = cli.main(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    fake_commands.forget()
    with warnings.catch_warnings():
        yield run


@pytest.fixture
def fake(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line of a small table with functions of our own."""
    from fake_commands import FAKES

    from nrrn_fiji import cli

    monkeypatch.setattr(cli, "nrrn", cli.build(FAKES, {"group": "A group."}))
    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU, and this machine has none"))
