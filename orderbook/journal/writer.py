"""A journal file written by a thread of its own, and read meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from .. import limits
from ..errors import JournalError
from ..events import Event, Signed
from ..model import Instrument, Trade
from ..recovery import Recovered
from .archive import JournalArchive
from .file import JournalFile
from .snapshotter import Snapshot, Snapshotter

DROPPED_AT_A_TIME = 2_000
"""Events that a snapshot has replaced are deleted so many at a time: some milliseconds."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SqliteJournal:
    """A journal file written by a thread of its own, many steps to a transaction.

    While one transaction becomes durable the next collects. A disk that can't be written is tried again until
    it can; meanwhile ``trouble`` says why, nothing more is promised, and the market takes no new orders.

    Args:
        file: Open; this journal closes it.
        loop: Where ``when_durable`` calls back.
    """

    def __init__(self, file: JournalFile, loop: asyncio.AbstractEventLoop):
        self.trouble: str | None = None
        self._file = file
        self._loop = loop
        self._appended = 0
        self._durable = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._buffer: list[Event] = []
        self._wanted = threading.Condition()
        self._archive: JournalArchive | None = None
        self._pages: JournalArchive | None = None
        self._pages_free = threading.Lock()
        self._closing = False
        self._snapshotter: Snapshotter | None = None
        self._made: Snapshot | str | None = None
        self._snapshot_wanted_at = file.snapshot_number() + limits.JOURNAL_SNAPSHOT
        self._replaced = True
        """There may be events for which the snapshot stands."""
        self._waking = False
        self._thread = threading.Thread(target=self._write, name=f"journal {file.path.name}", daemon=True)
        self._thread.start()

    def append(self, events: Sequence[Event]) -> None:
        with self._wanted:
            self._buffer += events
            self._appended += len(events)
        if not self._waking:
            # At the end of this turn of the loop: its steps share a transaction, and the thread that writes
            # it does not take turns with them.
            self._waking = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._waking = False
        with self._wanted:
            self._wanted.notify()

    def when_durable(self, then: Callable[[], None]) -> None:
        if self._durable == self._appended:
            then()
        else:
            self._waiting.append((self._appended, then))

    @property
    def waiting(self) -> int:
        return self._appended - self._durable

    @property
    def archive(self) -> JournalArchive:
        """Where trades can be looked up within a step."""
        if self._archive is None:
            self._archive = JournalArchive(self._file.path, self._file.meta)
        return self._archive

    async def trades(self, after: int, limit: int) -> Sequence[Trade]:
        return await self._read(lambda archive: archive.trades(after, limit))

    async def trades_of_order(self, order_id: str, most: int) -> Sequence[Trade]:
        return await self._read(lambda archive: archive.trades_of_order(order_id, most))

    async def proofs(self, match_id: str) -> Sequence[Signed]:
        return await self._read(lambda archive: archive.proofs(match_id))

    async def _read(self, what: Callable[[JournalArchive], Result]) -> Result:
        """``what`` may take a while: it is read by another thread, over another connection than in steps."""

        def read() -> Result:
            with self._pages_free:
                if self._pages is None:
                    self._pages = JournalArchive(self._file.path, self._file.meta)
                return what(self._pages)

        return await self._loop.run_in_executor(None, read)

    async def close(self) -> None:
        with self._wanted:
            self._closing = True
            self._wanted.notify()
        await self._loop.run_in_executor(None, self._thread.join)
        if self._snapshotter is not None:
            await self._loop.run_in_executor(None, self._snapshotter.stop)
        for archive in (self._archive, self._pages):
            if archive is not None:
                archive.close()
        self._file.close()

    def _write(self) -> None:
        while True:
            with self._wanted:
                self._wanted.wait_for(lambda: self._buffer or self._closing)
                if not self._buffer:
                    return
                events, self._buffer = self._buffer, []
            if not self._write_or_wait(events):
                return
            self._tell(self._now_durable, len(events))
            try:
                self._keep_short()
            except sqlite3.Error as error:
                log.warning("%s stays longer than it has to: %s", self._file.path, error)

    def _keep_short(self) -> None:
        """Have a snapshot made now and then, take it when it is there, and delete little by little what it
        replaces, so that nobody waits for long."""
        file = self._file
        with self._wanted:
            made, self._made = self._made, None
        if made is not None:
            self._snapshotter = None
        if isinstance(made, Snapshot):
            file.install(made.number, made.trades, made.data)
            self._replaced = True
            log.info("%s: a snapshot of the first %d events", file.path, made.number)
        elif made is not None:
            log.warning("%s: no snapshot: %s", file.path, made)
        if self._replaced:
            self._replaced = file.drop_replaced(DROPPED_AT_A_TIME)
        if file.number >= self._snapshot_wanted_at and self._snapshotter is None:
            self._snapshot_wanted_at = file.number + limits.JOURNAL_SNAPSHOT
            self._snapshotter = Snapshotter(
                file.path, file.meta, file.number, file.trade_count, self._snapshot_made
            )

    def _snapshot_made(self, made: Snapshot | str) -> None:
        with self._wanted:
            self._made = made

    def _write_or_wait(self, events: list[Event]) -> bool:
        """Write ``events``, trying until the disk takes them. Returns False when told to end before that."""
        while True:
            try:
                self._file.write(events)
            except sqlite3.Error as error:
                log.error("%s can't be written, trying again: %s", self._file.path, error)
                self._tell(self._set_trouble, f"the journal can't be written: {error}")
            else:
                return True
            with self._wanted:
                if self._wanted.wait_for(lambda: self._closing, limits.JOURNAL_RETRY_S):
                    return False

    def _tell(self, what: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:
            pass  # the loop has ended; so has everybody who waited

    def _set_trouble(self, trouble: str) -> None:
        self.trouble = trouble

    def _now_durable(self, count: int) -> None:
        self.trouble = None
        self._durable += count
        while self._waiting and self._waiting[0][0] <= self._durable:
            self._waiting.popleft()[1]()


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For replaying events: what they make stays, and to look at it again and again would take longer than
    all the rest."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def open_journal(
    path: Path, peer: str, instrument: Instrument, durability: str, loop: asyncio.AbstractEventLoop
) -> tuple[SqliteJournal, Recovered]:
    """Open or create the journal of one market at one peer, and what it holds.

    Raises:
        JournalError: It can't be opened or is damaged; the text says what to do.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"{path.parent} can't hold journals: {error}") from error
    meta = {
        "peer": peer,
        "market": instrument.market,
        "tick": instrument.tick,
        "lot": instrument.lot,
        "instrument": instrument.fingerprint,
    }
    file = JournalFile(path, durability=durability, create=meta)
    try:
        with no_garbage_collection():
            recovered = file.recover()
        if file.number - file.snapshot_number() > limits.JOURNAL_TAIL:
            try:
                file.replace_by(recovered)
            except JournalError as error:
                log.warning("%s", error)  # it is whole, and the next start tries again
    except BaseException:
        file.close()
        raise
    return SqliteJournal(file, loop), recovered
