"""Who may still ask when the node has much under way. IO-free."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from ..dht.bounds import WALKS_MAX
from ..dht.node import Busy
from ..transports.turns import source_of

#: From so many walks on the rest is shared out, so that no client address can take all there are …
CROWDED_WALKS: Final = WALKS_MAX // 2
#: … each may have so many requests under way that came since then.
_SHARE: Final = WALKS_MAX // 8


class Request(Protocol):
    """What the API answers."""

    @property
    def peer(self) -> tuple[str, int]: ...

    def reply(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None: ...


class Crowd:
    """Counts, by client address, the requests that came while there was much under way."""

    def __init__(self) -> None:
        self._under_way: dict[str, int] = {}

    def __len__(self) -> int:
        """How many addresses have any."""
        return len(self._under_way)

    def enter(self, request: Request) -> Request:
        """Count a request until it is answered through what is returned. Raises Busy when its address has
        its share.
        """
        source = source_of(request.peer[0])
        count = self._under_way.get(source, 0)
        if count >= _SHARE:
            raise Busy("too many requests of this address are under way")
        self._under_way[source] = count + 1
        return _Counted(request, source, self._under_way)


class _Counted:
    def __init__(self, request: Request, source: str, under_way: dict[str, int]) -> None:
        self._request = request
        self._source = source
        self._under_way = under_way

    @property
    def peer(self) -> tuple[str, int]:
        return self._request.peer

    def reply(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        count = self._under_way.pop(self._source) - 1
        if count:
            self._under_way[self._source] = count
        self._request.reply(status, body, headers)
