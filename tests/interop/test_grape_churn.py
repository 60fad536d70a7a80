"""Networks of 2 to 7 Grapes, ours and Node's in turn, whose members are killed and come back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from tests.harness import Process, eventually, free_port
from tests.interop.test_grape_mixed import call, check_all_ways, lookup
from tests.node_grapes import NodeGrape


@dataclass
class OurGrape:
    """A Grape of ours as a process, which can be killed."""

    process: Process
    dht_port: int
    url: str

    @property
    def dht_address(self) -> str:
        return f"127.0.0.1:{self.dht_port}"


Member = OurGrape | NodeGrape
Start = Callable[..., OurGrape]


@pytest.fixture
def our_grape(tmp_path: Path) -> Iterator[Start]:
    """Start ``grape-py``, the state in a file of its port; all end with the test."""
    started: list[Process] = []

    def start(bootstrap: list[str], dht_port: int | None = None) -> OurGrape:
        port = dht_port or free_port()
        arguments = ["--dp", str(port), "--aph", "0", "-b", "127.0.0.1", "--state", str(tmp_path / str(port))]
        if bootstrap:
            arguments += ["--bn", ",".join(bootstrap)]
        process = Process([sys.executable, "-m", "grenache_py.grape", *arguments])
        started.append(process)
        return OurGrape(process, port, process.next_line().rpartition(" ")[2])

    yield start
    for process in reversed(started):
        process.stop()


def announced(member: Member, name: str, port: int) -> bool:
    """Announce, and say whether anybody took it.

    A Node Grape that knew nobody when it was first asked keeps an empty table for the name for five minutes;
    only a look-up makes it ask around again.
    """
    if isinstance(call(member, "announce", [name, port])[1], int):
        return True
    lookup(member, name)
    return False


@pytest.mark.parametrize("size", range(2, 8))
def test_members_are_killed_and_come_back(
    size: int, node_grape: Callable[..., NodeGrape], our_grape: Start
) -> None:
    random = Random(size)
    members: list[Member] = []
    for number in range(size):
        bootstrap = [each.dht_address for each in members[:2]]
        members.append(our_grape(bootstrap) if number % 2 else node_grape(bootstrap=bootstrap))
    for number, member in enumerate(members):
        eventually(lambda: announced(member, "svc", 6000 + number))  # noqa: B023
    everything = sorted(f"127.0.0.1:{6000 + number}" for number in range(size))
    for member in members:
        eventually(lambda: lookup(member, "svc") == everything, what=f"{member} does not find all")  # noqa: B023

    # A third of them, at least one, die without a word. Ours go on at once.
    dead = random.sample(range(1, size), max(1, size // 3)) if size > 2 else [0]
    for number in dead:
        members[number].process.kill()
    survivors = [number for number in range(size) if number not in dead]
    for number in survivors:
        if number % 2:
            found = lookup(members[number], "svc")
            assert f"127.0.0.1:{6000 + number}" in found
            assert call(members[number], "announce", ["after", 7000 + number])[0] == 200

    # They come back on their ports, ours with their ids, Node's with others.
    bootstrap = [members[number].dht_address for number in survivors[:2]]
    for number in dead:
        port = members[number].dht_port
        if number % 2:
            members[number] = our_grape(bootstrap, port)
        else:
            members[number] = node_grape(bootstrap=bootstrap, dht_port=port)

    # Each of ours learns of it at once; what is announced at one is found at all.
    ours = [member for member in members if isinstance(member, OurGrape)]
    for number, member in enumerate(ours):
        name = f"again{number}"
        eventually(lambda: announced(member, name, 8000))  # noqa: B023
        for other in members:
            eventually(lambda: lookup(other, name) == ["127.0.0.1:8000"])  # noqa: B023


def test_one_after_the_other_is_replaced(node_grape: Callable[..., NodeGrape], our_grape: Start) -> None:
    """A network of Node Grapes becomes one of ours, without a pause."""
    members: list[Member] = [node_grape()]
    members += [node_grape(bootstrap=[members[0].dht_address]) for _ in range(2)]
    for number in range(3):
        members[number].process.kill()
        others = [each.dht_address for each in members if each is not members[number]]
        members[number] = our_grape(others)
        eventually(lambda: announced(members[number], "moved", 6000 + number))  # noqa: B023
        eventually(lambda: f"127.0.0.1:{6000 + number}" in lookup(members[number], "moved"))  # noqa: B023
    eventually(lambda: len(lookup(members[0], "moved")) == 3)
    check_all_ways(list(members))  # type: ignore[arg-type]
