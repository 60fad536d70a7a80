"""A whole network on this machine: two Grapes in this process and each peer in a process of its own.

For the demo, examples and tests; everything listens on loopback, on ports that happen to be free.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from ..client import Client, PeerFailedError

START_TIMEOUT_S = 30.0
"""How long a peer may take to start, and all of them to find each other."""
STOP_TIMEOUT_S = 5.0
"""How long a peer may take to end before it is killed."""
ENDING_S = 1.0
"""How long a peer that does not answer is watched for its end."""
POLL_S = 0.05
LAST_WORDS = 20
"""Lines of a peer's log kept, to be shown if it fails."""
LINE_BYTES = 64 * 1024


class NetworkError(Exception):
    """The network did not come up, or a part of it has ended."""


class PeerProcess:
    """One ``orderbook peer`` as a child process.

    It gets a session of its own, so that Ctrl-C reaches only us, and we end it in good order.

    Attributes:
        name: The peer's name.
        api: URL of its client API, once it has started.
        last_words: The newest lines of its log.
    """

    def __init__(self, name: str, arguments: Sequence[str]):
        self.name = name
        self.api = ""
        self.last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._arguments = arguments
        self._process: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PeerProcess:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "orderbook", "peer", "--name", self.name, "--api", "127.0.0.1:0", "--ready-json"),
            *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=LINE_BYTES,
        )
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        try:
            self.api = await asyncio.wait_for(self._ready(), START_TIMEOUT_S)
        except asyncio.TimeoutError:
            await self.stop()
            raise NetworkError(self.explain(f"did not start within {START_TIMEOUT_S:g} s")) from None
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """SIGTERM; SIGKILL when it does not go in time."""
        process, listening = self._process, self._listening
        assert process is not None, "it was started"
        assert listening is not None, "it was started"
        if process.returncode is None:
            try:
                process.terminate()
            except ProcessLookupError:
                pass  # it has ended just now
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
        await listening

    def kill(self) -> None:
        """SIGKILL, as a crash would be."""
        assert self._process is not None, "it was started"
        self._process.kill()

    async def ended(self, within_s: float) -> int | None:
        """Its exit status, or None if it runs on for ``within_s`` seconds."""
        assert self._process is not None, "it was started"
        try:
            return await asyncio.wait_for(self._process.wait(), within_s)
        except asyncio.TimeoutError:
            return None

    def explain(self, what: str) -> str:
        """``what`` has happened to it, and what it said last."""
        said = "".join(f"\n  {line}" for line in self.last_words)
        return f"peer {self.name} {what}" + (f"; its log ends with:{said}" if said else "")

    async def _ready(self) -> str:
        """The URL in its first line."""
        assert self._process is not None, "it was started"
        assert self._process.stdout is not None, "it is a pipe"
        line = await self._process.stdout.readline()
        try:
            api = json.loads(line)["ready"]["api"]
        except (ValueError, KeyError, TypeError):
            status = await self._process.wait()
            assert self._listening is not None, "it was started"
            await self._listening
            raise NetworkError(self.explain(f"ended with status {status}")) from None
        return str(api)

    async def _listen(self) -> None:
        """Read its log, so that it never waits for a reader."""
        assert self._process is not None, "it was started"
        assert self._process.stderr is not None, "it is a pipe"
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:
                continue  # longer than LINE_BYTES, and dropped
            if not line:
                return
            self.last_words.append(line.decode(errors="replace").rstrip())


class LocalNetwork:
    """Grapes and peers, up and acquainted inside the ``async with`` block.

    Args:
        names: One peer each.
        market: What they trade.
        grape: URL of a Grape to use; None: two embedded ones.
        journals: Where each peer keeps its journal, in a folder of its name; None: nowhere.
        arguments: Further options of ``orderbook peer``.
    """

    def __init__(
        self,
        names: Sequence[str],
        market: str,
        *,
        grape: str | None = None,
        journals: Path | None = None,
        arguments: Sequence[str] = (),
    ):
        self._names = names
        self._market = market
        self._grape = grape
        self._journals = journals
        self._arguments = arguments
        self._stack = AsyncExitStack()
        self.peers: list[PeerProcess] = []
        self.clients: list[Client] = []

    async def __aenter__(self) -> LocalNetwork:
        try:
            grapes = [self._grape] if self._grape else await self._start_grapes()
            await self._start_peers(grapes)
            await asyncio.wait_for(self._acquainted(), START_TIMEOUT_S)
        except asyncio.TimeoutError:
            await self._stack.aclose()
            raise NetworkError(f"the peers did not find each other within {START_TIMEOUT_S:g} s") from None
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def explain(self, error: PeerFailedError) -> str:
        """What has become of the peer that ``error`` is about, and what it said last."""
        peer = next(peer for peer in self.peers if peer.api == error.api)
        status = await peer.ended(within_s=ENDING_S)  # a connection breaks a moment before
        return peer.explain(f"failed: {error}" if status is None else f"ended with status {status}")

    async def _start_grapes(self) -> list[str]:
        from grenache_py.grape.aio import Grape  # here, because most commands have no use for it

        first = await self._stack.enter_async_context(Grape(host="127.0.0.1"))
        second = await self._stack.enter_async_context(Grape(host="127.0.0.1", bootstrap=[first.dht_address]))
        return [first.url, second.url]

    async def _start_peers(self, grapes: Sequence[str]) -> None:
        for place, name in enumerate(self._names):
            options = ["--grape", grapes[place % len(grapes)], "--market", self._market]
            options += ["--host", "127.0.0.1", *self._arguments]
            if self._journals is not None:
                options += ["--journal", str(self._journals / name)]
            self.peers.append(PeerProcess(name, options))
        # All at once: most of a start is Python's imports.
        started = await asyncio.gather(
            *(self._stack.enter_async_context(peer) for peer in self.peers), return_exceptions=True
        )
        for outcome in started:
            if isinstance(outcome, BaseException):
                raise outcome
        for peer in self.peers:
            self.clients.append(await self._stack.enter_async_context(Client(peer.api)))

    async def _acquainted(self) -> None:
        """Until every peer trades with every other."""
        others = len(self.clients) - 1
        for client in self.clients:
            known = 0
            while known < others:
                known = (await client.health()).markets[self._market].peers
                await asyncio.sleep(POLL_S)
