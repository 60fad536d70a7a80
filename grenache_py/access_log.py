"""The access log of a worker: one line of JSON for each call.

    {"time": "2026-01-31T23:59:59.123Z", "service": "sec:rest:util:net", "action": "getIpInfo",
     "fingerprint": "…", "peer": "10.0.0.7", "outcome": "ok", "seconds": 0.0012}

``fingerprint`` is SHA-256, null without a certificate; ``outcome`` is ``ok`` or the ``ERR_…`` code of the
answer. What callers say is cut to ``limits.ACCESS_TEXT_MAX`` characters and escaped to ASCII, so that no name
can break a line or reach a terminal.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler

from . import limits
from .errors import ArgumentError
from .tls import FilePath

log = logging.getLogger("grenache_py.access")


def access_line(
    time_s: float,
    service: str,
    action: str | None,
    fingerprint: str | None,
    peer: str,
    outcome: str,
    seconds: float,
) -> str:
    """One line, without its end; ``time_s`` is Unix time."""
    moment = datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps(
        {
            "time": moment.replace("+00:00", "Z"),
            "service": service[: limits.ACCESS_TEXT_MAX],
            "action": None if action is None else action[: limits.ACCESS_TEXT_MAX],
            "fingerprint": fingerprint,
            "peer": peer,
            "outcome": outcome,
            "seconds": round(seconds, 6),
        }
    )


class AccessLog:
    """Writes to the logger ``grenache_py.access`` (level INFO) and, if there is a ``path``, to that file.

    The file is appended to, and opened anew when it was moved away, as logrotate does. Raises
    ``ArgumentError`` when it cannot be opened; a disk that is full later is told on standard error, by
    ``logging``.
    """

    def __init__(self, path: FilePath | None = None):
        self._file: WatchedFileHandler | None = None
        if path is not None:
            try:
                self._file = WatchedFileHandler(path, encoding="ascii")
            except OSError as error:
                raise ArgumentError("access_log", f"{path}: {error.strerror}") from error

    @property
    def wanted(self) -> bool:
        """Whether anybody reads it."""
        return self._file is not None or log.isEnabledFor(logging.INFO)

    def write(self, line: str) -> None:
        """Write what ``access_line`` made."""
        log.info("%s", line)
        if self._file is not None:
            self._file.handle(logging.LogRecord(log.name, logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
