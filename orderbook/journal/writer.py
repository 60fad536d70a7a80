"""A journal file that is written while a market runs, and read meanwhile."""

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
from typing import TypeVar

from .. import limits
from ..errors import JournalError
from ..events import Event, Signed
from ..model import Instrument
from ..recovery import Recovered
from ..trade import Trade
from .archive import JournalArchive
from .file import JournalFile
from .snapshotter import Snapshot, Snapshotter
from .syncer import Syncer, best_syncer
from .thread import JobThread

DROPPED_AT_A_TIME = 2_000
"""Events that a snapshot has replaced are deleted so many at a time: some milliseconds."""

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SqliteJournal:
    """A journal file that is written many steps to a transaction.

    The event loop writes, which only copies to the memory of the operating system; then a syncer makes it
    durable while the loop goes on, and the next transaction collects meanwhile. What somebody waits for is
    written once a turn of the loop brings nothing more, what nobody waits for with it, or some moments later.
    What else waits for the disk (checkpoints, snapshots) a thread does.

    A disk that can't be written is tried again until it can; meanwhile ``trouble`` says why, nothing more is
    promised, and the market takes no new orders. A sync that has failed is not tried again: the operating
    system may have dropped what it could not write, and would say yes the next time. Then nothing is
    promised any more until a new process has read what there is.

    Args:
        file: Open; this journal closes it.
        loop: Which calls all methods, this one too, and where ``when_durable`` calls back.
        make_syncer: Of the descriptor of a file.
    """

    def __init__(
        self,
        file: JournalFile,
        loop: asyncio.AbstractEventLoop,
        make_syncer: Callable[[int, asyncio.AbstractEventLoop], Syncer] = best_syncer,
    ):
        self._file = file
        self._loop = loop
        self._syncer = make_syncer(file.open_log(), loop) if file.durability == "full" else None
        self._trouble: str | None = None
        self._lost = False
        """A sync has failed."""
        self._appended = 0
        self._written = 0
        self._durable = 0
        self._steps: deque[Sequence[Event]] = deque()
        self._transaction: list[Event] = []
        """What is being written, the first of what is not yet."""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._write_due = False
        self._lingering: asyncio.TimerHandle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._busy_since: float | None = None
        """When thread or syncer have begun with what they have not done yet."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False
        self._thread = JobThread(f"journal {file.path.name}", loop)
        self._writes = limits.JOURNAL_CHECKPOINT_WRITES
        """Transactions since the last checkpoint; the first one has to wait for the disk as well."""
        self._archive: JournalArchive | None = None
        self._pages: JournalArchive | None = None
        self._pages_free = threading.Lock()
        self._snapshotter: Snapshotter | None = None
        self._made: Snapshot | str | None = None
        self._snapshot_wanted_at = file.snapshot_number() + limits.JOURNAL_SNAPSHOT
        self._replaced = True
        """There may be events for which the snapshot stands."""

    def append(self, events: Sequence[Event]) -> None:
        self._steps.append(events)
        self._appended += len(events)
        if self._lingering is None:
            self._lingering = self._loop.call_later(limits.JOURNAL_LINGER_S, self._linger_over)

    def when_durable(self, then: Callable[[], None]) -> None:
        if self._durable == self._appended:
            then()
            return
        self._waiting.append((self._appended, then))
        self._write_soon()

    @property
    def trouble(self) -> str | None:
        if self._trouble is None and self._busy_since is not None:
            hangs_s = self._loop.time() - self._busy_since
            if hangs_s > limits.JOURNAL_HANGS_S:
                return f"the disk of the journal has not answered for {hangs_s:.0f} s"
        return self._trouble

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
        self._closing = True
        for timer in (self._lingering, self._retrying):
            if timer is not None:
                timer.cancel()
        while self._busy_since is not None:
            await self._idle.wait()
        await self._loop.run_in_executor(None, self._thread.end)
        if self.waiting and await self._loop.run_in_executor(None, self._write_the_rest):
            self._written = self._appended
            self._synced(None)
        if self._syncer is not None:
            self._syncer.close()
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

    def _write_soon(self) -> None:
        if not self._write_due and self._busy_since is None:
            self._write_due = True
            self._loop.call_soon(self._gather, 0)

    def _gather(self, appended: int) -> None:
        """Write, unless the last turn of the loop has brought more than the ``appended`` events of before:
        what comes close together shares a transaction, and to look for more once takes next to no time."""
        if appended != self._appended and self.waiting < limits.JOURNAL_GATHER_EVENTS:
            self._loop.call_soon(self._gather, self._appended)
        else:
            self._write_due = False
            self._write()

    def _write(self) -> None:
        """Write what there is, unless thread or disk are busy: what was collected then follows."""
        if self._busy_since is not None or self._retrying is not None or self._lost or self._closing:
            return
        while self._steps and len(self._transaction) < limits.JOURNAL_WRITE_EVENTS:
            self._transaction += self._steps.popleft()
        if not self._transaction:
            return
        if self._writes < limits.JOURNAL_CHECKPOINT_WRITES:
            self._tried(self._try_to_write())
        else:
            self._have_done(self._checkpoint_and_write, self._tried)

    def _try_to_write(self) -> sqlite3.Error | None:
        try:
            self._file.write(self._transaction)
        except sqlite3.Error as error:
            return error
        return None

    def _tried(self, error: sqlite3.Error | None) -> None:
        """A transaction was written, or why it was not."""
        if error is not None:
            log.error("%s can't be written, trying again: %s", self._file.path, error)
            self._trouble = f"the journal can't be written: {error}"
            if not self._closing:
                self._retrying = self._loop.call_later(limits.JOURNAL_RETRY_S, self._retry)
            return
        self._trouble = None
        self._writes += 1
        self._written += len(self._transaction)
        self._transaction = []
        if self._syncer is None:
            self._synced(None)
        else:
            self._begin()
            self._syncer.start(self._synced)

    def _retry(self) -> None:
        self._retrying = None
        self._write()

    def _synced(self, error: OSError | None) -> None:
        """All that was written is durable, or why it is not."""
        self._end()
        if error is not None:
            self._lost = True
            self._trouble = (
                f"the journal's last writes may be lost ({error}): check the disk, then start again"
            )
            log.error("%s: %s", self._file.path, self._trouble)
            return
        self._durable = self._written
        while self._waiting and self._waiting[0][0] <= self._durable:
            self._waiting.popleft()[1]()
        if self._longer_than_it_has_to and not self._closing:
            self._have_done(self._keep_short, lambda _: self._go_on())
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Write what was collected meanwhile."""
        if self._waiting:
            self._write_soon()
        elif self._lingering is None:
            self._write()

    def _begin(self) -> None:
        self._busy_since = self._loop.time()
        self._idle.clear()

    def _end(self) -> None:
        self._busy_since = None
        self._idle.set()

    def _have_done(self, job: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """As :meth:`JobThread.do`; meanwhile the loop leaves the file alone."""

        def done(result: Result) -> None:
            self._end()
            then(result)

        self._begin()
        self._thread.do(job, done)

    @property
    def _longer_than_it_has_to(self) -> bool:
        """Whether there is something to do for :meth:`_keep_short`."""
        wanted = self._snapshotter is None and self._file.number >= self._snapshot_wanted_at
        return wanted or self._replaced or self._made is not None

    # -- in the thread -----------------------------------------------------------------------------------

    def _checkpoint_and_write(self) -> sqlite3.Error | None:
        """The write after a checkpoint waits for the disk itself, as SQLite begins the log anew."""
        try:
            self._file.checkpoint()
        except sqlite3.Error as error:
            log.warning("the log of %s stays longer than it has to: %s", self._file.path, error)
        self._writes = 0
        return self._try_to_write()

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

    # -- in another thread, in the end -------------------------------------------------------------------

    def _write_the_rest(self) -> bool:
        """Returns whether that is durable."""
        if not self._lost:
            for step in self._steps:
                self._transaction += step
            try:
                self._file.write(self._transaction)
                if self._syncer is not None:
                    self._syncer.sync()
                return True
            except (sqlite3.Error, OSError) as error:
                self._trouble = str(error)
        log.error("%s ends without its last %d events: %s", self._file.path, self.waiting, self._trouble)
        return False


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
    path: Path, peer: str, instrument: Instrument, durability: str
) -> tuple[JournalFile, Recovered]:
    """Open or create the journal of one market at one peer, and what it holds, which is durable. Blocking.

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
        try:
            file.checkpoint()
        except sqlite3.Error as error:
            raise JournalError(f"{path} can't be written: {error}") from error
    except BaseException:
        file.close()
        raise
    return file, recovered
