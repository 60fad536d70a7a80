"""Whoever reads the output of an example or a command goes early (``| head -1``): it ends quietly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from grenache_py.endings import quiet_end
from grenache_py.testing import Grapes
from tests.harness import ROOT, Process

LIMIT_S = 60


@pytest.fixture(scope="module")
def grape() -> Iterator[str]:
    """A Grape, with a worker and a publisher."""
    with Grapes() as (grape, *_):
        processes = [
            Process([sys.executable, str(ROOT / "examples" / name), *more, "--grape", grape.url])
            for name, *more in (("worker.py",), ("pub_sub.py", "publish"))
        ]
        for process in processes:
            process.next_line()
        yield grape.url
        statuses = [process.stop() for process in processes]
        assert statuses == [0, 0]


def ends_quietly(*argv: str) -> None:
    """Its output is a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, *argv],
            stdout=write,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            cwd=ROOT,
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "argv",
    [
        ("client.py",),
        ("aio_client.py",),
        ("worker.py",),
        ("aio_worker.py",),
        ("ws_worker.py",),
        ("put_get.py",),
        ("put_mutable.py",),
        ("pub_sub.py", "publish"),
        ("pub_sub.py", "subscribe"),
        ("orderbook_worker.py", "--name", "alice", "--api-port", "0"),
    ],
    ids=" ".join,
)
def test_examples(grape: str, argv: tuple[str, ...]) -> None:
    name, *more = argv
    ends_quietly(f"examples/{name}", *more, "--grape", grape)


@pytest.mark.parametrize(
    "argv",
    [
        ("-m", "grenache_py.grape", "--dp", "0", "--aph", "0", "-b", "127.0.0.1"),
        ("-m", "grenache_py.cli", "lookup", "rpc_test", "--grape"),
        (
            "-m",
            "orderbook",
            "peer",
            "--name",
            "alice",
            "--api",
            "127.0.0.1:0",
            "--host",
            "127.0.0.1",
            "--grape",
        ),
        ("-m", "orderbook", "demo", "--rows", "10"),
        ("-m", "orderbook", "flow", "--rows", "100000"),
    ],
    ids=lambda argv: " ".join(argv[1:3]),
)
def test_commands(grape: str, argv: tuple[str, ...]) -> None:
    ends_quietly(*argv, *([grape] if argv[-1] == "--grape" else []))


def test_a_subscriber_whose_reader_goes_later_ends_as_well(grape: str) -> None:
    argv = [sys.executable, "examples/pub_sub.py", "subscribe", "--grape", grape]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        lines = [child.stdout.readline() for _ in range(3)]
        child.stdout.close()
        assert (child.wait(LIMIT_S), child.stderr.read()) == (1, "")
    assert "says: message" in lines[2]


def test_ctrl_c_ends_a_program_as_shells_expect() -> None:
    with pytest.raises(SystemExit) as caught, quiet_end():
        raise KeyboardInterrupt
    assert caught.value.code == 128 + signal.SIGINT
