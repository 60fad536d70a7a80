"""What all commands of the command line share: options, running asyncio work, and how errors are told.

Exit status: 0 done, 1 it did not work (refused, unreachable, findings), 2 the command was not well formed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import click
import msgspec

from grenache_py import fastest_loop

from ..client import Client, ClientError, NotYetError, PeerFailedError, RefusedError
from ..errors import InvalidFieldError
from ..flow.files import FlowError
from .views import make_console, plain, printable

DEFAULT_API = "http://127.0.0.1:8081"

Result = TypeVar("Result")
Command = TypeVar("Command", bound=Callable[..., Any])

HINTS = {
    "busy": "try again in a moment, or another peer (--api)",
    "duplicate_order": "use a new --client-order-id, or none",
    "history_lost": "go on without --after, or with --after 0, and compare",
    "order_closed": "there is nothing left to cancel or to change",
    "price_reserved": "try again when its reservations have ended, in a few seconds",
    "under_way": "try again in a moment",
    "unknown_doubt": "orderbook doubts list shows what is in doubt at the peer that asked",
    "unknown_market": "name one of them with --market",
    "unknown_order": "an order is known to the peer that took it: is this the right --api?",
}
"""What to do about a refusal, by its code."""


class Failure(click.ClickException):
    """The command did not work: exit status 1, and with ``--json`` the error as the client API writes it."""

    def __init__(self, message: str, *, code: str = "failed", field: str | None = None, hint: str = ""):
        super().__init__(message)
        self.code = code
        self.field = field
        self.hint = hint
        # When it is shown, the command's context is gone.
        context = click.get_current_context(silent=True)
        self._as_json = context is not None and bool(context.params.get("as_json"))

    def format_message(self) -> str:
        said = "\n".join(printable(line) for line in self.message.splitlines())
        return f"{said}\n{self.hint}" if self.hint else said

    def show(self, file: Any = None) -> None:
        if self._as_json:
            error = {"code": self.code, "message": self.message}
            print_json({"error": error if self.field is None else {**error, "field": self.field}})
        else:
            super().show(file)


def api_option(*, multiple: bool = False) -> Callable[[Command], Command]:
    """``--api``: which peer is asked, or which ones."""
    return click.option(
        "--api",
        "apis" if multiple else "api",
        metavar="URL",
        envvar="ORDERBOOK_API",
        default=[DEFAULT_API] if multiple else DEFAULT_API,
        multiple=multiple,
        show_default=True,
        show_envvar=True,
        help="Client API of a peer" + ("; once for each peer." if multiple else "."),
    )


ROWS = 100
"""Rows of a list unless asked otherwise."""
ROWS_MAX = 10_000

limit_option = click.option(
    "--limit", type=click.IntRange(1, ROWS_MAX), default=ROWS, show_default=True, help="Rows at the most."
)
after_option = click.option("--after", metavar="CURSOR", help="Go on after the page that ended with this.")

market_option = click.option(
    "--market", metavar="NAME", help="Such as BTC-USD; may be left out where the peer has only one."
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON for programs, on one line.")


def print_json(content: Any) -> None:
    """``content`` (also msgspec structs) as one line of ASCII, which is harmless in any terminal."""
    click.echo(json.dumps(msgspec.to_builtins(content), separators=(",", ":")))


def make_clients(apis: tuple[str, ...], retry_s: float = 0.0) -> list[Client]:
    """Raises BadParameter for what is no URL, or given twice."""
    try:
        clients = [Client(api, retry_s=retry_s) for api in apis]
    except InvalidFieldError as error:
        raise click.BadParameter(error.rule, param_hint="--api") from None
    if len({client.api for client in clients}) < len(clients):
        raise click.BadParameter("must name each peer once", param_hint="--api")
    return clients


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run ``work`` to its end; SIGINT and SIGTERM cancel it, so that it cleans up.

    Raises:
        Failure: In place of the errors of peers and flows.
        Abort: It was cancelled.
    """
    with explained():
        return fastest_loop.run(_until_signalled(work))


async def _until_signalled(work: Coroutine[Any, Any, Result]) -> Result:
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise click.Abort from None
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """Around what goes on until the user ends it, which is no failure. Raises Exit, with status 0."""
    try:
        yield
    except asyncio.CancelledError:
        raise click.exceptions.Exit(0) from None


def ask(api: str, work: Callable[[Client], Coroutine[Any, Any, Result]], *, retry_s: float = 0.0) -> Result:
    """The result of ``work`` with a client of the peer at ``api``."""
    [client] = make_clients((api,), retry_s)

    async def asked() -> Result:
        async with client:
            return await work(client)

    return run(asked())


async def only_market(client: Client, market: str | None) -> str:
    """``market``, or where none is given the peer's only one. Raises BadParameter where it has several."""
    if market is not None:
        return market
    markets = list((await client.health()).markets)
    if len(markets) != 1:
        names = ", ".join(printable(name) for name in markets) or "none"
        raise click.BadParameter(f"must be given, one of: {names}", param_hint="--market")
    return markets[0]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn errors into what a user can act on."""
    try:
        yield
    except RefusedError as error:
        raise Failure(
            str(error), code=error.code, field=error.field, hint=HINTS.get(error.code, "")
        ) from error
    except NotYetError as error:
        raise Failure(str(error), code="not_yet") from error
    except PeerFailedError as error:
        if error.in_doubt:
            hint = "it may have been done all the same: look with `orderbook orders` before you try again"
        else:
            hint = "start a peer with `orderbook peer`, or name another --api"
        raise Failure(str(error), code="peer_failed", hint=hint) from error
    except FlowError as error:
        raise Failure(f"the flow: {error}", code="invalid_flow", field=error.field) from error


class SafeFormatter(logging.Formatter):
    """Log lines whose messages, which quote peers, can't forge lines or speak to the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name logging calls
        record.message = printable(record.message)
        return super().formatMessage(record)


def log_to_stderr(verbose: bool) -> None:
    """Warnings and errors; everything from INFO on with ``verbose``."""
    handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler])


def tell_of_more(cursor: object) -> None:
    if cursor is not None:
        text = f"there is more: --after {cursor}, or a larger --limit"
        make_console(stderr=True).print(plain(text))


def show_break(error: ClientError) -> None:
    """A feed has ended, and begins again."""
    make_console(stderr=True).print(plain(f"{error}; trying again"))
