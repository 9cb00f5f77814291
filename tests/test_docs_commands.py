"""Every command that the documentation shows is run, as it is shown.

The fenced blocks of README.md and of the pages in docs/ are run page by page and in their order, in
a folder of their own that holds small files under the names that the pages use.  So that this takes
a minute:

- the shipped models are replaced by tiny ones of the same names;
- ``nrrn train`` gets ``--steps 2`` in place of its ``--minutes`` or ``--steps``, and tiny crops; a
  fresh network is tiny; the same for ``nrrn.train`` in Python;
- of lines that set an environment up (``pip``, ``venv`` …) only the names of extras are checked.

Nothing else is changed.  A block with the line ``<!-- needs: REASON -->`` above it is skipped and
says why; so are blocks that match :data:`NEVER_HERE`.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tifffile

import nrrn_fiji as nrrn
from nrrn_fiji import cli, models
from nrrn_fiji.network import NRRN

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
TINY_TRAINING = ["--batch", "1", "--crop", "16", "--device", "cpu"]
TINY_NETWORK = ["--units", "1", "--maps", "4"]
SHELL, PYTHON = {"bash", "console", "sh"}, {"python"}
SETTING_UP = re.compile(r"(sudo |(\.venv/bin/)?pip |python3? -m (venv|pip)|source |pre-commit )")
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
NEVER_HERE = {
    r"\bfibsem_medulla_(val|train\d)\b": "the volumes of the study",
    r"\bnrrn fiji\b": "a screen, or a Fiji",
    r"\bnrrn macro\b": "Fiji or ImageJ",
}
"""What a block cannot be run without if it matches, marked or not."""
NEEDS = re.compile(r"<!-- needs: ([^>]+?) -->\s*\Z")


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int
    language: str
    text: str
    needs: str
    """Why it cannot be run here; empty if it can."""


def blocks(page: Path) -> list[Block]:
    """The blocks of commands and of Python on a page."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        body = "\n".join(line.removeprefix(match["indent"]) for line in match["body"].splitlines())
        language = match["language"]
        first = body.split(maxsplit=1)[0] if body.strip() else ""
        if not language and first == "nrrn":
            language = "bash"
        if language in SHELL | PYTHON:
            needs = NEEDS.search(text[: match.start()])
            line = text.count("\n", 0, match.start()) + 1
            why = [reason for sign, reason in NEVER_HERE.items() if re.search(sign, body)]
            found.append(Block(line, language, body, needs[1] if needs else "".join(why[:1])))
    return found


PAGES = [
    page
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    )
    if blocks(page)
]


