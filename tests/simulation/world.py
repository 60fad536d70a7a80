"""Virtual time, imperfect clocks, a faulty network and a faulty disk. One random source decides everything.

Nothing here knows the order book: it carries JSON between named places and calls back at virtual times.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

START_MS = 1_700_000_000_000
"""The time of day when a world begins, in milliseconds since the epoch."""


class World:
    """Events in order of virtual time, and a log of what happened for the timeline of a failure."""

    def __init__(self, seed: int):
        self.random = Random(seed)
        self.now = 0.0
        self.timeline: list[str] = []
        self.sights: Counter[str] = Counter()
        """What has been seen to happen: a run in which nothing does proves little."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_s, next(self._count), event))

    def run(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> bool:
        """Let ``seconds`` pass, or less when ``until`` holds; it is asked 20 times a virtual second.

        Returns whether it does.
        """
        end = self.now + seconds
        ask = self.now
        while self._events and self._events[0][0] <= end:
            if self._events[0][0] >= ask:
                if until():
                    return True
                ask += 0.05
            time, _, event = heapq.heappop(self._events)
            self.now = max(self.now, time)
            event()
        self.now = end
        return until()

    def log(self, text: str) -> None:
        self.timeline.append(f"{self.now:10.4f}  {text}")


class SkewedClock:
    """A peer's clocks: the monotonic one starts anywhere and drifts, the wall clock is off by any amount."""

    def __init__(self, world: World, drift: float, wall_off_s: float):
        self._world = world
        self._rate = 1.0 + drift
        self._start = world.random.uniform(0.0, 1e6)
        self._wall_off_s = wall_off_s
        self._read_ms = 0

    def monotonic(self) -> float:
        return self._start + self._world.now * self._rate

    def time_ms(self) -> int:
        """Each time it is read some time may have passed, also within one step."""
        now_ms = int((START_MS / 1000 + self._world.now + self._wall_off_s) * 1000)
        self._read_ms = max(now_ms, self._read_ms + self._world.random.choice((0, 1)))
        return self._read_ms

    def set_ahead(self, seconds: float) -> None:
        """The wall clock is set: so much further ahead than it was, or back."""
        self._wall_off_s += seconds
        self._read_ms = 0

    def until(self, local: float) -> float:
        """Virtual seconds from now until the monotonic clock shows ``local``."""
        return max(0.0, (local - self.monotonic()) / self._rate)


@dataclass(frozen=True)
class NetworkFaults:
    """What can happen to a message; probabilities, and the delay of one in seconds."""

    lost: float = 0.0
    repeated: float = 0.0
    delay_s: tuple[float, float] = (0.001, 0.02)


def name_of(place: str) -> str:
    """Who is or was at ``place``: ``"p1"`` of ``"p1:3"``."""
    return place.partition(":")[0]


class SimConnection:
    """What is said at one end arrives at the other in order, or the connection ends.

    It ends when a message is lost. Where messages are repeated, somebody in between repeats what is said,
    alters it, or leaves it out.
    """

    def __init__(self, world: World, network: SimNetwork, near: str, far: str):
        self.on_message: dict[str, Callable[[bytes], None]] = {}
        """By place: what takes messages there."""
        self.on_end: dict[str, Callable[[], None]] = {}
        self.ended = False
        self._world = world
        self._network = network
        self._other = {near: far, far: near}
        self._last_arrival = {near: 0.0, far: 0.0}

    def send(self, sender: str, content: bytes) -> None:
        """Say ``content`` at the place ``sender``."""
        receiver = self._other[sender]
        if self.ended:
            return
        if self._network.drops(sender, receiver):
            self.end()
            return
        for passed in self._passed_on(content):
            after_the_last = self._last_arrival[receiver] + 1e-6
            arrival = max(after_the_last, self._world.now + self._network.delay())
            self._last_arrival[receiver] = arrival
            self._world.after(arrival - self._world.now, partial(self._arrive, receiver, passed))

    def _passed_on(self, content: bytes) -> list[bytes]:
        random = self._world.random
        if random.random() >= self._network.faults.repeated:
            return [content]
        self._world.sights["message on a connection altered"] += 1
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        return random.choice(([content, content], [flipped], [content[:-1]], [content[30:]], []))

    def _arrive(self, receiver: str, content: bytes) -> None:
        if not self.ended:
            self.on_message[receiver](content)

    def end(self) -> None:
        """End it, for both sides."""
        if not self.ended:
            self.ended = True
            for ended in self.on_end.values():
                ended()


class SimNetwork:
    """Request and reply between places, each message lost, repeated, delayed and reordered on its own."""

    def __init__(self, world: World, faults: NetworkFaults):
        self._world = world
        self.faults = faults
        self.cut: set[tuple[str, str]] = set()
        """(from, to) names between which nothing travels: partitions can be one-sided."""
        self.slow: dict[str, float] = {}
        """Seconds that somebody adds to each answer, by name."""
        self.serve: dict[str, Callable[[Any, Callable[[Any], None]], None]] = {}
        """What serves a request at a place, given how to reply. Other places refuse connections."""
        self.listen: dict[str, Callable[[SimConnection], None]] = {}
        """What takes connections at a place."""
        self._last_arrival: dict[tuple[str, str], float] = {}

    def connect(self, caller: str, place: str) -> SimConnection | None:
        """A connection from one place to another; None where nobody takes it."""
        listen = self.listen.get(place)
        if listen is None or self.drops(caller, place) or self.drops(place, caller):
            return None
        connection = SimConnection(self._world, self, caller, place)
        listen(connection)
        return connection

    def call(
        self,
        caller: str,
        place: str,
        request: Any,
        *,
        timeout_s: float,
        answered: Callable[[Any], None],
        failed: Callable[[bool], None],
    ) -> None:
        """Send ``request``; exactly one of ``answered`` and ``failed`` (was it refused?) is called."""
        over = False

        def end(tell: Callable[[], None]) -> None:
            nonlocal over
            if not over:
                over = True
                tell()

        def arrive() -> None:
            serve = self.serve.get(place)
            if serve is None:
                self._world.sights["request to a place that is gone"] += 1
                if not self.drops(place, caller):
                    self._world.after(self.delay(), lambda: end(lambda: failed(True)))
                return

            def reply(content: Any) -> None:
                if not self.drops(place, caller):
                    slow_s = self.slow.get(name_of(place), 0.0)
                    self._world.sights["slow answer"] += slow_s > 0
                    pause = self._travel(place, caller) + slow_s
                    self._world.sights["answer after the deadline"] += self._world.now + pause > deadline
                    self._world.after(pause, lambda: end(lambda: answered(content)))

            serve(request, reply)

        deadline = self._world.now + timeout_s
        copies = 2 if self._world.random.random() < self.faults.repeated else 1
        self._world.sights["message repeated"] += copies > 1
        for _ in range(copies):
            if not self.drops(caller, place):
                self._world.after(self._travel(caller, place), arrive)
        self._world.after(timeout_s, lambda: end(lambda: failed(False)))

    def drops(self, sender: str, receiver: str) -> bool:
        """Whether what ``sender`` says to ``receiver`` now is lost."""
        there, back = (name_of(sender), name_of(receiver)), (name_of(receiver), name_of(sender))
        if there in self.cut:
            self._world.sights["message cut off" + ("" if back in self.cut else ", one way only")] += 1
            return True
        lost = self._world.random.random() < self.faults.lost
        self._world.sights["message lost"] += lost
        return lost

    def _travel(self, sender: str, receiver: str) -> float:
        """How long the next message takes; it may overtake earlier ones."""
        delay_s = self.delay()
        arrival = self._world.now + delay_s
        last = self._last_arrival.get((sender, receiver), 0.0)
        self._world.sights["message overtaken"] += arrival < last
        self._last_arrival[sender, receiver] = max(arrival, last)
        return delay_s

    def delay(self) -> float:
        """How long a message takes, in seconds."""
        return self._world.random.uniform(*self.faults.delay_s)


class SimDisk(Generic[Item]):
    """A log on a disk: appended batches become durable in order, some time later.

    A crash keeps what is durable and any beginning of the rest, whole batches only: a torn one is seen to be
    torn when the log is opened, and left out. ``when_awake`` is how its process hears of anything.
    """

    def __init__(self, world: World, when_awake: Callable[[Callable[[], None]], None]):
        self._world = world
        self._when_awake = when_awake
        self.sync_s = (0.0002, 0.005)
        self.durable: list[Item] = []
        self.starts: dict[str, int] = {}
        """The processes that went on with it, by their ids, and how much it had when the next one began."""
        self.on_append: Callable[[], None] | None = None
        self._pending: list[list[Item]] = []
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._appended = 0
        self._synced = 0
        self._life = 0

    @property
    def unwritten(self) -> bool:
        """Whether anything that was appended is not durable yet."""
        return bool(self._pending)

    @property
    def waiting(self) -> int:
        """Batches that are not durable yet."""
        return self._appended - self._synced

    def append(self, batch: Sequence[Item]) -> None:
        if self.on_append is not None:
            self.on_append()
        self._pending.append(list(batch))
        self._appended += 1
        life, upto = self._life, self._appended
        pause_s = self._world.random.uniform(*self.sync_s)
        self._world.after(pause_s, lambda: self._when_awake(lambda: self._sync(life, upto)))

    def when_durable(self, then: Callable[[], None]) -> None:
        if self._synced == self._appended:
            then()
        else:
            self._waiting.append((self._appended, then))

    def when_archived(self, then: Callable[[], None]) -> None:
        self.when_durable(then)

    def _sync(self, life: int, upto: int) -> None:
        if life != self._life:
            return  # the process that wanted it is gone
        while self._pending and self._synced < upto:
            self.durable += self._pending.pop(0)
            self._synced += 1
        while self._waiting and self._waiting[0][0] <= self._synced:
            self._waiting.pop(0)[1]()

    def crash(self) -> None:
        """The process ends; some of what it had written reaches the disk all the same."""
        self._life += 1
        self._waiting.clear()
        kept = self._world.random.randint(0, len(self._pending))
        self._world.sights["write lost in a crash"] += kept < len(self._pending)
        self._world.sights["write kept in a crash that nobody waited out"] += kept > 0
        for batch in self._pending[:kept]:
            self.durable += batch
        self._pending.clear()
        self._synced = self._appended = 0
