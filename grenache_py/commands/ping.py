"""``ping``: how fast each peer of a name answers, and whether it does. In the manner of ping(8)."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import click

from .. import limits
from ..aio import Link
from ..aio.client import Client
from ..errors import GrapeError, LookupEmptyError, PeerError, RemoteError
from .latency import Histogram, summary
from .options import Network, network_options, payload_options, timeout_option, to_option
from .status import hints, status_of_all
from .terminal import (
    Stop,
    as_json,
    error_object,
    json_option,
    milliseconds,
    printable,
    run,
    tell,
    without_place,
)

BAR_COLUMNS = 24


@dataclass
class Pinged:
    """What is known of one peer."""

    sent: int = 0
    times: Histogram = field(default_factory=Histogram)
    last_error: PeerError | None = None

    @property
    def loss(self) -> float:
        """The share of requests without an answer."""
        return 1 - self.times.count / self.sent if self.sent else 0.0


@click.command(short_help="Show how fast each peer answers.")
@click.argument("name")
@payload_options
@click.option(
    "-c", "--count", type=click.IntRange(min=1), metavar="N", help="Rounds.  [default: until Ctrl-C]"
)
@click.option(
    "-i",
    "--interval",
    type=click.FloatRange(min=0.01),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds from one round to the next.",
)
@timeout_option("Seconds after which an answer is taken for lost.")
@click.option("-q", "--quiet", is_flag=True, help="Only the summary.")
@to_option
@json_option
@network_options(peers="call")
def ping(
    network: Network,
    name: str,
    payload: Any,
    count: int | None,
    interval: float,
    timeout: float,
    quiet: bool,
    destination: str | None,
    json_output: bool,
) -> None:
    """Send a request to every peer that serves NAME, each second, and show how long the answers take.

    They are ordinary requests: the peers' handlers see PAYLOAD (null unless given), and an answer with an
    error is an answer. The first one includes connecting. Peers that come are pinged as well, those that go
    are lost. Exit status 0 when any of them has answered.

    \b
    Example:
      grenache-py ping rpc_test -c 5
    """

    async def work() -> dict[str, Pinged]:
        stop = Stop()
        async with network.link() as link, network.client(link) as client:
            pinging = Pinging(client, name, payload, timeout, quiet, json_output)
            places = None if destination is None else [destination]
            await pinging.go_on(link, places, count, interval, stop)
            return pinging.peers

    peers = run(work())
    _show(peers, json_output)
    lost = [pinged.last_error for pinged in peers.values() if pinged.last_error and not pinged.times.count]
    if not json_output:
        for text in hints(lost):
            tell(text)
    if not any(pinged.times.count for pinged in peers.values()):
        raise click.exceptions.Exit(status_of_all(lost))


class Pinging:
    def __init__(
        self,
        client: Client,
        name: str,
        payload: Any,
        timeout_s: float,
        quiet: bool,
        json_output: bool,
    ):
        self.peers: dict[str, Pinged] = {}
        self._client = client
        self._name = name
        self._payload = payload
        self._timeout_s = timeout_s
        self._quiet = quiet
        self._json = json_output
        self._under_way: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def go_on(
        self, link: Link, places: list[str] | None, count: int | None, interval_s: float, stop: Stop
    ) -> None:
        """Ping round after round: ``places``, or those that a look-up tells and told before."""
        seq = 0
        while not stop.asked and (count is None or seq < count):
            seq += 1
            next_round = asyncio.get_running_loop().time() + interval_s
            for place in places if places is not None else await self._announced(link):
                if place not in self.peers and len(self.peers) < limits.PINGED_PEERS_MAX:
                    self.peers[place] = Pinged()
            for place, pinged in self.peers.items():
                if len(self._under_way) < limits.CONNECTIONS_MAX:
                    task = asyncio.ensure_future(self._ping(place, pinged, seq))
                    self._under_way.add(task)
                    task.add_done_callback(lambda task: self._ended(task, stop))
            if seq != count:
                await stop.wait(next_round - asyncio.get_running_loop().time())
        if self._under_way and not stop.asked:
            await stop.or_done(asyncio.gather(*self._under_way, return_exceptions=True))
        for task in self._under_way:
            task.cancel()

        if self._failure is not None:
            raise self._failure

    def _ended(self, task: asyncio.Task[None], stop: Stop) -> None:
        self._under_way.discard(task)
        failure = None if task.cancelled() else task.exception()
        if failure is not None and self._failure is None:  # nobody reads what is written, perhaps
            self._failure = failure
            stop.ask()

    async def _announced(self, link: Link) -> list[str]:
        try:
            return await link.lookup(self._name)
        except GrapeError as error:
            if not self.peers:
                raise
            if not isinstance(error, LookupEmptyError):
                tell(f"no look-up: {printable(str(error))}")
            return []

    async def _ping(self, place: str, pinged: Pinged, seq: int) -> None:
        started = time.perf_counter()
        failure: PeerError | None = None
        try:
            await self._client.request_to(place, self._name, self._payload, timeout=self._timeout_s)
        except PeerError as error:
            failure = error
        elapsed_s = time.perf_counter() - started
        pinged.sent += 1
        if failure is None or isinstance(failure, RemoteError):
            pinged.times.add(elapsed_s)
        else:
            pinged.last_error = failure
        if not self._quiet:
            self._tell(place, seq, elapsed_s, failure)

    def _tell(self, place: str, seq: int, elapsed_s: float, failure: PeerError | None) -> None:
        if self._json:
            told = {
                "destination": place,
                "seq": seq,
                "elapsed_s": round(elapsed_s, 6),
                "error": None if failure is None else error_object(failure),
            }
            click.echo(as_json(told))
        elif failure is None:
            click.echo(f"{place}  seq={seq}  {milliseconds(elapsed_s)}")
        elif isinstance(failure, RemoteError):
            click.echo(f"{place}  seq={seq}  {milliseconds(elapsed_s)}  ({without_place(failure)})")
        else:
            click.echo(f"{place}  seq={seq}  lost: {without_place(failure)}")


def _show(peers: dict[str, Pinged], json_output: bool) -> None:
    if json_output:
        for place, pinged in peers.items():
            told = {
                "destination": place,
                "sent": pinged.sent,
                "answered": pinged.times.count,
                "loss": round(pinged.loss, 4),
                "latency": summary(pinged.times),
            }
            click.echo(as_json({"summary": told}))
        return
    width = max(map(len, peers), default=0)
    click.echo(
        f"\n{'':{width}}  {'sent':>6} {'loss':>6} {'min':>10} {'p50':>10} {'p99':>10} {'max':>10}   min … max"
    )
    for place, pinged in sorted(peers.items()):
        times = pinged.times
        figures = ["-"] * 4
        if times.count:
            figures = [
                milliseconds(seconds)
                for seconds in (times.minimum_s, times.quantile(0.5), times.quantile(0.99), times.maximum_s)
            ]
        columns = " ".join(f"{figure:>10}" for figure in figures)
        line = f"{place:{width}}  {pinged.sent:>6,} {pinged.loss:>6.1%} {columns}   {times.bars(BAR_COLUMNS)}"
        click.echo(line.rstrip())
