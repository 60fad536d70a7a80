"""From a redo log to the tables of its journal, much at a time, while the event loop goes on."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence

from .. import limits
from ..errors import JournalError
from ..events import Event, parts
from .file import JournalFile
from .redo import Record
from .thread import JobThread
from .upkeep import DROPPED_AT_A_TIME, Upkeep

log = logging.getLogger(__name__)


class Takeover:
    """Has a thread write into the tables what stands in the redo log.

    What can't be written is tried again until it can; meanwhile ``trouble`` says why. A sync of the tables
    that has failed is not: ``then`` is told of it.

    Args:
        file: The journal; it is the thread's while that is at work.
        loop: Which calls all methods, this one too.
        jobs: The thread.
        upkeep: Done after what was taken over.
        then: Called each time when the tables have, durably, what was taken over, with None; or with the
            reason why they have not: sqlite3.Error, OSError.

    Attributes:
        taken: The last event that the tables have, durably.
        since: When the thread has begun with what it is at, on the loop's clock; None: it is at nothing.
        trouble: Why nothing can be taken over at the moment, or None.
    """

    def __init__(
        self,
        file: JournalFile,
        loop: asyncio.AbstractEventLoop,
        jobs: JobThread,
        upkeep: Upkeep,
        then: Callable[[Exception | None], None],
    ):
        self.taken = file.number
        self.since: float | None = None
        self.trouble: str | None = None
        self._file = file
        self._loop = loop
        self._jobs = jobs
        self._upkeep = upkeep
        self._then = then
        self._left: list[tuple[Record, Sequence[Event]]] = []
        """What is not in the tables, and not being taken over either."""
        self._left_bytes = 0
        self._taking: list[tuple[Record, Sequence[Event]]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._wanted = 0
        """Somebody waits until the tables have the events up to this one."""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._readers: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Done once the tables have the events up to that one, or can't get them."""

    def add(self, record: Record, events: Sequence[Event]) -> None:
        """``record``, of these events, was written to the log: take it over in a while."""
        self._left.append((record, events))
        self._left_bytes += len(record.data)
        if self._left_bytes >= limits.JOURNAL_REDO_HALF // 2:
            self.begin()
        elif self._timer is None:
            self._later(limits.JOURNAL_TAKE_S)

    def add_past(self, record: Record, events: Sequence[Event]) -> None:
        """``record`` has no place in the log: take it over now."""
        self._left.append((record, events))
        self.begin()

    def begin(self) -> None:
        """Take over what there is; if the thread is busy that follows."""
        if self._jobs.busy or self._stopped or not self._left:
            return
        if self.trouble is not None and self._timer is not None:
            return  # it is tried again then
        self._taking, self._left, self._left_bytes = self._left, [], 0
        self.since = self._loop.time()
        self._jobs.do(self._take, self._took)

    def begin_if_wanted(self) -> None:
        """As :meth:`begin`, where somebody waits for it."""
        if self._wanted > self.taken:
            self.begin()

    def when_taken(self, number: int, then: Callable[[], None]) -> None:
        """Call ``then`` once the tables have the events up to ``number``."""
        if number <= self.taken:
            then()
        else:
            self._waiting.append((number, then))

    def reader(self, number: int) -> asyncio.Future[None]:
        """Done once the tables have the events up to ``number``, which are to be taken over at once when they
        are in the log; raises JournalError when they can't get them."""
        self._wanted = number
        taken: asyncio.Future[None] = self._loop.create_future()
        self._readers.append((number, taken))
        return taken

    def fail_readers(self, error: JournalError) -> None:
        """The tables can't get what is appended, not now at least: who looks there need not wait for it."""
        while self._readers:
            taken = self._readers.popleft()[1]
            if not taken.done():
                taken.set_exception(error)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def take_the_rest(self) -> None:
        """Write what is left, once it has stopped and the thread is at nothing. Blocking, for any thread.
        Raises sqlite3.Error."""
        self._take_in(self._left)

    def have(self, number: int) -> None:
        """The tables have the events up to ``number``."""
        self.taken = number
        while self._waiting and self._waiting[0][0] <= number:
            self._waiting.popleft()[1]()
        while self._readers and self._readers[0][0] <= number:
            has_come(self._readers.popleft()[1])

    def _later(self, wait_s: float) -> None:
        self._timer = self._loop.call_later(wait_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self.begin()

    def _took(self, error: Exception | None) -> None:
        self.since = None
        if error is not None:
            self._left[:0] = self._taking
            if not isinstance(error, OSError):
                log.error("%s can't be written, trying again: %s", self._file.path, error)
                self.trouble = f"the journal can't be written: {error}"
                if not self._stopped:
                    if self._timer is not None:
                        self._timer.cancel()
                    self._later(limits.JOURNAL_RETRY_S)
            self._then(error)
            return
        self.trouble = None
        last = self._taking[-1][0].last
        self._taking = []
        self.have(last)
        self._then(None)
        if self._wanted > self.taken:
            self.begin()
        elif self._left and self._timer is None and not self._stopped:
            self._later(limits.JOURNAL_TAKE_S)

    # -- in the thread -----------------------------------------------------------------------------------

    def _take(self) -> Exception | None:
        try:
            count = self._take_in(self._taking)
            self._file.sync()
        except (sqlite3.Error, OSError) as error:
            return error
        if self._upkeep.checkpoint_due:
            self._upkeep.checkpoint()
        for _ in range(1 + 2 * count // DROPPED_AT_A_TIME):  # more than have come
            if self._upkeep.longer_than_it_has_to:
                self._upkeep.keep_short()
        return None

    def _take_in(self, records: Sequence[tuple[Record, Sequence[Event]]]) -> int:
        """Write those that the file does not have, whole records to a transaction. Returns how many events.
        Raises sqlite3.Error."""
        file, first = self._file, self._file.number
        events: list[Event] = []
        packed: list[bytes] = []
        for record, of_record in records:
            if record.number <= first:
                continue  # it was taken over before something went wrong
            events += of_record
            packed += parts(record.data)
            if len(events) >= limits.JOURNAL_TAKE_EVENTS or record is records[-1][0]:
                file.write(events, packed)
                self._upkeep.wrote(len(events))
                events, packed = [], []
        return file.number - first


def has_come(awaited: asyncio.Future[None]) -> None:
    """What is ``awaited`` is there."""
    if not awaited.done():  # who waited may have gone
        awaited.set_result(None)
