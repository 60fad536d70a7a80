"""``bench``: put a service under load and say how it bears it."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from .. import limits
from .latency import Histogram, summary
from .load import Load
from .options import Network, network_options, payload_options, timeout_option, to_option
from .status import ExitStatus, hint
from .terminal import Stop, as_json, json_option, milliseconds, printable, run, tell

BAR_COLUMNS = 48
BUSY = 0.85
"""The share of a processor from which on the figures say something about this process, too."""


@click.command(short_help="Put peers under load and measure them.")
@click.argument("name")
@payload_options
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(1, limits.CONNECTIONS_MAX),
    default=32,
    show_default=True,
    metavar="N",
    help="Calls under way at the same time, at most.",
)
@click.option(
    "-d",
    "--duration",
    type=click.FloatRange(0, limits.BENCH_DURATION_MAX_S, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="Seconds of load.",
)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(1, limits.BENCH_CALLS_MAX),
    metavar="N",
    help="Calls in all, in place of a duration.",
)
@click.option(
    "--rate",
    type=click.FloatRange(0, limits.BENCH_RATE_MAX, min_open=True),
    metavar="N",
    help="Calls that are due each second, whatever the service does.  [default: as fast as it answers]",
)
@click.option(
    "--size",
    type=click.IntRange(1, limits.BODY_BYTES_MAX // 2),
    metavar="BYTES",
    help="Send a text of this size in place of PAYLOAD.",
)
@timeout_option("Seconds for each call.")
@to_option
@json_option
@network_options(peers="call")
def bench(
    network: Network,
    name: str,
    payload: Any,
    concurrency: int,
    duration: float,
    count: int | None,
    rate: float | None,
    size: int | None,
    timeout: float,
    destination: str | None,
    json_output: bool,
) -> None:
    """Call NAME again and again and show how many calls a second its peers answer, and how fast.

    This is load: point it at services that may have it. Without --rate a call begins when another has ended.
    With --rate calls are due at fixed times and timed from then on, so that a stall shows in full; `from
    sent` is timed from when they were sent. Latencies are those of answers (also with an error) and of calls
    that ran out of time.

    \b
    Examples:
      grenache-py bench rpc_test '{"n": 1}'
      grenache-py bench rpc_test --rate 500 --duration 30 --json
    """
    if size is not None:
        payload = "x" * size

    async def work() -> Load:
        stop = Stop()
        async with network.link() as link, network.client(link) as client:
            if destination is None:
                await link.lookup(name)  # says what is wrong before anything else
                load = Load(lambda: client.request(name, payload, timeout=timeout), **plan)
            else:
                load = Load(lambda: client.request_to(destination, name, payload, timeout=timeout), **plan)
            running = asyncio.ensure_future(load.run())
            await stop.or_done(running)
            running.cancel()
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()
            return load

    plan: Any = {"concurrency": concurrency, "duration_s": duration, "count": count, "rate": rate}
    load = run(work())
    if json_output:
        click.echo(as_json({"name": name, "transport": network.transport, **load.as_object()}))
    else:
        click.echo("\n".join(report(load)))
        if load.first_failure is not None and not load.answered and (text := hint(load.first_failure)):
            tell(text)
    if not load.answered and load.statuses:
        failed = list(load.statuses)
        raise click.exceptions.Exit(failed[0] if len(failed) == 1 else ExitStatus.FAILED)


def report(load: Load) -> list[str]:
    """For people."""
    per_second = load.calls / load.elapsed_s if load.elapsed_s else 0.0
    lines = [
        f"calls     {load.calls:,} in {load.elapsed_s:.1f} s, {per_second:,.0f} per second",
        f"answered  {load.answered:,}",
    ]
    if load.errors:
        lines.append("errors    " + ", ".join(f"{n:,} {code}" for code, n in load.errors.most_common()))
        lines.append(f"the first {printable(str(load.first_failure))}")
    if load.never_begun:
        lines.append(f"too late  {load.never_begun:,} were due and never began")
    if load.rate is None:
        lines += _rows("latency", load.latency)
    else:
        lines += _rows("from due", load.latency) + _rows("from sent", load.service)
    if load.cpu_share > BUSY:
        lines.append(
            f"note      this process was busy {load.cpu_share:.0%} of the time: it measured itself as well"
        )
    return lines


def _rows(name: str, histogram: Histogram) -> list[str]:
    figures = summary(histogram)
    if figures is None:
        return []
    row = "  ".join(f"{figure[:-2]} {milliseconds(seconds)}" for figure, seconds in figures.items())
    return [f"{name:9} {row}", f"{'':9} {histogram.bars(BAR_COLUMNS)}"]
