"""The documentation builds as a site, without a network, and without a dead link."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from skimage.io import imread

from nrrn_fiji.commands import COMMANDS

pytest.importorskip("mkdocs", reason="needs the extra docs")

ROOT = Path(__file__).parents[1]
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there, so that whatever asks the network fails."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a warning, such as of a dead link, is an error."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    fetching = re.compile(
        r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)"
    )
    for page in pages:
        found = fetching.findall(page.read_text(encoding="utf-8"))
        assert not found, f"{page.relative_to(site)} fetches {found}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8"))


def test_every_command_has_its_place_on_the_page_of_commands(site: Path) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    for command in COMMANDS:
        assert f"nrrn {command.name}<" in text
        for option in command.all_options():
            name = option.position or (option.spelling or (option.name.replace("_", "-"),))[-1]
            assert f"{name.replace('[', '').replace(']', '')}" in text


def test_equations_and_the_code_beside_them_are_shown(site: Path) -> None:
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math") >= 10
    assert "\\sigma" not in re.sub(r"<annotation.*?</annotation>", "", text)
    plain = re.sub(r"<[^>]+>", "", text)
    assert "r = torch.sigmoid(self.Vr(m) + self.Wr(s))  # reset gate" in plain


def test_docstrings_are_shown_without_sphinx_roles(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "Expected number of photons at grey value 1" in text
    assert not re.findall(r":(?:func|class|mod|meth|data|attr):", text)


def test_pages_from_elsewhere_link_to_pages(site: Path) -> None:
    text = (site / "benchmarks.html").read_text(encoding="utf-8")
    assert 'href="decisions/engine.html"' in text
    assert 'href="cards/fibsem-medulla.html"' in (site / "study.html").read_text(encoding="utf-8")


def script(name: str) -> ModuleType:
    """One of the scripts of the site."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawings_are_those_of_their_script(tmp_path: Path) -> None:
    script("drawings").main(tmp_path)
    # Compression of the small images inside may differ between versions of its library.
    images = re.compile(r"base64,[^\"]*")
    drawn = sorted(tmp_path.glob("*.svg"))
    assert len(drawn) >= 6
    for file in drawn:
        kept = (ROOT / "docs" / "images" / file.name).read_text(encoding="utf-8")
        assert images.sub("", file.read_text(encoding="utf-8")) == images.sub("", kept)
    icons = [imread(folder / "icon.png") for folder in (tmp_path, ROOT / "docs" / "images")]
    np.testing.assert_array_equal(*icons)
    # The one that Fiji's windows show travels with what is installed there.
    np.testing.assert_array_equal(icons[0], imread(ROOT / "fiji_scripts" / "icon.png"))
    assert icons[0].shape == (64, 64, 4)
    assert icons[0][0, 0, 3] == 0 and icons[0][32, 32, 3] == 255


def test_a_page_that_shows_a_function_which_is_gone_says_so() -> None:
    hooks = script("hooks")
    shown = hooks.excerpt("nrrn_fiji/network.py", "noise_attention")
    assert "def noise_attention(h: Tensor):" in shown
    assert '"""' not in shown
    with pytest.raises(Exception, match=r"network.py has no NRRN.nothing: mend the page"):
        hooks.excerpt("nrrn_fiji/network.py", "NRRN.nothing")
