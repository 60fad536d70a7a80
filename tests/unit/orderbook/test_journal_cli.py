"""``orderbook journal``: what it shows, exports, verifies and compacts, and what it says of damaged files."""

from __future__ import annotations

import gzip
import json
import resource
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
from click.testing import CliRunner, Result

from orderbook import limits
from orderbook.cli import main
from orderbook.events import (
    Accepted,
    Amended,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    Requeued,
    Signed,
    Switched,
    Triggered,
)
from orderbook.journal.file import JournalFile
from orderbook.journal.rows import checksum
from orderbook.journal.schema import meta_checksum
from orderbook.terms import Terms, TimeInForce

META = {"peer": "ann", "market": "SIM", "tick": "0.5", "lot": "0.01", "instrument": "x"}

EVENTS: list[Event] = [
    Accepted("o1", "owner", "buy", 200, 1_000, 1_700_000_000_000, "mine"),
    Accepted("o2", "owner", "sell", 210, 500, 1_700_000_000_001),
    Intended("m1", "o1", "bob", "b:1", "lock", (("t1", 199, 300), ("t2", 200, 100))),
    Executed("m1", 199, 300, "t1", "o1", "bob", "ann", 1_700_000_000_002),
    Executed("m1", 200, 100, "t2", "o1", "bob", "ann", 1_700_000_000_002),
    Intended("m2", "o2", "bob", "b:1", "lock2", (("t3", 210, 200),)),
    Cancelled("o1"),
    Intended("m3", "o2", "bob", "b:1", "lock3", tuple((f"t{n}", 210, 20) for n in range(4, 9))),
    Refused("m3"),
    Signed("m1", {"type": "CrossPeerMatch"}, {"status": "committed"}),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with all kinds of events."""
    path = tmp_path / "SIM.journal"
    append(path, EVENTS)
    return path


def append(path: Path, events: Sequence[Event], meta: dict[str, str] = META) -> None:
    file = JournalFile(path, create=meta)
    file.write(events)
    file.close()


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def replace_event(path: Path, number: int, plain: object) -> None:
    """Forge an event, with the right checksum."""
    data = plain if isinstance(plain, bytes) else msgpack.packb(plain)
    statement = "UPDATE events SET data = ?, checksum = ? WHERE number = ?"
    change(path, statement, data, checksum(number, data), number)


def run(command: str, *arguments: object) -> Result:
    result = CliRunner().invoke(main, ["journal", command, *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def said(command: str, *arguments: object) -> list[str]:
    """The lines that a command printed, which worked."""
    result = run(command, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def records(command: str, *arguments: object) -> list[Any]:
    return [json.loads(line) for line in said(command, *arguments)]


# -- show ------------------------------------------------------------------------------------------------


def test_show_has_a_line_for_each_event(path: Path) -> None:
    title, heading, *lines = said("show", path)
    assert title == "ann's journal of SIM"
    assert heading.split() == ["number", "time", "event", "id", "what"]
    assert [line.split()[0] for line in lines] == [str(n + 1) for n in range(len(EVENTS))]
    place = heading.index("what")
    assert [line[place:] for line in lines] == [
        "buy 10 at 100.0 for owner, who calls it mine",
        "sell 5 at 105.0 for owner",
        "o1 asks bob for 3 at 99.5 of t1, 1 at 100.0 of t2",
        "3 at 99.5: maker bob t1, taker ann o1",
        "1 at 100.0: maker bob t2, taker ann o1",
        "o2 asks bob for 2 at 105.0 of t3",
        "what is left of it is taken back",
        "o2 asks bob for 0.2 at 105.0 of t4, 0.2 at 105.0 of t5, 0.2 at 105.0 of t6, 2 more",
        "the maker says no",
        "signed by both peers",
    ]
    assert "2023-11-1" in lines[0]
    assert lines[6].split()[1:3] == ["cancelled", "o1"]


def test_the_tail_is_the_end(path: Path) -> None:
    everything = said("show", path)
    assert said("show", path, "--tail", 2) == everything[:2] + everything[-2:]
    assert said("show", path, "--tail", 1000) == everything


@pytest.mark.parametrize(
    ("order", "numbers"),
    [("o1", [1, 3, 4, 5, 7, 10]), ("o2", [2, 6, 8, 9]), ("t3", [6]), ("t8", [8, 9]), ("none", [])],
)
@pytest.mark.parametrize("compacted", [False, True])
def test_one_order(path: Path, order: str, numbers: list[int], compacted: bool) -> None:
    if compacted:
        run("compact", path)
        append(path, [Refused("m2")])
        trades = {"o1": [4, 5, 10]}
        snapshot = {"o1": [10], "o2": [10, 10, 11], "t3": [10, 11]}  # of m3 nothing is left
        numbers = trades.get(order, []) + snapshot.get(order, [])
    assert [line["number"] for line in records("show", path, "--order", order, "--json")] == numbers
    text = said("show", path, "--order", order)
    assert len(text) == 2 + max(1, len(numbers))
    if not numbers:
        assert text[-1] == f"no events about order {order}"


def test_an_empty_journal(tmp_path: Path) -> None:
    append(tmp_path / "new", [])
    assert said("show", tmp_path / "new")[-1] == "no events"
    assert said("export", tmp_path / "new") == []
    assert "0 events, 0 trades, 0 orders (0 live)" in said("verify", tmp_path / "new")[1]


NASTY = "\x1b[2J\u202e\n[red]"


def test_nothing_in_a_file_speaks_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "SIM.journal"
    nasty: list[Event] = [
        Accepted(NASTY, NASTY, NASTY, 1, 1, 10**17, NASTY),
        Cancelled(NASTY),
        Executed(NASTY, 1, 1, NASTY, NASTY, NASTY, NASTY, -(10**17)),
        Intended(NASTY, NASTY, NASTY, NASTY, NASTY, ((NASTY, 1, 1),)),
        Refused(NASTY),
        Signed(NASTY, {NASTY: NASTY}, {}),
    ]
    append(path, nasty, {**META, "peer": NASTY})
    for result in (
        run("show", path),
        run("show", path, "--order", NASTY),
        run("show", path, "--json"),
        run("verify", path),
        run("verify", path, "--json"),
        run("export", path),
        run("compact", path),
    ):
        assert "\x1b" not in result.output
        assert "\u202e" not in result.output
        assert "\n[red]" not in result.output
    assert len(said("show", path)) == 2 + len(nasty)
    assert r"\x1b[2J\u202e\n[red]" in said("show", path)[2]


# -- export ----------------------------------------------------------------------------------------------


def test_export_is_json_with_decimals(path: Path) -> None:
    lines = records("export", path)
    assert lines == records("show", path, "--json")
    assert [line["number"] for line in lines] == list(range(1, 11))
    assert lines[0] == {
        "number": 1,
        "type": "accepted",
        "order_id": "o1",
        "owner": "owner",
        "side": "buy",
        "price": "100.0",
        "quantity": "10",
        "time_ms": 1_700_000_000_000,
        "client_order_id": "mine",
    }
    assert lines[2]["fills"] == [
        {"order_id": "t1", "price": "99.5", "quantity": "3"},
        {"order_id": "t2", "price": "100.0", "quantity": "1"},
    ]
    assert lines[8] == {"number": 9, "type": "refused", "match_id": "m3"}
    proof = {"request": {"type": "CrossPeerMatch"}, "answer": {"status": "committed"}}
    assert lines[9] == {"number": 10, "type": "signed", "match_id": "m1", **proof}


def test_export_of_a_compacted_journal(path: Path) -> None:
    trades = [line for line in records("export", path) if line["type"] in ("executed", "signed")]
    run("compact", path)
    append(path, [Refused("m2")])
    lines = records("export", path)
    assert lines[:3] == trades, "with their old numbers"
    assert [(line["number"], line["type"], "snapshot" in line) for line in lines[3:]] == [
        (10, "accepted", True),
        (10, "accepted", True),
        (10, "intended", True),
        (11, "refused", False),
    ]
    first, second, unanswered = lines[3:6]
    assert (first["order_id"], first["filled"], first["cancel_requested"]) == ("o1", "4", True)
    assert (second["order_id"], second["filled"], second["cancel_requested"]) == ("o2", "0", False)
    assert (unanswered["match_id"], unanswered["maker"]) == ("m2", "bob")
    assert "by the snapshot 4 filled, cancelled" in said("show", path)[5]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_export_to_a_file(path: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    assert said("export", path, "--output", output) == [f"10 lines written to {output}"]
    raw = output.read_bytes()
    text = gzip.decompress(raw).decode() if name.endswith(".gz") else raw.decode()
    assert [json.loads(line) for line in text.splitlines()] == records("export", path)


def test_export_does_not_overwrite_the_journal(path: Path, tmp_path: Path) -> None:
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for output in (path, tmp_path / "link"):
        result = run("export", path, "--output", output)
        assert (result.exit_code, path.read_bytes()) == (2, before)
        assert "must not be the journal itself" in result.stderr


def test_an_output_that_cannot_be_written_is_named(path: Path, tmp_path: Path) -> None:
    result = run("export", path, "--output", tmp_path / "no" / "folder")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr


# -- verify and compact ----------------------------------------------------------------------------------


def test_verify_counts(path: Path) -> None:
    before = path.read_bytes()
    first, second = said("verify", path)
    assert first == "ann's journal of SIM is sound."
    assert second.startswith("10 events, 2 trades, 2 orders (1 live), 1 confirmations without an answer, ")
    [found] = records("verify", path, "--json")
    assert found == {
        "ok": True,
        "peer": "ann",
        "market": "SIM",
        "events": 10,
        "snapshot_number": 0,
        "trades": 2,
        "orders": 2,
        "live_orders": 1,
        "unanswered_confirmations": 1,
        "bytes": len(before),
    }
    assert path.read_bytes() == before, "it was only read"


def test_compact_says_what_it_saved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_CLOSED_ORDERS", 10)
    closed: list[Event] = []
    for n in range(3, 5_003):
        closed += [Accepted(f"o{n}", "owner", "buy", 1, 1, 0), Cancelled(f"o{n}")]
    append(path, closed)
    before = path.stat().st_size
    [text] = said("compact", path)
    after = path.stat().st_size
    assert after < before / 4
    assert text == f"10,010 events became a snapshot: {before:,} bytes before, {after:,} after"
    counts = "0 events after a snapshot of the first 10,010, 2 trades, 11 orders (1 live)"
    assert counts in said("verify", path)[1]
    [again] = records("compact", path, "--json")
    assert again == {"events": 0, "bytes_before": after, "bytes_after": after}


def test_a_full_disk_stops_compaction_and_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compact = JournalFile.compact

    def without_room(file: JournalFile) -> None:
        _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
        try:
            compact(file)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    append(path, [Executed(f"x{n}", 210, 1, "o2", "theirs", "ann", "bob", 0) for n in range(200)])
    lines = said("export", path)
    with monkeypatch.context() as patched:
        patched.setattr(JournalFile, "compact", without_room)
        result = run("compact", path)
    assert result.exit_code == 1
    assert "can't be compacted (disk I/O error); nothing is lost" in result.stderr
    assert said("export", path) == lines


@pytest.mark.parametrize("command", ["show", "verify", "export", "compact"])
def test_a_journal_in_use_or_of_another_kind_is_refused(path: Path, tmp_path: Path, command: str) -> None:
    file = JournalFile(path)
    result = run(command, path)
    assert result.exit_code == 1
    assert "in use by this process: stop it first" in result.stderr
    file.close()

    other = tmp_path / "other"
    other.write_bytes(b"hello" * 50)
    result = run(command, other)
    assert result.exit_code == 1
    assert "is no journal" in result.stderr
    assert run(command, tmp_path / "missing").exit_code == 2
    assert run(command, tmp_path).exit_code == 2


def test_a_journal_without_its_redo_log_is_shown_and_goes_on_only_when_told_to(path: Path) -> None:
    whole = said("export", path)
    shown = said("show", path)
    file = JournalFile(path)
    file.begin_redo()
    file.close()
    log = path.with_name(path.name + "-redo")
    log.rename(path.with_name("aside"))
    before = path.read_bytes()
    for command, lines in ("export", whole), ("show", shown):
        result = run(command, path)
        assert (result.exit_code, result.stdout.splitlines()) == (0, lines)
        assert "Warning: " in result.stderr
        assert "parted from its redo log" in result.stderr
    result = run("verify", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "may be missing; what there is up to event 10 is sound" in result.stderr
    assert "parted from" in json.loads(run("verify", path, "--json").stdout)["error"]["message"]
    result = run("compact", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "put the log back beside it, or restore a copy of both; or go on" in result.stderr
    assert path.read_bytes() == before

    assert said("accept-loss", path) == [f"{path} goes on after event 10; what came after that is lost."]
    assert "is sound" in said("verify", path)[0]
    assert said("export", path) == whole
    result = run("accept-loss", path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "lacks nothing" in result.stderr


DAMAGES = [
    ("UPDATE trades SET data = zeroblob(length(data)) WHERE number = 5", "row 5 of trades has changed"),
    ("UPDATE events SET data = zeroblob(length(data)) WHERE number = 6", "row 6 of events has changed"),
    ("UPDATE events SET data = 'text' WHERE number = 6", "row 6 of events has changed"),
    ("DELETE FROM events WHERE number = 6", "event 6 is missing"),
    ("UPDATE events SET number = -6 WHERE number = 6", "event 6 is missing"),
    ("DROP TABLE snapshot", "its tables are not those of a journal"),
    ("DROP TABLE trades", "its tables are not those of a journal"),
]


@pytest.mark.parametrize(("damage", "text"), DAMAGES)
def test_damage_is_named_and_what_comes_before_it_is_exported(path: Path, damage: str, text: str) -> None:
    whole = said("export", path)
    change(path, damage)
    before = path.read_bytes()
    for command in ("verify", "compact"):
        result = run(command, path)
        assert result.exit_code == 1, command
        assert text in result.stderr
        assert result.stdout == ""
        assert path.read_bytes() == before
    result = run("verify", path, "--json")
    assert text in json.loads(result.stdout)["error"]["message"]
    result = run("export", path)
    assert result.exit_code == 1
    assert text in result.stderr
    got = result.stdout.splitlines()
    assert got == whole[: len(got)]
    assert len(got) == (0 if "DROP" in damage else int(text.split()[1]) - 1)


FORGERIES = [
    (b"\xc1", "no event"),
    (["list"], "no event"),
    ({"type": "accepted", "order_id": 5}, "no event"),
    ({"type": "cancelled", "order_id": "x"}, "of which nothing is known"),
    (
        {
            "type": "accepted",
            "order_id": "o1",
            "owner": "",
            "side": "x",
            "price": 1,
            "quantity": 1,
            "time_ms": 1,
        },
        "can't have happened: 'x' is not a valid Side",
    ),
]


@pytest.mark.parametrize(("plain", "text"), FORGERIES)
def test_forged_events_with_right_checksums_are_no_surprise(path: Path, plain: object, text: str) -> None:
    replace_event(path, 1, plain)
    result = run("verify", path)
    assert result.exit_code == 1
    assert text in result.stderr
    assert run("show", path).exit_code in (0, 1)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tick": "0"}, "tick must be more than zero"),
        ({"tick": None}, "does not name its tick"),
        ({"lot": None}, "does not name its lot"),
        ({"market": None}, "does not name its market"),
        ({"peer": None}, "does not name its peer"),
        ({"market": NASTY}, "market must be"),
    ],
)
def test_a_journal_that_does_not_say_whose_it_is(
    tmp_path: Path, changes: dict[str, str | None], text: str
) -> None:
    path = tmp_path / "SIM.journal"
    append(path, [])
    meta = {key: value for key, value in {**META, **changes}.items() if value is not None}
    change(path, "DELETE FROM meta")
    for row in (*meta.items(), ("checksum", meta_checksum(meta))):
        change(path, "INSERT INTO meta VALUES (?, ?)", *row)
    for command in ("show", "verify", "export", "compact"):
        result = run(command, path)
        assert result.exit_code == 1
        assert text in result.stderr


def test_flipped_bytes_are_found_or_harmless(path: Path) -> None:
    """No byte that changes makes a command fail in a way that it does not explain."""
    whole, truth, random = path.read_bytes(), said("export", path), Random(7)
    written = [place for place, byte in enumerate(whole) if byte]
    found = 0
    for _ in range(150):
        place = random.choice(written)
        flipped = bytes([whole[place] ^ (1 << random.randrange(8))])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
        result = run("verify", path)
        exported = run("export", path)
        if result.exit_code == 0:
            assert exported.stdout.splitlines() == truth
        else:
            assert result.exit_code == 1
            assert "Error: " in result.stderr
            found += 1
    assert found > 10


def test_pairs_changes_and_states_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "SIM.journal"
    stop = Terms(stop_price=190, market=True, time_in_force=TimeInForce.IOC)
    events: list[Event] = [
        Accepted("s", "sue", "sell", 0, 500, 1_700_000_000_000, terms=stop, partner="r"),
        Accepted("r", "sue", "sell", 220, 500, 1_700_000_000_000, partner="s"),
        Amended("r", 230, 400),
        Switched("halted", "ops", 1_700_000_000_001),
        Requeued("r"),
        Cancelled("r", "partner"),
        Triggered("s"),
    ]
    append(path, events)
    lines = said("show", path)
    for line, part in zip(
        lines[-7:],
        (
            "5 at any price for sue, ioc, stop at 95.0, one of a pair with r",
            "5 at 110.0 for sue, one of a pair with s",
            "it is 4 at 115.0 now",
            "ops says that the market is halted",
            "it is the last in the queue of its price now",
            "what is left of it is taken back: partner",
            "its stop price has come",
        ),
        strict=True,
    ):
        assert part in line
    exported = records("export", path)
    assert [record.get("partner") for record in exported[:2]] == ["r", "s"]
    assert exported[3] == {
        "number": 4,
        "type": "switched",
        "state": "halted",
        "by": "ops",
        "time_ms": 1_700_000_000_001,
    }
    assert [record["type"] for record in records("show", path, "--order", "r", "--json")] == [
        "accepted",
        "amended",
        "requeued",
        "cancelled",
    ]
    assert run("verify", path).exit_code == 0
