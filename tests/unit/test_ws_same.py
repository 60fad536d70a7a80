"""The two flavours over WebSocket are the same to their users."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import grenache_py.aio.ws
import grenache_py.ws

CLASSES = [name for name in grenache_py.ws.__all__ if name not in ("Handler", "Visitor")]
# The number of threads, which asyncio has no use for, and that of handlers, which need no counting there.
ONLY_SYNC = {("PeerRPCServer", "__init__", "threads"), ("Service", "__init__", "threads")}
ONLY_SYNC |= {("Service", "__init__", "concurrency")}
# A loop that polls for requests; with threads that gains nothing.
ONLY_AIO = {("PeerRPCServer", "__init__", "busy_poll_us")}
RENAMED = {"__aenter__": "__enter__", "__aexit__": "__exit__"}


def public(cls: type) -> dict[str, object]:
    """Its own and inherited members, under the names of the synchronous flavour."""
    names = [name for name in dir(cls) if not name.startswith("_") or name in (*RENAMED, *RENAMED.values())]
    return {RENAMED.get(name, name): getattr(cls, name) for name in [*names, "__init__"]}


def parameters(cls_name: str, name: str, member: object) -> list[tuple[str, str, object]]:
    return [
        (parameter.name, parameter.kind.name, parameter.default)
        for parameter in inspect.signature(member).parameters.values()  # type: ignore[arg-type]
        if (cls_name, name, parameter.name) not in ONLY_SYNC | ONLY_AIO
    ]


def test_the_same_names():
    assert grenache_py.ws.__all__ == grenache_py.aio.ws.__all__


@pytest.mark.parametrize("cls_name", CLASSES)
def test_the_same_signatures(cls_name):
    sync, aio = public(getattr(grenache_py.ws, cls_name)), public(getattr(grenache_py.aio.ws, cls_name))
    assert sorted(sync) == sorted(aio)
    for name, member in sync.items():
        assert callable(member) == callable(aio[name]), name
        if callable(member):
            assert parameters(cls_name, name, member) == parameters(cls_name, name, aio[name]), name
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
            assert inspect.getdoc(aio[name]), name


def test_what_is_not_used_is_not_imported():
    script = "import grenache_py.aio, grenache_py; import sys; print('picows' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("False", "")
