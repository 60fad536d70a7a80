"""Commands as child processes: input, output, limits, and that none is left behind."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from grenache_py import limits
from grenache_py.commands.child import TooLong, TooMuch, run_command
from tests.harness import until

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

MEGABYTE = 1024 * 1024


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether it runs; what is dead and not yet buried by its new parent does not."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_input_output_messages_and_status():
    ended = await run_command(
        python(
            "import sys; print(sys.stdin.read() * 2, end=''); print('a\\n b \\n', file=sys.stderr); exit(3)"
        ),
        b"ab",
        10,
        MEGABYTE,
    )
    assert (ended.status, ended.output, ended.last_line) == (3, b"abab", "b")


async def test_much_of_everything_at_the_same_time():
    code = (
        "import sys\nsys.stderr.write('x' * 1_000_000 + '\\nthe end')\nsys.stdout.write(sys.stdin.read())\n"
    )
    given = b"y" * MEGABYTE
    ended = await run_command(python(code), given, 20, MEGABYTE)
    assert ended.output == given
    assert ended.last_line == "the end"


async def test_a_command_need_not_read_its_input():
    ended = await run_command(["true"], b"x" * MEGABYTE, 10, MEGABYTE)
    assert ended.status == 0


async def test_the_last_line_is_kept_within_bounds():
    ended = await run_command(python("import sys; sys.stderr.write('x' * 100_000)"), b"", 10, 10)
    assert len(ended.last_line) == limits.EXEC_STDERR_BYTES


async def test_a_signal_is_a_negative_status():
    ended = await run_command(python("import os; os.kill(os.getpid(), 9)"), b"", 10, 10)
    assert ended.status == -9


async def test_who_runs_too_long_is_killed_with_all_it_has_started(tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! > {pids}; echo $$ >> {pids}; trap '' TERM; wait"
    started = time.monotonic()
    with pytest.raises(TooLong):
        await run_command(["sh", "-c", script], b"", 0.5, 10)
    assert time.monotonic() - started < 5
    left = [int(pid) for pid in pids.read_text().split()]
    await until(lambda: not any(map(alive, left)), what=f"processes {left} are gone")


async def test_who_writes_too_much_is_killed():
    with pytest.raises(TooMuch):
        await run_command(["yes"], b"", 30, MEGABYTE)


async def test_a_cancelled_call_leaves_no_process(tmp_path):
    file = tmp_path / "pid"
    running = asyncio.ensure_future(run_command(["sh", "-c", f"echo $$ > {file}; sleep 60"], b"", 60, 10))
    await until(lambda: file.exists() and file.read_text().strip())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until(lambda: not alive(int(file.read_text())))


async def test_a_call_that_is_cancelled_while_it_starts_leaves_no_process(tmp_path):
    # At any moment of the start, so also before its process is known of.
    for turns in range(6):
        mark = f"left-{tmp_path.name}-{turns}"
        running = asyncio.ensure_future(run_command(["sh", "-c", "sleep 60", mark], b"", 60, 10))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await until(partial(none_runs_as, mark))


def none_runs_as(mark: str) -> bool:
    """Whether there is no process with that word on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                return False
    return True


async def test_who_has_left_the_group_holds_nobody_up(tmp_path):
    """A daemon that keeps the output open: the command is over at the time limit, the daemon lives on."""
    file = tmp_path / "pid"
    code = (
        "import os, time\n"
        "if not os.fork():\n"
        f"    os.setsid(); open({str(file)!r}, 'w').write(str(os.getpid())); time.sleep(30)"
    )
    started = time.monotonic()
    with pytest.raises(TooLong):
        await run_command(python(code), b"", 0.5, 10)
    assert time.monotonic() - started < 5
    pid = int(file.read_text())
    assert alive(pid)
    os.kill(pid, 9)


async def test_no_such_command():
    with pytest.raises(FileNotFoundError):
        await run_command(["/no/such/command"], b"", 10, 10)
