"""The file in which a Grape keeps what it knows, so that it comes back as the same one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from ..dht.snapshot import Snapshot, decode, encode

log = logging.getLogger(__name__)


def load(path: Path) -> Snapshot | None:
    """What the file holds; ``None`` where there is none, or it is damaged: then it is put aside under
    ``<name>.damaged`` and the Grape begins anew. Raises OSError when it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode(data)
    except ValueError as error:
        aside = path.with_name(path.name + ".damaged")
        log.warning(
            "the state in %s is damaged (%s); it is now %s, and the Grape begins anew", path, error, aside
        )
        os.replace(path, aside)
        return None


def save(path: Path, snapshot: Snapshot) -> None:
    """Replace the file at once and whole; it has secrets, so it is for its owner only. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(encode(snapshot))
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)
