"""The script that lets a shell complete ``nrrn`` commands, options, files and model names.

The script asks ``nrrn`` itself, so it never grows old.  This module must never change a file of
the user's: it prints, and says where the text belongs.
"""

from __future__ import annotations

from ..commands.fiji import SHELLS
from ..reports import Report

__all__ = ["PLACES", "completion_script"]

PLACES = {
    "bash": "nrrn completion bash > ~/.local/share/bash-completion/completions/nrrn",
    "zsh": "nrrn completion zsh > ~/.zfunc/_nrrn  (with fpath+=~/.zfunc before compinit in .zshrc)",
    "fish": "nrrn completion fish > ~/.config/fish/completions/nrrn.fish",
}
"""Where the script of each shell belongs, as the command that puts it there."""


def completion_script(shell: str) -> Report:
    """Return the script for a shell.

    Parameters
    ----------
    shell
        "bash" (4.4 or newer), "zsh" or "fish".

    Raises
    ------
    ValueError
        For another shell.
    """
    from click import Command
    from click.shell_completion import ShellComplete, get_completion_class

    found = get_completion_class(shell)
    if shell not in SHELLS or found is None:
        raise ValueError(f"shell is {shell!r}, but it must be one of {', '.join(SHELLS)}.")
    maker = found(Command("nrrn"), {}, "nrrn", "_NRRN_COMPLETE")
    # The class of bash would start a bash first, to warn of old ones.
    script = ShellComplete.source(maker).strip()
    # Below, not above: zsh reads the first line.
    return Report(f"{script}\n# Put there by: {PLACES[shell]}", {"shell": shell, "script": script})
