"""The ``orderbook`` command: run a peer, trade at one, replay order flow, reconcile, show the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grenache_py.commands.version import version_option

from .client import Client
from .commands.doubts import doubts_group
from .commands.journal import journal_group
from .commands.keys import keygen, verify_trade
from .commands.orders import amend, cancel, order, orders, pair, quote, state, submit
from .commands.runs import demo_command, flow_command, reconcile_command, replay_command
from .commands.terminal import (
    ROWS_MAX,
    Failure,
    after_option,
    api_option,
    ask,
    json_option,
    limit_option,
    log_to_stderr,
    market_option,
    only_market,
    print_json,
    run,
    show_break,
    tell_of_more,
    until_stopped,
)
from .commands.views import (
    book_table,
    make_console,
    peers_table,
    reservations_table,
    trade_text,
    trades_table,
)
from .errors import IdentityError, InvalidFieldError, JournalError
from .journal.schema import DURABILITIES
from .model import Instrument
from .records import BookRecord, ReservationRecord
from .selection import POLICIES
from .signing.keyfile import allowed_keys
from .terms import Routing


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@version_option("orderbook", "orderbook.desk")
def main() -> None:
    """A peer-to-peer order book on Grenache.

    Start two Grapes (grape-py) and some peers (orderbook peer), then trade at any of them. Or see it all at
    work: orderbook demo.

    Exit status: 0 done, 1 it did not work, 2 the command was not well formed.
    """


commands = (
    submit,
    pair,
    quote,
    amend,
    cancel,
    order,
    orders,
    state,
    flow_command,
    replay_command,
    reconcile_command,
    demo_command,
    doubts_group,
    journal_group,
    keygen,
    verify_trade,
)
for command in commands:
    main.add_command(command)


# -- a peer ----------------------------------------------------------------------------------------------


@main.command()
@click.option("--name", required=True, help="Of this peer; unique in the network.")
@click.option(
    "--grape",
    metavar="URL",
    default="http://127.0.0.1:30001",
    show_default=True,
    help="HTTP API of a Grape.",
)
@click.option(
    "--market",
    "markets",
    metavar="NAME",
    multiple=True,
    default=["BTC-USD"],
    show_default=True,
    help="What it trades; may be given several times.",
)
@click.option("--tick", default="0.01", show_default=True, help="Price step; all peers must agree on it.")
@click.option(
    "--lot", default="0.00000001", show_default=True, help="Quantity step; all peers must agree on it."
)
@click.option(
    "--api",
    metavar="HOST:PORT",
    default="127.0.0.1:8081",
    show_default=True,
    help="Where the client API listens; port 0 is any free one.",
)
@click.option("--host", help="Address for other peers.  [default: all of this machine]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port for other peers; 0 is any free one.",
)
@click.option(
    "--policy",
    type=click.Choice(list(POLICIES)),
    default="full-first",
    show_default=True,
    help="Which offers to take among those of equal price.",
)
@click.option(
    "--routing",
    type=click.Choice([Routing.LOCAL_FIRST.value, Routing.BEST_PRICE.value]),
    default=Routing.LOCAL_FIRST.value,
    show_default=True,
    help="Whether orders trade here first, or wherever the price is best.",
)
@click.option(
    "--journal",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep orders and trades there, over restarts and crashes.  [default: forget them]",
)
@click.option(
    "--durability",
    type=click.Choice(list(DURABILITIES)),
    default="full",
    show_default=True,
    help="full: survives a power cut; normal: a crash of the process; off: neither for sure, but fast.",
)
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Sign with this key (see: orderbook keygen).  [default: one kept beside the journals, or a new one]",
)
@click.option(
    "--allow",
    "allow",
    metavar="KEY",
    multiple=True,
    help="Trade with this key only: KEY, NAME=KEY, or a file of those, one a line; may be repeated.",
)
@click.option(
    "--open",
    "unsigned",
    is_flag=True,
    help="Trade with peers that do not sign, too: for learning, since anybody can pose as one.",
)
@click.option("--ready-json", is_flag=True, help="When ready, print the addresses as a line of JSON.")
@click.option("--verbose", is_flag=True, help="Log more, to standard error.")
def peer(
    name: str,
    grape: str,
    markets: tuple[str, ...],
    tick: str,
    lot: str,
    api: str,
    host: str | None,
    port: int,
    policy: str,
    routing: str,
    journal: Path | None,
    durability: str,
    key: Path | None,
    allow: tuple[str, ...],
    unsigned: bool,
    ready_json: bool,
    verbose: bool,
) -> None:
    """Run a peer until Ctrl-C.

    It announces its markets on a Grape, trades with all other peers there, and serves the client API that the
    other commands use. Whoever reaches the client API can trade: keep it on loopback, or behind a proxy
    that knows who calls.

    \b
    Example:
      orderbook peer --name alice --grape http://127.0.0.1:30001 --market BTC-USD --api 127.0.0.1:8081
    """
    from grenache_py.errors import ArgumentError

    from .peer import PeerSettings, run_peer

    if allow and unsigned:
        raise click.UsageError("--allow and --open contradict each other: who does not sign has no key")
    log_to_stderr(verbose)
    api_host, api_port = host_and_port(api)

    def ready(worker: Any, served: Any) -> None:
        if ready_json:
            print_json({"ready": {"name": name, "api": served.url, "port": worker.port, "key": worker.key}})
        else:
            click.echo(
                f"{name} is ready: client API {served.url}, peers on port {worker.port}; end with Ctrl-C\n"
                f"its key is {worker.key}"
            )

    try:
        settings = PeerSettings(
            name=name,
            grape=grape,
            instruments=[Instrument(market, tick=tick, lot=lot) for market in dict.fromkeys(markets)],
            api_host=api_host,
            api_port=api_port,
            host=host,
            port=port,
            policy=POLICIES[policy],
            routing=Routing(routing),
            journals=journal,
            durability=durability,
            key=key,
            allowed=allowed_keys(allow) if allow else None,
            unsigned=unsigned,
        )
        run(run_peer(settings, ready))
    except (InvalidFieldError, ArgumentError) as error:
        raise click.BadParameter(error.rule, param_hint=f"--{error.field}") from None
    except (JournalError, IdentityError) as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        raise  # who reads what it says has gone; click ends it
    except OSError as error:
        hint = "choose another --api or --port; 0 is any free port"
        raise Failure(f"cannot listen: {error}", hint=hint) from error


def host_and_port(text: str) -> tuple[str, int]:
    """``127.0.0.1:8081`` or ``[::1]:8081`` in parts. Raises BadParameter."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and len(port) < 6 and int(port) <= 65535):
        raise click.BadParameter("must be HOST:PORT, such as 127.0.0.1:8081", param_hint="--api")
    return host.removeprefix("[").removesuffix("]"), int(port)


