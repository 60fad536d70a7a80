"""``orderbook journal``: what can be done with the journal of a peer that is not running."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import click

from ..errors import JournalError
from ..journal.file import JournalFile
from ..model import Instrument
from .journal_entries import HEADING, Entry, about, entries, instrument_of, line, record
from .runs import opened_for_writing
from .terminal import Failure, json_option, print_json
from .views import printable

journal_path = click.Path(exists=True, dir_okay=False, path_type=Path)
file_argument = click.argument("path", metavar="FILE", type=journal_path)


@click.group("journal")
def journal_group() -> None:
    """Look at the journal of a peer, check it, export it or make it smaller.

    FILE is FOLDER/MARKET.journal of `orderbook peer --journal FOLDER`. Stop the peer first: while it runs it
    has its journals for itself.
    """


@contextlib.contextmanager
def opened(path: Path, *, without_redo: bool = False) -> Iterator[tuple[JournalFile, Instrument]]:
    """The journal at ``path`` inside the block, whose JournalErrors become Failures."""
    try:
        with contextlib.closing(JournalFile(path, without_redo=without_redo)) as file:
            yield file, instrument_of(file)
    except JournalError as error:
        raise Failure(str(error), code=error.code) from error


@contextlib.contextmanager
def opened_to_read(path: Path) -> Iterator[tuple[JournalFile, Instrument]]:
    """The same, also where the redo log is missing, which is said."""
    with opened(path, without_redo=True) as (file, instrument):
        if file.redo_missing is not None:
            click.echo(printable(f"Warning: {file.redo_missing}."), err=True)
        yield file, instrument


@journal_group.command()
@file_argument
@click.option("--tail", type=click.IntRange(1), metavar="N", help="Only the last N.  [default: all]")
@click.option("--order", "order_id", metavar="ID", help="Only what concerns this order.")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs, a line for each event.")
def show(path: Path, tail: int | None, order_id: str | None, as_json: bool) -> None:
    """Show the events in FILE, oldest first.

    \b
    Example:
      orderbook journal show journals/BTC-USD.journal --tail 20
    """
    with opened_to_read(path) as (file, instrument):
        chosen: Iterable[Entry] = entries(file)
        if order_id is not None:
            chosen = about(order_id, chosen)
        if tail is not None:
            chosen = deque(chosen, maxlen=tail)
        if as_json:
            write_records(chosen, instrument, sys.stdout)
            return
        click.echo(printable(f"{file.meta['peer']}'s journal of {instrument.market}"))
        click.echo(HEADING)
        count = 0
        for entry in chosen:
            count += 1
            click.echo(line(entry, instrument))
        if not count:
            click.echo("no events" if order_id is None else printable(f"no events about order {order_id}"))


@journal_group.command()
@file_argument
@json_option
def verify(path: Path, as_json: bool) -> None:
    """Check all of FILE: the database, every event, and that they fit each other.

    The exit status is 1 where anything does not. FILE is read, not changed. What is found damaged can't be
    mended: restore a copy. `orderbook journal export` still writes what comes before the damage.
    """
    with opened(path, without_redo=True) as (file, instrument):
        state = file.check()
        if file.redo_missing is not None:
            raise JournalError(f"{file.redo_missing}; what there is up to event {file.number:,} is sound")
        live = sum(order.live for order in state.orders.values())
        counts = {
            "events": file.number - file.snapshot_number(),
            "snapshot_number": file.snapshot_number(),
            "trades": file.trade_count,
            "orders": len(state.orders),
            "live_orders": live,
            "unanswered_confirmations": len(state.confirmations),
            "bytes": size(path),
        }
        peer = file.meta["peer"]
    if as_json:
        print_json({"ok": True, "peer": peer, "market": instrument.market, **counts})
        return
    snapshot = counts["snapshot_number"]
    click.echo(printable(f"{peer}'s journal of {instrument.market} is sound."))
    click.echo(
        f"{counts['events']:,} events"
        + (f" after a snapshot of the first {snapshot:,}" if snapshot else "")
        + f", {counts['trades']:,} trades, {counts['orders']:,} orders ({live:,} live), "
        f"{counts['unanswered_confirmations']:,} confirmations without an answer, {counts['bytes']:,} bytes"
    )


@journal_group.command()
@file_argument
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; gzipped where its name ends in .gz.  [default: standard output]",
)
def export(path: Path, output: Path | None) -> None:
    """Write all of FILE as lines of JSON, oldest first.

    An event that a snapshot has replaced is there no more; its line says what the snapshot knows instead.
    Prices and quantities are decimal strings, times milliseconds since the epoch.
    """
    if output is not None and output.exists() and output.samefile(path):
        raise click.BadParameter("must not be the journal itself", param_hint="--output")
    with opened_to_read(path) as (file, instrument), contextlib.ExitStack() as stack:
        into = sys.stdout if output is None else stack.enter_context(opened_for_writing(output))
        count = write_records(entries(file), instrument, into)
    if output is not None:
        click.echo(printable(f"{count:,} lines written to {output}"))


@journal_group.command()
@file_argument
@json_option
def compact(path: Path, as_json: bool) -> None:
    """Replace the events in FILE by a snapshot of what they add up to.

    Trades and their proofs are kept. A peer does the same when it starts and many have gathered. A damaged
    journal is left as it is.
    """
    before = size(path)
    with opened(path) as (file, _):
        events = file.number - file.snapshot_number()
        file.compact()
        file.shrink()
    after = size(path)
    if as_json:
        print_json({"events": events, "bytes_before": before, "bytes_after": after})
    else:
        click.echo(f"{events:,} events became a snapshot: {before:,} bytes before, {after:,} after")


@journal_group.command("accept-loss")
@file_argument
@json_option
def accept_loss(path: Path, as_json: bool) -> None:
    """Go on with FILE where its redo log, FILE-redo, is missing and can't be put back.

    While a peer runs, what it promised last is in the redo log only. A copy of FILE without it may lack up to
    a second or so of orders and trades that others were told of, and neither a peer nor `compact` opens it.
    After this they do, and go on from the last event that FILE has. Other peers may know trades that this one
    has forgotten: compare with `orderbook reconcile`.
    """
    with opened(path, without_redo=True) as (file, _):
        if file.redo_missing is None:
            raise JournalError(f"{path} lacks nothing: there is no loss to accept")
        file.check()
        file.accept_loss()
        number = file.number
    if as_json:
        print_json({"last_event": number})
    else:
        click.echo(printable(f"{path} goes on after event {number:,}; what came after that is lost."))


def write_records(source: Iterable[Entry], instrument: Instrument, file: IO[str]) -> int:
    """One line of JSON for each entry. Returns how many."""
    count = 0
    for entry in source:
        file.write(json.dumps(record(entry, instrument), separators=(",", ":")) + "\n")
        count += 1
    return count


def size(path: Path) -> int:
    """Bytes of the journal and of what SQLite has beside it."""
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
