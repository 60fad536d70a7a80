"""The book of one market: the engine under the name by which the protocol knows it."""

from .engine.book import Book, Quote
from .engine.reserving import Crossing, Fill, Reservation

__all__ = ["Book", "Crossing", "Fill", "Quote", "Reservation"]
