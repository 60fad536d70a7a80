"""What a Grape of ours tells of a put, beside the reply that it has in common with Node's. IO-free."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class PutReport:
    """What became of a put at the nodes that were to store it.

    ``asked`` is how many those were, ``stored`` how many did, ``silent`` how many did not answer; ``refused``
    has the error code of each of the others (BEP 5, BEP 44).
    """

    asked: int
    stored: int
    silent: int
    refused: tuple[int, ...] = ()

    def __str__(self) -> str:
        """As ``asked=4 stored=2 silent=1 refused=301``."""
        refused = ",".join(f"{code:d}" for code in self.refused) or "0"
        return f"asked={self.asked} stored={self.stored} silent={self.silent} refused={refused}"


PUT_REPORT_HEADER = "Grenache-Put"
"""Ours: with it a Grape reports what became of a put."""

_PUT_REPORT = re.compile(
    rb"asked=(\d{1,4}) stored=(\d{1,4}) silent=(\d{1,4}) refused=(\d{1,4}(?:,\d{1,4}){0,99})"
)


def read_put_report(headers: Iterable[tuple[bytes, bytes]]) -> PutReport | None:
    """What a Grape reports of a put; ``None`` when it does not (Node's don't)."""
    for name, value in headers:
        if name.lower() == PUT_REPORT_HEADER.lower().encode() and (told := _PUT_REPORT.fullmatch(value)):
            refused = tuple(map(int, told[4].split(b",")))
            return PutReport(int(told[1]), int(told[2]), int(told[3]), () if refused == (0,) else refused)
    return None
