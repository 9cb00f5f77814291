"""What a terminal, a pipe and a log see of a run: results, progress, errors, JSON."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from fake_commands import (
    Run,
    errors,
)

from nrrn_fiji import cli
from nrrn_fiji.sentences import as_typed
from nrrn_fiji.terminal import console


def test_a_pipe_gets_the_result_and_a_log_gets_plain_lines(fake: Run) -> None:
    code, out, err = fake("work a.tif")
    assert code == 0
    assert out == "k\tv\na\t1\nWrote out.tif.\n"
    lines = err.splitlines()
    assert lines[0] == "Computing on the CPU."
    assert lines[1] == "  0 %  0/2 slices  busy"
    assert re.fullmatch(r"100 %  2/2 slices, .+ slices/s  busy", lines[2])
    assert "\x1b" not in out + err


def test_quiet_shows_nothing(fake: Run) -> None:
    assert fake("work a.tif -q") == (0, "", "")


def test_quiet_still_shows_errors(fake: Run) -> None:
    errors.append(ValueError("no"))
    assert fake("group fail -q") == (1, "", "Error: no\n")


def test_json_is_one_event_per_line(fake: Run) -> None:
    code, out, err = fake("work a.tif --json")
    assert (code, err) == (0, "")
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["event"] for event in events] == ["message", "progress", "progress", "result"]
    assert events[0]["text"] == "Computing on the CPU."
    assert {"done": 2, "total": 2, "counts": "slices"}.items() <= events[2].items()
    assert events[3] == {"event": "result", "path": "out.tif"}


def test_quiet_json_is_the_result_alone(fake: Run) -> None:
    code, out, err = fake("work a.tif --json -q")
    assert (code, err) == (0, "")
    assert json.loads(out) == {"event": "result", "path": "out.tif"}


def test_json_has_no_numbers_that_json_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"psnr": float("inf"), "scores": (1.5, float("nan")), "path": Path("a"), "n": Clock}
    console.write_event("result", **values)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    event = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert event["psnr"] is None and event["scores"] == [1.5, None]
    assert event["path"] == "a" and "Clock" in event["n"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
@pytest.mark.parametrize("flags", [["--json"], []])
def test_output_that_cannot_be_written_is_one_sentence(flags: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nrrn_fiji", "models", "list", *flags],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: No space left on device.\n"


def test_an_error_in_json_is_also_a_sentence(fake: Run) -> None:
    errors.append(ValueError("no"))
    code, out, err = fake("group fail --json")
    assert code == 1
    assert json.loads(out) == {"event": "error", "text": "no", "exit_code": 1}
    assert err == "Error: no\n"


class Clock:
    """Time that passes when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_throughput_and_remaining_time() -> None:
    clock = Clock()
    progress = console.JobProgress("slices", clock)
    progress.update(40, 100)  # the part that an earlier run finished is no work of this one
    assert progress.pace() == "40/100 slices"
    clock.now += 10
    progress.update(60, 100)
    assert progress.rate == 2.0
    assert progress.remaining == 20.0
    assert progress.pace() == "60/100 slices, 2 slices/s, 20 s left"
    clock.now += 20
    progress.update(62.9, 100)
    assert progress.pace() == "62/100 slices, 1.31 s/slice, 49 s left"


def test_throughput_is_that_of_late_and_of_this_phase() -> None:
    clock = Clock()
    progress = console.JobProgress("slices", clock)
    for done in range(0, 100, 10):  # fast, then slow
        clock.now += 1
        progress.update(done, 1000)
    for done in range(100, 140):
        clock.now += 10
        progress.update(done, 1000)
    assert progress.rate == pytest.approx(0.1)
    progress.update(0, 30)
    assert progress.rate is None


def test_a_job_by_the_clock_counts_no_pieces() -> None:
    clock = Clock()
    progress = console.JobProgress("s", clock)
    progress.update(0, 3600)
    clock.now += 60
    progress.update(60, 3600)
    assert progress.pace() == "59 min 0 s left"


def test_a_log_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    progress = console.LineProgress("slices", clock)
    for done in range(1001):
        clock.now += 0.1
        progress.update(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert 6 <= len(lines) <= 9  # 100 s
    assert lines[0].startswith("  0 %")
    assert lines[-1].startswith("100 %")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (273600, "3 d 4 h"),
    ],
)
def test_times_are_readable(seconds: float, text: str) -> None:
    assert console.readable_time(seconds) == text


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(fake: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Run the small table's command line on a terminal of 100 columns; returns what is shown."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)

    def run(line: str) -> str:
        stream = Terminal()
        with redirect_stdout(stream), redirect_stderr(stream):
            cli.main(shlex.split(line))
        return stream.getvalue()

    return run


def colours(text: str) -> list[str]:
    """The escape sequences that set a colour (not bold, dim or the cursor)."""
    found = re.findall(r"\x1b\[([0-9;]*)m", text)
    return [codes for codes in found if re.search(r"(^|;)(3[0-8]|4[0-8]|9\d)(;|$)", codes)]


def test_a_terminal_gets_a_bar_and_a_drawn_table(terminal: Callable[[str], str]) -> None:
    shown = terminal("work a.tif")
    assert "━" in shown
    assert "Computing on the CPU." in shown
    assert "2/2 slices" in shown
    assert "─" in shown
    assert shown.endswith("Wrote out.tif.\n")
    assert colours(shown)


def test_an_error_is_marked_in_red_on_a_terminal(terminal: Callable[[str], str]) -> None:
    errors.append(ValueError("no"))
    assert "\x1b[1;31mError:\x1b[0m no\n" in terminal("group fail")


def test_no_color_is_honoured(
    terminal: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    errors.append(ValueError("no"))
    shown = [terminal(line) for line in ("work a.tif", "group fail", "nothing")]
    assert "━" in shown[0]
    assert "Error: no\n" in shown[1]
    assert "Error: No such command" in shown[2]
    assert [colours(text) for text in shown] == [[], [], []]


@pytest.mark.parametrize(
    ("sentence", "typed"),
    [
        ("Begin again with --restart (restart=True).", "Begin again with --restart."),
        ('Give --z-axis T (z_axis="T").', "Give --z-axis T."),
        ("--noise (noise_out) is a.tif (32 bits).", "--noise is a.tif (32 bits)."),
        ("Try --debug (it helps) or f(x=1).", "Try --debug (it helps) or f(x=1)."),
    ],
)
def test_a_command_line_speaks_of_options_alone(sentence: str, typed: str) -> None:
    assert as_typed(sentence) == typed


def test_errors_speak_of_options_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy
    import tifffile

    raw, out = tmp_path / "raw.tif", tmp_path / "clean.tif"
    tifffile.imwrite(raw, numpy.zeros((3, 8, 8), numpy.uint8), photometric="minisblack")
    out.write_text("finished")
    assert cli.main(["denoise", str(raw), str(out)]) == 1
    assert "allow to replace it with --overwrite." in capsys.readouterr().err
