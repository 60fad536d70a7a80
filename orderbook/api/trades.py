"""Trades page by page, and the places at which pages begin."""

from __future__ import annotations

from typing import NamedTuple

from .. import limits
from ..errors import HistoryLostError, InvalidFieldError
from ..hosted import HostedMarket
from ..records import TradePage
from .views import trade_report

AFTER_MAX = 2**63
_BEGUN_ANEW = "it has begun anew, or from an older copy of its journal"


class Place(NamedTuple):
    """A place in the trades of a market at one peer: after so many, the last of which was of that match.

    As text ``"17:m-1"``. By the match a peer is recognised that has had other trades since: one that has lost
    its journal, for instance. ``match_id`` is None where whoever asks does not care, as text ``"17"``.
    """

    before: int
    match_id: str | None = None

    def __str__(self) -> str:
        return str(self.before) if self.match_id is None else f"{self.before}:{self.match_id}"


def place_of(text: str) -> Place:
    """Raises InvalidFieldError."""
    count, named, match_id = text.partition(":")
    whole = count.isascii() and count.isdigit() and len(count) < 20 and int(count) <= AFTER_MAX
    if not whole or (named and not 1 <= len(match_id) <= limits.NAME_LENGTH):
        raise InvalidFieldError("after", "must be what `next` said of an earlier page, or a count of trades")
    return Place(int(count), match_id if named else None)


async def found(hosted: HostedMarket, place: Place) -> Place:
    """``place`` with its match.

    Raises:
        HistoryLostError: This peer has no such place, or has forgotten what comes after it.
        JournalError: Its trades can't be read.
    """
    ledger = hosted.market.ledger
    if place.before > ledger.trade_count:
        raise HistoryLostError(
            f"this peer has had {ledger.trade_count} trades, not {place.before}: {_BEGUN_ANEW}"
        )
    if not place.before or (place.match_id is None and place.before <= ledger.forgotten):
        return place
    [trade], _ = await hosted.trades(place.before - 1, 1)
    if place.match_id not in (None, trade.match_id):
        raise HistoryLostError(f"trade {place.before} of this peer is not of that match: {_BEGUN_ANEW}")
    return Place(place.before, trade.match_id)


async def page_after(hosted: HostedMarket, place: Place, limit: int) -> tuple[TradePage, Place, bool]:
    """At most ``limit`` trades after a place that was :func:`found`; where they end; whether there are more.

    Raises:
        HistoryLostError: They are forgotten by now.
        JournalError: They can't be read.
    """
    rows, more = await hosted.trades(place.before, limit)
    if rows:
        place = Place(place.before + len(rows), rows[-1].match_id)
    page = TradePage([trade_report(hosted.market, trade) for trade in rows], str(place))
    return page, place, more is not None
