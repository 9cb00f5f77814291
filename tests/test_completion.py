"""Shells complete commands, options, choices, models and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nrrn_fiji import cli
from nrrn_fiji.models import DEFAULT_MODEL
from nrrn_fiji.terminal import completion


def offered(line: str) -> list[tuple[str, str]]:
    """Kind and text of what is offered for the last word of a command line."""
    from click.shell_completion import BashComplete

    words = line.split(" ")
    shell = BashComplete(cli.nrrn, {}, "nrrn", "_NRRN_COMPLETE")
    return [(one.type, one.value) for one in shell.get_completions(words[:-1], words[-1])]


def test_commands_options_and_choices_are_offered() -> None:
    assert offered("den") == [("plain", "denoise")]
    assert [value for _, value in offered("models ")][:2] == ["list", "show"]
    assert ("plain", "--orientations") in offered("denoise --orient")
    assert ("plain", "fp32") in offered("denoise --precision fp")
    assert offered("completion z") == [("plain", "zsh")]


def test_files_folders_and_models_are_offered() -> None:
    assert offered("denoise st") == [("file", "st")]
    assert offered("fiji --fiji ~/F") == [("dir", "~/F")]
    found = offered("denoise --model fib")
    assert ("plain", DEFAULT_MODEL) in found
    assert ("file", "fib") in found
    assert not [value for kind, value in offered("denoise -m zz") if kind == "plain"]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_each_shell_gets_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert f"_NRRN_COMPLETE={shell}_complete" in script
    assert script.splitlines()[-1].startswith("# Put there by: nrrn completion")
    if shell == "zsh":  # which reads the first line
        assert script.startswith("#compdef nrrn")
    program = shutil.which(shell)
    if program:
        subprocess.run([program, "-n"], input=script, text=True, check=True)


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "csh"]) == 2
    assert "one of bash, zsh, fish" in capsys.readouterr().err
    with pytest.raises(ValueError, match="shell is 'csh'"):
        completion.completion_script("csh")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_command_with_the_script(tmp_path: Path) -> None:
    program = tmp_path / "nrrn"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nrrn_fiji "$@"\n')
    program.chmod(0o755)
    script = completion.completion_script("bash").data["script"]
    ask = "COMP_WORDS=(nrrn reg) COMP_CWORD=1; _nrrn_completion nrrn; echo ${COMPREPLY[@]}"
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "register"
