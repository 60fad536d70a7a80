"""``grape-py``: a Grape as a process, with the options of the Node binary (grenache-grape/bin/grape.js)."""

from __future__ import annotations

import asyncio

import click

from .. import __version__
from ..errors import ListenError
from ..fastest_loop import new_event_loop, open_standard_files
from ..signals import on_stop_signals
from ..transports import descriptors
from .aio import Grape

_EPILOG = """Example, two Grapes on one machine:

\b
  grape-py --dp 20001 --aph 30001 --bn 127.0.0.1:20002
  grape-py --dp 20002 --aph 40001 --bn 127.0.0.1:20001
"""


@click.command(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--dp",
    "--dht_port",
    "dht_port",
    type=click.IntRange(0, 65535),
    default=20001,
    show_default=True,
    metavar="PORT",
    help="UDP port of the DHT; 0: any free one.",
)
@click.option(
    "--aph",
    "--api_port",
    "api_port",
    type=click.IntRange(0, 65535),
    default=30001,
    show_default=True,
    metavar="PORT",
    help="TCP port of the HTTP API; 0: any free one.",
)
@click.option(
    "--bn",
    "--bootstrap",
    "bootstrap",
    default="",
    metavar="HOST:PORT,…",
    help="Grapes to join the network through, separated by commas.",
)
@click.option(
    "-b",
    "--b",
    "--bind",
    "bind",
    default=None,
    metavar="HOST",
    help="Address that the HTTP API listens on.  [default: all]",
)
@click.option(
    "--dpa",
    "--dht_peer_maxAge",
    "dht_peer_max_age",
    type=click.IntRange(min=1),
    default=120_000,
    show_default=True,
    metavar="MS",
    help="How long an announced peer is listed, in ms.",
)
@click.option(
    "--dnl",
    "--dht_nodeLiveness",
    "dht_node_liveness",
    type=click.IntRange(min=1),
    default=300_000,
    show_default=True,
    metavar="MS",
    help="Nodes that were silent this long are pinged, in ms.",
)
@click.option(
    "--dc",
    "--dht_concurrency",
    "dht_concurrency",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Queries of one look-up under way at once.",
)
@click.option(
    "--dht_maxTables",
    "dht_max_tables",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Names whose closest nodes are remembered.",
)
@click.option(
    "--dht_maxValues",
    "dht_max_values",
    type=click.IntRange(min=1),
    default=5000,
    show_default=True,
    metavar="N",
    help="Stored values (put) that are kept.",
)
@click.option(
    "--check_maxPayloadSize",
    "max_payload_size",
    type=click.IntRange(min=1),
    default=8192,
    show_default=True,
    metavar="BYTES",
    help="Largest body of a request to the HTTP API.",
)
@click.option(
    "--state",
    "state",
    type=click.Path(dir_okay=False),
    default=None,
    metavar="FILE",
    help="Keeps id, contacts and values over restarts.  [default: forget them]",
)
@click.option(
    "--cache_maxAge",
    "cache_max_age",
    type=int,
    default=None,
    metavar="MS",
    help="Accepted and not used, as in the Node binary.",
)
@click.version_option(__version__)
def main(
    dht_port: int,
    api_port: int,
    bootstrap: str,
    bind: str | None,
    dht_peer_max_age: int,
    dht_node_liveness: int,
    dht_concurrency: int,
    dht_max_tables: int,
    dht_max_values: int,
    max_payload_size: int,
    state: str | None,
    cache_max_age: int | None,
) -> None:
    """Run a Grape: a node of Grenache's DHT, with an HTTP API for the services of this host.

    Node Grapes and Python Grapes form one network. Stop it with Ctrl-C or SIGTERM.
    """
    descriptors.raise_limit()
    try:
        grape = Grape(
            dht_port,
            api_port,
            bind,
            [address for address in bootstrap.split(",") if address.strip()],
            peer_max_age=dht_peer_max_age / 1000,
            node_liveness=dht_node_liveness / 1000,
            dht_concurrency=dht_concurrency,
            dht_max_tables=dht_max_tables,
            dht_max_values=dht_max_values,
            max_payload_size=max_payload_size,
            state=state,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    open_standard_files()
    loop = new_event_loop()
    try:
        loop.run_until_complete(_serve(grape))
    except ListenError as error:
        raise click.ClickException(str(error)) from None
    except BrokenPipeError:
        raise  # who reads what it says has gone; click ends it
    except OSError as error:
        raise click.ClickException(f"--state {state}: {error.strerror}; does its folder exist?") from None
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


async def _serve(grape: Grape) -> None:
    stopped, listening = asyncio.Event(), asyncio.Event()
    on_stop_signals(stopped.set)
    grape.on("listening", listening.set)
    starting = asyncio.ensure_future(grape.start())
    telling = asyncio.ensure_future(_tell(grape, listening))
    waiting = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not stopped.is_set():
            await starting
            await telling
            await waiting
    finally:
        tasks = (starting, telling, waiting)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await grape.stop()


async def _tell(grape: Grape, listening: asyncio.Event) -> None:
    await listening.wait()
    click.echo(f"Grape {grape.node_id.hex()} listens: DHT udp port {grape.dht_port}, HTTP API {grape.url}")