# -- trading ---------------------------------------------------------------------------------------------


@main.command(short_help="List a peer's trades.")
@market_option
@limit_option
@after_option
@api_option()
@click.option(
    "--follow", is_flag=True, help="Show those that come, from now on or from CURSOR, until Ctrl-C."
)
@json_option
def trades(market: str | None, limit: int, after: str | None, api: str, follow: bool, as_json: bool) -> None:
    """List a peer's trades, in order of execution."""

    async def work(client: Client) -> Any:
        name = await only_market(client, market)
        if follow:
            await follow_trades(client, name, after, as_json)
        return await client.trades_page(market=name, after=after, limit=limit)

    page = ask(api, work)
    if as_json:
        print_json(page)
    else:
        make_console().print(trades_table(page.trades))
        tell_of_more(page.next)


async def follow_trades(client: Client, market: str, after: str | None, as_json: bool) -> None:
    """Show trades as they come, until the user ends it."""
    console = make_console()
    with until_stopped():
        async for page in client.follow_trades(market, after, on_break=show_break):
            if as_json:
                print_json(page)
                continue
            for trade in page.trades:
                console.print(trade_text(trade))


@main.command(short_help="Show open quantity by price.")
@click.argument("market", required=False)
@click.option(
    "--levels", type=click.IntRange(1, ROWS_MAX), default=20, show_default=True, help="Prices a side."
)
@click.option("--follow", is_flag=True, help="Show it again whenever it has changed, until Ctrl-C.")
@api_option()
@json_option
def book(market: str | None, levels: int, follow: bool, api: str, as_json: bool) -> None:
    """Show the open quantity by price of MARKET, at one peer."""

    def show(record: BookRecord) -> None:
        if as_json:
            print_json(record)
        else:
            make_console().print(book_table(record))

    async def work(client: Client) -> None:
        name = await only_market(client, market)
        if follow:
            with until_stopped():
                async for record in client.follow(name, levels, on_break=show_break):
                    show(record)
        else:
            show(await client.book(name, levels))

    ask(api, work)


@main.command(short_help="List what a peer has reserved for others.")
@market_option
@api_option()
@json_option
def reservations(market: str | None, api: str, as_json: bool) -> None:
    """List what a peer has set aside for other peers at this moment, in order of expiry.

    A reservation lasts some milliseconds as a rule: what stays waits for a peer that does not confirm. The
    counters of GET /metrics tell how reservations end.
    """

    async def work(client: Client) -> list[ReservationRecord]:
        return await client.reservations(market=await only_market(client, market))

    records = ask(api, work)
    if as_json:
        print_json({"reservations": records})
    else:
        make_console().print(reservations_table(records))


@main.command(short_help="List the other peers that a peer knows.")
@api_option()
@json_option
def peers(api: str, as_json: bool) -> None:
    """List the other peers that a peer knows, and whether they trade with it."""
    records = ask(api, lambda client: client.peers())
    if as_json:
        print_json({"peers": records})
    else:
        make_console().print(peers_table(records))
