"""Sessions between simulated peers, over connections of the simulated network.

As ``orderbook.lines`` has them over sockets: the first message opens the session, what comes after it is
frames, and the first one that is wrong ends the connection.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

from orderbook.errors import OrderBookError, ProtocolError
from orderbook.signing.handshake import Opening, Sessions
from orderbook.signing.session import Session
from tests.simulation.world import SimConnection, SimNetwork, World

OPEN_S = 1.0
RETRY_S = 0.5
"""Much shorter than a real peer waits, so that there are many sessions in a run."""

Reply = Callable[[str], None]


class SimLine:
    """An open session with another place, and the calls under way in it."""

    def __init__(self, connection: SimConnection, session: Session):
        self.connection = connection
        self.session = session
        self.calls: dict[int, tuple[Reply, Callable[[bool], None]]] = {}


class SimLines:
    """The sessions of one process: those that it has opened, and those that others have opened with it.

    Args:
        place: Where it is.
        sessions: Opens them.
        serve: Answers what comes in those of others: given the request, how to reply, and the session.
    """

    def __init__(
        self,
        world: World,
        network: SimNetwork,
        place: str,
        sessions: Sessions,
        serve: Callable[[str, Reply, Session], None],
    ):
        self._world = world
        self._network = network
        self._place = place
        self._sessions = sessions
        self._serve = serve
        self._open: dict[str, SimLine] = {}
        self._opening: dict[str, SimConnection] = {}
        self._connections: list[SimConnection] = []
        self._not_before: dict[str, float] = {}
        self._rids = itertools.count()
        network.listen[place] = self._accept

    def close(self) -> None:
        """The process ends."""
        del self._network.listen[self._place]
        for connection in self._connections:
            connection.on_end.pop(self._place, None)
            connection.end()

    # -- sessions that we open -----------------------------------------------------------------------------

    def session(self, place: str) -> Session | None:
        """The one that is open with ``place``."""
        line = self._open.get(place)
        return None if line is None else line.session

    def wanted(self, place: str, name: str) -> None:
        """Open one with the peer ``name``, unless that was tried a moment ago."""
        soon = self._world.now < self._not_before.get(place, 0.0)
        opening = None if soon or place in self._open or place in self._opening else self._sessions.open(name)
        if opening is None:
            return
        self._not_before[place] = self._world.now + RETRY_S
        connection = self._network.connect(self._place, place)
        if connection is None:
            return
        self._connections.append(connection)
        self._opening[place] = connection
        connection.on_message[self._place] = lambda data: self._opened(connection, place, opening, data)
        connection.on_end[self._place] = lambda: self._not_opened(place)
        connection.send(self._place, opening.request.data)

        def late() -> None:
            if self._opening.get(place) is connection:
                connection.end()

        self._world.after(OPEN_S, late)

    def _not_opened(self, place: str) -> None:
        self._world.sights["session not opened"] += 1
        del self._opening[place]

    def _opened(self, connection: SimConnection, place: str, opening: Opening, data: bytes) -> None:
        try:
            session = opening.answered(json.loads(data))
        except (OrderBookError, ValueError):
            connection.end()
            return
        self._world.sights["session opened"] += 1
        del self._opening[place]
        line = self._open[place] = SimLine(connection, session)
        connection.on_message[self._place] = lambda frame: self._answered(line, frame)
        connection.on_end[self._place] = lambda: self._ended(place)

    def _answered(self, line: SimLine, frame: bytes) -> None:
        text = self._unwrap(line.connection, line.session, frame)
        if text is not None:
            rid, _, answer = text.partition(" ")
            call = line.calls.pop(int(rid), None)
            if call is not None:
                call[0](answer)

    def _ended(self, place: str) -> None:
        calls = self._open.pop(place).calls
        for rid in list(calls):
            calls.pop(rid)[1](False)

    def call(
        self, place: str, request: str, *, timeout_s: float, answered: Reply, failed: Callable[[bool], None]
    ) -> None:
        """As :meth:`SimNetwork.call`, in the session that is open with ``place``."""
        line, rid = self._open[place], next(self._rids)
        line.calls[rid] = answered, failed

        def late() -> None:
            if rid in line.calls:
                line.calls.pop(rid)[1](False)

        self._world.after(timeout_s, late)
        self._world.sights["request in a session"] += 1
        line.connection.send(self._place, line.session.wrap(f"{rid} {request}".encode()))

    # -- sessions of others --------------------------------------------------------------------------------

    def _accept(self, connection: SimConnection) -> None:
        self._connections.append(connection)
        connection.on_message[self._place] = lambda data: self._greet(connection, data)

    def _greet(self, connection: SimConnection, data: bytes) -> None:
        try:
            answer, session = self._sessions.accept(json.loads(data))
        except (OrderBookError, ValueError):
            connection.end()
            return
        connection.send(self._place, json.dumps(answer).encode())
        connection.on_message[self._place] = lambda frame: self._asked(connection, session, frame)
        connection.on_end[self._place] = lambda: self._sessions.ended(session)

    def _asked(self, connection: SimConnection, session: Session, frame: bytes) -> None:
        text = self._unwrap(connection, session, frame)
        if text is not None:
            rid, _, request = text.partition(" ")

            def reply(answer: str) -> None:
                connection.send(self._place, session.wrap(f"{rid} {answer}".encode()))

            self._serve(request, reply, session)

    # -- both ----------------------------------------------------------------------------------------------

    def _unwrap(self, connection: SimConnection, session: Session, frame: bytes) -> str | None:
        try:
            return session.unwrap(frame).decode()
        except ProtocolError:
            self._world.sights["session broken"] += 1
            connection.end()
            return None


def stripped(message: Any) -> Any:
    """``message`` without its signature: what would go in a session."""
    if not isinstance(message, dict):
        return message
    signing = ("market", "time", "nonce", "to", "key", "sig", "request")
    return {name: value for name, value in message.items() if name not in signing}
