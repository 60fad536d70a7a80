"""``announce`` and ``lookup``: who serves a name, and where."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from typing import NamedTuple

import click

from .. import limits
from ..aio import Link
from ..checks import check_name, check_port
from ..errors import ArgumentError, GrenacheError, LookupEmptyError
from .options import Network, network_options
from .status import ExitStatus, hint, status_of_all
from .terminal import Stop, as_json, input_lines, json_option, log_to_stderr, printable, run, tell


class Place(NamedTuple):
    """A service to be announced."""

    name: str
    port: int


@click.command(short_help="Announce services until Ctrl-C.")
@click.argument("services", nargs=-1, required=True, metavar="NAME PORT | NAME,PORT… | -")
@click.option("--once", is_flag=True, help="Announce once and end; it lasts about two minutes.")
@click.option(
    "--interval",
    type=float,
    default=limits.ANNOUNCE_INTERVAL_S,
    show_default=True,
    metavar="S",
    help="Mean seconds between announcements.",
)
@click.option("-d", "--delimiter", default=",", show_default=True, help="Between a name and its port.")
@json_option
@network_options()
def announce(
    network: Network,
    services: tuple[str, ...],
    once: bool,
    interval: float,
    delimiter: str,
    json_output: bool,
) -> None:
    """Announce that a service runs on a port of the Grape's host, until Ctrl-C.

    With - the services are read from standard input, one on each line: NAME,PORT or {"data": [NAME, PORT]};
    # and ; begin comments. At the end a Python Grape forgets them at once; elsewhere they are found for up
    to 160 more seconds.

    \b
    Examples:
      grenache-py announce rest:net:util 31337
      grenache-py announce rest:net:util,31337 rest:ext,31338
      grenache-py announce - < services.lst
    """
    places = None if services == ("-",) else given_places(services, delimiter)

    async def work() -> None:
        async with network.link() as link:
            if once:
                lines = places if places is not None else read_places(sys.stdin, delimiter)
                await _announce_once(link, lines, json_output)
                return
            log_to_stderr()
            stop = Stop()
            if places is not None:
                for place in places:
                    await _start(link, place, interval, json_output)
                await stop.wait()
            else:
                await _announce_lines(link, delimiter, interval, json_output, stop)

    run(work())


async def _announce_once(link: Link, places: Iterable[Place], json_output: bool) -> None:
    errors: list[GrenacheError] = []
    taken_by_any = False
    for place in places:
        try:
            taken = await link.announce(place.name, place.port)
        except GrenacheError as error:
            errors.append(error)
            tell(f"{printable(place.name)}: {printable(str(error))}")
            continue
        taken_by_any = True
        if json_output:
            click.echo(as_json({"name": place.name, "port": place.port, "taken": taken}))
        else:
            click.echo(f"{printable(place.name)} on port {place.port}: taken by {taken} Grapes")
    if errors and not taken_by_any:
        tell(hint(errors[-1]))
        raise click.exceptions.Exit(status_of_all(errors))


async def _start(link: Link, place: Place, interval: float, json_output: bool) -> None:
    taken = await link.start_announcing(place.name, place.port, interval=interval)
    if json_output:
        click.echo(as_json({"announcing": place.name, "port": place.port, "taken": taken}))
    else:
        state = "announced" if taken else "not announced yet, trying again"
        click.echo(f"{printable(place.name)} on port {place.port}: {state}; Ctrl-C ends it")


async def _announce_lines(link: Link, delimiter: str, interval: float, json_output: bool, stop: Stop) -> None:
    """What comes on standard input, as it comes: it may be a named pipe that never ends."""
    async for line in input_lines(stop):
        for place in read_places([line], delimiter):
            await _start(link, place, interval, json_output)
    await stop.wait()


def given_places(services: tuple[str, ...], delimiter: str) -> list[Place]:
    """The services in the arguments. Raises ``click.UsageError``."""
    if len(services) == 2 and services[1].isdecimal():
        return [checked(services[0], services[1])]
    return [checked(*split(service, delimiter)) for service in services]


def split(text: str, delimiter: str) -> tuple[str, str]:
    """Name and port; a name may contain the delimiter."""
    name, _, port = text.rpartition(delimiter) if delimiter else ("", "", text)
    return name.strip(), port.strip()


def checked(name: str, port: str) -> Place:
    """Raises ``click.UsageError``."""
    try:
        number = int(port) if port.isascii() and port.isdecimal() else 0
        return Place(check_name(name), check_port(number))
    except ArgumentError as error:
        what = printable(f"{name or '(no name)'} on port {port or '(none)'}")
        raise click.UsageError(f"{what}: {printable(str(error))}; write NAME PORT or NAME,PORT") from error


def read_places(lines: Iterable[str], delimiter: str) -> Iterable[Place]:
    """The services on lines; what is none is told on standard error and left out, as grenache-cli does."""
    for line in lines:
        try:
            place = read_place(line, delimiter)
        except click.UsageError as error:
            tell(f"left out: {error.message}")
            continue
        if place is not None:
            yield place


def read_place(line: str, delimiter: str) -> Place | None:
    """The service on a line, if it isn't blank. Raises ``click.UsageError``."""
    line = line.strip()
    if line.startswith("{"):
        try:
            name, port = json.loads(line)["data"]
            return checked(str(name), str(port))
        except (ValueError, TypeError, KeyError, RecursionError):
            raise click.UsageError('it is not {"data": [NAME, PORT]}') from None
    if not line or line[0] in "#;":
        return None
    for mark in ("#", ";"):  # comments begin after a space, so that names may contain these
        line = line.partition(f" {mark}")[0]
    return checked(*split(line, delimiter))


@click.command(short_help="Show where a name is served.")
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("-a", "--all", "choice", flag_value="all", default="all", help="Show all peers (the default).")
@click.option("-r", "--random", "choice", flag_value="random", help="Show one peer, chosen at random.")
@json_option
@network_options()
def lookup(network: Network, names: tuple[str, ...], choice: str, json_output: bool) -> None:
    """Show where NAME is served: one host:port on each line.

    With --json a list for each NAME.

    \b
    Example:
      curl "http://$(grenache-py lookup --random rest:api)/status"
    """

    async def work() -> None:
        missing: LookupEmptyError | None = None
        async with network.link() as link:
            for name in names:
                try:
                    places = await link.lookup(name)
                except LookupEmptyError as error:
                    if len(names) == 1:
                        raise
                    tell(printable(str(error)))
                    missing = error
                    places = []
                if choice == "random" and places:
                    places = [random.choice(places)]
                if json_output:
                    click.echo(as_json(places))
                elif places:
                    click.echo("\n".join(places))
        if missing is not None:
            raise click.exceptions.Exit(ExitStatus.NOT_FOUND)

    run(work())
