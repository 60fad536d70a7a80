"""A BusyPoll that only says what it was told."""

from __future__ import annotations

from grenache_py.transports.busy_poll import BusyPoll


class RecordedPoll(BusyPoll):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.expected = 1  # always

    def expect(self) -> None:
        self.said.append("expect")

    def came(self) -> None:
        self.said.append("came")
