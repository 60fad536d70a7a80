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
from functools import partial
from pathlib import Path
from typing import TypeVar

from .. import limits
from ..errors import JournalError
from ..events import Event, Signed, pack
from ..model import Instrument
from ..recovery import Recovered
from ..trade import Trade
from .archive import JournalArchive
from .file import JournalFile
from .redo import Record, RedoFile
from .syncer import Syncer, best_syncer
from .takeover import Takeover, has_come
from .thread import JobThread
from .upkeep import Upkeep

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class SqliteJournal:
    """A journal file that is written many steps at a time.

    The event loop writes, which only copies to the memory of the operating system; then a syncer makes it
    durable while the loop goes on, and the next write collects meanwhile. What somebody waits for is written
    once a turn of the loop brings nothing more, what nobody waits for with it, or some moments later.

    With a redo log (``file.redo``) the loop writes there, and a thread of ours takes it over into the file's
    tables, much at a time. Without one the loop writes the tables, and nothing is synced. All else that waits
    for the disk (checkpoints, snapshots) the thread does.

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
        redo = file.redo
        self._file = file
        self._loop = loop
        self._redo = redo
        self._syncer = None if redo is None else make_syncer(redo.duplicate(), loop)
        self._trouble: str | None = None
        self._lost = False
        """A sync has failed."""
        self._appended = self._written = self._durable = file.number
        """The last event of all, in the redo log, and synced there. Without a redo log the tables take its
        place."""
        self._steps: deque[Sequence[Event]] = deque()
        self._transaction: list[Event] = []
        """What is being written, the first of what is not yet."""
        self._record: Record | None = None
        """The same, for the redo log."""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._write_due = False
        self._lingering: asyncio.TimerHandle | None = None
        self._retrying: asyncio.TimerHandle | None = None
        self._busy_since: float | None = None
        """When thread or syncer have begun with what the next write has to wait for."""
        self._room_wanted = False
        """The next write waits for room in the redo log, or until it went past it."""
        self._past: Record | None = None
        """A record that is too large for the redo log, and is on its way to the tables."""
        self._unsure: set[asyncio.Future[None]] = set()
        """Done once what somebody looks at is durable, or never will be."""
        self._idle = asyncio.Event()
        self._closing = False
        self._jobs = JobThread(f"journal {file.path.name}", loop)
        self._archive: JournalArchive | None = None
        self._pages: JournalArchive | None = None
        self._pages_free = threading.Lock()
        self._upkeep = Upkeep(file)
        self._takeover = Takeover(file, loop, self._jobs, self._upkeep, self._took)

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

    def when_archived(self, then: Callable[[], None]) -> None:
        if self._redo is None:
            self.when_durable(then)
        else:
            self._takeover.when_taken(self._appended, then)

    @property
    def trouble(self) -> str | None:
        trouble = self._trouble or self._takeover.trouble
        if trouble is None:
            for since in (self._busy_since, self._takeover.since):
                hangs_s = 0.0 if since is None else self._loop.time() - since
                if hangs_s > limits.JOURNAL_HANGS_S:
                    return f"the disk of the journal has not answered for {hangs_s:.0f} s"
        return trouble

    @property
    def waiting(self) -> int:
        return self._appended - self._durable

    def last_durable(self) -> int:
        """The number of the last event that is durable."""
        return self._durable

    @property
    def archive(self) -> JournalArchive:
        """Where trades can be looked up within a step."""
        if self._archive is None:
            self._archive = JournalArchive(self._file.path, self._file.meta)
        return self._archive

    async def durable(self) -> None:
        if self._durable == self._appended:
            return
        if self._lost or self._closing:
            raise self._unreadable()
        durable = self._loop.create_future()
        self._unsure.add(durable)
        self.when_durable(partial(has_come, durable))
        try:
            await durable
        finally:
            self._unsure.discard(durable)

    async def trades(self, after: int, limit: int) -> Sequence[Trade]:
        return await self._read(lambda archive: archive.trades(after, limit))

    async def trades_of_order(self, order_id: str, most: int) -> Sequence[Trade]:
        await self._all_taken()
        return await self._read(lambda archive: archive.trades_of_order(order_id, most))

    async def proofs(self, match_id: str) -> Sequence[Signed]:
        await self._all_taken()
        return await self._read(lambda archive: archive.proofs(match_id))

    async def _all_taken(self) -> None:
        """Returns when the tables have all that was appended. Raises JournalError when they can't get it."""
        if self._redo is None or self._takeover.taken == self._appended:
            return
        if self._lost or self._closing:
            raise self._unreadable()
        taken = self._takeover.reader(self._appended)
        if self.waiting:
            self._write_soon()
        else:
            self._takeover.begin()
        await taken

    def _unreadable(self) -> JournalError:
        return JournalError(f"what was written last can't be read: {self.trouble or 'the peer stops'}")

    async def _read(self, what: Callable[[JournalArchive], Result]) -> Result:
        """``what`` may take a while: it is read by another thread, over another connection than in steps."""

        def read() -> Result:
            with self._pages_free:
                if self._closing:
                    raise self._unreadable()
                if self._pages is None:
                    self._pages = JournalArchive(self._file.path, self._file.meta)
                return what(self._pages)

        return await self._loop.run_in_executor(None, read)

    async def close(self) -> None:
        self._closing = True
        self._fail_readers()
        self._takeover.stop()
        for timer in (self._lingering, self._retrying):
            if timer is not None:
                timer.cancel()
        while self._jobs.busy or (self._busy_since is not None and not self._room_wanted):
            self._idle.clear()
            await self._idle.wait()
        await self._loop.run_in_executor(None, self._jobs.end)
        done = await self._loop.run_in_executor(None, self._write_the_rest)
        if done:
            self._written = self._appended
            self._synced(None)
            self._takeover.have(self._appended)
        else:
            self._fail_unsure()
        if self._syncer is not None:
            self._syncer.close()
        await self._loop.run_in_executor(None, self._upkeep.stop)
        await self._loop.run_in_executor(None, self._close_archives)
        if done:
            try:
                self._file.end_redo()
            except JournalError as error:
                log.warning("%s", error)
        self._file.close()

    def _close_archives(self) -> None:
        """Once nobody reads there any more."""
        with self._pages_free:
            for archive in (self._archive, self._pages):
                if archive is not None:
                    archive.close()

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
        what comes close together shares a write, and to look for more once takes next to no time."""
        if appended != self._appended and self.waiting < limits.JOURNAL_GATHER_EVENTS:
            self._loop.call_soon(self._gather, self._appended)
        else:
            self._write_due = False
            self._write()

    def _write(self) -> None:
        """Write what there is, unless thread or disk are busy: what was collected then follows."""
        if self._busy_since is not None or self._retrying is not None or self._lost or self._closing:
            return
        if not self._transaction:
            while self._steps and len(self._transaction) < limits.JOURNAL_WRITE_EVENTS:
                self._transaction += self._steps.popleft()
            if not self._transaction:
                return
        if self._redo is not None:
            self._write_redo(self._redo)
        elif not self._upkeep.checkpoint_due:
            self._tried(self._try_to_write())
        else:
            self._have_done(self._checkpoint_and_write, self._tried)

    def _write_redo(self, redo: RedoFile) -> None:
        record = self._record
        if record is None:
            events = self._transaction
            record = self._record = Record(self._written + 1, len(events), pack(events))
        if redo.has_room(record, self._takeover.taken):
            try:
                redo.append(record)
            except OSError as error:
                self._tried(error)
            else:
                self._tried(None)
            return
        self._room_wanted = True
        self._begin()
        if redo.takes(record):
            self._takeover.begin()
        else:
            events, self._transaction, self._record = self._transaction, [], None
            self._past = record
            self._takeover.add_past(record, events)

    def _try_to_write(self) -> sqlite3.Error | None:
        try:
            self._file.write(self._transaction)
        except sqlite3.Error as error:
            return error
        return None

    def _tried(self, error: Exception | None) -> None:
        """The transaction was written, or why it was not."""
        if error is not None:
            log.error("%s can't be written, trying again: %s", self._file.path, error)
            self._trouble = f"the journal can't be written: {error}"
            self._fail_readers()
            if not self._closing:
                self._retrying = self._loop.call_later(limits.JOURNAL_RETRY_S, self._retry)
            return
        self._trouble = None
        events, record = self._transaction, self._record
        self._transaction, self._record = [], None
        self._written += len(events)
        if self._syncer is None:
            self._upkeep.wrote(len(events))
            self._synced(None)
            return
        assert record is not None
        self._takeover.add(record, events)
        self._begin()
        self._syncer.start(self._synced)

    def _retry(self) -> None:
        self._retrying = None
        self._write()

    def _synced(self, error: OSError | None) -> None:
        """All that was written is durable, or why it is not."""
        self._end()
        if error is not None:
            self._lose(error)
            return
        self._durable = self._written
        while self._waiting and self._waiting[0][0] <= self._durable:
            self._waiting.popleft()[1]()
        if self._redo is None and self._upkeep.longer_than_it_has_to and not self._closing:
            self._have_done(self._upkeep.keep_short, lambda _: self._go_on())
            return
        self._takeover.begin_if_wanted()
        self._go_on()

    def _lose(self, error: OSError) -> None:
        self._lost = True
        self._takeover.stop()
        self._trouble = f"the journal's last writes may be lost ({error}): check the disk, then start again"
        log.error("%s: %s", self._file.path, self._trouble)
        self._fail_unsure()
        self._fail_readers()

    def _go_on(self) -> None:
        """Write what was collected meanwhile."""
        if self._waiting:
            self._write_soon()
        elif self._lingering is None:
            self._write()

    def _begin(self) -> None:
        self._busy_since = self._loop.time()

    def _end(self) -> None:
        self._busy_since = None
        self._idle.set()

    def _have_done(self, job: Callable[[], Result], then: Callable[[Result], None]) -> None:
        """As :meth:`JobThread.do`; meanwhile the loop leaves the file alone."""

        def done(result: Result) -> None:
            self._end()
            then(result)

        self._begin()
        self._jobs.do(job, done)

    def _took(self, error: Exception | None) -> None:
        """The tables have, durably, what was taken over; or why not."""
        self._idle.set()
        if isinstance(error, OSError):
            self._lose(error)
        elif error is not None:
            self._fail_readers()
        elif self._past is not None:
            if self._past.last == self._takeover.taken:
                assert self._redo is not None
                self._past = None
                self._written = self._takeover.taken
                self._redo.passed_by(self._written)
                self._room_wanted = False
                self._synced(None)
        elif self._room_wanted:
            self._room_wanted = False
            self._end()
            self._write()
        if self._room_wanted:
            self._takeover.begin()

    # -- who looks ---------------------------------------------------------------------------------------

    def _fail_unsure(self) -> None:
        """What is not durable by now never will be."""
        for durable in self._unsure:
            if not durable.done():
                durable.set_exception(self._unreadable())

    def _fail_readers(self) -> None:
        self._takeover.fail_readers(self._unreadable())

    # -- in the thread -----------------------------------------------------------------------------------

    def _checkpoint_and_write(self) -> sqlite3.Error | None:
        self._upkeep.checkpoint()
        return self._try_to_write()

    # -- in another thread, in the end -------------------------------------------------------------------

    def _write_the_rest(self) -> bool:
        """Returns whether all is durable in the tables, as far as it is to be."""
        if not self._lost:
            rest = self._transaction
            for step in self._steps:
                rest += step
            try:
                self._takeover.take_the_rest()
                if rest:
                    self._file.write(rest)
                if self._redo is not None:
                    self._file.sync()
                return True
            except (sqlite3.Error, OSError) as error:
                self._trouble = str(error)
        if self.waiting:
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
        file.begin_start()
        try:
            file.checkpoint()
        except sqlite3.Error as error:
            raise JournalError(f"{path} can't be written: {error}") from error
        if durability == "full":
            file.begin_redo()
    except BaseException:
        file.close()
        raise
    return file, recovered
