"""Announces services again and again, in a thread."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .discovery import announce_pause_s
from .errors import ClosedError, GrenacheError
from .grape_api import WITHDRAW_TIMEOUT_S

log = logging.getLogger(__name__)


@dataclass
class _Announcement:
    interval_s: float
    failures: int = 0
    due: float = math.inf  # while it is being announced


class Announcer:
    """Keeps services announced until it is told that they have stopped. Thread-safe.

    Args:
        announce: Given name and port; raises ``GrenacheError``.
        withdraw: Given name, port and for how many seconds to wait at most; must not raise.
        check_open: Raises ClosedError when no more are to begin.
    """

    def __init__(
        self,
        announce: Callable[[str, int], object],
        withdraw: Callable[[str, int, float], None],
        check_open: Callable[[], None],
    ):
        self._announce = announce
        self._withdraw = withdraw
        self._check_open = check_open
        self._stopped = False
        self.after_fork()

    def after_fork(self) -> None:
        """The announcements are the parent's, and so is the thread that makes them."""
        self._announcing: dict[tuple[str, int], _Announcement] = {}
        self._thread: threading.Thread | None = None
        # Guards both; the thread sleeps on it.
        self._wake = threading.Condition()

    def start(self, name: str, port: int, interval_s: float) -> bool:
        """As ``Link.start_announcing``. Raises ClosedError."""
        place = (name, port)
        announcement = _Announcement(interval_s)
        with self._wake:
            self._check_open()
            if place in self._announcing:
                return True
            self._announcing[place] = announcement
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._keep_announcing, name="grenache-announcer", daemon=True
                )
                self._thread.start()
        return self._announce_once(place, announcement)

    def end(self, name: str, port: int) -> bool:
        """As ``Link.stop_announcing``."""
        with self._wake:
            found = self._announcing.pop((name, port), None)
        if found is None:
            return False
        self._withdraw(name, port, WITHDRAW_TIMEOUT_S)
        return True

    def end_port(self, port: int) -> None:
        """End all announcements of ``port``, in 0.5 s at most."""
        with self._wake:
            places = [place for place in self._announcing if place[1] == port]
            for place in places:
                del self._announcing[place]
        self._withdraw_all(places)

    def stop(self) -> None:
        """End all announcements, in 0.5 s at most; the thread ends when it is done with what it is at."""
        with self._wake:
            self._stopped = True
            places = list(self._announcing)
            self._announcing.clear()
            self._wake.notify_all()
        self._withdraw_all(places)

    def join(self) -> None:
        """Wait for the end of the thread, unless it is this one; after :meth:`stop`."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _keep_announcing(self) -> None:
        """The announcer's thread: announce what is due, one after the other."""
        while True:
            with self._wake:
                if self._stopped:
                    return
                now = time.monotonic()
                place, next_one = min(
                    self._announcing.items(), key=lambda item: item[1].due, default=(None, None)
                )
                if place is None or next_one is None or next_one.due > now:
                    due = math.inf if next_one is None else next_one.due
                    self._wake.wait(None if due == math.inf else due - now)
                    continue
                next_one.due = math.inf
            self._announce_once(place, next_one)

    def _announce_once(self, place: tuple[str, int], announcement: _Announcement) -> bool:
        name, port = place
        try:
            self._announce(name, port)
            failures = 0
        except ClosedError:
            return False
        except GrenacheError as error:
            failures = announcement.failures + 1
            log.warning("announcing %r on port %d failed: %s", name, port, error)
        with self._wake:
            gone = place not in self._announcing
        if gone and not failures and not self._stopped:  # it was stopped while it was being announced
            self._withdraw(name, port, WITHDRAW_TIMEOUT_S)
        with self._wake:
            announcement.failures = failures
            announcement.due = time.monotonic() + announce_pause_s(
                announcement.interval_s, failures, random.uniform
            )
            self._wake.notify_all()
        return failures == 0

    def _withdraw_all(self, places: list[tuple[str, int]]) -> None:
        ends = time.monotonic() + WITHDRAW_TIMEOUT_S
        for name, port in places:
            if (left_s := ends - time.monotonic()) > 0:
                self._withdraw(name, port, left_s)
