"""The two flavours are the same to their users; importing the package is light."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import grenache_py
import grenache_py.aio
from grenache_py import errors
from tests.harness import IS_COMPILED

CLASSES = [
    "Link",
    "PeerRPCClient",
    "PeerRPCServer",
    "Service",
    "Handler",
    "Item",
    "PutReport",
    "MapResult",
    "Worker",
    "ActionClient",
]

# Where one flavour needs what the other does not, and why.
ONLY_SYNC = {
    ("PeerRPCServer", "__init__", "threads"),
    ("Service", "__init__", "threads"),
    ("Service", "__init__", "concurrency"),
    ("Worker", "__init__", "threads"),
}


def public(cls: type) -> dict[str, Any]:
    """Its own and inherited members, under the names of the synchronous flavour."""
    renamed = {"__aenter__": "__enter__", "__aexit__": "__exit__"}
    names = [name for name in dir(cls) if not name.startswith("_") or name in (*renamed, *renamed.values())]
    return {renamed.get(name, name): getattr(cls, name) for name in [*names, "__init__"]}


def parameters(cls_name: str, name: str, member: Any) -> list[tuple[str, str, object, object]]:
    return [
        (parameter.name, parameter.kind.name, parameter.default, parameter.annotation)
        for parameter in inspect.signature(member).parameters.values()
        if (cls_name, name, parameter.name) not in ONLY_SYNC
    ]


@pytest.mark.parametrize("cls_name", CLASSES)
def test_public_signatures_are_the_same(cls_name):
    sync, aio = public(getattr(grenache_py, cls_name)), public(getattr(grenache_py.aio, cls_name))
    assert sorted(sync) == sorted(aio)
    for name, member in sync.items():
        assert callable(member) == callable(aio[name]), name
        if callable(member):
            assert parameters(cls_name, name, member) == parameters(cls_name, name, aio[name]), name
            returned = [inspect.signature(each).return_annotation for each in (member, aio[name])]
            if returned[0] == "Iterator[MapResult]":
                returned[0] = f"Async{returned[0]}"
            assert returned[0] == returned[1], name


@pytest.mark.skipif(IS_COMPILED, reason="what is compiled keeps no docstrings")
def test_everything_public_has_a_docstring():
    for flavour in (grenache_py, grenache_py.aio):
        for cls_name in CLASSES:
            cls = getattr(flavour, cls_name)
            assert inspect.getdoc(cls), cls
            for name, member in public(cls).items():
                if not name.startswith("_") and (callable(member) or isinstance(member, property)):
                    assert inspect.getdoc(member), (flavour.__name__, cls_name, name)


def test_all_names_can_be_imported():
    for flavour in (grenache_py, grenache_py.aio):
        for name in flavour.__all__:
            assert getattr(flavour, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        grenache_py.nonsense  # noqa: B018
    assert grenache_py.errors is errors


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import grenache_py", ["requests", "aiohttp", "httptools", "cryptography", "kademlia", "msgspec"]),
        ("import grenache_py.aio", ["requests", "urllib3", "aiohttp", "kademlia", "cryptography"]),
        ("from grenache_py import Link", ["aiohttp", "asyncio", "kademlia", "cryptography"]),
    ],
)
def test_what_is_not_used_is_not_imported(statement, absent):
    script = f"{statement}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
