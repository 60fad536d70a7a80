"""Run a command as a child process: bytes in, bytes out, within a time limit and a size."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from .. import limits


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: the signal that ended it), its output, and the last
    line of its messages.
    """

    status: int
    output: bytes
    last_line: str


class TooLong(Exception):
    """The command ran longer than it may; it was killed."""


class TooMuch(Exception):
    """The command wrote more than it may; it was killed."""


async def run_command(argv: Sequence[str], given: bytes, timeout_s: float, output_bytes_max: int) -> Ended:
    """Run ``argv`` (no shell) with ``given`` on its standard input, until it has ended and so has its output.

    Raises ``TooLong``, ``TooMuch``, and OSError when it can't be started. However this ends, also when it is
    cancelled, the process is gone then, and those that it has started (unless they left its process group).
    """
    loop = asyncio.get_running_loop()
    # Never cancelled: asyncio (Python 3.11) then waits for ever for the process that it has started.
    starting = asyncio.ensure_future(
        loop.subprocess_exec(lambda: _Talk(loop, output_bytes_max), *argv, start_new_session=True)
    )
    try:
        transport, talk = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_unwanted)
        await asyncio.wait({starting}, timeout=limits.EXEC_GONE_S)
        if starting.done() and starting.exception() is None:
            await asyncio.wait({starting.result()[1].exited}, timeout=limits.EXEC_GONE_S)
        raise
    try:
        pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
        if not pipe.is_closing():  # else it has ended without a look
            pipe.write(given)
            pipe.close()  # once all is written
        await asyncio.wait_for(talk.ended, timeout_s)
    except asyncio.TimeoutError:
        raise TooLong from None
    finally:
        if not talk.all_said:
            _kill(transport.get_pid())
            await asyncio.wait({talk.exited}, timeout=limits.EXEC_GONE_S)
        transport.close()
    status = transport.get_returncode()
    assert status is not None
    return Ended(status, bytes(talk.output), _last_line(talk.messages))


class _Talk(asyncio.SubprocessProtocol):
    """What a process says, within bounds, and when it has said all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, output_bytes_max: int):
        self.output = bytearray()
        self.messages = b""
        self.exited: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self._output_bytes_max = output_bytes_max
        self._open = {1, 2}

    @property
    def all_said(self) -> bool:
        return self.exited.done() and not self._open

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.messages = (self.messages + data)[-limits.EXEC_STDERR_BYTES :]
        elif len(self.output) + len(data) <= self._output_bytes_max:
            self.output += data
        elif not self.ended.done():
            self.ended.set_exception(TooMuch())

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        self._check()

    def process_exited(self) -> None:
        self.exited.set_result(None)
        self._check()

    def _check(self) -> None:
        if self.all_said and not self.ended.done():
            self.ended.set_result(None)


def _unwanted(starting: asyncio.Future[tuple[asyncio.SubprocessTransport, _Talk]]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        transport, talk = starting.result()
        _kill(transport.get_pid())
        talk.exited.add_done_callback(lambda _: transport.close())


def _kill(pid: int) -> None:
    try:
        if os.name == "posix":
            os.killpg(pid, signal.SIGKILL)  # its session is its own, so this is its group
        else:
            os.kill(pid, signal.SIGTERM)  # Windows: ends it at once
    except ProcessLookupError:
        pass


def _last_line(messages: bytes) -> str:
    lines = messages.decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
