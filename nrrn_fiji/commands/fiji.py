"""Fiji and ImageJ, and what is wrong on this computer."""

from __future__ import annotations

from .declare import Command, Kind, Option

__all__ = ["COMMANDS", "SHELLS"]

SHELLS = ("bash", "zsh", "fish")
"""Shells that can complete ``nrrn``; :mod:`nrrn_fiji.terminal.completion` has their scripts."""

FIJI = Option(
    name="fiji",
    label="Fiji folder",
    help="The folder that Fiji lies in. When left out: the environment variable NRRN_FIJI or "
    "FIJI_HOME, the folder that `nrrn fiji --fiji DIR` was last given, or the usual places.",
    kind=Kind.FOLDER,
)
IMAGEJ = Option(
    name="imagej",
    label="Plain ImageJ",
    help="Use plain ImageJ 1.54p instead of a Fiji; the first time it is fetched from Maven "
    "Central (3 MB).",
    kind=Kind.FLAG,
    default=False,
)
MEMORY = Option(
    name="memory",
    label="Memory for Java",
    help="The most memory that Java may take for its images; half of this computer's when left "
    "out.",
    kind=Kind.INTEGER,
    minimum=100,
    unit="MiB",
)

COMMANDS: tuple[Command, ...] = (
    Command(
        name="fiji",
        title="Open Fiji",
        summary="Open Fiji with NRRN in its menu: Plugins > NRRN.",
        description="Nothing is downloaded and nothing in the Fiji folder is changed, unless you "
        "ask for --install. The command ends when you quit Fiji.",
        examples=(
            "nrrn fiji",
            "nrrn fiji --fiji ~/Fiji.app",
            "nrrn fiji --imagej",
            "nrrn fiji --install --fiji ~/Fiji.app",
        ),
        function="nrrn_fiji.fiji.window:open_fiji",
        options=(
            FIJI,
            IMAGEJ,
            MEMORY,
            Option(
                name="install",
                label="Install",
                help="Put the NRRN commands and macros into the Fiji folder, so that they are in "
                "its menu however it is started; open nothing.",
                kind=Kind.FLAG,
                default=False,
            ),
            Option(
                name="uninstall",
                label="Uninstall",
                help="Take out of the Fiji folder what --install put there, and nothing else.",
                kind=Kind.FLAG,
                default=False,
            ),
        ),
    ),
    Command(
        name="macro",
        title="Run a macro",
        summary="Run an ImageJ macro without a screen, with the NRRN commands in it.",
        description="What the macro prints is shown. The exit code is 0 only if the macro came to "
        "its end without an error.",
        examples=(
            "nrrn macro batch.ijm",
            "nrrn macro Denoise_Folder.ijm 'in=stacks out=denoised model=fibsem-medulla'",
            "nrrn macro batch.ijm stacks/ --imagej",
        ),
        function="nrrn_fiji.fiji.app:macro_file",
        options=(
            Option(
                name="path",
                label="Macro",
                help="The macro: an .ijm file, or the name of one that came with nrrn-fiji "
                "(Denoise_Folder.ijm, Train_Model.ijm).",
                kind=Kind.FILE,
                required=True,
                position="FILE",
            ),
            Option(
                name="argument",
                label="Argument",
                help="What getArgument() gives in the macro; empty when left out.",
                kind=Kind.TEXT,
                position="[ARG]",
            ),
            FIJI,
            IMAGEJ,
            MEMORY,
        ),
    ),
    Command(
        name="doctor",
        title="Check this installation",
        summary="Say what was found on this computer, and what to do about each problem.",
        description="Looks at Python, torch, devices, Java, Fiji, ImageJ and models; changes "
        "and downloads nothing. The exit code is 1 if stacks cannot be denoised here.",
        examples=("nrrn doctor", "nrrn doctor --fiji ~/Fiji.app", "nrrn doctor --report"),
        function="nrrn_fiji.terminal.doctor:examine",
        options=(
            FIJI,
            Option(
                name="report",
                label="Report",
                help="Write it as a support request in Markdown, with the questions that we would "
                "ask you. Your name in paths becomes ~.",
                kind=Kind.FLAG,
                default=False,
            ),
        ),
    ),
    Command(
        name="completion",
        title="Shell completion",
        summary="Print the script with which your shell completes nrrn commands and options.",
        description="The last line of the script says where it belongs. On Windows there is none.",
        examples=tuple(f"nrrn completion {shell}" for shell in SHELLS),
        function="nrrn_fiji.terminal.completion:completion_script",
        options=(
            Option(
                name="shell",
                label="Shell",
                help="The shell: bash (4.4 or newer), zsh or fish.",
                kind=Kind.TEXT,
                choices=SHELLS,
                required=True,
                position="SHELL",
            ),
        ),
    ),
)
