"""``stream``: standard input to a peer, and what comes back to standard output."""

from __future__ import annotations

import asyncio
import codecs
import os
import stat
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .. import limits
from ..aio import PeerRPCClient
from ..codec import decode_json
from ..errors import GrenacheError
from ..transports.streams import Stream
from .options import Network, network_options, timeout_option, to_option
from .terminal import as_json, in_thread, input_pieces, json_option, printable, run, tell

if TYPE_CHECKING:
    from rich.progress import Progress

_OUTPUT = 1
# How often a peer that has said all is looked after, while there is more for it.
_GONE_S = 0.1


@click.command(short_help="Stream to a peer, and show what comes back.")
@click.argument("name")
@click.argument("arguments", default="null", metavar="[ARGS]")
@click.option("--action", metavar="NAME", help="What is asked for (header _a), with ARGS as JSON (_ar).")
@click.option("-n", "--no-input", is_flag=True, help="Send nothing; do not read standard input.")
@timeout_option("Seconds in which it must be open, and that the peer may be silent.", limits.STREAM_IDLE_S)
@to_option
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show how much went through; by default where that is a terminal, and the result is not.",
)
@click.option("-r", "--raw", is_flag=True, help="Write to a terminal what it would act on, too.")
@json_option
@network_options(peers="call http")
def stream(
    network: Network,
    name: str,
    arguments: str,
    action: str | None,
    no_input: bool,
    timeout: float,
    destination: str | None,
    progress: bool | None,
    raw: bool,
    json_output: bool,
) -> None:
    """Open a stream to one of the peers that serve NAME: standard input goes there as it comes, and what the
    peer streams, or its answer [rid, error, result], to standard output. Both flow at the same time, in
    constant memory, and each side waits for the other.

    It ends when the peer has said all. With --json, how much went through is told on standard error.

    \b
    Examples:
      grenache-py stream files --action upload '{"name": "a.bin"}' < a.bin
      grenache-py stream rest:util:net --action upperStream < words.txt | less
      grenache-py stream files --action download '["a.bin"]' -n > a.bin
    """
    headers = _headers(action, arguments)
    if progress is None:
        progress = sys.stderr.isatty() and not os.isatty(_OUTPUT) and not json_output
    write = _Escaper() if os.isatty(_OUTPUT) and not raw else _write

    async def work() -> None:
        started = time.monotonic()
        async with network.link() as link, PeerRPCClient(link, ssl=network.client_context()) as client:
            if destination is None:
                opened = await client.stream(name, timeout=timeout, headers=headers)
            else:
                opened = await client.stream_to(destination, name, timeout=timeout, headers=headers)
            with _Meter(bool(progress), not no_input) as meter:
                async with opened:
                    through = _Through(opened, write, meter)
                    await through.run(no_input)
        elapsed_s = time.monotonic() - started
        if json_output:
            tell(as_json({"sent": through.sent, "received": through.received, "elapsed_s": elapsed_s}))
        elif progress:
            tell(f"sent {through.sent:,} bytes, received {through.received:,} in {elapsed_s:.1f} s")

    run(work())


def _headers(action: str | None, arguments: str) -> dict[str, Any] | None:
    try:
        given = decode_json(arguments.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise click.UsageError(f"ARGS is not JSON ({error}); quote texts twice") from error
    if action is None:
        if given is not None:
            raise click.UsageError("ARGS are for an action: --action NAME")
        return None
    args = [] if given is None else given if isinstance(given, (list, dict)) else [given]
    return {"_a": action, "_ar": args}


class _Through:
    """What flows through a stream, both ways."""

    def __init__(self, stream: Stream, write: Callable[[bytes], None], meter: _Meter):
        self._stream = stream
        self._write = write
        self._meter = meter
        self.sent = 0
        self.received = 0

    async def run(self, no_input: bool) -> None:
        """Until the peer has said all, and has taken all or gone. Raises ``GrenacheError``,
        ``click.ClickException``, BrokenPipeError.
        """
        sending = asyncio.ensure_future(self._send(no_input))
        failure: GrenacheError | None = None
        try:
            async for piece in self._stream:
                await in_thread(partial(self._write, piece))
                self.received += len(piece)
                self._meter.received(self.received)
            await in_thread(partial(self._write, b""))
            while not sending.done() and self._stream.error is None:
                await asyncio.wait({sending}, timeout=_GONE_S)
        except GrenacheError as error:
            failure = error
        finally:
            sending.cancel()
            outcome = (await asyncio.gather(sending, return_exceptions=True))[0]
        if isinstance(outcome, click.ClickException):
            raise outcome
        if failure is not None:
            raise failure
        if outcome is not None:
            tell("the peer has answered without having taken all of the input")

    async def _send(self, no_input: bool) -> None:
        try:
            if not no_input:
                async for piece in input_pieces():
                    await self._stream.write(piece)
                    self.sent += len(piece)
                    self._meter.sent(self.sent)
        except click.ClickException:
            self._stream.cut()  # the peer must not take a part for the whole
            raise
        await self._stream.end()


def _write(piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(_OUTPUT, view) :]
    except BrokenPipeError:
        raise  # who read it has gone
    except OSError as error:
        raise click.ClickException(f"standard output can't be written: {error.strerror}") from error


class _Escaper:
    """Writes text so that a terminal does not act on it; an empty piece is the last one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def __call__(self, piece: bytes) -> None:
        lines = self._decoder.decode(piece, final=not piece).split("\n")
        _write("\n".join("\t".join(map(printable, line.split("\t"))) for line in lines).encode())


class _Meter:
    """Shows people how much went through, while it does; or nothing."""

    def __init__(self, shown: bool, sends: bool):
        self._progress: Progress | None = None
        if shown:
            self._progress = _new_progress()
            self._sent = self._progress.add_task("sent", total=_input_bytes(), visible=sends)
            self._received = self._progress.add_task("received", total=None)

    def __enter__(self) -> _Meter:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def sent(self, count: int) -> None:
        if self._progress is not None:
            self._progress.update(self._sent, completed=count)

    def received(self, count: int) -> None:
        if self._progress is not None:
            self._progress.update(self._received, completed=count)


def _new_progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _input_bytes() -> int | None:
    """The size of what is to be sent, if that is a file."""
    status = os.fstat(0)
    return status.st_size if stat.S_ISREG(status.st_mode) else None
