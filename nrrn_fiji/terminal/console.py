"""What the ``nrrn`` command shows while a job runs, and how it is stopped.

On a terminal a job has a progress bar; into a pipe or a log go plain lines, few of them; with
``--json`` every event is one line of JSON on standard output.  Progress, messages and errors go to
standard error, results to standard output.  Colours are used on terminals alone, and never when
``NO_COLOR`` is set.  This module must never import rich unless there is a terminal to draw on.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from ..progress import Cancelled, Pace
from ..reports import Reportable, Table, as_json, readable_number, readable_time
from ..sentences import as_typed, sentence

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from .log_file import LogFile

__all__ = [
    "FAILED",
    "INTERRUPTED",
    "Console",
    "JobProgress",
    "LineProgress",
    "output_as_events",
    "uses_colour",
]

FAILED, INTERRUPTED = 1, 130
SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_EVENTS = 0.5
SECONDS_FOR_LAST_LINES = 10.0
STOPPING = "Stopping after the present piece of work; press Ctrl-C again to stop at once."

writing = threading.Lock()


def uses_colour(stream: TextIO) -> bool:
    """Whether to colour what is written to ``stream``."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Console:
    """Everything that one run of the command shows.

    Parameters
    ----------
    quiet
        Show nothing but errors.
    json_lines
        Write events and the result as lines of JSON to standard output.
    debug
        Show tracebacks.

    Attributes
    ----------
    log
        Where everything is written down as well; None for nowhere.
    """

    log: LogFile | None = None

    def __init__(self, *, quiet: bool = False, json_lines: bool = False, debug: bool = False):
        self.quiet = quiet
        self.json_lines = json_lines
        self.debug = debug

    @contextmanager
    def job(self, counts: str, title: str) -> Iterator[JobProgress]:
        """Show a job while the context lasts; Ctrl-C cancels it, a second one aborts.

        Parameters
        ----------
        counts
            What its progress counts ("slices"); "s" for a job that ends by the clock.
        title
            What it is doing, in a word or two.
        """
        with self.display(counts, title) as progress, stopped_by_signals(progress):
            progress.log = self.log
            yield progress

    @contextmanager
    def display(self, counts: str, title: str) -> Iterator[JobProgress]:
        """Choose how to show a job."""
        if self.quiet:
            yield JobProgress(counts)
        elif self.json_lines:
            yield JsonProgress(counts)
        elif not sys.stderr.isatty():
            yield LineProgress(counts)
        else:
            progress = BarProgress(counts, title)
            with progress.bar:
                yield progress

    def result(self, report: Reportable, *, always: bool = False) -> None:
        """Show the result of a command.

        Parameters
        ----------
        report
            What the command returned.
        always
            Show it even when quiet: the result is what was asked for.
        """
        if getattr(report, "silent", False):
            return  # Another process of the same job tells of it.
        if self.log is not None:
            table = getattr(report, "table", None)
            rows = (table.header, *table.rows) if table is not None else ()
            self.log.write("\n".join([*map("  ".join, rows), report.summary]))
        if self.json_lines:
            write_event("result", **report.as_dict())
        elif always or not self.quiet:
            table = getattr(report, "table", None)
            if table is not None and table.rows:
                show_table(table)
            print(as_typed(report.summary), flush=True)

    def failure(self, error: BaseException) -> int:
        """Say what went wrong, and return the exit code."""
        stopped = isinstance(error, (Cancelled, KeyboardInterrupt))
        code = INTERRUPTED if stopped else FAILED
        if self.log is not None:
            self.log.failure(error)
        if self.debug and not stopped:
            traceback.print_exception(error, file=sys.stderr)
        text = sentence(error)
        if self.json_lines:
            with suppress(OSError):  # where standard output itself is what failed
                write_event("error", text=text, exit_code=code)
        say(text, mark="" if stopped else "Error:", colour="33" if stopped else "31")
        return code


def say(text: str, *, mark: str = "", colour: str = "") -> None:
    """Write a line to standard error, its mark in colour where colours are used."""
    if mark:
        painted = f"\x1b[1;{colour}m{mark}\x1b[0m" if uses_colour(sys.stderr) else mark
        text = f"{painted} {text}"
    print(text, file=sys.stderr, flush=True)


def write_event(event: str, **values: Any) -> None:
    """Write one line of JSON to standard output, whole even if threads write at the same time."""
    line = json.dumps(as_json({"event": event, **values}), allow_nan=False, default=str)
    with writing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


