"""Imports go down the layers only, and what must answer at once imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import nrrn_fiji

PACKAGE = Path(nrrn_fiji.__file__).parent

# Lowest first.  A module imports from its own layer or from those above it in this list.
LAYERS = (
    {
        "settings",
        "progress",
        "resources",
        "reports",
        "sentences",
        "files",
        "hiccups",
        "version",
    },
    {
        "network",
        "objectives",
        "noise",
        "metrics",
        "resolution",
    },
    {
        "intensity",
        "tiles",
        "fused",
        "one_pass",
        "one_pass_kernel",
        "int8",
        "engines",
        "both_branches",
        "device",
        "plan",
        "denoising",
        "triplets",
        "masks",
        "training",
        "distributed_training",
        "checkpoints",
        "shifts",
        "stack_checks",
        "noise_statistics",
        "patch_noise",
    },
    {
        "volumes",
        "formats",
        "outputs",
        "model_files",
        "published_checkpoints",
        "models",
        "training_facts",
        "fitness",
        "choices",
        "registration",
        "scans",
        "training_data",
    },
    {"baselines", "scoring", "tables", "plots", "pages"},
    {
        "api",
        "jobs",
        "quality",
        "exchange",
        "array_kinds",
        "study",
        "__init__",
    },
    {"commands", "terminal", "cli", "__main__", "fiji"},
)
LAYER = {module: number for number, modules in enumerate(LAYERS) for module in modules}

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "skimage",
    "matplotlib",
    "rich",
    "tifffile",
    "imagecodecs",
    "safetensors",
    "jpype",
    "scyjava",
    "imagej",
}
JAVA = {"jpype", "scyjava", "imagej"}


def top(path: Path) -> str:
    """The module or subpackage of ours that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def our_imports(path: Path) -> Iterator[tuple[str, int]]:
    """Modules of ours that a file imports anywhere, for types too, each with its line."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["nrrn_fiji", *inside][: len(inside) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        for name in names:
            package, *rest = name.split(".")
            # The version is a constant of the package, which is imported before any of its parts.
            if package == "nrrn_fiji" and rest != ["__version__"]:
                yield (rest[0] if rest else "__init__"), node.lineno


FILES = sorted(PACKAGE.rglob("*.py"))


def test_every_module_has_a_layer() -> None:
    unknown = {top(path) for path in FILES if "_data" not in path.parts} - LAYER.keys()
    assert not unknown, f"give these modules a place in LAYERS: {sorted(unknown)}"


def test_imports_go_down_only() -> None:
    upward = [
        f"{path.relative_to(PACKAGE)}:{line} imports {name}"
        for path in FILES
        for name, line in our_imports(path)
        if path != PACKAGE / "__init__.py" and LAYER.get(name, 99) > LAYER.get(top(path), -1)
    ]
    assert upward == []


def module_of(path: Path) -> str:
    """The dotted name of a file of ours, without the package's."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def modules_imported(path: Path) -> Iterator[str]:
    """Modules of ours that a file imports from within the package, but those for types alone."""
    inside = path.relative_to(PACKAGE).parent.parts
    known = {module_of(other) for other in FILES}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and id(node) not in for_types:
            module = node.module.split(".") if node.module else []
            if node.level:
                base = [*inside[: len(inside) + 1 - node.level], *module]
            elif module[0] == "nrrn_fiji":
                base = module[1:]
            else:
                continue
            for name in [".".join([*base, alias.name]) for alias in node.names] + [".".join(base)]:
                if name in known:
                    yield name


def test_no_modules_import_each_other() -> None:
    imports = {
        module_of(path): set(modules_imported(path)) for path in FILES if path.stem != "__init__"
    }
    assert {"entry", "java"} < {name.rpartition(".")[2] for name in imports["fiji.plugin"]}
    assert {"masks", "noise"} < imports["triplets"], "whole names count too"
    list(TopologicalSorter(imports).static_order())  # a CycleError names the circle


def test_the_import_finder_sees_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "fiji" / "plugin.py"
    file.parent.mkdir()
    file.write_text(
        "import nrrn_fiji.api\n"
        "from nrrn_fiji import __version__, study\n"
        "from nrrn_fiji.models import Model\n"
        "from ..tiles import Tile\n"
        "from .. import volumes\n"
        "from . import jvm\n"
        "def f():\n    from ..cli import main\n"
        "import numpy\n"
    )
    assert sorted(our_imports(file)) == [
        ("api", 1),
        ("cli", 8),
        ("fiji", 6),
        ("models", 3),
        ("study", 2),
        ("tiles", 4),
        ("volumes", 5),
    ]


def test_java_is_imported_by_the_fiji_folder_alone() -> None:
    users = set()
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            if JAVA & {name.split(".")[0] for name in names}:
                users.add(top(path))
    assert users <= {"fiji"}


def imported_by(code: str) -> set[str]:
    """Top-level modules that a fresh Python has imported after running ``code``."""
    report = (
        f"import sys\n{code}\nprint('MODULES', *{{name.split('.')[0] for name in sys.modules}})"
    )
    done = subprocess.run(
        [sys.executable, "-c", report], capture_output=True, text=True, check=True, timeout=600
    )
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules = imported_by("import nrrn_fiji; dir(nrrn_fiji); nrrn_fiji.__version__")
    assert "nrrn_fiji" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize("words", [["--help"], ["denoise", "--help"], ["models", "--help"], ["-V"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    modules = imported_by(f"from nrrn_fiji.cli import main; assert main({words}) == 0")
    assert "click" in modules
    assert not modules & HEAVY


def test_listing_models_does_not_wait_for_torch() -> None:
    modules = imported_by("from nrrn_fiji.cli import main; assert main(['models', 'list']) == 0")
    assert not modules & {"torch", "numpy"}


def test_every_public_name_can_be_had() -> None:
    for name in nrrn_fiji.__all__:
        assert getattr(nrrn_fiji, name) is not None
        assert name in dir(nrrn_fiji)
    name = "denoize"
    with pytest.raises(AttributeError, match=name):
        getattr(nrrn_fiji, name)


def test_no_module_hides_a_public_name() -> None:
    # A module of the same name takes the name's place in the package as soon as it is imported.
    assert not {top(path) for path in FILES} & set(nrrn_fiji.__all__)