# The folder in which a page is tried ----------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files under the names that the pages use, all of them real image data."""
    folder = tmp_path_factory.mktemp("files")
    noisy = tifffile.imread(EXAMPLES / "fibsem_medulla_noisy.tif")[:8, 40:104, 30:94]
    clean = tifffile.imread(EXAMPLES / "fibsem_medulla.tif")[:8, 40:104, 30:94]

    def save(name: str, stack: np.ndarray) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        info = {"axes": "ZYX", "spacing": 0.01, "unit": "um"}
        tifffile.imwrite(path, stack, imagej=True, resolution=(100, 100), metadata=info)

    for name in ("stack.tif", "noisy.tif", "stacks/a.tif"):
        save(name, noisy)
    save("clean.tif", clean)
    save("denoised.tif", (clean // 2 + noisy // 2).astype(np.uint8))
    for z, plane in enumerate(noisy):
        (folder / "slices").mkdir(exist_ok=True)
        tifffile.imwrite(folder / "slices" / f"slice{z:03}.tif", plane)
    random = np.random.default_rng(0)
    scans = np.clip(clean[3] + random.normal(0, 15, (3, 64, 64)), 0, 255).astype(np.uint8)
    for name in ("scans.tif", "aligned.tif"):
        save(name, scans)
    for number, scan in enumerate(scans, 1):
        tifffile.imwrite(folder / f"scan{number}.tif", scan)
        volume = np.clip(clean + random.normal(0, 15, clean.shape), 0, 255).astype(np.uint8)
        save(f"pass{number}.tif", volume)
    (folder / "examples").mkdir()
    for path in EXAMPLES.glob("*.tif"):
        shutil.copy(path, folder / "examples")
    return folder


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models under the names of the shipped ones."""
    folder = tmp_path_factory.mktemp("models")
    for path in (ROOT / "models").glob("*.safetensors"):
        card = models.load_model(path).card
        kept = {key: card[key] for key in ("description", "licence", "intensity") if key in card}
        models.save_model(folder / path.name, NRRN(units=2, maps=4), kept)
        shutil.copy(path.with_suffix(".md"), folder)
    return folder


@pytest.fixture
def page_folder(
    files: Path, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder in which the blocks of a page are run."""
    folder = tmp_path / "page"
    shutil.copytree(files, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(models, "shipped_models_dir", lambda: tiny_models)
    with warnings.catch_warnings():
        yield folder


# Running them ---------------------------------------------------------------------------------


def statements(text: str) -> list[str]:
    """Command lines, continued lines joined and remarks left out."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [re.sub(r"(^|\s)#.*$", "", line).strip() for line in joined.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line]


def shortened(words: list[str]) -> list[str]:
    """The words of ``nrrn …``, a training made as short as it can be."""
    if words[:1] != ["train"]:
        return words
    kept, rest = [], iter(words)
    for word in rest:
        if word in ("--minutes", "--steps"):
            next(rest)
        else:
            kept.append(word)
    kept += ["--steps", "2", *TINY_TRAINING]
    if not {"--fine-tune", "--units", "--preset"} & set(kept):
        kept += TINY_NETWORK
    return kept


def run_nrrn(words: list[str]) -> tuple[int, str]:
    """Run ``nrrn`` in this process; exit code and all that was written."""
    written = io.StringIO()
    with redirect_stdout(written), redirect_stderr(written):
        code = cli.main(shortened(words))
    return code, written.getvalue()


def run_in_shell(text: str, folder: Path, tiny_models: Path) -> None:
    """Run lines that need a shell in bash, where ``nrrn`` is this one with the tiny models."""
    program = folder.parent / "bin" / "nrrn"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\nfrom pathlib import Path\nfrom nrrn_fiji import cli, models\n"
        f"models.shipped_models_dir = lambda: Path({str(tiny_models)!r})\n"
        "sys.exit(cli.main())\n"
    )
    program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"


def run_shell_block(block: Block, folder: Path, tiny_models: Path) -> None:
    """Run a block of commands."""
    lines = [part for line in statements(block.text) for part in without_setting_up(line)]
    if any(re.search(r"[|<>;&]|\bdone\b", shlex_plain(line)) for line in lines):
        run_in_shell("\n".join(lines), folder, tiny_models)
        return
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "nrrn", f"{line!r} is no nrrn command: mark it, or mend this test."
        code, written = run_nrrn(words)
        assert code == 0, f"line {block.line}: {line}\n{written}"


def without_setting_up(line: str) -> list[str]:
    """What a line does after it has set up an environment."""
    parts = line.split(" && ")
    if not any(SETTING_UP.match(part) for part in parts):
        return [line]
    check_extras(line)
    rest = [part.removeprefix(".venv/bin/") for part in parts if not SETTING_UP.match(part)]
    return [part for part in rest if not part.startswith("python -m pytest")]


def shlex_plain(line: str) -> str:
    """The line without what stands in quotes."""
    return re.sub(r"'[^']*'|\"[^\"]*\"", "", line)


def check_extras(line: str) -> None:
    """See that the extras which a line of pip names exist."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for named in re.findall(r"\[([\w,]+)\]", line):
        assert set(named.split(",")) <= project["optional-dependencies"].keys(), line


def short_training(*arguments: Any, **settings: Any) -> Any:
    """:func:`nrrn_fiji.train`, as short as it can be."""
    from nrrn_fiji.jobs.train import train

    settings.pop("minutes", None)
    return train(
        *arguments, **{**settings, "steps": 2, "batch": 1, "crop": 16, "units": 1, "maps": 4}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_shows_works(
    page: Path,
    page_folder: Path,
    tiny_models: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_models: Path,
) -> None:
    monkeypatch.setitem(nrrn.__dict__, "train", short_training)
    names: dict[str, Any] = {"__name__": "page"}
    skipped = []
    found = blocks(page)
    for block in found:
        if block.needs:
            skipped.append(f"line {block.line} needs {block.needs}")
        elif block.language in PYTHON:
            code = compile(block.text, f"{page.name}, line {block.line}", "exec")
            with redirect_stdout(io.StringIO()):
                exec(code, names)
        else:
            run_shell_block(block, page_folder, tiny_models)
    if len(skipped) == len(found):
        pytest.skip("; ".join(skipped))


# The test itself ------------------------------------------------------------------------------


def test_a_command_that_does_not_work_is_found(page_folder: Path, tiny_models: Path) -> None:
    for text in ("nrrn denoise nothing.tif out.tif", "nrrn denoise stack.tif out.tif --colour red"):
        with pytest.raises(AssertionError, match="nrrn denoise"):
            run_shell_block(Block(1, "bash", text, ""), page_folder, tiny_models)
    with pytest.raises(AssertionError, match=r"\[regsiter\]"):
        check_extras('pip install ".[regsiter]"')
    with pytest.raises(AssertionError, match="is no nrrn command"):
        run_shell_block(Block(1, "bash", "rm -r stack.tif", ""), page_folder, tiny_models)


def test_blocks_and_marks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```\nnrrn macro a.ijm\n```\n"
        "```\nnrrn doctor\n```\n\n```text\nnrrn x\n```\n\n<!-- needs: a screen -->\n"
        "```bash\nnrrn fiji\n```\n\n=== tab\n\n    ```python\n    x = 1\n    ```\n"
    )
    assert blocks(page) == [
        Block(1, "bash", "nrrn macro a.ijm", "Fiji or ImageJ"),
        Block(4, "bash", "nrrn doctor", ""),
        Block(13, "bash", "nrrn fiji", "a screen"),
        Block(19, "python", "x = 1", ""),
    ]


def test_trainings_are_shortened_and_nothing_else() -> None:
    words = shlex.split("train noisy.tif -o m.safetensors --minutes 20 --isotropic")
    assert shortened(words) == [
        *shlex.split("train noisy.tif -o m.safetensors --isotropic --steps 2"),
        *TINY_TRAINING,
        *TINY_NETWORK,
    ]
    assert shortened(["denoise", "a.tif", "--slab", "4"]) == ["denoise", "a.tif", "--slab", "4"]


def test_messages_that_troubleshooting_explains_are_those_of_the_program() -> None:
    import ast

    said = []
    for path in (ROOT / "nrrn_fiji").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                said.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [p.value for p in node.values if isinstance(p, ast.Constant)]
                said.append("\0".join(map(str, parts)))
    everything = "\n".join(said)
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = text.split("| message |")[1].split("\n\n")[0]
    for cell in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]:
        for message in re.findall(r"`([^`]+)`", cell):
            for piece in filter(None, (part.strip(" .:") for part in message.split("…"))):
                assert piece in everything, f"no message says {piece!r}"
