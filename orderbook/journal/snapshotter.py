"""Makes a snapshot of a journal that is being written, in a process of its own.

Replaying events takes the interpreter for microseconds each: in a thread of the peer that would be taken from
its trading. Here the peer only reads rows and passes them on::

    peer    peer and market, the row of the snapshot before, then pages of rows: by msgpack, on standard input
    here    the snapshot of all that on standard output, and exit status 0
"""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgpack

from ..errors import JournalError
from ..events import Event, unpack
from ..recovery import Recovered
from .rows import checksum, connect

PAGE_ROWS = 1_000
"""Events that are read at a time."""
PAGE = """
SELECT number, data, checksum, NULL FROM events WHERE number > :number AND number <= :upto
UNION ALL SELECT number, data, checksum, position FROM trades
    WHERE position > :position AND position <= :last AND number <= :upto
UNION ALL SELECT number, NULL, NULL, NULL FROM proofs WHERE number > :number AND number <= :upto
ORDER BY number
"""
"""Events of all kinds in order, after ``number`` up to ``upto``; the trades among them come after
``position``, up to ``last``."""


class Snapshot:
    """What events up to ``number``, and ``trades`` trades, add up to, as the file keeps it."""

    def __init__(self, number: int, trades: int, data: bytes):
        self.number = number
        self.trades = trades
        self.data = data


class Snapshotter:
    """Makes one snapshot of the open journal at ``path``, up to ``number`` and ``trades``.

    Args:
        path: Of the file; this process has it open.
        meta: What it is the journal of.
        number: The last event of a step that is durable.
        trades: How many trades there are up to it.
        made: Called by another thread with the snapshot, or with why there is none.
    """

    def __init__(
        self,
        path: Path,
        meta: dict[str, str],
        number: int,
        trades: int,
        made: Callable[[Snapshot | str], None],
    ):
        self._path = path
        self._meta = meta
        self._number = number
        self._trades = trades
        self._made = made
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"snapshot {path.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Give it up, if it is under way."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._made(Snapshot(self._number, self._trades, self._data()))
        except (JournalError, OSError) as error:
            if not self._stopped:
                self._made(str(error))

    def _data(self) -> bytes:
        argv = [sys.executable, "-m", __name__]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self._process = process
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for item in self._items():
                    if self._stopped:
                        process.kill()  # before it misses what it is not told
                        break
                    process.stdin.write(msgpack.packb(item))
                process.stdin.close()
                data = process.stdout.read()
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            raise JournalError(f"its process ended with {process.returncode}")
        return data

    def _items(self) -> Iterator[object]:
        """What the process is told."""
        db = connect(self._path)
        try:
            db.execute("PRAGMA query_only = ON")
            yield self._meta["peer"], self._meta["market"]
            snapshot = db.execute("SELECT number, trades, data, checksum FROM snapshot").fetchone()
            yield snapshot
            number, position = snapshot[:2] if snapshot is not None else (0, 0)
            while number < self._number:
                upto = min(number + PAGE_ROWS, self._number)
                here = {"number": number, "upto": upto, "position": position, "last": position + PAGE_ROWS}
                page = db.execute(PAGE, here).fetchall()
                yield page
                number, position = upto, max((row[3] for row in page if row[3] is not None), default=position)
        except sqlite3.Error as error:
            raise JournalError(str(error)) from error
        finally:
            db.close()


def add_up(source: BinaryIO) -> bytes:
    """The snapshot of what :class:`Snapshotter` tells. Raises JournalError for damage."""
    items = msgpack.Unpacker(source, max_buffer_size=0)
    state = Recovered(*items.unpack())
    last = 0
    snapshot = items.unpack()
    if snapshot is not None:
        last, _, data, check = snapshot
        state.load(msgpack.unpackb(checked(last, data, check)))
    for page in items:
        state.apply(events_of(page, last))
        last += len(page)
    packed: bytes = msgpack.packb(state.to_plain())
    return packed


def events_of(page: Sequence[tuple[int, bytes | None, int, int | None]], last: int) -> Iterator[Event]:
    """The events in a page; of proofs only the numbers are there."""
    for expected, (number, data, check, _) in enumerate(page, last + 1):
        if number != expected:
            raise JournalError(f"event {expected} is missing")
        if data is not None:
            yield unpack(checked(number, data, check))


def checked(number: int, data: bytes, check: int) -> bytes:
    if checksum(number, data) != check:
        raise JournalError(f"row {number} has changed")
    return data


if __name__ == "__main__":
    gc.disable()  # it ends soon, and what it makes stays until then
    sys.stdout.buffer.write(add_up(sys.stdin.buffer))
