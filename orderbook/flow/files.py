"""Order flow as a file: what clients of an exchange did, in order.

CSV, plain or gzipped, with the header ``elapsed_ms,action,id,side,price,quantity`` and one event a row:

    elapsed_ms  milliseconds since the start, a whole number. The order of the rows is what counts: those of
                a recording may be a little out of time order, or from just before its start (below zero)
    action      new: an order with this price and quantity; cancel: it is taken back;
                change: what is left of it now has this price and quantity
    id          of the order, unique in the file; up to 64 letters, digits, '_', '.' and '-'
    side        buy or sell
    price       a decimal above zero
    quantity    a decimal; above zero where the action is new, else zero is fine (nothing was left)
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, NamedTuple

from .. import limits
from ..errors import InvalidFieldError
from ..model import check_name

ACTIONS = ("new", "cancel", "change")
SIDES = ("buy", "sell")
_GZIP_MAGIC = b"\x1f\x8b"
LINE_LENGTH = 400
"""Characters: a row of the longest fields there are fits well within."""
_DIGITS_MAX = 20
"""Digits before and after the point: what a file says is never longer than what an order may say."""


class Row(NamedTuple):
    """One event of an order flow; see the top of this module."""

    elapsed_ms: int
    action: str
    id: str
    side: str
    price: Decimal
    quantity: Decimal


HEADER = list(Row._fields)


class FlowError(InvalidFieldError):
    """A line of a flow file breaks a rule.

    Attributes:
        line: Its number in the file; the header is line 1.
    """

    def __init__(self, line: int, field: str, rule: str):
        super().__init__(field, rule)
        self.line = line

    def __str__(self) -> str:
        return f"line {self.line}: {self.field} {self.rule}"


def read_flow(path: str | Path) -> Iterator[Row]:
    """The rows of a flow file, read as they are asked for.

    Raises:
        FlowError: A line breaks a rule; the rows before it have been given.
        OSError: The file cannot be opened or read.
    """
    line = 0
    with _open_bytes(path) as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as text:
        rows = csv.reader(_lines_within_bounds(text), strict=True)
        try:
            for fields in rows:
                line = rows.line_num
                if line == 1:
                    _check_header(fields)
                elif fields:
                    yield _parse(line, fields)
        except UnicodeDecodeError:
            raise FlowError(line + 1, "line", "must be UTF-8 text") from None
        except csv.Error as error:
            raise FlowError(line + 1, "line", f"must be CSV: {error}") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise FlowError(line + 1, "file", f"must be whole gzip data: {error}") from None
    if not line:
        raise FlowError(1, "header", f"must be {','.join(HEADER)}")


def write_flow(rows: Iterable[Row], file: IO[str]) -> int:
    """Write ``rows`` with their header as CSV; returns how many."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(HEADER)
    count = 0
    for row in rows:
        writer.writerow((*row[:4], decimal_text(row.price), decimal_text(row.quantity)))
        count += 1
    return count


def decimal_text(number: Decimal) -> str:
    """``number`` as a plain decimal, as the client API takes it: ``"0.00005"``, never ``"5E-5"``."""
    return f"{number:f}"


@contextmanager
def _open_bytes(path: str | Path) -> Iterator[IO[bytes]]:
    """The file's content, unpacked where it is gzip, whatever it is called."""
    with open(path, "rb") as file:
        if file.peek(2)[:2] == _GZIP_MAGIC:
            with gzip.open(file) as unpacked:
                yield unpacked  # type: ignore[misc]  # a GzipFile reads as any binary file
        else:
            yield file


def _lines_within_bounds(text: IO[str]) -> Iterator[str]:
    """Lines of ``text``; one without an end does not fill the memory."""
    while line := text.readline(LINE_LENGTH + 1):
        if len(line) > LINE_LENGTH:
            raise csv.Error(f"a line of more than {LINE_LENGTH} characters")
        yield line


def _check_header(fields: list[str]) -> None:
    if fields != HEADER:
        raise FlowError(1, "header", f"must be {','.join(HEADER)}")


def _parse(line: int, fields: list[str]) -> Row:
    if len(fields) != len(HEADER):
        raise FlowError(line, "line", f"must have {len(HEADER)} fields, not {len(fields)}")
    elapsed_ms, action, id, side, price, quantity = fields
    digits = elapsed_ms.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < _DIGITS_MAX):
        raise FlowError(line, "elapsed_ms", "must be a whole number of milliseconds")
    if action not in ACTIONS:
        raise FlowError(line, "action", f"must be one of {', '.join(ACTIONS)}")
    if side not in SIDES:
        raise FlowError(line, "side", f"must be one of {', '.join(SIDES)}")
    try:
        check_name(id, "id")
    except InvalidFieldError as error:
        raise FlowError(line, error.field, error.rule) from None
    row = Row(
        int(elapsed_ms),
        action,
        id,
        side,
        _decimal(line, "price", price),
        _decimal(line, "quantity", quantity),
    )
    if not row.price:
        raise FlowError(line, "price", "must be more than zero")
    if not row.quantity and action == "new":
        raise FlowError(line, "quantity", "must be more than zero for a new order")
    return row


def _decimal(line: int, name: str, text: str) -> Decimal:
    """``text`` as a number of at most as many digits as an order may have. Exponents are fine: ``5e-05``."""
    try:
        number = Decimal(text) if len(text) <= limits.DECIMAL_LENGTH else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or number.is_signed():
        raise FlowError(line, name, "must be a decimal such as 0.5")
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "it is finite"
    if number.adjusted() >= _DIGITS_MAX or exponent < -_DIGITS_MAX:
        raise FlowError(line, name, f"must have at most {_DIGITS_MAX} digits before and after the point")
    return number
