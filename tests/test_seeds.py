"""Randomness has a seed everywhere: same seed, same result."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import nrrn_fiji
from nrrn_fiji.commands import find_command

PACKAGE = Path(nrrn_fiji.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)
GLOBAL_RANDOMNESS = {"random", "secrets"}


def unseeded(tree: ast.AST) -> list[int]:
    """Lines that draw from a source of randomness without a seed."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            lines += [node.lineno for name in names if name.split(".")[0] in GLOBAL_RANDOMNESS]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called.endswith("default_rng") and not node.args and not node.keywords:
                lines.append(node.lineno)
            drawn = re.fullmatch(r"(?:np|numpy)\.random\.(\w+)", called)
            if drawn and drawn[1] not in ("default_rng", "Generator", "SeedSequence"):
                lines.append(node.lineno)
    return lines


def test_nothing_draws_without_a_seed() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in FILES
        if (lines := unseeded(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_the_finder_finds() -> None:
    code = "import random\nrng = np.random.default_rng()\nx = np.random.rand(3)\n"
    assert unseeded(ast.parse(code)) == [1, 2, 3]
    assert unseeded(ast.parse("x = np.random.default_rng([1, 2]).random(3)")) == []


@pytest.mark.parametrize(
    "name", ["train", "add-noise", "preview", "study table1", "study table2", "study all"]
)
def test_commands_that_draw_take_a_seed(name: str) -> None:
    (seed,) = [option for option in find_command(name).all_options() if option.name == "seed"]
    assert seed.default == 0
