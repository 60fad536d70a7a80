"""``serve``: a worker whose handler is a command."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from .. import limits
from ..aio import Handler
from ..codec import decode_json, encode_json
from ..transports import descriptors
from .child import Ended, TooLong, TooMuch, run_command
from .options import Network, network_options
from .terminal import Stop, as_json, json_option, log_to_stderr, milliseconds, printable, run, tell


@click.command(short_help="Serve a name with a shell command.")
@click.argument("name")
@click.option(
    "-e",
    "--exec",
    "command",
    required=True,
    metavar="CMD",
    help="The command to run for each request, split into words as a shell does.",
)
@click.option("--shell", is_flag=True, help="Let a shell (sh -c) run CMD.")
@click.option("--text", is_flag=True, help="The output is a text, also where it looks like JSON.")
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default="any free one",
    help="To listen on.",
)
@click.option("-b", "--bind", metavar="HOST", help="Address to listen on.  [default: all]")
@click.option(
    "-c",
    "--concurrency",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    metavar="N",
    help="Commands that run at the same time.",
)
@click.option(
    "--waiting",
    type=click.IntRange(min=0),
    default=limits.EXEC_WAITING_MAX,
    show_default=True,
    metavar="N",
    help="Requests that wait for their turn; more are answered ERR_BUSY.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(0, min_open=True),
    default=limits.EXEC_TIMEOUT_S,
    show_default=True,
    metavar="S",
    help="Kill a command that runs longer.",
)
@click.option(
    "--allow",
    multiple=True,
    metavar="SHA256",
    help="Let in only callers with this certificate fingerprint (with --tls-ca); give it once for each.",
)
@click.option("-v", "--verbose", is_flag=True, help="Tell of every request, not only of those that fail.")
@json_option
@network_options(peers="serve")
def serve(
    network: Network,
    name: str,
    command: str,
    shell: bool,
    text: bool,
    port: int,
    bind: str | None,
    concurrency: int,
    waiting: int,
    time_limit: float,
    allow: tuple[str, ...],
    verbose: bool,
    json_output: bool,
) -> None:
    """Serve NAME with a command: the payload as JSON on its standard input, its output is the reply.

    The output is sent as JSON if it is JSON, else as a text without its last line break. An exit status other
    than 0 is an error: the caller gets the last line of standard error, if it begins with ERR_ as it is. No
    part of a request ever becomes part of the command line. Ctrl-C or SIGTERM withdraw the service and let
    running commands end (5 s), a second one ends at once.

    \b
    Examples:
      grenache-py serve sum --exec 'jq add'
      grenache-py serve uptime --exec 'uptime -p' --text
    """
    worker = Worker(
        argv_of(command, shell),
        concurrency,
        time_limit,
        text,
        lambda outcome: _tell(outcome, verbose, json_output),
    )

    async def work() -> None:
        log_to_stderr()
        descriptors.raise_limit()
        stop = Stop()
        async with network.link() as link:
            server = network.server(
                link,
                # A request may wait for its turn as long as for any handler, and then it runs.
                timeout=limits.HANDLER_TIMEOUT_S + time_limit,
                concurrency=concurrency + waiting,
                allow=allow,
            )
            service = server.transport("server")
            service.on("request", worker.handle)
            await service.listen(port, bind)
            taken = await link.start_announcing(name, service.port)
            if json_output:
                click.echo(as_json({"serving": name, "port": service.port, "taken": taken}))
            else:
                state = "" if taken else " (not announced yet, trying again)"
                click.echo(f"serving {printable(name)} on port {service.port}{state}; Ctrl-C ends it")
            await stop.wait()
            await service.stop(drain=limits.EXEC_DRAIN_S)

    run(work())


def argv_of(command: str, shell: bool) -> list[str]:
    """The words of a command. Raises ``click.UsageError``."""
    if shell:
        return ["/bin/sh", "-c", command] if os.name == "posix" else ["cmd", "/c", command]
    try:
        argv = shlex.split(command)
    except ValueError as error:
        raise click.UsageError(f"--exec: {error}") from error
    if not argv:
        raise click.UsageError("--exec: must name a command")
    if shutil.which(argv[0]) is None:
        raise click.UsageError(f"--exec: there is no command {printable(argv[0])}; a shell needs --shell")
    return argv


class Outcome(NamedTuple):
    """How a request was answered: whose it was, how long its command took, the error if there is one."""

    peer: tuple[str, int]
    elapsed_s: float
    error: str | None


_GONE = "ERR_CLOSED: the caller has gone"
_LATE = "ERR_TIMEOUT: the caller waits no longer"


class Worker:
    """Answers requests by running a command, at most ``concurrency`` of them at the same time."""

    def __init__(
        self,
        argv: Sequence[str],
        concurrency: int,
        time_limit_s: float,
        text: bool,
        told: Callable[[Outcome], None],
    ):
        self._argv = argv
        self._running = asyncio.Semaphore(concurrency)
        self._time_limit_s = time_limit_s
        self._text = text
        self._told = told

    async def handle(self, rid: Any, key: str, payload: Any, handler: Handler) -> None:
        """The handler of ``request``. Who is not waited for any more has no command running."""
        task = asyncio.current_task()
        assert task is not None
        handler.when_gone(task.cancel)
        started = time.monotonic()
        try:
            async with self._running:
                started = time.monotonic()
                error, result = await self._answer(payload)
        except asyncio.CancelledError:
            late = handler.replied
            if not late:
                handler.reply(_GONE)
            self._told(Outcome(handler.peer, time.monotonic() - started, _LATE if late else _GONE))
            raise
        handler.reply(error, result)
        self._told(Outcome(handler.peer, time.monotonic() - started, error))

    async def _answer(self, payload: Any) -> tuple[str | None, Any]:
        try:
            ended = await run_command(
                self._argv, encode_json(payload) + b"\n", self._time_limit_s, limits.BODY_BYTES_MAX
            )
        except TooLong:
            return f"ERR_TIMEOUT: the command ran longer than {self._time_limit_s:g} s", None
        except TooMuch:
            return f"ERR_EXEC: the command wrote more than {limits.BODY_BYTES_MAX} bytes", None
        except OSError as error:
            return f"ERR_EXEC: the command can't be started: {error.strerror}", None
        if ended.status:
            return failure_of(ended), None
        return None, result_of(ended.output, self._text)


def failure_of(ended: Ended) -> str:
    """What the caller is told of a command that failed."""
    if ended.last_line.startswith("ERR_"):
        return ended.last_line
    if ended.last_line:
        return f"ERR_EXEC: {ended.last_line}"
    if ended.status < 0:
        return f"ERR_EXEC: ended by {signal.Signals(-ended.status).name}"
    return f"ERR_EXEC: exit status {ended.status}"


def result_of(output: bytes, as_text: bool) -> Any:
    """What an output says: its JSON, or where it is none, or is not to be, its text."""
    if not as_text:
        try:
            return decode_json(output)
        except ValueError:
            pass
    text = output.decode("utf-8", "replace")
    return text[:-1] if text.endswith("\n") else text


def _tell(outcome: Outcome, verbose: bool, json_output: bool) -> None:
    peer, elapsed_s, error = outcome
    if json_output:
        click.echo(
            as_json({"peer": f"{peer[0]}:{peer[1]}", "elapsed_s": round(elapsed_s, 6), "error": error})
        )
    elif error is not None or verbose:
        tell(f"{peer[0]}:{peer[1]}  {milliseconds(elapsed_s)}  {printable(error or 'ok')}")
