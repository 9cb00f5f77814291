"""The ``nrrn`` command: what a user types, sees and gets."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import nrrn_fiji
from nrrn_fiji import cli, models, version
from nrrn_fiji.commands import COMMANDS, Command, Kind, Option, declare, find_command
from nrrn_fiji.jobs import models as catalogue
from nrrn_fiji.network import NRRN
from nrrn_fiji.progress import Cancelled, Progress
from nrrn_fiji.reports import Report, Table
from nrrn_fiji.settings import DenoiseSettings, TrainSettings, setting
from nrrn_fiji.terminal import console

# A small table with functions of our own ------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class FakeSettings:
    """Settings of every kind."""

    whole: int | None = setting(None, label="Whole", help="A whole number.", minimum=2, unit="px")
    real: float = setting(0.5, label="Real", help="A number.", minimum=0.0, maximum=1.0)
    pair: tuple[float, float] | None = setting(None, label="Pair", help="Two; or left out.")
    few: int = setting(3, label="Few", help="A choice.", choices=(1, 2, 3))
    word: str | None = setting(None, label="Word", help="A word.", choices=("a", "b"), expert=True)
    off: bool = setting(False, label="Off", help="A flag that is off.")
    on: bool = setting(True, label="On", help="A flag that is on.")

    def __post_init__(self) -> None:
        if self.whole is not None and self.whole < 2:
            raise ValueError(f"whole is {self.whole}, but it must be at least 2.")


calls: list[dict[str, Any]] = []


def work(*, progress: Progress | None = None, **arguments: Any) -> Report:
    """Note what it was called with."""
    calls.append(arguments)
    if progress is not None:
        progress.message("Computing on the CPU.")
        for done in range(3):
            progress.update(done, 2, "busy")
    return Report("Wrote out.tif.", {"path": "out.tif"}, Table(("k", "v"), (("a", "1"),)))


def plan(**arguments: Any) -> Report:
    """Note what it was called with, and that it was the plan."""
    calls.append({"plan": True, **arguments})
    return Report("2 tiles.", {"tiles": 2})


errors: list[BaseException] = []


def fail(**_: Any) -> Report:
    """Raise what the test put there."""
    raise errors[0]


def warn(progress: Progress, **_: Any) -> Report:
    """Warn, as a library may do."""
    warnings.warn("low\n  memory", UserWarning, stacklevel=1)
    return Report("Done.", {})


def wait(progress: Progress, **_: Any) -> Report:
    """Be stopped by the signals in ``signals`` and say what is kept."""
    for number in signals:
        os.kill(os.getpid(), number)
    if progress.cancelled:
        raise Cancelled("Stopped; 3 of 8 slices are kept.")
    return Report("Done.", {})


signals: list[int] = []

SOURCE = Option(
    name="source", label="In", help="Input.", kind=Kind.IMAGE, required=True, position="IN"
)
FAKES = (
    Command(
        name="work",
        title="Work",
        summary="Do some work.",
        description="More about it.",
        examples=("nrrn work a.tif --whole 3",),
        function="test_cli:work",
        plan="test_cli:plan",
        plan_without=("overwrite",),
        settings=FakeSettings,
        counts="slices",
        options=(
            SOURCE,
            Option(name="slices", label="Slices", help="Some.", kind=Kind.SLICES),
            Option(
                name="noise_out", label="N", help="Noise.", kind=Kind.FILE, spelling=("--noise",)
            ),
            Option(name="overwrite", label="O", help="Over.", kind=Kind.FLAG, default=False),
        ),
    ),
    Command(
        name="many",
        title="Many",
        summary="Take many.",
        examples=("nrrn many a b",),
        function="test_cli:work",
        options=(
            dataclasses.replace(SOURCE, many=True),
            Option(
                name="out",
                label="Out",
                help="Output.",
                kind=Kind.FILE,
                required=True,
                spelling=("-o", "--out"),
            ),
        ),
    ),
    Command(
        name="named",
        title="Named",
        summary="Name the output.",
        examples=("nrrn named a.tif",),
        function="test_cli:work",
        options=(
            SOURCE,
            Option(
                name="out",
                label="Out",
                help="Output.",
                kind=Kind.FILE,
                position="[OUT]",
                named_after="source",
                ending="-new",
            ),
        ),
    ),
    *(
        Command(
            name=f"group {name}",
            title=name,
            summary=f"Will {name}.",
            examples=(f"nrrn group {name}",),
            function=f"test_cli:{name}",
            counts="slices",
        )
        for name in ("fail", "wait", "warn")
    ),
)


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Run the real command line; returns exit code, standard output and standard error."""

    def run(line: str) -> tuple[int, str, str]:
        code = cli.main(shlex.split(line))
        out, err = capsys.readouterr()
        return code, out, err

    calls.clear()
    errors.clear()
    signals.clear()
    with warnings.catch_warnings():
        yield run


