"""``subscribe`` and ``publish``: messages of publishers, over WebSocket."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import click

from .. import limits
from ..aio.ws import PeerPub, PeerSub, PubService
from .options import Network, network_options
from .status import ExitStatus
from .terminal import Stop, as_json, input_lines, json_option, log_to_stderr, printable, run, tell


@click.command(short_help="Show what is published under a name.")
@click.argument("name")
@click.option("-n", "--count", type=click.IntRange(min=1), metavar="N", help="End after so many messages.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="End when nothing has come for so many seconds.",
)
@click.option(
    "-r", "--raw", is_flag=True, help="Write messages as they are, also what a terminal would act on."
)
@json_option
@network_options(peers="call ws")
def subscribe(
    network: Network, name: str, count: int | None, timeout: float | None, raw: bool, json_output: bool
) -> None:
    """Show what is published under NAME, a message on each line, until Ctrl-C.

    From all publishers, also those that come later. With --json: {"destination": …, "message": …} for a text,
    "base64" in place of "message" for bytes.
    """

    async def work() -> None:
        log_to_stderr()
        stop = Stop()
        coming: asyncio.Queue[tuple[Any, str]] = asyncio.Queue(limits.SUB_QUEUE_MESSAGES)
        async with network.link() as link, PeerSub(link, ssl=network.client_context()) as subscriber:
            # Waits while the terminal (or the pipe) is slow; then the publishers wait as well.
            subscriber.on("message", lambda *message: coming.put(message))
            if not json_output:
                subscriber.on("connected", lambda place: tell(f"connected to {place}"))
                subscriber.on("disconnected", lambda place: tell(f"lost {place}, trying again"))
            if not await subscriber.sub(name) and not json_output:
                tell(f"nobody publishes {printable(name)} yet; waiting")
            left = count
            while not stop.asked and left != 0:
                getting = asyncio.ensure_future(asyncio.wait_for(coming.get(), timeout))
                await stop.or_done(getting)
                if not getting.done():
                    getting.cancel()
                    return
                try:
                    message, destination = getting.result()
                except asyncio.TimeoutError:
                    tell(f"nothing came for {timeout:g} s")
                    raise click.exceptions.Exit(ExitStatus.TIMEOUT) from None
                _write(message, destination, raw, json_output)
                left = None if left is None else left - 1

    run(work())


def _write(message: Any, destination: str, raw: bool, json_output: bool) -> None:
    if json_output:
        if isinstance(message, str):
            said = {"destination": destination, "message": message}
        else:
            said = {"destination": destination, "base64": base64.b64encode(message).decode()}
        click.echo(as_json(said))
    elif raw:
        click.echo(message)
    else:
        text = message if isinstance(message, str) else message.decode("utf-8", "backslashreplace")
        click.echo(printable(text))


@click.command(short_help="Publish messages under a name.")
@click.argument("name")
@click.argument("messages", nargs=-1, required=True, metavar="MESSAGE… | -")
@click.option(
    "--subscribers",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Begin when so many are connected.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait for them; they look for publishers every 5 to 15 s.",
)
@click.option("-p", "--port", type=click.IntRange(0, 65535), default=0, show_default="any free one")
@click.option(
    "--allow",
    multiple=True,
    metavar="SHA256",
    help="Let in only subscribers with this certificate fingerprint (with --tls-ca); once for each.",
)
@json_option
@network_options(peers="serve ws")
def publish(
    network: Network,
    name: str,
    messages: tuple[str, ...],
    subscribers: int,
    timeout: float,
    port: int,
    allow: tuple[str, ...],
    json_output: bool,
) -> None:
    """Publish messages under NAME: be a publisher, wait for subscribers, send and end.

    -: each line of standard input is a message, sent as it comes. Subscribers see only what is published
    while they are connected.

    \b
    Example:
      tail -f trades.log | grenache-py publish trades -
    """

    async def work() -> None:
        log_to_stderr()
        stop = Stop()
        async with network.link() as link:
            publisher = PeerPub(link, ssl=network.server_context(), authorize=allow or None)
            service = await publisher.transport("server").listen(port)
            await link.start_announcing(name, service.port)
            if not json_output:
                tell(f"publishing {printable(name)} on port {service.port}")
            if not await _wait_for(service, subscribers, timeout, stop):
                if stop.asked:
                    return
                tell(f"{service.subscribers} of {subscribers} subscribers in {timeout:g} s: nothing was sent")
                raise click.exceptions.Exit(ExitStatus.NOT_FOUND)
            if messages == ("-",):
                async for line in input_lines(stop):
                    _publish(service, line, json_output)
            else:
                for message in messages:
                    _publish(service, message, json_output)

    run(work())


def _publish(service: PubService, message: str, json_output: bool) -> None:
    reached = service.pub(message)
    if json_output:
        click.echo(as_json({"message": message, "subscribers": reached}))


async def _wait_for(service: PubService, subscribers: int, timeout_s: float, stop: Stop) -> bool:
    """Whether so many subscribers are there in time."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_s
    while service.subscribers < subscribers:
        if loop.time() >= ends or await stop.wait(0.05):
            return False
    return True
