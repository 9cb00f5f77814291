"""A wheel built from the tree carries what a source checkout has in its folders."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from nrrn_fiji.models import DEFAULT_MODEL

ROOT = Path(__file__).parents[1]
QUESTION = """
import sys
from pathlib import Path
import nrrn_fiji
from nrrn_fiji.models import known_models, load_model
from nrrn_fiji.resources import data_folder
print(Path(nrrn_fiji.__file__).parent)
for name in ("models", "scripts", "examples"):
    folder = data_folder(name)
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    print(name, sorted(file for file in files if "__pycache__" not in file))
print([load_model(entry.name).name for entry in known_models()])
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which a fresh wheel was unpacked, which is how wheels are installed."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def ask(path: Path, where: Path) -> list[str]:
    """What a fresh Python finds that imports the package from ``path``, run in ``where``."""
    done = subprocess.run(
        [sys.executable, "-c", QUESTION],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_the_wheel_finds_models_scripts_and_examples(installed: Path, tmp_path: Path) -> None:
    package, *found = ask(installed, tmp_path)
    checkout, *expected = ask(ROOT, tmp_path)
    assert Path(package) == installed / "nrrn_fiji"
    assert Path(checkout) == ROOT / "nrrn_fiji"
    assert found == expected
    files, scripts, examples, names = map(ast.literal_eval, (t[t.index("[") :] for t in found))
    assert "README.md" in files
    assert DEFAULT_MODEL in names, "a wheel without its model cannot denoise"
    assert {"fibsem_medulla.tif", "fibsem_medulla_noisy.tif"} <= set(examples)
    assert any(script.endswith(".ijm") for script in scripts)


def test_the_wheel_is_typed_and_has_its_command(installed: Path) -> None:
    assert (installed / "nrrn_fiji" / "py.typed").is_file()
    (entries,) = installed.glob("*.dist-info/entry_points.txt")
    assert "nrrn = nrrn_fiji.cli:main" in entries.read_text()
    (licence,) = installed.glob("*.dist-info/licenses/LICENSE")
    assert licence.read_text() == (ROOT / "LICENSE").read_text()


def test_every_library_of_others_travels_with_its_licence(installed: Path) -> None:
    folder = installed / "nrrn_fiji" / "_data" / "scripts" / "jars"
    notice = (folder / "LICENCES.md").read_text(encoding="utf-8")
    jars = sorted(folder.glob("*.jar"))
    assert jars
    for jar in jars:
        assert f"`{jar.name}`" in notice
        with zipfile.ZipFile(jar) as archive:
            own = any(Path(name).name == "LICENSE" for name in archive.namelist())
        name = jar.name.split("-")[0].capitalize()
        # One that does not carry its licence itself has it in full in the notice.
        assert own or "Redistribution and use" in notice.partition(f"## {name}")[2], jar.name
    # Where tools that gather licences look.
    (listed,) = installed.glob("*.dist-info/licenses/fiji_scripts/jars/LICENCES.md")
    assert listed.read_text(encoding="utf-8") == notice


def test_the_wheel_carries_no_tests(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if path.suffix != ".dist-info"} == {
        "nrrn_fiji"
    }
