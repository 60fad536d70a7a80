"""``grenache-py``: announce, look up, store, fetch and call from a shell.

Exit status: 0 it worked, 1 it failed, 2 it was asked for wrongly.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from . import __version__, limits
from .discovery import MapResult
from .errors import ArgumentError, GrenacheError, PeerError
from .link import Link
from .peer import PeerRPCClient

Command = TypeVar("Command", bound=Callable[..., Any])

_EPILOG = """Examples, with a Grape at the usual place (grape-py, or Node's grape):

\b
  grenache-py announce rpc_test 6001
  grenache-py lookup rpc_test
  grenache-py request rpc_test '{"n": 1}'
  grenache-py map rpc_test '{"n": 1}' --limit 5
  grenache-py get $(grenache-py put 'hello world')

The environment variable GRENACHE_GRAPE may stand for --grape.
"""


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


class _Failure(click.ClickException):
    """Exit status 1, with the error on standard error: as text, or as JSON with ``--json``."""

    exit_code = 1

    def __init__(self, error: GrenacheError, json_output: bool):
        super().__init__(str(error))
        self._error = error
        self._json = json_output

    def show(self, file: Any = None) -> None:
        if self._json:
            click.echo(as_json({"error": _error_object(self._error)}), err=True)
        else:
            click.echo(f"Error: {printable(str(self._error))}", err=True)


def _error_object(error: GrenacheError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "code": error.code,
        "message": str(error),
        "in_doubt": error.in_doubt,
        "result": getattr(error, "result", None),
    }


def _common(command: Command) -> Command:
    """The options that every command has."""
    command = click.option("--json", "json_output", is_flag=True, help="Write one line of JSON.")(command)
    return click.option(
        "--grape",
        envvar="GRENACHE_GRAPE",
        default="http://127.0.0.1:30001",
        show_default=True,
        metavar="URL",
        help="The Grape to ask.",
    )(command)


def _calling(command: Command) -> Command:
    """The argument and options of commands that call peers."""
    command = click.option("--compress", is_flag=True, help="Use gzip in both directions.")(command)
    command = click.option(
        "--timeout",
        type=float,
        default=limits.REQUEST_TIMEOUT_S,
        show_default=True,
        metavar="S",
        help="Seconds for the whole call.",
    )(command)
    command = click.option("--text", is_flag=True, help="Take PAYLOAD as a text instead of JSON.")(command)
    return click.argument("payload", default="null")(command)


def _run(json_output: bool, work: Callable[[], None]) -> None:
    """Do ``work``, turning our errors into the exit status and message of a command."""
    try:
        work()
    except ArgumentError as error:
        raise click.UsageError(str(error)) from error
    except GrenacheError as error:
        raise _Failure(error, json_output) from error


def _payload(payload: str, text: bool) -> Any:
    given = sys.stdin.read() if payload == "-" else payload
    if text:
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise click.UsageError(f"PAYLOAD is not JSON ({error}); quote texts twice or use --text") from error


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="grenache-py")
def cli() -> None:
    """Find services on a Grenache network and call them."""


@cli.command()
@click.argument("name")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option(
    "--interval",
    type=float,
    default=limits.ANNOUNCE_INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Mean seconds between announcements.",
)
@click.option("--once", is_flag=True, help="Announce once and end; it lasts about two minutes.")
@_common
def announce(name: str, port: int, interval: float, once: bool, grape: str, json_output: bool) -> None:
    """Announce until Ctrl-C that NAME is served on PORT.

    PORT is one of the host where the Grape runs. At the end a Python Grape forgets NAME at once;
    elsewhere it is found for up to 160 more seconds.
    """

    def work() -> None:
        with Link(grape) as link:
            if once:
                taken = link.announce(name, port)
                click.echo(as_json({"taken": taken}) if json_output else f"taken by {taken} Grapes")
                return
            _log_to_stderr()
            stop = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            taken_first = link.start_announcing(name, port, interval=interval)
            if json_output:
                click.echo(as_json({"announcing": name, "port": port, "taken": taken_first}))
            else:
                state = "announced" if taken_first else "not announced yet, trying again"
                click.echo(f"{printable(name)} on port {port}: {state}; Ctrl-C ends it")
            while not stop.wait(1.0):  # short waits, since Windows delivers signals only between them
                pass

    _run(json_output, work)


@cli.command()
@click.argument("name")
@_common
def lookup(name: str, grape: str, json_output: bool) -> None:
    """Show where NAME is served: one host:port per line."""

    def work() -> None:
        with Link(grape) as link:
            destinations = link.lookup(name)
        click.echo(as_json(destinations) if json_output else "\n".join(destinations))

    _run(json_output, work)


@cli.command()
@click.argument("value")
@_common
def put(value: str, grape: str, json_output: bool) -> None:
    """Store VALUE and show its key.

    VALUE is a text of at most 999 bytes; -: standard input.
    """

    def work() -> None:
        text = sys.stdin.read() if value == "-" else value
        with Link(grape) as link:
            key = link.put(text)
        click.echo(as_json(key) if json_output else key)

    _run(json_output, work)


@cli.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="Write the value as it is, also what a terminal would act on.")
@_common
def get(key: str, raw: bool, grape: str, json_output: bool) -> None:
    """Show the value stored under KEY.

    KEY is 40 hexadecimal digits, as put shows them. Exit status 1 when there is no value.
    """

    def work() -> None:
        with Link(grape) as link:
            item = link.get(key)
        if json_output:
            fields = None
            if item is not None:
                fields = {
                    "value": item.value,
                    "seq": item.seq,
                    "k": item.k.hex() if item.k is not None else None,
                    "sig": item.sig.hex() if item.sig is not None else None,
                }
            click.echo(as_json(fields))
        elif item is not None:
            sys.stdout.write(item.value if raw else printable(item.value) + "\n")
        else:
            click.echo("Error: nothing is stored under this key", err=True)
        if item is None:
            sys.exit(1)

    _run(json_output, work)


@cli.command()
@click.argument("name")
@_calling
@click.option(
    "--retry",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Attempts, each at another peer.",
)
@click.option("--to", "destination", metavar="HOST:PORT", help="Call this peer, without a look-up.")
@_common
def request(
    name: str,
    payload: str,
    text: bool,
    timeout: float,
    compress: bool,
    retry: int,
    destination: str | None,
    grape: str,
    json_output: bool,
) -> None:
    """Call one of the peers that serve NAME and show the result.

    PAYLOAD is JSON; -: standard input.
    """

    def work() -> None:
        sent = _payload(payload, text)
        with Link(grape) as link:
            client = PeerRPCClient(link)
            if destination is not None:
                result = client.request_to(destination, name, sent, timeout=timeout, compress=compress)
            else:
                result = client.request(name, sent, timeout=timeout, retry=retry, compress=compress)
        click.echo(as_json(result) if json_output else readable(result))

    _run(json_output, work)


@cli.command("map")
@click.argument("name")
@_calling
@click.option("--limit", type=click.IntRange(min=1), help="Call at most so many peers, chosen at random.")
@_common
def map_(
    name: str,
    payload: str,
    text: bool,
    timeout: float,
    compress: bool,
    limit: int | None,
    grape: str,
    json_output: bool,
) -> None:
    """Call all peers that serve NAME and show what each says.

    PAYLOAD is JSON; -: standard input. Exit status 1 when all failed.
    """

    def work() -> None:
        sent = _payload(payload, text)
        with Link(grape) as link:
            results = PeerRPCClient(link).map(name, sent, limit=limit, timeout=timeout, compress=compress)
        if json_output:
            click.echo(as_json([_result_object(result) for result in results]))
        else:
            for result in results:
                click.echo(_result_line(result))
        if not any(result.ok for result in results):
            sys.exit(1)

    _run(json_output, work)


def _result_object(result: MapResult) -> dict[str, Any]:
    return {
        "destination": result.destination,
        "payload": result.payload,
        "error": None if result.error is None else _error_object(result.error),
        "elapsed_s": round(result.elapsed_s, 6),
    }


def _result_line(result: MapResult) -> str:
    if result.error is not None:
        return f"{result.destination}  error: {printable(_without_place(result.error))}"
    return f"{result.destination}  {printable(json.dumps(result.payload, ensure_ascii=False))}"


def _without_place(error: PeerError) -> str:
    return str(error).removesuffix(f" ({error.destination})")


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _log_to_stderr() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_PrintableFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logging.getLogger("grenache_py").addHandler(handler)


def main(argv: Sequence[str] | None = None) -> None:
    """The console script."""
    cli.main(args=None if argv is None else list(argv), prog_name="grenache-py")


if __name__ == "__main__":
    main()
