"""A journal file that is written while a market runs, and read meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .. import limits
from ..errors import JournalError
from ..events import Event, Signed
from ..model import Instrument, Trade
from ..recovery import Recovered
from .archive import JournalArchive
from .file import JournalFile
from .snapshotter import Snapshot, Snapshotter
from .thread import JobThread

DROPPED_AT_A_TIME = 2_000
"""Events that a snapshot has replaced are deleted so many at a time: some milliseconds."""
WRITES_REMEMBERED = 16
"""Transactions whose time tells how quick the disk is: the quickest of them, since the others may only have
waited for a processor."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")

Written = tuple[int, float]
"""How many events a transaction has made durable, and how long it took, in seconds."""


class SqliteJournal:
    """A journal file that is written many steps to a transaction.

    What somebody waits for is written once a turn of the loop brings nothing more, what nobody waits for with
    it, or some moments later. On a quick disk the loop itself writes: to hand a transaction to a thread and
    hear of it again takes longer than to make it durable. Where the disk is slow or hangs, and for all that
    takes long, there is a thread; while it has the file the next transaction collects.

    A disk that can't be written is tried again until it can; meanwhile ``trouble`` says why, nothing more is
    promised, and the market takes no new orders.

    Args:
        file: Open; this journal closes it.
        loop: Which calls all methods, and where ``when_durable`` calls back.
    """

    def __init__(self, file: JournalFile, loop: asyncio.AbstractEventLoop):
        self.trouble: str | None = None
        self._file = file
        self._loop = loop
        self._appended = 0
        self._durable = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._buffer: list[Event] = []
        self._write_due = False
        self._lingering: asyncio.TimerHandle | None = None
        self._took_s: deque[float] = deque(maxlen=WRITES_REMEMBERED)
        """How long the last transactions have taken."""
        self._thread = JobThread(f"journal {file.path.name}", loop)
        self._closing = threading.Event()
        self._archive: JournalArchive | None = None
        self._pages: JournalArchive | None = None
        self._pages_free = threading.Lock()
        self._snapshotter: Snapshotter | None = None
        self._made: Snapshot | str | None = None
        self._snapshot_wanted_at = file.snapshot_number() + limits.JOURNAL_SNAPSHOT
        self._replaced = True
        """There may be events for which the snapshot stands."""

    def append(self, events: Sequence[Event]) -> None:
        self._buffer += events
        self._appended += len(events)
        if self._lingering is None:
            self._lingering = self._loop.call_later(limits.JOURNAL_LINGER_S, self._linger_over)

    def when_durable(self, then: Callable[[], None]) -> None:
        if self._durable == self._appended:
            then()
            return
        self._waiting.append((self._appended, then))
        if not self._write_due:
            self._write_due = True
            self._loop.call_soon(self._gather, 0)

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
        if self._lingering is not None:
            self._lingering.cancel()
        self._closing.set()
        await self._loop.run_in_executor(None, self._thread.end)
        events = self._buffer[:]
        if events:
            try:
                took_s = await self._loop.run_in_executor(None, self._timed_write, events)
            except sqlite3.Error as error:
                log.error("%s ends without its last %d events: %s", self._file.path, len(events), error)
            else:
                self._written((len(events), took_s))
        if self._snapshotter is not None:
            await self._loop.run_in_executor(None, self._snapshotter.stop)
        for archive in (self._archive, self._pages):
            if archive is not None:
                archive.close()
        self._file.close()

    # -- writing -----------------------------------------------------------------------------------------

    def _linger_over(self) -> None:
        self._lingering = None
        self._write()

    def _gather(self, appended: int) -> None:
        """Write, unless the last turn of the loop has brought more than the ``appended`` events of before:
        what comes close together shares a transaction, and to look for more once takes next to no time."""
        if appended != self._appended and self.waiting < limits.JOURNAL_GATHER_EVENTS:
            self._loop.call_soon(self._gather, self._appended)
        else:
            self._write()

    def _write(self) -> None:
        """Write what there is, unless the thread has the file: this is called again when it is done."""
        self._write_due = False
        events = self._buffer
        if not events or self._thread.busy or self._closing.is_set():
            return
        if self._disk_is_quick and len(events) <= limits.JOURNAL_INLINE_EVENTS:
            try:
                took_s = self._timed_write(events)
            except sqlite3.Error:
                pass  # the thread tries again, and says what is wrong
            else:
                self._written((len(events), took_s))
                return
        events = events[:]
        self._thread.do(lambda: self._write_or_wait(events), self._thread_has_written)

    def _thread_has_written(self, what: Written | None) -> None:
        if what is not None:
            self._written(what)
        self._write()

    def _written(self, what: Written) -> None:
        """The first events of the buffer are durable now."""
        count, took_s = what
        self.trouble = None
        self._took_s.append(took_s)
        del self._buffer[:count]
        self._durable += count
        while self._waiting and self._waiting[0][0] <= self._durable:
            self._waiting.popleft()[1]()
        if self._longer_than_it_has_to and not self._closing.is_set():
            self._thread.do(self._keep_short, lambda _: self._write())

    def _timed_write(self, events: Sequence[Event]) -> float:
        """Returns how long it took, in seconds. Raises sqlite3.Error, having written nothing."""
        started = time.perf_counter()
        self._file.write(events)
        return time.perf_counter() - started

    @property
    def _disk_is_quick(self) -> bool:
        """Whether the loop can wait for it."""
        least_s, most_s = min(self._took_s, default=0.0), max(self._took_s, default=0.0)
        return least_s <= limits.JOURNAL_INLINE_S and most_s <= limits.JOURNAL_HANGS_S

    def _set_trouble(self, trouble: str) -> None:
        self.trouble = trouble

    @property
    def _longer_than_it_has_to(self) -> bool:
        """Whether there is something to do for :meth:`_keep_short`."""
        wanted = self._snapshotter is None and self._file.number >= self._snapshot_wanted_at
        return wanted or self._replaced or self._made is not None

    # -- in the thread -----------------------------------------------------------------------------------

    def _write_or_wait(self, events: Sequence[Event]) -> Written | None:
        """Write ``events``, trying until the disk takes them. Returns None when told to end before that."""
        while True:
            try:
                return len(events), self._timed_write(events)
            except sqlite3.Error as error:
                log.error("%s can't be written, trying again: %s", self._file.path, error)
                self._thread.tell(self._set_trouble, f"the journal can't be written: {error}")
            if self._closing.wait(limits.JOURNAL_RETRY_S):
                return None

    def _keep_short(self) -> None:
        """Have a snapshot made now and then, take it when it is there, and delete little by little what it
        replaces, so that nobody waits for long."""
        file = self._file
        made, self._made = self._made, None
        if made is not None:
            self._snapshotter = None
        try:
            if isinstance(made, Snapshot):
                file.install(made.number, made.trades, made.data)
                self._replaced = True
                log.info("%s: a snapshot of the first %d events", file.path, made.number)
            elif made is not None:
                log.warning("%s: no snapshot: %s", file.path, made)
            if self._replaced:
                self._replaced = file.drop_replaced(DROPPED_AT_A_TIME)
        except sqlite3.Error as error:
            log.warning("%s stays longer than it has to: %s", file.path, error)
        if file.number >= self._snapshot_wanted_at and self._snapshotter is None:
            self._snapshot_wanted_at = file.number + limits.JOURNAL_SNAPSHOT
            self._snapshotter = Snapshotter(
                file.path, file.meta, file.number, file.trade_count, self._snapshot_made
            )

    def _snapshot_made(self, made: Snapshot | str) -> None:
        self._made = made


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
