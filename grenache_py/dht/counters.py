"""What a node has done since it began, for those who operate it. IO-free."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Counters:
    """Each only grows; times in seconds."""

    #: datagrams that came in, and of those: undecodable, and dropped because their sender sent too many
    received: int = 0
    malformed: int = 0
    limited: int = 0
    #: queries that came in
    queries: int = 0
    #: answers held back until the address of the asker was proven by a ping
    deferred: int = 0
    #: own queries that were answered with an error, and that were not answered
    refused: int = 0
    unanswered: int = 0
    #: own queries that were sent a second time
    resent: int = 0
    #: walks (look-ups, announces, puts and gets that asked around) that ended, and the time they took in all
    walks: int = 0
    walk_seconds: float = 0.0
