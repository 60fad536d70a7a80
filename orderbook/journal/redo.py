"""The redo log: what is durable at once, before it is in the journal's tables. Blocking.

A file of fixed size beside the journal, ``NAME-redo``, filled with zeros when it is made, so that blocks are
overwritten and never allocated::

    header     magic, bytes of a half, the journal's id, checksum; to 4,096 bytes
    two halves, each a row of records: the journal's id, bytes of the data, checksum, number of the first
               event, how many events, the events as one msgpack array

A record holds whole steps, and is synced before the next one is written: so a power cut tears the last one
at most, which nobody was promised. A half is written anew once the journal has all of it. So what counts is
every whole record that goes beyond the journal, wherever it stands, and those follow it without a gap; what
is left of older ones does not. The id is random, and nobody else knows it: so nothing that somebody has us
write can pass for a record.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct

from .. import limits
from ..errors import JournalError
from ..events import Event, parts, unpack
from .disk import sync_folder, write_at

ID_BYTES = 8
RECORD = Struct(f">{ID_BYTES}sIIQI")
RECORD_BYTES = RECORD.size
COVERED = Struct(">QI")
"""What the checksum covers beside the data."""

FILE_MAGIC = b"OBREDO1\0"
HEADER = Struct(f">8sI{ID_BYTES}sI")
HEADER_BYTES = 4_096

Write = Callable[[int, int, bytes], None]
"""See :func:`~orderbook.journal.disk.write_at`."""

O_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows


class Record:
    """Events ``number`` and after it, ``count`` of them, as one msgpack array."""

    def __init__(self, number: int, count: int, data: bytes):
        self.number = number
        self.count = count
        self.data = data

    @property
    def last(self) -> int:
        """The number of its last event."""
        return self.number + self.count - 1


def to_bytes(record: Record, journal: bytes) -> bytes:
    """As it stands in the log of the journal with that id."""
    check = _checksum(record.number, record.count, record.data)
    return RECORD.pack(journal, len(record.data), check, record.number, record.count) + record.data


def whole_records(log: bytes, journal: bytes) -> list[Record]:
    """All in ``log`` that are whole, also old ones, in the order in which they stand there."""
    found = []
    at = log.find(journal)
    while 0 <= at <= len(log) - RECORD_BYTES:
        _, length, check, number, count = RECORD.unpack_from(log, at)
        start = at + RECORD_BYTES
        data = log[start : start + length]
        if len(data) == length and check == _checksum(number, count, data):
            found.append(Record(number, count, data))
            at = log.find(journal, start + length)
        else:
            at = log.find(journal, at + 1)
    return found


def beyond(records: Sequence[Record], number: int) -> list[Record]:
    """Those after event ``number``, in order. Raises JournalError where one is missing between them."""
    after = sorted((record for record in records if record.last > number), key=_number)
    for record in after:
        if record.number != number + 1:
            raise JournalError(f"event {number + 1} is missing, or does not begin a record")
        number = record.last
    return after


def events_of(record: Record) -> tuple[list[Event], list[bytes]]:
    """The events in ``record``, and each as it is packed. Raises JournalError."""
    packed = parts(record.data)
    if len(packed) != record.count:
        raise JournalError(f"{len(packed)} events from {record.number} where {record.count} are said to be")
    return [unpack(data) for data in packed], packed


def _number(record: Record) -> int:
    return record.number


def _checksum(number: int, count: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(COVERED.pack(number, count)))


class RedoFile:
    """A redo log that is written, empty at first.

    Args:
        path: Of its file, which is made.
        journal: The id of the journal that it belongs to, :data:`ID_BYTES` of them.
        number: The last event that the journal has.
        write: Writes its records.

    Attributes:
        number: The last event that journal and log have.

    Raises:
        OSError: It can't be made.
    """

    def __init__(self, path: Path, journal: bytes, number: int, write: Write = write_at):
        self._path = path
        self._journal = journal
        self._write = write
        self._half_bytes = limits.JOURNAL_REDO_HALF
        self.number = number
        self._active = 0
        self._used = 0
        self._last = [number, number]
        """The last event of each half."""
        self._descriptor = self._make()

    def _make(self) -> int:
        """Under its name stands a whole file or none."""
        new = self._path.with_name(self._path.name + "-new")
        with new.open("wb") as file:
            file.write(header(self._journal, self._half_bytes))
            file.write(bytes(2 * self._half_bytes))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        sync_folder(self._path.parent)
        return os.open(self._path, os.O_RDWR | O_BINARY)

    def duplicate(self) -> int:
        """Another descriptor of it, for who syncs it."""
        return os.dup(self._descriptor)

    def has_room(self, record: Record, taken: int) -> bool:
        """Whether ``record`` can be written, now that the journal has the events up to ``taken``."""
        size = RECORD_BYTES + len(record.data)
        return size <= self._half_bytes - self._used or (
            size <= self._half_bytes and self._last[1 - self._active] <= taken
        )

    def takes(self, record: Record) -> bool:
        """Whether there can ever be room for ``record``."""
        return RECORD_BYTES + len(record.data) <= self._half_bytes

    def append(self, record: Record) -> None:
        """Write ``record``, for which there is room; the one before it must have been synced. Raises OSError:
        then the same one is to be written again."""
        data = to_bytes(record, self._journal)
        if len(data) > self._half_bytes - self._used:
            self._active, self._used = 1 - self._active, 0
        at = HEADER_BYTES + self._active * self._half_bytes + self._used
        self._write(self._descriptor, at, data)
        self._used += len(data)
        self._last[self._active] = self.number = record.last

    def passed_by(self, number: int) -> None:
        """The journal has got the events up to ``number`` without this log."""
        self.number = number

    def close(self) -> None:
        os.close(self._descriptor)


def header(journal: bytes, half_bytes: int) -> bytes:
    packed = HEADER.pack(FILE_MAGIC, half_bytes, journal, _header_checksum(half_bytes, journal))
    return packed.ljust(HEADER_BYTES, b"\0")


def read(path: Path, journal: bytes) -> list[Record]:
    """The whole records in the log at ``path``. Raises JournalError where it is not the whole log of that
    journal, OSError."""
    content = path.read_bytes()
    if len(content) < HEADER_BYTES:
        raise JournalError("it is too short")
    magic, half_bytes, id, check = HEADER.unpack_from(content)
    if magic != FILE_MAGIC or check != _header_checksum(half_bytes, id):
        raise JournalError("it does not begin as a redo log")
    if id != journal:
        raise JournalError("it is that of another journal")
    if len(content) != HEADER_BYTES + 2 * half_bytes:
        raise JournalError("it has another size than it says")
    return whole_records(content[HEADER_BYTES:], journal)


def _header_checksum(half_bytes: int, id: bytes) -> int:
    return zlib.crc32(b"%d %b" % (half_bytes, id))
