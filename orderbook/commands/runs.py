"""The commands that run a while: ``flow``, ``replay``, ``reconcile`` and ``demo``."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import click

from ..audit.reconcile import Report
from ..audit.snapshots import QUIET_TIMEOUT_S, reconcile
from ..demo.demo import Demo, Display, Outcome, run_demo
from ..demo.display import counts_shown, make_display
from ..demo.network import NetworkError
from ..flow.files import Row, read_flow, write_flow
from ..flow.replay import WINDOW, Counts, replay
from ..flow.synthetic import synthesize
from ..journal.schema import DURABILITIES
from ..selection import POLICIES
from .terminal import (
    Failure,
    api_option,
    json_option,
    make_clients,
    market_option,
    only_market,
    print_json,
    run,
)
from .views import counts_line, make_console, plain, report_view

DEMO_ROWS = 30_000
"""Made-up rows of the demo: about half a minute of it on a small machine."""
SEED = 1
PEERS_MAX = 32

flow_path = click.Path(exists=True, dir_okay=False, path_type=Path)
window_option = click.option(
    "--window",
    type=click.IntRange(1, 1000),
    default=WINDOW,
    show_default=True,
    help="Requests in flight at the most.",
)
seed_option = click.option("--seed", type=int, default=SEED, show_default=True, help="Of made-up flow.")


@click.command("flow", short_help="Make up order flow.")
@click.option("--rows", type=click.IntRange(1), default=DEMO_ROWS, show_default=True, help="How many.")
@seed_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; gzipped where its name ends in .gz.  [default: standard output]",
)
def flow_command(rows: int, seed: int, output: Path | None) -> None:
    """Make up order flow, the same for the same seed, as CSV that replay and demo read."""
    with contextlib.ExitStack() as stack:
        file = sys.stdout if output is None else stack.enter_context(opened_for_writing(output))
        write_flow(synthesize(rows, seed), file)


@contextlib.contextmanager
def opened_for_writing(path: Path) -> Iterator[IO[str]]:
    try:
        with open(path, "wb") as raw:
            # Without name and time in its head, so that the same flow is the same file.
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
            with io.TextIOWrapper(packed, encoding="utf-8", newline="") as text:
                yield text
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error


@click.command("replay", short_help="Replay order flow at peers.")
@click.argument("file", type=flow_path)
@api_option(multiple=True)
@market_option
@click.option("--rows", type=click.IntRange(1), help="Only the first so many.  [default: all]")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    metavar="X",
    help="1: as fast as it was, 2: twice as fast.  [default: as fast as it goes]",
)
@window_option
@json_option
def replay_command(
    file: Path,
    apis: tuple[str, ...],
    market: str | None,
    rows: int | None,
    speed: float | None,
    window: int,
    as_json: bool,
) -> None:
    """Replay the order flow in FILE (CSV, also gzipped) at one or more peers.

    Its orders are spread over the peers, each with an owner of its own. A change amends its order. Cancels
    that come too late are normal: the order has traded.

    \b
    Example:
      orderbook replay flow.csv.gz --api 127.0.0.1:8081 --api 127.0.0.1:8082
    """
    clients = make_clients(apis)
    console = make_console(stderr=True)
    counts = Counts()

    async def work() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client)
            name = await only_market(clients[0], market)
            if not as_json:
                await stack.enter_async_context(counts_shown(console, counts))
            flow = itertools.islice(read_flow(file), rows)
            await replay(flow, clients, name, window=window, speed=speed, counts=counts)

    run(work())
    if as_json:
        print_json(counts.as_dict())
    else:
        make_console().print(counts_line(counts))


@click.command("reconcile", short_help="Check the books of all peers against each other.")
@api_option(multiple=True)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0),
    default=QUIET_TIMEOUT_S,
    show_default=True,
    help="Seconds that the peers are given to come to rest.",
)
@json_option
def reconcile_command(apis: tuple[str, ...], timeout_s: float, as_json: bool) -> None:
    """Check the books of all peers against each other; exit status 1 if anything does not fit.

    Waits until nothing is under way, then reads all orders and trades. Name every peer of the network.

    \b
    Example:
      orderbook reconcile --api 127.0.0.1:8081 --api 127.0.0.1:8082 --api 127.0.0.1:8083
    """
    clients = make_clients(apis)
    console = make_console(stderr=True)

    async def work() -> Report:
        async with contextlib.AsyncExitStack() as stack:
            for client in clients:
                await stack.enter_async_context(client)
            return await reconcile(
                clients, timeout_s=timeout_s, progress=lambda text: console.print(plain(text))
            )

    report = run(work())
    if as_json:
        print_json(report.as_dict())
    else:
        make_console().print(report_view(report))
    if not report.ok:
        sys.exit(1)


@click.command("demo", short_help="See it all at work on this machine.")
@click.option("--flow", "file", type=flow_path, help="Replay this file.  [default: made-up flow]")
@click.option(
    "--rows", type=click.IntRange(1), help=f"Rows of flow.  [default: all of a file, {DEMO_ROWS:,} made up]"
)
@seed_option
@click.option(
    "--peers", "peer_count", type=click.IntRange(1, PEERS_MAX), default=3, show_default=True, help="How many."
)
@click.option("--market", metavar="NAME", default="BTC-USD", show_default=True, help="Where they trade.")
@click.option("--grape", metavar="URL", help="HTTP API of a running Grape.  [default: two embedded ones]")
@click.option(
    "--policy",
    type=click.Choice(list(POLICIES)),
    default="full-first",
    show_default=True,
    help="Which offers to take among those of equal price.",
)
@click.option(
    "--journal",
    "journals",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the peers' journals there, and go on with them.  [default: a new one, removed in the end]",
)
@click.option(
    "--durability",
    type=click.Choice(list(DURABILITIES)),
    default="normal",
    show_default=True,
    help="Of the journals; see orderbook peer.",
)
@window_option
@json_option
def demo_command(
    file: Path | None,
    rows: int | None,
    seed: int,
    peer_count: int,
    market: str,
    grape: str | None,
    policy: str,
    journals: Path | None,
    durability: str,
    window: int,
    as_json: bool,
) -> None:
    """Start two Grapes and some peers, replay order flow at them, reconcile their books, stop everything.

    Exit status 0 means that all that was checked holds. Ctrl-C ends it early and leaves nothing behind.
    """
    source: Iterable[Row]
    source = synthesize(rows or DEMO_ROWS, seed) if file is None else itertools.islice(read_flow(file), rows)
    console = make_console()
    demo = Demo(
        rows=source,
        market=market,
        peers=peer_count,
        grape=grape,
        window=window,
        journals=journals,
        arguments=("--policy", policy, "--durability", durability),
    )
    try:
        outcome: Outcome = run(run_demo(demo, Display() if as_json else make_display(console)))
    except NetworkError as error:
        raise Failure(str(error)) from error
    if as_json:
        result = {"ok": outcome.report.ok, "replay": outcome.counts.as_dict()}
        print_json({**result, "reconciliation": outcome.report.as_dict()})
    else:
        console.print(counts_line(outcome.counts))
        console.print(report_view(outcome.report))
    if not outcome.report.ok:
        sys.exit(1)
