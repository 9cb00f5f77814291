"""Files about the project agree with it: citation, conda recipe, pre-commit, map of the house."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import nrrn_fiji

yaml = pytest.importorskip("yaml", reason="needs the extra docs")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NAMES_IN_CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def read(name: str) -> Any:
    """What a YAML file holds."""
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = read("CITATION.cff")
    # Required by the schema 1.2.0, and the only other keys that we may use.
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    known = {"type", "version", "license", "keywords", "references", "abstract", "date-released"}
    assert citation.keys() <= known | {"cff-version", "message", "title", "authors"}
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == nrrn_fiji.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == [{"name": one["name"]} for one in PROJECT["authors"]]
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all(set(author) == {"name"} for author in reference["authors"])


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = read("conda/recipe/recipe.yaml")
    wanted = {f"python {PROJECT['requires-python']}"}
    for line in PROJECT["dependencies"]:
        match = re.fullmatch(r"([\w.-]+)(>=[\w.]+)", line)
        assert match, f"{line} has no lower bound only"
        wanted.add(f"{NAMES_IN_CONDA.get(match[1], match[1])} {match[2]}")
    assert sorted(recipe["requirements"]["run"]) == sorted(wanted)  # each of them once
    assert recipe["about"]["license_file"] == PROJECT["license-files"]
    assert recipe["context"]["version"] == nrrn_fiji.__version__
    entry = [f"{name} = {place}" for name, place in PROJECT["scripts"].items()]
    assert recipe["build"]["python"]["entry_points"] == entry


def test_pre_commit_runs_what_ci_runs() -> None:
    (local,) = read(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"].removesuffix(" --force-exclude") for hook in local["hooks"]]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert entries == ["ruff check", "ruff format", "mypy"]
    assert all(entry in script for entry in entries)


def test_the_map_of_the_house_names_what_there_is() -> None:
    import test_layers

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.split("| layer |")[1].split("\n\n")[0]
    rows = [row for row in table.splitlines()[2:] if row.startswith("|")]
    assert len(rows) == len(test_layers.LAYERS)
    for row, modules in zip(rows, test_layers.LAYERS, strict=True):
        named = re.findall(r"`(\w+)(?:\.py|/)`", row)
        assert named and set(named) <= modules, f"the map is older than LAYERS: {row}"
    for name in re.findall(r"`((?:nrrn_fiji|tests|docs|models|benchmarks)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), f"CONTRIBUTING.md names {name}, which is not there"


def test_every_extra_is_explained() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    for extra in PROJECT["optional-dependencies"].keys() - {"test", "docs", "dev"}:
        assert f"`{extra}`" in page, f"docs/install.md does not say what {extra} brings"
