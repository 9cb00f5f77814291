"""``nrrn doctor``: what is there, what is not, and what to do about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from nrrn_fiji import __version__, cli, device
from nrrn_fiji.fiji import installed, ordinary
from nrrn_fiji.models import DEFAULT_MODEL
from nrrn_fiji.terminal import doctor
from nrrn_fiji.version import full_version


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer without Java and Fiji, but with the shipped model."""
    for name in ("JAVA_HOME", "NRRN_FIJI", "FIJI_HOME", "DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installed, "_library_of_jpype", lambda: None)
    monkeypatch.setattr(installed, "_settings_file", lambda: tmp_path / "fiji.json")
    monkeypatch.setattr(installed, "usual_fiji_places", lambda: [tmp_path / "Fiji.app"])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, list[dict]], str]:
    """Exit code, findings by what was looked at, and the last line for people."""
    code = cli.main(["doctor", *words, "--json"])
    (line,) = capsys.readouterr().out.splitlines()
    found: dict[str, list[dict]] = {}
    for finding in json.loads(line)["findings"]:
        found.setdefault(finding["what"], []).append(finding)
    cli.main(["doctor", *words])
    return code, found, capsys.readouterr().out.splitlines()[-1]


def test_without_java_and_fiji_stacks_can_be_denoised_all_the_same(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found, last = run(capsys)
    assert code == 0
    assert "Stacks can be denoised here" in last
    assert found["PyTorch"][0]["state"] == "ok"
    assert any(one["found"].startswith("cpu") for one in found["device"])
    assert found["screen"][0]["state"] == "missing"
    assert "need no screen" in found["screen"][0]["advice"]
    assert found["Fiji"][0]["state"] == "missing"
    assert "--fiji DIR" in found["Fiji"][0]["advice"]
    assert found["Java"][0]["state"] == "missing"
    assert "Install Java 17".lower() in found["Java"][0]["advice"].lower()


@pytest.mark.parametrize(
    ("vnni", "numba", "state", "words"),
    [
        (True, True, "ok", "ready"),
        (True, False, "missing", "for want of Numba not used"),
        (False, False, "ok", "needs a processor with AVX-512 VNNI"),
    ],
)
def test_a_processor_that_could_be_quicker_is_told_how(
    bare: Path, capsys: pytest.CaptureFixture[str], monkeypatch, vnni, numba, state, words
) -> None:
    monkeypatch.setattr(device, "choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni, raising=False)
    monkeypatch.setattr(device, "find_spec", lambda name: numba or None)
    _, found, _ = run(capsys)
    (finding,) = found["8-bit arithmetic"]
    assert (finding["state"], finding["found"]) == (state, words)
    assert ("python -m pip install numba" in finding["advice"]) == (state == "missing")


def test_a_fiji_folder_is_named_with_its_imagej(
    bare: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fiji = bare / "elsewhere" / "Fiji.app"
    (fiji / "jars").mkdir(parents=True)
    for name in ("ij-1.54p.jar", "imagej-2.16.0.jar", "imagej-legacy-2.0.1.jar"):
        (fiji / "jars" / name).touch()
    _, found, _ = run(capsys, "--fiji", str(fiji))
    assert found["Fiji"][0]["found"] == f"{fiji}, ImageJ 1.54p"
    _, found, _ = run(capsys, "--fiji", str(bare))
    assert found["Fiji"][0]["state"] == "missing"
    assert "is no Fiji folder" in found["Fiji"][0]["advice"]


@pytest.mark.parametrize(
    ("python", "version", "sources", "state", "said"),
    [
        (sys.executable, __version__, ordinary._fingerprint(), "ok", ""),
        ("/no/such/Über/python", __version__, ordinary._fingerprint(), "missing", "is gone"),
        (sys.executable, "0.0.0", ordinary._fingerprint(), "missing", "another version than"),
        (sys.executable, __version__, "of other sources", "missing", "another version than"),
    ],
)
def test_what_is_installed_in_fiji_is_judged(
    bare: Path,
    capsys: pytest.CaptureFixture[str],
    python: str,
    version: str,
    sources: str,
    state: str,
    said: str,
) -> None:
    fiji = bare / "Fiji.app"
    for name in ("jars", "plugins"):
        (fiji / name).mkdir(parents=True)
    for name in ("ij-1.54p.jar", "imagej-2.16.0.jar", "imagej-legacy-2.0.1.jar"):
        (fiji / "jars" / name).touch()
    _, found, _ = run(capsys)
    (absent,) = found["NRRN in Fiji"]
    assert (absent["state"], absent["found"]) == ("missing", "not installed")
    assert "nrrn fiji --install" in absent["advice"]

    about = {"python": python, "version": version, "sources": sources}
    jar = ordinary._jar({ordinary.PROPERTIES: ordinary._properties(about)})
    (fiji / ordinary.PLUGIN).write_bytes(jar)
    _, found, _ = run(capsys, "--fiji", str(fiji))
    (there,) = found["NRRN in Fiji"]
    assert there["state"] == state
    assert python in there["found"]
    assert said in there["advice"]
    assert (f'nrrn fiji --install --fiji "{fiji}"' in there["advice"]) == bool(said)

    (fiji / ordinary.PLUGIN).write_bytes(jar[:50])
    _, found, _ = run(capsys)
    (damaged,) = found["NRRN in Fiji"]
    assert "is damaged" in damaged["found"]
    assert "nrrn fiji --install" in damaged["advice"]


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_python_that_lost_nrrn_is_named(bare: Path) -> None:
    other = bare / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    assert doctor.version_in(str(other)) is None
    other.write_text("#!/bin/sh\necho 0.0.1\n")
    assert doctor.version_in(str(other)) == "0.0.1"


def test_a_damaged_model_of_the_users_is_named(
    bare: Path, user_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user_models.mkdir()
    (user_models / "mine.safetensors").write_bytes(b"damaged")
    code, found, _ = run(capsys)
    assert code == 0
    (mine,) = (one for one in found["model"] if one["found"].startswith("mine:"))
    assert mine["state"] == "missing"
    assert "nrrn models remove mine" in mine["advice"]


def test_without_the_shipped_model_the_exit_code_says_so(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nrrn_fiji import models

    monkeypatch.setattr(models, "known_models", lambda: [])
    code, found, last = run(capsys)
    assert code == 1
    assert DEFAULT_MODEL in found["model"][0]["found"]
    assert found["model"][0]["state"] == "PROBLEM"
    assert "cannot be denoised" in last


def test_a_mixed_up_installation_is_a_problem(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "nrrn_fiji.api", None)  # importing it fails
    monkeypatch.delattr("nrrn_fiji.api", raising=False)
    code, found, last = run(capsys)
    assert code == 1
    assert found["engine"][0]["state"] == "PROBLEM"
    assert "install nrrn-fiji again" in found["engine"][0]["advice"]
    assert "cannot be denoised" in last


def test_one_broken_part_does_not_hide_the_others(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(fiji: Path | None = None) -> None:
        raise KeyError("a fault")

    monkeypatch.setattr(installed, "find_fiji", broken)
    code, found, _ = run(capsys)
    assert code == 0
    assert "KeyError: 'a fault'" in found["Fiji"][0]["found"]
    assert "plain ImageJ" in found
    assert "PyTorch" in found


def test_a_column_for_people(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor.examine()
    assert report.table is not None
    assert report.table.header == ("what", "state", "found")
    assert [row[0] for row in report.table.rows][:2] == ["Python", "nrrn-fiji"]


def test_a_support_request_has_the_headings_of_the_form_and_no_name(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = pytest.importorskip("yaml", reason="needs the extra docs")

    monkeypatch.setenv("HOME", str(bare))
    assert cli.main(["doctor", "--report"]) == 0
    text = capsys.readouterr().out
    form = Path(__file__).parents[1] / ".github" / "ISSUE_TEMPLATE" / "support.yml"
    boxes = [box for box in yaml.safe_load(form.read_text())["body"] if box["type"] == "textarea"]
    headings = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert headings == [box["attributes"]["label"] for box in boxes]
    for box in boxes[:-1]:
        assert box["attributes"]["description"] in text
    assert str(bare) not in text
    assert "~/user-models" in text
    assert full_version() in text
    assert "torch " in text.split("packages: ")[1]