@pytest.fixture
def fake(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line of the small table."""
    monkeypatch.setattr(cli, "nrrn", cli.build(FAKES, {"group": "A group."}))
    return run


# Values ---------------------------------------------------------------------------------------


def test_options_reach_the_function_with_their_values(fake: Run) -> None:
    code, out, _ = fake(
        "work 'a/*.tif' --whole 4 --real 0.25 --pair -5,1e3 --few 2 --word b --off --no-on "
        "--slices 10:20 --noise ~/n.tif --overwrite"
    )
    assert code == 0
    assert calls == [
        {
            "source": Path("a/*.tif"),
            "slices": range(10, 20),
            "noise_out": Path.home() / "n.tif",
            "overwrite": True,
            "settings": FakeSettings(
                whole=4, real=0.25, pair=(-5.0, 1000.0), few=2, word="b", off=True, on=False
            ),
        }
    ]
    assert out.endswith("Wrote out.tif.\n")


def test_what_is_left_out_has_its_default(fake: Run) -> None:
    assert fake("work a.tif")[0] == 0
    assert calls == [
        {
            "source": Path("a.tif"),
            "slices": None,
            "noise_out": None,
            "overwrite": False,
            "settings": FakeSettings(),
        }
    ]


def test_several_inputs_arrive_as_a_list(fake: Run) -> None:
    assert fake("many a.tif b.tif -o c.tif")[0] == 0
    assert calls == [{"source": [Path("a.tif"), Path("b.tif")], "out": Path("c.tif")}]


def test_an_output_without_a_name_lies_beside_its_input(fake: Run) -> None:
    assert fake("named 'a b/x.ome.tif'")[0] == 0
    assert calls == [{"source": Path("a b/x.ome.tif"), "out": Path("a b/x-new.ome.tif")}]
    assert fake("named x.tif y.tif")[0] == 0
    assert calls[1]["out"] == Path("y.tif")


def test_a_plan_does_nothing_and_is_shown_even_when_quiet(fake: Run) -> None:
    code, out, _ = fake("work a.tif --plan --overwrite --quiet")
    assert (code, out) == (0, "2 tiles.\n")
    assert calls[0].pop("plan")
    assert "overwrite" not in calls[0]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind.INTEGER, "12", 12),
        (Kind.NUMBER, "1e-3", 0.001),
        (Kind.PAIR, "1,50", (1.0, 50.0)),
        (Kind.PAIR, "1-50", (1.0, 50.0)),
        (Kind.PAIR, "-10--5.5", (-10.0, -5.5)),
        (Kind.PAIR, " 1e2 , 2E+2 ", (100.0, 200.0)),
        (Kind.PAIR, "7,7", (7.0, 7.0)),
        (Kind.SLICES, "0:1", range(0, 1)),
        (Kind.FLAG, "Yes", True),
        (Kind.FLAG, "off", False),
        (Kind.FILE, "a b.tif", Path("a b.tif")),
    ],
)
def test_texts_are_read_as_people_write_them(kind: Kind, text: str, value: Any) -> None:
    parsed = Option(name="x", label="X", help="", kind=kind).parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.INTEGER, "1.5"),
        (Kind.INTEGER, ""),
        (Kind.NUMBER, "nan"),
        (Kind.NUMBER, "ten"),
        (Kind.PAIR, "5"),
        (Kind.PAIR, "9,3"),
        (Kind.PAIR, "1,2,3"),
        (Kind.SLICES, "5:5"),
        (Kind.SLICES, "-1:5"),
        (Kind.SLICES, "5"),
        (Kind.FLAG, "perhaps"),
        (Kind.FILE, ""),
        (Kind.MODEL, ""),
    ],
)
def test_texts_that_make_no_sense_are_refused(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError, match=f"^x is {text!r}, but it must be {kind.accepts}"):
        Option(name="x", label="X", help="", kind=kind).parse(text)


# Errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("work a.tif --whole 1", "whole is 1, but it must be at least 2."),
        ("work a.tif --whole x", "whole is 'x', but it must be a whole number."),
        ("work a.tif --few 4", "few is '4', but it must be one of 1, 2, 3."),
        ("work a.tif --slices 9:3", "slices is '9:3', but it must be two slice numbers"),
        ("work", "Missing argument 'IN'"),
        ("many a.tif", "Missing option '-o' / '--out'"),
        ("work a.tif b.tif", "Put a pattern of many files into quotes"),
        ("work a.tif --hole 4", "No such option"),
        ("wrok", "No such command 'wrok'"),
    ],
)
def test_a_command_that_is_not_understood(fake: Run, line: str, sentence: str) -> None:
    code, out, err = fake(line)
    assert code == 2
    assert out == ""
    assert err.startswith("Error: ")
    assert sentence in err
    assert re.search(r"\nSee: nrrn( work| many)? --help\n$", err)
    assert calls == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("tile is 4, but the halo\n  needs 8."), "tile is 4, but the halo needs 8."),
        (FileNotFoundError("There is no file a.tif."), "There is no file a.tif."),
        (FileNotFoundError(2, "No such file or directory", "a.tif"), "a.tif: No such file or dire"),
        (OSError(28, "No space left on device"), "No space left on device."),
        (MemoryError(), "There is not enough memory."),
        (KeyError("x"), "Something happened that should not: KeyError: 'x' Run the command again"),
        (AssertionError(), "Something happened that should not: AssertionError"),
        (ModuleNotFoundError("No module named 'y'"), "Something happened that should not"),
    ],
)
def test_an_error_is_one_sentence(fake: Run, error: Exception, sentence: str) -> None:
    errors.append(error)
    code, out, err = fake("group fail")
    assert (code, out) == (1, "")
    assert err.startswith(f"Error: {sentence}")
    assert err.count("\n") == 1


def test_debug_shows_the_traceback(fake: Run) -> None:
    errors.append(ValueError("no"))
    code, _, err = fake("group fail --debug")
    assert code == 1
    assert "Traceback" in err
    assert err.endswith("Error: no\n")


def test_a_warning_is_one_line(fake: Run) -> None:
    warnings.simplefilter("default")
    code, _, err = fake("group warn")
    assert (code, err) == (0, "Warning: low memory\n")


# Being stopped --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_cancels(fake: Run, number: int) -> None:
    signals.append(number)
    before = signal.getsignal(number)
    code, _, err = fake("group wait")
    assert code == 130
    assert err.splitlines() == [console.STOPPING, "Stopped; 3 of 8 slices are kept."]
    assert signal.getsignal(number) is before


def test_the_second_signal_aborts(fake: Run) -> None:
    signals.extend([signal.SIGINT] * 2)
    code, out, err = fake("group wait")
    assert (code, out) == (130, "")
    assert err.splitlines() == [console.STOPPING, "Stopped."]


def test_a_stopped_job_says_so_in_json(fake: Run) -> None:
    signals.append(signal.SIGINT)
    code, out, _ = fake("group wait --json")
    assert code == 130
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1] == {
        "event": "error",
        "text": "Stopped; 3 of 8 slices are kept.",
        "exit_code": 130,
    }


# What is shown --------------------------------------------------------------------------------


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


# Help -----------------------------------------------------------------------------------------


def test_the_commands_are_listed_in_the_order_of_the_table(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    listed = re.findall(r"^  ([a-z-]+)  ", out.split("Commands:")[1], re.MULTILINE)
    assert listed == list(dict.fromkeys(command.name.split()[0] for command in COMMANDS))


@pytest.mark.parametrize("line", ["", "models"])
def test_no_command_shows_the_help_and_fails(run: Run, line: str) -> None:
    code, out, _ = run(line)
    assert code == 2
    assert "Commands:" in out
    assert re.search("nrrn (denoise --help|models list)$", out.strip())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_explains_itself(run: Run, command: Command) -> None:
    code, out, _ = run(f"{command.name} -h")
    assert code == 0
    text = "".join(out.split())  # lines end at spaces and after hyphens
    assert "".join(command.summary.split()) in text
    assert "Examples:" in out
    for example in command.examples:
        assert f"  {example}\n" in out
    for option in command.all_options():
        assert "".join(option.help.split()) in text
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_example_is_understood(command: Command) -> None:
    for example in command.examples:
        program, *words = shlex.split(example)
        group = cli.nrrn
        for _ in command.name.split()[1:]:
            group = group.commands[words.pop(0)]
        context = group.commands[words[0]].make_context(words[0], words[1:])
        assert program == "nrrn"
        command.make_settings({k: v for k, v in context.params.items() if v is not None})


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_outputs_are_named_after_inputs_that_there_are(command: Command) -> None:
    names = {option.name for option in command.options if option.required}
    for option in command.options:
        assert bool(option.named_after) == bool(option.ending)
        assert not option.named_after or option.named_after in names


def test_help_shows_defaults_ranges_and_choices(fake: Run) -> None:
    text = " ".join(fake("work -h")[1].split())
    assert "--whole N A whole number. [in px; at least 2; default: chosen for you]" in text
    assert "--real X A number. [0 to 1; default: 0.5]" in text
    assert "--pair LO,HI Two; or left out. " in text
    assert "--few 1|2|3 A choice. [default: 3]" in text
    assert "--on / --no-on" in text
    assert text.index("Settings:") < text.index("--few") < text.index("Expert settings:")
    assert text.index("Expert settings:") < text.index("--word") < text.index("Console:")


def test_the_version(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "commit", lambda: "0123456789-dirty")
    expected = f"nrrn {nrrn_fiji.__version__} (commit 0123456789-dirty)\n"
    assert run("--version") == run("-V") == (0, expected, "")


# The table ------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_table_names_functions_that_take_its_options(command: Command) -> None:
    import inspect

    for function, left_out in ((command.function, ()), (command.plan, command.plan_without)):
        if function:
            names = {option.name for option in command.options} - set(left_out)
            names |= {"settings"} if command.settings else set()
            names |= {"progress"} if command.counts else set()
            taken = inspect.signature(declare.resolve(function))
            taken.bind(**dict.fromkeys(names))


@pytest.mark.parametrize("settings", [DenoiseSettings, TrainSettings])
def test_every_setting_is_an_option_under_its_own_name(settings: type) -> None:
    options = {option.name: option for option in declare.settings_options(settings)}
    assert list(options) == [field.name for field in dataclasses.fields(settings)]
    made = {name: option.default for name, option in options.items()}
    assert settings(**made) == settings()


def test_a_command_is_called_by_name_with_values() -> None:
    calls.clear()
    FAKES[0].call({"source": Path("a"), "whole": 5})
    assert calls[0]["settings"].whole == 5
    with pytest.raises(ValueError, match="'hole' is no option of work: it takes source, slices"):
        FAKES[0].call({"source": Path("a"), "hole": 5})
    with pytest.raises(ValueError, match="source is missing"):
        FAKES[0].call({})


def test_commands_are_found_by_name() -> None:
    assert find_command("models list") is COMMANDS[[c.name for c in COMMANDS].index("models list")]
    with pytest.raises(ValueError, match="'denoize' is no command: choose one of denoise, "):
        find_command("denoize")


# Models ---------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> models.Model:
    """A tiny model file with a card."""
    card = {
        "description": "A test\nmodel.",
        "licence": "CC0",
        "intensity": [0, 255],
        "training": {"steps": 5, "losses": [0.5] * 20, "resumed": False, "note": None},
        "results": {"table2": {"input": {"P1": 5.98765432}, "nrrn": {"P1": 17.33}}},
    }
    return models.save_model(tmp_path / "mine.safetensors", NRRN(2, 4), card)


def test_models_are_imported_listed_shown_and_removed(run: Run, model: models.Model) -> None:
    code, out, _ = run(f"models import '{model.path}' --name own")
    assert code == 0
    assert out.startswith("Installed own (2 units × 4 maps) as ")

    code, out, _ = run("models list")
    assert code == 0
    assert "own\tinstalled\t2 × 4\tA test model.\n" in out
    assert out.splitlines()[-1].endswith("user-models (1 model).")

    code, out, _ = run("models show own")
    assert code == 0
    # W0 1→4, W1 and W2 4→4, and six 4→4 per unit, each 3×3 with a bias per map.
    parameters = (9 * 4 + 4) + (2 + 2 * 6) * (9 * 4 * 4 + 4)
    assert out.splitlines()[0] == f"own: 2 units × 4 maps, {parameters:,} parameters"
    assert f"  hash: {model.hash}\n" in out
    assert "  description: A test\n    model.\n" in out
    assert "  training:\n    steps: 5\n    losses: 20 entries\n    resumed: no\n" in out
    assert "    table2:\n             P1\n      input  5.98765\n      nrrn   17.33\n" in out
    assert "note" not in out

    code, out, _ = run("models remove own")
    assert code == 0
    assert out.startswith("Removed own (")
    code, _, err = run("models show own")
    assert code == 1
    assert err.startswith("Error: No model is named 'own'; known models: ")


def test_models_in_json(run: Run, model: models.Model) -> None:
    run(f"models import '{model.path}'")
    listed = json.loads(run("models list --json")[1])
    entry = next(entry for entry in listed["models"] if entry["name"] == "mine")
    assert entry["architecture"] == {"units": 2, "maps": 4, "edge": False}
    shown = json.loads(run("models show mine --json")[1])
    assert (shown["hash"], shown["card"]) == (model.hash, model.card)


def test_an_installed_model_is_only_overwritten_on_request(run: Run, model: models.Model) -> None:
    assert run(f"models import '{model.path}'")[0] == 0
    code, _, err = run(f"models import '{model.path}'")
    assert code == 1
    assert "installed already" in err
    assert run(f"models import '{model.path}' --overwrite")[0] == 0


def test_a_damaged_model_is_listed_with_its_problem(run: Run, user_models: Path) -> None:
    user_models.mkdir()
    (user_models / "bad.safetensors").write_bytes(b"bad")
    code, out, _ = run("models list")
    assert code == 0
    assert re.search(r"^bad\tinstalled\t\?\t.*not a model file", out, re.MULTILINE)


def test_a_card_of_any_form_can_be_shown() -> None:
    rows = [{"level": "P1", "psnr": 17.5}, {"level": "P30", "psnr": 27.123456789}]
    assert list(catalogue.outline({"a_b": [1, 2.5], "rows": rows, "empty": {}, "odd": [rows]})) == [
        "a b: 1, 2.5",
        "rows:",
        "  level  psnr",
        "  P1     17.5",
        "  P30    27.1235",
        "odd: 1 entries",
    ]


def test_the_scores_of_a_study_are_shown_with_a_column_per_noise() -> None:
    rows = [
        {"noise": noise, "method": method, "psnr": [psnr, 0.1], "ssim": [0.5, 0.01]}
        for method, scores in {"input": (5.98, 28.1), "nrrn": (17.333, 28.57)}.items()
        for noise, psnr in zip(("P1", "G10"), scores, strict=True)
    ]
    assert list(catalogue.outline({"rows": rows})) == [
        "rows:",
        "  PSNR (dB)  P1     G10",
        "  input      5.98   28.10",
        "  nrrn       17.33  28.57",
    ]


# The main job ---------------------------------------------------------------------------------


def test_a_stack_is_denoised_from_the_command_line(
    run: Run, model: models.Model, tmp_path: Path
) -> None:
    import numpy as np
    import tifffile

    stack = np.random.default_rng(0).integers(0, 255, (3, 20, 24), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    line = f"denoise '{tmp_path}/in.tif' '{tmp_path}/out.tif' -m '{model.path}' --device cpu"

    code, out, _ = run(f"{line} --plan")
    assert code == 0
    assert "cpu" in out.lower()
    assert not (tmp_path / "out.tif").exists()

    code, out, _ = run(line)
    assert code == 0
    assert str(tmp_path / "out.tif") in out
    expected = nrrn_fiji.denoise(stack, model, device="cpu")
    assert expected.shape == stack.shape
    assert not np.array_equal(expected, stack)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), expected)

    code, _, err = run(line)
    assert code == 1
    assert "overwrite" in err
    assert run(f"{line} --overwrite --quiet") == (0, "", "")


def test_a_missing_stack_and_an_unknown_model_are_one_sentence(
    run: Run, model: models.Model, tmp_path: Path
) -> None:
    for line, name in (
        (f"denoise '{tmp_path}/none.tif' '{tmp_path}/out.tif' -m '{model.path}'", "none.tif"),
        (f"denoise '{model.path}' '{tmp_path}/out.tif' -m nobody", "'nobody'"),
    ):
        code, _, err = run(line)
        assert code == 1
        assert name in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [model.path]


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
    assert console.as_typed(sentence) == typed


def test_errors_speak_of_options_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy
    import tifffile

    raw, out = tmp_path / "raw.tif", tmp_path / "clean.tif"
    tifffile.imwrite(raw, numpy.zeros((3, 8, 8), numpy.uint8), photometric="minisblack")
    out.write_text("finished")
    assert cli.main(["denoise", str(raw), str(out)]) == 1
    assert "allow to replace it with --overwrite." in capsys.readouterr().err
