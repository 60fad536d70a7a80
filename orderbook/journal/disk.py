"""What files and folders need so that a power cut leaves them. Blocking; each raises OSError."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
"""Returns when all that was written to a descriptor is durable."""


def write_at(descriptor: int, place: int, data: bytes) -> None:
    """All of ``data``, from ``place`` on."""
    os.lseek(descriptor, place, os.SEEK_SET)
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, data[written:])


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable, where the system lets us."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
