"""What all commands share: what they print, how they fail, how they run and how they are stopped."""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import asdict
from typing import Any, TypeVar

import click

from .. import fastest_loop
from ..errors import ArgumentError, GrenacheError, PeerError
from ..signals import on_stop_signals
from .status import ExitStatus, hint, status_of

_INPUT_BYTES = 256 * 1024

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
    report = getattr(error, "report", None)
    return {
        "type": type(error).__name__,
        "code": error.code,
        "message": str(error),
        "in_doubt": error.in_doubt,
        "result": getattr(error, "result", None),
        **({"report": asdict(report)} if report is not None else {}),
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
        return fastest_loop.run(work)
    except ArgumentError as error:
        raise click.UsageError(printable(str(error))) from error
    except GrenacheError as error:
        raise Failure(error) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise click.exceptions.Exit(ExitStatus.INTERRUPTED) from None


class Stop:
    """Whether somebody wants the command to end: SIGINT (Ctrl-C) or SIGTERM. Made on the loop, by the task
    that is to end; a second signal cancels it.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._task = asyncio.current_task()
        on_stop_signals(self.ask)

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


async def in_thread(function: Callable[[], Result]) -> Result:
    """Do what may block for as long as it likes, such as input and output: the process does not wait for it
    at its end, as it would for a thread of an executor.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(how: Callable[[Any], None], outcome: Any) -> None:
        if not done.done():
            how(outcome)

    def work() -> None:
        try:
            outcome: Any = function()
            how: Any = done.set_result
        except Exception as error:
            outcome, how = error, done.set_exception
        try:
            loop.call_soon_threadsafe(settle, how, outcome)
        except RuntimeError:
            pass  # the command has ended, and its loop

    threading.Thread(target=work, name="grenache-input-output", daemon=True).start()
    return await done


async def input_pieces() -> AsyncIterator[bytes]:
    """Standard input as it comes and is asked for, until its end. Raises ``click.ClickException``."""
    while True:
        try:
            # Not sys.stdin, whose lock would be held by this thread when the interpreter wants to end.
            piece = await in_thread(lambda: os.read(0, _INPUT_BYTES))
        except OSError as error:
            raise click.ClickException(f"standard input can't be read: {error.strerror}") from error
        if not piece:
            return
        yield piece


async def input_lines(stop: Stop) -> AsyncIterator[str]:
    """The lines of standard input, as they come and are asked for, until its end or that of the command."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    pieces = input_pieces()
    while True:
        getting = asyncio.ensure_future(anext(pieces, b""))
        await stop.or_done(getting)
        if not getting.done():
            getting.cancel()
            return
        piece = getting.result()
        *lines, rest = (rest + decoder.decode(piece, final=not piece)).split("\n")
        if rest and not piece:
            lines.append(rest)
        for line in lines:
            if stop.asked:
                return
            yield line
        if not piece:
            return


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show what the package logs: warnings and errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("grenache_py").addHandler(handler)
