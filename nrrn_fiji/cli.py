"""The ``nrrn`` command, built with click from the command table.

There is nothing here about any single command: options, help and defaults come from
:mod:`nrrn_fiji.commands`, the work is done by the function that the table names.  This module must
never import what a command needs before that command runs.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from .commands import COMMANDS, GROUPS, Command, Kind, Option
from .terminal.console import FAILED, INTERRUPTED, Console, is_closed_pipe, output_as_events, say
from .terminal.log_file import LogFile
from .version import full_version

__all__ = ["main", "nrrn"]

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PLAN_HELP = "Say what would be done, with which settings, how long it would take; do nothing."
QUIET_HELP = "Show no progress and no messages, only errors."
JSON_HELP = "Write progress, messages and the result as lines of JSON."
DEBUG_HELP = "Show the traceback of an error."
LOG_HELP = (
    "Append to FILE what was asked, versions, all messages, and the traceback of an error: send it "
    "along when you ask for help."
)


class ValueType(click.ParamType):
    """Reads the value of an option as the table says."""

    def __init__(self, option: Option):
        self.option = option
        self.name = option.kind.name.lower()

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return what stands for the value in the help."""
        return metavar(self.option)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the parsed value, or fail with the table's sentence."""
        if not isinstance(value, str):
            return value
        try:
            return self.option.parse(value)
        except ValueError as error:
            raise click.UsageError(str(error), ctx) from None

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what a shell may put in place of ``incomplete``: choices, models, or files."""
        kind, words = self.option.kind, [str(choice) for choice in self.option.choices or ()]
        if kind is Kind.MODEL:
            from .models import known_models

            words = [entry.name for entry in known_models()]
        items = [CompletionItem(word) for word in words if word.startswith(incomplete)]
        if kind in (Kind.IMAGE, Kind.FILE, Kind.MODEL):
            items.append(CompletionItem(incomplete, type="file"))
        elif kind is Kind.FOLDER:
            items.append(CompletionItem(incomplete, type="dir"))
        return items


class TableCommand(click.Command):
    """A click command whose help has sections and whose usage errors know the table."""

    def __init__(
        self, command: Command, params: list[click.Parameter], callback: Callable[..., int]
    ):
        super().__init__(
            command.name.split()[-1],
            params=params,
            callback=callback,
            help="\n\n".join(part for part in (command.summary, command.description) if part),
            short_help=command.summary,
            epilog="\b\nExamples:\n" + "\n".join(f"  {line}" for line in command.examples),
            context_settings=CONTEXT,
        )
        self.command = command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections: by position, files, settings, expert, console."""
        options = {option.name: option for option in self.command.all_options()}
        sections: dict[str, list[tuple[str, str]]] = {
            "Arguments": [
                (option.position, option.help) for option in options.values() if option.position
            ],
            "Options": [],
            "Settings": [],
            "Expert settings": [],
            "Console": [],
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            option = options.get(param.name or "")
            if record is None or (option and option.position):
                continue
            if option is None:
                sections["Options" if param.name == "plan" else "Console"].append(record)
            elif option.setting:
                sections["Expert settings" if option.expert else "Settings"].append(record)
            else:
                sections["Options"].append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples flush left, like the sections above them."""
        with formatter.section("Examples"):
            for line in self.command.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and explain what an unquoted pattern, or -o where OUT has a place, leads to."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            placed = any(o.name == "out" and o.position for o in self.command.options)
            if placed and error.option_name in ("-o", "--out", "--output"):
                places = " ".join(o.position for o in self.command.options if o.position)
                hint = f"Give OUT without it: {ctx.command_path} {places}"
                raise click.UsageError(f"{error.message.rstrip('.')}. {hint}", ctx) from None
            raise
        except click.UsageError as error:
            takes_one = any(o.kind is Kind.IMAGE and not o.many for o in self.command.options)
            if takes_one and "unexpected extra argument" in error.message.lower():
                hint = "Put a pattern of many files into quotes: 'slices/*.tif'."
                raise click.UsageError(f"{error.message.rstrip('.')}. {hint}", ctx) from None
            raise


def metavar(option: Option) -> str:
    """Return what stands for an option's value."""
    if option.choices is not None:
        return "|".join(str(choice) for choice in option.choices)
    return option.position or option.kind.metavar


def long_help(option: Option) -> str:
    """Return an option's help with its default and range."""
    facts = []
    if option.unit:
        facts.append(f"in {option.unit}")
    if option.minimum is not None and option.maximum is not None:
        facts.append(f"{option.minimum:g} to {option.maximum:g}")
    elif option.minimum is not None:
        facts.append(f"at least {option.minimum:g}")
    if option.kind is not Kind.FLAG and option.default not in (None, "", ()):
        facts.append(f"default: {option.default}")
    elif option.setting and option.kind in (Kind.INTEGER, Kind.NUMBER) and not says_default(option):
        facts.append("default: chosen for you")
    return f"{option.help} [{'; '.join(facts)}]" if facts else option.help


def says_default(option: Option) -> bool:
    """Whether the help itself says what happens without the option."""
    return "left out" in option.help or "default" in option.help


def parameter(option: Option) -> click.Parameter:
    """Return the click parameter of an option."""
    if option.position:
        return click.Argument(
            [option.name],
            type=ValueType(option),
            nargs=-1 if option.many else 1,
            required=option.required,
            metavar=option.position + ("..." if option.many else ""),
        )
    dashed = "--" + option.name.replace("_", "-")
    spelling = option.spelling or (dashed,)
    if option.kind is Kind.FLAG:
        if option.default:
            spelling = (f"{dashed}/--no-{dashed[2:]}",)
        return click.Option(
            [option.name, *spelling], is_flag=True, default=option.default, help=long_help(option)
        )
    return click.Option(
        [option.name, *spelling],
        type=ValueType(option),
        multiple=option.many,
        required=option.required,
        help=long_help(option),
    )


def flag(help: str, *names: str) -> click.Option:
    """Return a flag that is no option of a command."""
    return click.Option(names, is_flag=True, help=help)


def click_command(command: Command) -> TableCommand:
    """Return the click command of an entry of the table."""
    is_job = bool(command.counts)
    params = [parameter(option) for option in command.all_options()]
    if command.plan:
        params.append(flag(PLAN_HELP, "--plan"))
    if is_job:
        params.append(flag(QUIET_HELP, "-q", "--quiet"))
    params += [
        flag(JSON_HELP, "json_lines", "--json"),
        click.Option(["--log"], type=click.Path(path_type=Path), metavar="FILE", help=LOG_HELP),
        flag(DEBUG_HELP, "--debug"),
    ]

    def run(
        json_lines: bool,
        debug: bool,
        log: Path | None,
        quiet: bool = False,
        plan: bool = False,
        **given: Any,
    ) -> int:
        values = {
            name: list(value) if isinstance(value, tuple) and name in many else value
            for name, value in given.items()
            if value is not None
        }
        try:
            command.make_settings(values)
        except ValueError as error:
            raise click.UsageError(str(error), click.get_current_context()) from None
        console = Console(quiet=quiet, json_lines=json_lines, debug=debug)
        with ExitStack() as stack:
            if log is not None:
                words = click.get_current_context().find_root().obj
                try:
                    console.log = LogFile(log.expanduser(), words)
                except OSError as error:
                    return console.failure(error)
                stack.enter_context(console.log.open())
            if json_lines:
                stack.enter_context(output_as_events())
            code = work(console, values, plan)
            if console.log is not None:
                console.log.write(f"exit code: {code}")
            return code

    def work(console: Console, values: dict[str, Any], plan: bool) -> int:
        try:
            if is_job:
                counts = "s" if values.get(command.clock) is not None else command.counts
                with console.job(counts, command.name) as progress:
                    report = command.call(values, progress, plan=plan)
            else:
                report = command.call(values)
            console.result(report, always=plan or not is_job)
        except (Exception, KeyboardInterrupt) as error:
            if is_closed_pipe(error):
                raise
            return console.failure(error)
        return getattr(report, "exit_code", 0)

    many = {option.name for option in command.options if option.many}
    return TableCommand(command, params, run)


class TableGroup(click.Group):
    """A click group that keeps the order of the table and shows its help when left alone."""

    def __init__(self, name: str, help: str, epilog: str | None = None):
        super().__init__(
            name,
            help=help,
            epilog=epilog,
            context_settings=CONTEXT,
            invoke_without_command=True,
            no_args_is_help=False,
            callback=show_group_help,
            subcommand_metavar="COMMAND ...",
        )

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the table's order."""
        return list(self.commands)


@click.pass_context
def show_group_help(ctx: click.Context) -> int:
    """Show the help if no command was given, which is an error all the same for a script."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
    return click.UsageError.exit_code


def show_version(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    """Show the version and end."""
    if wanted and not ctx.resilient_parsing:
        click.echo(f"nrrn {full_version()}")
        ctx.exit()


def build(commands: Sequence[Command], groups: Mapping[str, str]) -> TableGroup:
    """Return the whole ``nrrn`` command for a table, and what its groups have in common."""
    root = TableGroup(
        "nrrn",
        "Denoise FIB-SEM stacks with the NRRN, the noise reconstruction and removal network.",
        "Every command has its own help with examples: nrrn denoise --help",
    )
    root.params.append(
        click.Option(
            ["-V", "--version"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=show_version,
            help="Show the version and the commit.",
        )
    )
    for command in commands:
        first, *rest = command.name.split()
        parent: click.Group = root
        if rest:
            if first not in root.commands:
                root.add_command(
                    TableGroup(first, groups[first], f"Example: {command.examples[0]}")
                )
            group = root.commands[first]
            assert isinstance(group, click.Group)
            parent = group
        parent.add_command(click_command(command))
    return root


nrrn = build(COMMANDS, GROUPS)


def show_warning(message: Warning | str, *rest: Any, **more: Any) -> None:
    """Show a warning as a line that a user can read."""
    say(" ".join(str(message).split()), mark="Warning:", colour="33")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments
        Words after ``nrrn``; those of the process when left out.

    Returns
    -------
    int
        0 if the result is whole, 1 if not, 2 for a command that is not understood, 130 if stopped.
    """
    # An old terminal that lacks a sign shows a question mark instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--debug" not in words:
        warnings.showwarning = show_warning
    try:
        code = nrrn.main(words, prog_name="nrrn", standalone_mode=False, obj=tuple(words))
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        say(error.format_message(), mark="Error:", colour="31")
        if error.ctx is not None:
            say(f"See: {error.ctx.command_path} --help")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("Stopped.")
        return INTERRUPTED
    except OSError as error:
        if not is_closed_pipe(error):
            raise
        # Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