@contextmanager
def output_as_events() -> Iterator[None]:
    """Turn whatever others write to standard output (Java, a macro's print) into lines of JSON.

    They write to the process's own output, past ``sys.stdout``: so that goes into a pipe, from
    which a thread makes events of the kind "log", and ours go past the pipe.
    """
    sys.stdout.flush()
    whole, before = os.dup(1), sys.stdout
    from_others, to_us = os.pipe()
    try:
        direct = before.fileno() == 1
    except (OSError, ValueError):  # a stand-in, such as a test's
        direct = False
    if direct:
        sys.stdout = os.fdopen(os.dup(whole), "w", encoding=before.encoding, errors="replace")
    os.dup2(to_us, 1)
    os.close(to_us)

    def forward() -> None:
        with open(from_others, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.strip():
                    write_event("log", text=line.rstrip("\r\n"))

    reader = threading.Thread(target=forward, name="nrrn output", daemon=True)
    reader.start()
    try:
        yield
    finally:
        os.dup2(whole, 1)  # closes the pipe, unless a child process still writes into it
        reader.join(SECONDS_FOR_LAST_LINES)
        if direct:
            with suppress(OSError):  # every event was flushed, so who wrote it was told already
                sys.stdout.close()
            sys.stdout = before
        os.close(whole)


def show_table(table: Table) -> None:
    """Print a table: drawn on a terminal, tab-separated into a pipe."""
    if not sys.stdout.isatty():
        for row in (table.header, *table.rows):
            print("\t".join(row))
        return
    import rich.box
    import rich.console
    import rich.table
    import rich.text

    drawn = rich.table.Table(*table.header, box=rich.box.SIMPLE_HEAD, pad_edge=False)
    for row in table.rows:
        drawn.add_row(*(rich.text.Text(cell) for cell in row))
    rich.console.Console().print(drawn)


class JobProgress:
    """A job's progress and its cancel switch; shows nothing itself.

    Satisfies :class:`nrrn_fiji.progress.Progress`.
    """

    log: LogFile | None = None

    def __init__(self, counts: str, clock: Callable[[], float] = time.monotonic):
        self.counts = counts
        self.cancelled = False
        self.clock = clock
        self._pace = Pace()

    def update(self, done: float, total: float, text: str = "") -> None:
        """Note how far the job is."""
        self._pace.note(self.clock(), done, total)
        if self.log is not None:
            self.log.progress("  ".join(filter(None, (self.pace(), text))), last=done >= total)
        self.show(done, total, text)

    def message(self, text: str) -> None:
        """Show a sentence, and write it down."""
        text = as_typed(text)
        if self.log is not None:
            self.log.write(text)
        self.show_message(text)

    def show(self, done: float, total: float, text: str) -> None:
        """Show the progress."""

    def show_message(self, text: str) -> None:
        """Show a sentence."""

    def stopping(self) -> None:
        """Ask the job to stop, and say so."""
        self.cancelled = True
        # The signal may have come in the middle of writing to the same stream.
        with suppress(RuntimeError):
            self.message(STOPPING)

    @property
    def rate(self) -> float | None:
        """Pieces per second of late; None until that can be told."""
        return self._pace.rate

    @property
    def remaining(self) -> float | None:
        """Seconds that are left at the present rate; None until that can be told."""
        return self._pace.remaining

    def pace(self) -> str:
        """Return count, throughput and remaining time as far as they are known."""
        parts = []
        if self._pace.total and self.counts != "s":
            parts.append(f"{int(self._pace.done)}/{int(self._pace.total)} {self.counts}")
            if self.rate is not None:
                parts.append(readable_rate(self.rate, self.counts))
        if self.remaining:
            parts.append(f"{readable_time(self.remaining)} left")
        return ", ".join(parts)


class LineProgress(JobProgress):
    """Plain lines on standard error, every 15 s: for a pipe, a log file or a Python script.

    Parameters
    ----------
    counts
        What the job counts, as the lines call it: "slices" when denoising, "steps" when training.
    clock
        Tells the time in seconds.
    """

    shown = float("-inf")

    def show(self, done: float, total: float, text: str) -> None:
        """Write a line now and then, and at the end."""
        if done < total and self.clock() - self.shown < SECONDS_BETWEEN_LINES:
            return
        self.shown = self.clock()
        percent = f"{100 * done / total:3.0f} %" if total else ""
        say("  ".join(part for part in (percent, self.pace(), text) if part))

    def show_message(self, text: str) -> None:
        """Write the sentence."""
        say(text)


class JsonProgress(JobProgress):
    """Lines of JSON for a program."""

    shown = float("-inf")

    def show(self, done: float, total: float, text: str) -> None:
        """Write an event, at most a few in a second."""
        if done < total and self.clock() - self.shown < SECONDS_BETWEEN_EVENTS:
            return
        self.shown = self.clock()
        write_event(
            "progress",
            done=done,
            total=total,
            counts=self.counts,
            text=text,
            per_second=self.rate,
            seconds_left=self.remaining,
        )

    def show_message(self, text: str) -> None:
        """Write an event."""
        write_event("message", text=text)


class BarProgress(JobProgress):
    """A bar on a terminal.

    Parameters
    ----------
    counts, title
        As for :meth:`Console.job`.
    """

    def __init__(self, counts: str, title: str):
        super().__init__(counts)
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self.bar: Bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(20, complete_style="green", finished_style="green", pulse_style="green"),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[pace]}", style="cyan"),
            TextColumn("{task.fields[text]}", style="dim"),
            console=RichConsole(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task(title, total=None, pace="starting", text="")

    def show(self, done: float, total: float, text: str) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=done, total=total, pace=self.pace(), text=text)

    def show_message(self, text: str) -> None:
        """Print the sentence above the bar."""
        self.bar.console.print(text, markup=False, highlight=False)


def readable_rate(rate: float, counts: str) -> str:
    """Return "3.2 slices/s", or "2.5 s/slice" if one takes longer than a second."""
    if rate >= 1:
        return f"{readable_number(rate)} {counts}/s"
    return f"{readable_number(1 / rate)} s/{counts.rstrip('s')}"


@contextmanager
def stopped_by_signals(progress: JobProgress) -> Iterator[None]:
    """Turn the first Ctrl-C (or SIGTERM, which clusters send) into a cancel, the next into an end.

    Only the main thread may handle signals: elsewhere nothing changes.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if progress.cancelled:
            raise KeyboardInterrupt
        progress.stopping()

    before = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)
    except ValueError:
        pass
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def is_closed_pipe(error: BaseException) -> bool:
    """Whether the reader of our output went away (``nrrn … | head``)."""
    return isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ESHUTDOWN)
