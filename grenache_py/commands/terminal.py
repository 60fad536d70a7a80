"""What all commands share: what they print, how they fail, how they run and how they are stopped."""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import click

from ..errors import ArgumentError, GrenacheError, PeerError
from .status import ExitStatus, hint, status_of

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])

json_option: Callable[[Command], Command] = click.option(
    "-j", "--json", "json_output", is_flag=True, help="JSON for programs: an object on each line."
)


def printable(text: str) -> str:
    """``text`` without anything that a terminal would act on: such characters become their escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def as_json(value: Any) -> str:
    """One line of JSON in ASCII."""
    return json.dumps(value, ensure_ascii=True).replace("\x7f", "\\u007f")


def readable(value: Any) -> str:
    """JSON for people: indented, letters of all scripts, nothing that a terminal would act on."""
    lines = json.dumps(value, ensure_ascii=False, indent=2).split("\n")
    return "\n".join(printable(line) for line in lines)


def on_one_line(value: Any) -> str:
    """As ``readable``, on one line."""
    return printable(json.dumps(value, ensure_ascii=False))


def milliseconds(seconds: float) -> str:
    """A time for people: ``0.042 ms``, ``13.1 ms``, ``1,250 ms``."""
    ms = seconds * 1000
    digits = 3 if ms < 1 else 2 if ms < 10 else 1 if ms < 100 else 0
    return f"{ms:,.{digits}f} ms"


def error_object(error: GrenacheError) -> dict[str, Any]:
    """An error for programs."""
    return {
        "type": type(error).__name__,
        "code": error.code,
        "message": str(error),
        "in_doubt": error.in_doubt,
        "result": getattr(error, "result", None),
    }


def without_place(error: PeerError) -> str:
    """An error's text for a line that names its destination already."""
    return printable(str(error).removesuffix(f" ({error.destination})"))


class Failure(click.ClickException):
    """The command did not work: its status, and the error on standard error, with ``--json`` as JSON."""

    def __init__(self, error: GrenacheError):
        super().__init__(str(error))
        self._error = error
        # When it is shown, the command's context is gone.
        context = click.get_current_context(silent=True)
        self._json = context is not None and bool(context.params.get("json_output"))

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # a plain attribute there
        return status_of(self._error)

    def show(self, file: Any = None) -> None:
        hinted = hint(self._error)
        if self._json:
            click.echo(as_json({"error": {**error_object(self._error), "hint": hinted}}), err=True)
        else:
            tell(f"Error: {printable(str(self._error))}" + (f"\n{hinted}" if hinted else ""))


def tell(text: str) -> None:
    """For people, beside the results."""
    click.echo(text, err=True)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Do it on an event loop, turning our errors into the status and message of a command."""
    try:
        return _run_on_fastest_loop(work)
    except ArgumentError as error:
        raise click.UsageError(printable(str(error))) from error
    except GrenacheError as error:
        raise Failure(error) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.exceptions.Exit(ExitStatus.INTERRUPTED) from None


def _run_on_fastest_loop(work: Coroutine[Any, Any, Result]) -> Result:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


class Stop:
    """Whether somebody wants the command to end: SIGINT (Ctrl-C) or SIGTERM. Made on the loop, by the task
    that is to end; a second signal cancels it.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._loop.add_signal_handler(number, self.ask)
            except NotImplementedError:  # Windows
                signal.signal(number, lambda *_: self._loop.call_soon_threadsafe(self.ask))

    def ask(self) -> None:
        """Want it to end; the second time at once."""
        if self._asked.is_set() and self._task is not None:
            self._task.cancel()
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is asked for, at most so many seconds; returns whether it was."""
        try:
            await asyncio.wait_for(self._asked.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    async def or_done(self, *others: asyncio.Future[Any]) -> None:
        """Wait until it is asked for, or one of the others is done; those are left alone."""
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait({asked, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()


async def input_lines(stop: Stop) -> AsyncIterator[str]:
    """The lines of standard input, as they come and are asked for, until its end or that of the command."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[str | None] = asyncio.Queue(1)
    file = sys.stdin.fileno()

    def hand_over(line: str | None) -> None:
        asyncio.run_coroutine_threadsafe(coming.put(line), loop).result()

    def read() -> None:
        # Not sys.stdin, whose lock would be held by this thread when the interpreter wants to end.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        try:
            while part := os.read(file, 65536):
                *lines, rest = (rest + decoder.decode(part)).split("\n")
                for line in lines:
                    hand_over(line)
            if rest:
                hand_over(rest)
            hand_over(None)
        except (RuntimeError, CancelledError):
            pass  # the command has ended, and its loop

    # A daemon, since nothing wakes it from waiting for a line.
    threading.Thread(target=read, name="grenache-input", daemon=True).start()
    while not stop.asked:
        getting = asyncio.ensure_future(coming.get())
        await stop.or_done(getting)
        if not getting.done():
            getting.cancel()
            return
        line = getting.result()
        if line is None:
            return
        yield line


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show what the package logs: warnings and errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("grenache_py").addHandler(handler)
