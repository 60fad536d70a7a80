"""Flow files: what is read and written, and what is refused."""

from __future__ import annotations

import gzip
import io
import itertools
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook.flow.files import LINE_LENGTH, FlowError, Row, decimal_text, read_flow, write_flow

HEADER = "elapsed_ms,action,id,side,price,quantity\n"
REAL_FLOW = Path(__file__).parents[4] / "shared" / "data" / "btcusd-orders.csv.gz"


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_rows_of_each_action_are_read_in_order(tmp_path: Path) -> None:
    flow = write(
        tmp_path / "flow.csv",
        HEADER + "0,new,17,buy,78318.0,1.5\n4,change,17,buy,78318.5,0.25\n\n3,cancel,17,buy,78318.5,0\n",
    )
    assert list(read_flow(flow)) == [
        Row(0, "new", "17", "buy", Decimal("78318.0"), Decimal("1.5")),
        Row(4, "change", "17", "buy", Decimal("78318.5"), Decimal("0.25")),
        Row(3, "cancel", "17", "buy", Decimal("78318.5"), Decimal(0)),
    ]


def test_gzip_is_recognised_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_bytes(gzip.compress((HEADER + "0,new,1,sell,2,3\n").encode()))
    assert [row.side for row in read_flow(path)] == ["sell"]


def test_a_byte_order_mark_and_line_ends_of_windows_are_fine(tmp_path: Path) -> None:
    flow = write(tmp_path / "flow.csv", "\ufeff" + HEADER.strip() + "\r\n0,new,1,sell,2,3\r\n")
    assert [row.id for row in read_flow(flow)] == ["1"]


@pytest.mark.parametrize(
    ("text", "number"), [("5e-05", "0.00005"), ("0.10", "0.10"), ("1E+3", "1000"), ("7", "7"), ("0", "0")]
)
def test_amounts_are_exact_and_written_without_an_exponent(tmp_path: Path, text: str, number: str) -> None:
    flow = write(tmp_path / "flow.csv", HEADER + f"0,cancel,1,buy,1,{text}\n")
    [row] = read_flow(flow)
    assert row.quantity == Decimal(number)
    assert decimal_text(row.quantity) == number


GOOD = {"elapsed_ms": "0", "action": "new", "id": "1", "side": "buy", "price": "10", "quantity": "1"}


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("elapsed_ms", "soon", "whole number"),
        ("elapsed_ms", "1.5", "whole number"),
        ("elapsed_ms", "²", "whole number"),
        ("elapsed_ms", "9" * 30, "whole number"),
        ("action", "amend", "must be one of new, cancel, change"),
        ("id", "", "letters"),
        ("id", "a b", "letters"),
        ("id", "x" * 65, "1 to 64"),
        ("side", "BUY", "must be one of buy, sell"),
        ("price", "0", "more than zero"),
        ("price", "-1", "decimal"),
        ("price", "NaN", "decimal"),
        ("price", "Infinity", "decimal"),
        ("price", "1e400", "20 digits"),
        ("price", "ten", "decimal"),
        ("price", "", "decimal"),
        ("quantity", "0", "more than zero for a new order"),
        ("quantity", "1e-21", "20 digits"),
        ("quantity", "1" * 41, "decimal"),
    ],
)
def test_what_breaks_a_rule_is_named_with_its_line(tmp_path: Path, field: str, value: str, rule: str) -> None:
    good, bad = (",".join(row.values()) + "\n" for row in (GOOD, {**GOOD, field: value}))
    rows = read_flow(write(tmp_path / "flow.csv", HEADER + good + bad + good))
    assert next(rows).id == "1"
    with pytest.raises(FlowError) as caught:
        next(rows)
    assert (caught.value.line, caught.value.field) == (3, field)
    assert rule in caught.value.rule
    assert str(caught.value).startswith(f"line 3: {field} ")


@pytest.mark.parametrize(
    ("content", "line", "field"),
    [
        pytest.param(b"", 1, "header", id="empty"),
        pytest.param(b"time,action\n", 1, "header", id="other columns"),
        pytest.param(HEADER.encode() + b"0,new,1,buy,10\n", 2, "line", id="too few fields"),
        pytest.param(HEADER.encode() + b"0,new,1,buy,10,1,9\n", 2, "line", id="too many fields"),
        pytest.param(HEADER.encode() + b"0,new,1,buy,10,\xff\n", None, "line", id="not UTF-8"),
        pytest.param(HEADER.encode() + b"x" * (LINE_LENGTH + 1), 2, "line", id="endless line"),
        pytest.param(HEADER.encode() + b'0,new,1,buy,10,"1\n', None, "line", id="open quote"),
        pytest.param(gzip.compress(HEADER.encode(), mtime=0)[:-9], None, "file", id="cut gzip"),
        pytest.param(b"\x1f\x8bno gzip at all", None, "file", id="no gzip"),
    ],
)
def test_what_is_no_flow_file_is_refused(
    tmp_path: Path, content: bytes, line: int | None, field: str
) -> None:
    path = tmp_path / "flow"
    path.write_bytes(content)
    with pytest.raises(FlowError) as caught:
        list(read_flow(path))
    assert caught.value.field == field
    assert line is None or caught.value.line == line


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(read_flow(tmp_path / "none.csv"))


amounts = st.decimals(min_value="0.00000001", max_value="99999999", places=8)
rows = st.builds(
    Row,
    elapsed_ms=st.integers(-(10**6), 10**9),
    action=st.sampled_from(["new", "cancel", "change"]),
    id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}", fullmatch=True),
    side=st.sampled_from(["buy", "sell"]),
    price=amounts,
    quantity=amounts,
)


@given(st.lists(rows, max_size=20))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, flow: list[Row]) -> None:
    text = io.StringIO()
    assert write_flow(flow, text) == len(flow)
    path = write(tmp_path_factory.mktemp("flow") / "flow.csv", text.getvalue())
    assert list(read_flow(path)) == flow


if REAL_FLOW.exists():

    def test_recorded_flow_is_read() -> None:
        recorded = list(itertools.islice(read_flow(REAL_FLOW), 10_000))
        assert len(recorded) == 10_000
        assert {row.action for row in recorded} == {"new", "cancel", "change"}
        assert any(row.elapsed_ms < 0 for row in recorded)
        assert any(not row.quantity for row in recorded)
