"""For tests of services and clients: Grapes in this process, and services whose answers are given.

    with Grapes() as grapes, Stubs(grapes.url, {"rest:util:net": {"getIpInfo": ["8.8.8.8", "US"]}}) as stubs:
        with Link(grapes.url) as link:
            assert look_up_country(link, "8.8.8.8") == "US"     # what is tested
        assert stubs.calls == [StubCall("rest:util:net", "getIpInfo", ["8.8.8.8"])]

Everything is on loopback and on free ports. Mirrors what bfx-svc-test-helper is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .actions import action_name
from .checks import check_count
from .deadlines import ends_at
from .errors import ArgumentError, LookupEmptyError, Refusal
from .grape import Grape
from .link import Link
from .peer import PeerRPCServer
from .transports.rpc_server import Handler

WAIT_S = 10.0
POLL_S = 0.02

Answer = Mapping[str, Any] | Callable[[Any], Any]
"""How a stub answers: a function of the payload; or actions, each a function of its ``args`` or a value."""


class Grapes:
    """Two Grapes that know each other, or ``count`` of them; each runs in a thread of its own."""

    def __init__(self, count: int = 2):
        self._count = check_count(count, "count")
        #: while they run
        self.grapes: list[Grape] = []
        self._links: list[Link] = []

    def __enter__(self) -> Grapes:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Grape]:
        return iter(self.grapes)

    @property
    def urls(self) -> list[str]:
        """The Grapes' URLs, for a Link."""
        return [grape.url for grape in self.grapes]

    @property
    def url(self) -> str:
        """The URL of the first one."""
        return self.urls[0]

    def start(self) -> None:
        """Start them; they know each other when it returns."""
        try:
            while len(self.grapes) < self._count:
                known = [self.grapes[0].dht_address] if self.grapes else []
                grape = Grape(host="127.0.0.1", bootstrap=known)
                grape.start()
                self.grapes.append(grape)
                self._links.append(Link(grape.url))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop them; doing it again changes nothing."""
        while self._links:
            self._links.pop().stop()
        while self.grapes:
            self.grapes.pop().stop()

    def wait_for(self, name: str, count: int = 1, *, timeout: float = WAIT_S) -> list[str]:
        """Wait until every Grape finds ``name`` announced by ``count`` services or more.

        Returns where they are, ``["host:port", …]``. Raises ``TimeoutError`` after ``timeout`` seconds.
        """
        check_count(count, "count")
        ends = ends_at(timeout)
        while True:
            found = [self._find(link, name) for link in self._links]
            if all(len(places) >= count for places in found):
                return sorted(found[0])
            if time.monotonic() > ends:
                raise TimeoutError(
                    f"{name!r} is not announced by {count} within {timeout:g} s; the Grapes find {found}"
                )
            time.sleep(POLL_S)

    @staticmethod
    def _find(link: Link, name: str) -> list[str]:
        try:
            return link.lookup(name, fresh=True)
        except LookupEmptyError:
            return []


@dataclass(frozen=True)
class StubCall:
    """A call that a stub has answered; ``action`` is ``None`` for a service without actions, whose ``args``
    are the payload alone.
    """

    service: str
    action: str | None
    args: list[Any]


class Stubs:
    """Services that answer as told, announced at ``grape`` (a URL) on one port, as ``{name: answer}``:

        {"rest:util:net": {"getIpInfo": lambda ip: [ip, "US"], "version": "1.0"},   # actions
         "echo": lambda payload: payload}

    A function may raise ``Refusal``. An action that there is not is answered ``ERR_API_ACTION_NOTFOUND``.
    ``calls`` are those that were answered, in order.
    """

    def __init__(self, grape: str, services: Mapping[str, Answer]):
        self._services = check_services(services)
        self._grape = grape
        self._link: Link | None = None
        self.calls: list[StubCall] = []

    def __enter__(self) -> Stubs:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and announce; they can be found when it returns."""
        link = self._link = Link(self._grape)
        try:
            service = PeerRPCServer(link).transport("server")
            service.on("request", self._handle)
            service.listen(0, "127.0.0.1")
            for name in self._services:
                link.announce(name, service.port)  # raises, unlike start_announcing
                link.start_announcing(name, service.port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Withdraw and stop; doing it again changes nothing."""
        link, self._link = self._link, None
        if link is not None:
            link.stop()

    def _handle(self, rid: Any, key: Any, payload: Any, handler: Handler) -> None:
        call, answer = find_stub(self._services, key, payload)
        self.calls.append(call)
        handler.reply(None, answer(*call.args) if callable(answer) else answer)


def check_services(services: Mapping[str, Answer]) -> Mapping[str, Answer]:
    """Raises ``ArgumentError`` for what is no answer."""
    for name, answer in services.items():
        if not callable(answer) and not isinstance(answer, Mapping):
            raise ArgumentError("services", f"{name!r} must be a function or have actions, not {answer!r}")
    return services


def find_stub(services: Mapping[str, Answer], key: Any, payload: Any) -> tuple[StubCall, Any]:
    """The call, and the function or value that answers it. Raises ``Refusal``."""
    answer = services.get(key) if isinstance(key, str) else None
    if answer is None:
        raise Refusal("ERR_TEST_MISSING_STUB")
    if not isinstance(answer, Mapping):
        return StubCall(key, None, [payload]), answer
    action = action_name(payload)
    if action is None or action not in answer:
        raise Refusal("ERR_API_ACTION_NOTFOUND")
    return StubCall(key, action, list(payload.get("args") or ())), answer[action]
