"""``nrrn macro --json`` writes lines of JSON and nothing else; Fiji's start is quiet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nrrn_fiji.fiji import jvm


def which(app: jvm.ImageJ) -> list[str]:
    return ["--imagej"] if app.fiji is None else ["--fiji", str(app.fiji)]


def test_what_a_macro_prints_is_an_event(app: jvm.ImageJ, tmp_path: Path) -> None:
    macro = tmp_path / "talks.ijm"
    macro.write_text('print("one µ");\nprint("two");\nrun("Denoise Stack...", "model=nosuch");')
    done = subprocess.run(
        [sys.executable, "-m", "nrrn_fiji", "macro", str(macro), "--json", *which(app)],
        capture_output=True,
        encoding="utf-8",
        timeout=900,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    texts = [event["text"] for event in events if event["event"] == "log"]
    assert texts[:2] == ["one µ", "two"]
    assert events[-1]["event"] == "error"
    assert "(line 3 of the macro)" in events[-1]["text"]


def test_whatever_writes_to_the_output_is_an_event(capfd: pytest.CaptureFixture[str]) -> None:
    from nrrn_fiji.terminal.console import output_as_events, write_event

    with output_as_events():
        os.write(1, b"past Python\n")
        subprocess.run(["echo", "a child"], check=True)
        write_event("mine", number=1)
    print("after")
    lines = capfd.readouterr().out.splitlines()
    assert lines[-1] == "after"
    events = [json.loads(line) for line in lines[:-1]]
    assert {"event": "mine", "number": 1} in events
    assert [event["text"] for event in events if event["event"] == "log"] == [
        "past Python",
        "a child",
    ]


@pytest.mark.fiji
def test_fijis_start_is_quiet_and_other_errors_are_not_held_back(
    app: jvm.ImageJ, tmp_path: Path
) -> None:
    source = (
        "from nrrn_fiji import fiji\n"
        f"fiji.start({str(app.fiji)!r})\n"
        "import jpype\n"
        "err = jpype.JClass('java.lang.System').err\n"
        "err.println('[ERROR] a real one')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=900, check=False
    )
    assert "Cannot create plugin" not in done.stderr
    assert "[ERROR] a real one" in done.stderr
