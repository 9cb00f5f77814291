"""The ``nrrn`` command: what a user types, sees and gets."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from fake_commands import (
    FAKES,
    FakeSettings,
    Run,
    calls,
    errors,
    model_with_a_card,
    signals,
)

import nrrn_fiji
from nrrn_fiji import cli, models, version
from nrrn_fiji.commands import COMMANDS, Command, Kind, Option, declare, find_command
from nrrn_fiji.settings import DenoiseSettings, TrainSettings
from nrrn_fiji.terminal import console


@pytest.fixture
def model(tmp_path: Path) -> models.Model:
    return model_with_a_card(tmp_path)


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


def test_an_output_that_has_a_place_and_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["denoise", "stack.tif", "-o", "clean.tif"]) == 2
    assert "Give OUT without it: nrrn denoise IN [OUT]" in capsys.readouterr().err


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
