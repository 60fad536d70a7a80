"""Real processes for the tests: start one, read what it says, stop it.

A process speaks to its test in lines on standard output. The Node scripts in ``interop/js`` print one JSON
object per line, the first of which is ``{"ready": …}`` with the ports they were given.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import pytest

from grenache_py.commands.version import is_compiled

HERE = Path(__file__).parent
NODE_SCRIPTS = HERE / "interop" / "js"
NODE_MODULES = HERE / "interop" / "node_modules"
ROOT = HERE.parent
COMPILED = ROOT / os.environ.get("COMPILED", "build/compiled")  # make test-python has one for each Python
IS_COMPILED = is_compiled("orderbook.names")
"""Whether the modules that setup.py compiles are imported as that."""

START_TIMEOUT_S = 30.0
OUTPUT_ENDS_S = 5.0


class Process:
    """A child process whose output is read line by line; stopped by its own id and nobody else's."""

    def __init__(self, argv: Sequence[str], *, env: dict[str, str] | None = None, cwd: Path | None = None):
        self.argv = list(argv)
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        self._popen = subprocess.Popen(
            self.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            bufsize=1,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,  # a group of its own, so that what it left behind can be ended
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line.rstrip("\n"))
            self._unread.put(line.rstrip("\n"))
        self._unread.put(None)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    def next_line(self, timeout_s: float = START_TIMEOUT_S) -> str:
        """The next line of output; fails the test when the process ends or says nothing in time."""
        try:
            line = self._unread.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no output within {timeout_s} s from {self._describe()}") from None
        if line is None:
            self._unread.put(None)
            raise AssertionError(f"ended early: {self._describe()}")
        return line

    def next_json(self, timeout_s: float = START_TIMEOUT_S) -> Any:
        """The next line that is a JSON object or array; other lines (warnings) are passed over."""
        deadline = time.monotonic() + timeout_s
        while True:
            line = self.next_line(max(0.0, deadline - time.monotonic()))
            if line.startswith(("{", "[")):
                return json.loads(line)

    def send_json(self, message: Any) -> None:
        """One line of JSON to the process's standard input."""
        self.send_line(json.dumps(message))

    def send_line(self, line: str) -> None:
        """One line of text to the process's standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._popen.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """``kill -9``, and wait for the end."""
        self._popen.kill()
        self._finish()

    def stop(self, timeout_s: float = 10.0) -> int:
        """SIGTERM, then SIGKILL when it does not go in time. Returns the exit status."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._popen.kill()
        self._finish()
        return self._popen.returncode

    def wait(self, timeout_s: float) -> int:
        """Wait for the process to end by itself. Returns the exit status."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s: {self._describe()}") from None
        self._finish()
        return self._popen.returncode

    def _finish(self) -> None:
        self._popen.wait()
        self._reader.join(OUTPUT_ENDS_S)
        orphaned = self._reader.is_alive()
        if orphaned:
            os.killpg(self.pid, signal.SIGKILL)
            self._reader.join(OUTPUT_ENDS_S)
        for stream in (self._popen.stdin, self._popen.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass  # unsent input of a process that is gone
        if orphaned:
            raise AssertionError(f"it left a child that held its output: {self._describe()}")

    def _describe(self) -> str:
        said = "\n".join(self.lines[-20:]) or "(nothing)"
        return f"{' '.join(self.argv)} (status {self.returncode}); it said:\n{said}"


def need_compiled() -> dict[str, str]:
    """An environment in which the packages are those of ``make compiled``; skips the test where they are not
    compiled, fails it with CI=true."""
    if any(COMPILED.glob(f"*{EXTENSION_SUFFIXES[0]}")):
        return {**os.environ, "PYTHONPATH": os.pathsep.join((str(COMPILED), str(ROOT)))}
    missing = "nothing is compiled (run: make compiled, where there is a C compiler)"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI=true needs it")
    pytest.skip(missing)


def need_node() -> str:
    """The path of ``node``; skips the test where Node or its packages are missing, fails it with CI=true."""
    node = shutil.which("node")
    missing = None
    if node is None:
        missing = "node is not installed"
    elif not NODE_MODULES.is_dir():
        missing = "npm packages are not installed (run: make node)"
    if missing is None:
        assert node is not None
        return node
    if os.environ.get("CI") == "true":
        pytest.fail(f"{missing}, and CI=true needs the interop tests")
    pytest.skip(missing)


def start_node(script: str, conf: Any = None) -> tuple[Process, Any]:
    """Run ``interop/js/<script>`` with ``conf`` as its JSON argument; returns it and what it said first."""
    process = Process([need_node(), str(NODE_SCRIPTS / script), json.dumps(conf or {})])
    try:
        return process, process.next_json()["ready"]
    except BaseException:
        process.stop()
        raise


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port on loopback that was free a moment ago. Prefer port 0 wherever the program can take it."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(check: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """As :func:`eventually`, for code on an event loop."""
    deadline = time.monotonic() + timeout_s
    while not (result := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or check}")
        await asyncio.sleep(0.01)
    return result


def eventually(check: Callable[[], Any], timeout_s: float = 10.0, what: str = "") -> Any:
    """Call ``check`` until what it returns is true, and return that. Fails with ``what`` after a while."""
    deadline = time.monotonic() + timeout_s
    pause_s = 0.005
    while True:
        result = check()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what or check}")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.1)
