"""What a peer's journal asks of the operating system, and in which order: seen by strace."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from orderbook import limits
from orderbook.events import Cancelled
from orderbook.journal import syncer
from orderbook.journal.writer import SqliteJournal, open_journal
from orderbook.model import Instrument

async def main():
    limits.JOURNAL_CHECKPOINT_WRITES = 7
    syncer.uring = None  # what the kernel does by itself strace does not see
    file, _ = open_journal(Path(sys.argv[1]), "ann", Instrument("SIM"), "full")
    journal = SqliteJournal(file, asyncio.get_running_loop())
    os.write(1, b"open\\n")
    for n in range(30):
        durable = asyncio.Event()
        journal.append([Cancelled(f"o{n}")])
        journal.when_durable(durable.set)
        await durable.wait()
        os.write(1, b"told\\n")
    os.write(1, b"end\\n")
    await journal.close()

asyncio.run(main())
"""
CALL = re.compile(r'^(\d+) +(\w+)\(\d+<([^>]*)>(?:, "([^"]*)")?')
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)")


def test_nothing_is_told_before_its_sync_is_done_and_the_loop_syncs_nothing(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    trace, path = tmp_path / "trace", tmp_path / "SIM.journal"
    watched = "trace=write,pwrite64,fsync,fdatasync"
    strace = ["strace", "-f", "-y", "-o", str(trace), "-e", watched]
    program = [*strace, sys.executable, "-c", PROGRAM, str(path)]
    subprocess.run(program, check=True, timeout=60, stdout=subprocess.PIPE)

    lines = trace.read_text().splitlines()
    loop = next(line.split()[0] for line in lines if '"open' in line)
    log = f"{path}-wal"
    told, running, unsynced = 0, False, False
    begun: set[str] = set()  # threads whose sync covers all that is written
    for line in lines:
        call, resumed = CALL.match(line), RESUMED.match(line)
        if call is not None:
            thread, name, file, data = call.groups()
            if name == "write" and data in ("open\\n", "told\\n", "end\\n"):
                assert not unsynced, line
                told += data == "told\\n"
                running = data != "end\\n"
            elif name == "pwrite64" and file == log:
                unsynced = True
                begun.clear()
            elif name in ("fsync", "fdatasync"):
                assert not (running and thread == loop), line
                if file == log:
                    begun.add(thread)
                    if line.endswith("= 0"):
                        unsynced = False
        elif resumed is not None and resumed[1] in begun and resumed[2] in ("fsync", "fdatasync"):
            unsynced = resumed[3] != "0"
    assert told == 30
