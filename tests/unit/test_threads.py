"""The threads of synchronous services and maps."""

from __future__ import annotations

import math
import threading
import time

import pytest

from grenache_py.transports.threads import Threads
from tests.harness import eventually


@pytest.fixture
def made():
    """Makes ``Threads``, all of which end with the test."""
    all_made = []

    def make(*arguments):
        all_made.append(Threads(arguments[0], "grenache-test", *arguments[1:]))
        return all_made[-1]

    yield make
    for each in all_made:
        each.stop(drop=True)
    eventually(lambda: not running())


def running():
    return [thread for thread in threading.enumerate() if thread.name.startswith("grenache-test")]


def test_so_many_run_at_a_time_and_the_others_wait(made):
    threads, release, ran = made(3), threading.Event(), []

    def work(number):
        ran.append(number)
        release.wait(10)

    assert all(threads.submit(work, number) for number in range(10))
    eventually(lambda: len(ran) == 3)
    assert len(running()) == 3
    release.set()
    eventually(lambda: sorted(ran) == list(range(10)))


def test_threads_are_started_as_they_are_needed(made):
    threads = made(8)
    for _ in range(20):
        done = threading.Event()
        assert threads.submit(done.set)
        assert done.wait(10)
        eventually(lambda: not threads._load)
    assert len(running()) == 1


def test_all_of_a_name_share_their_threads_until_the_last_one_stops(made):
    one, other, done = made(8), made(8), threading.Event()
    for threads in (one, other, one):
        done.clear()
        assert threads.submit(done.set)
        assert done.wait(10)
        eventually(lambda: not one._load and not other._load)
    assert len(running()) == 1
    one.stop(drop=False)
    one.stop(drop=False)
    assert other.submit(done.set)
    assert len(running()) == 1
    other.stop(drop=False)
    eventually(lambda: not running())


def test_who_shares_threads_is_not_held_up_by_others(made):
    one, other, release, done = made(2), made(2), threading.Event(), threading.Event()
    for _ in range(5):
        assert one.submit(release.wait, 10)
    assert other.submit(done.set)
    assert done.wait(10)
    assert len(running()) == 3
    release.set()


def test_of_those_that_wait_the_last_one_goes_on(made):
    threads, release, ran_in = made(4), threading.Event(), []

    def all_wait():
        return not threads._load and len(threads._pool._idle) == 4

    for _ in range(4):
        assert threads.submit(release.wait, 10)
    eventually(lambda: len(running()) == 4)
    release.set()
    eventually(all_wait)
    for _ in range(10):
        assert threads.submit(lambda: ran_in.append(threading.current_thread()))
        eventually(all_wait)
    assert len(ran_in) == 10
    assert len(set(ran_in)) == 1


class Turns:
    """A loop that does what it is asked to when the test says so."""

    def __init__(self):
        self.soon, self.timed = [], []

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay_s, callback):
        self.timed.append(callback)

    def end(self):
        """The turn ends."""
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()

    def wait(self):
        """Time passes."""
        callbacks, self.timed = self.timed, []
        for callback in callbacks:
            callback()


def long_at_work(threads):
    return threads._pool._at_work and time.monotonic() - threads._pool._taken_at > 0.001


def test_the_jobs_of_a_turn_are_done_by_one_thread_when_it_ends(made):
    turns, ran_in = Turns(), []
    threads = made(8, math.inf, lambda: turns)
    for _ in range(3):
        for _ in range(20):
            assert threads.submit(lambda: ran_in.append(threading.current_thread()))
        assert not threads._pool._at_work
        turns.end()
        eventually(lambda: not threads._load)
        turns.wait()
        assert not turns.timed
    assert len(ran_in) == 60
    assert len(set(ran_in)) == len(running()) == 1


def test_a_job_that_takes_its_time_holds_up_the_others_for_a_moment_only(made):
    turns, release = Turns(), threading.Event()
    ran: list[str] = []
    threads = made(8, math.inf, lambda: turns)
    assert threads.submit(release.wait, 10)
    assert threads.submit(ran.append, "second")
    turns.end()
    eventually(lambda: long_at_work(threads))
    assert not ran
    turns.wait()
    eventually(lambda: ran == ["second"])
    # From now on for a while the next one does not wait at all.
    for _ in range(3):
        assert threads.submit(release.wait, 10)
    assert threads.submit(ran.append, "third")
    turns.end()
    eventually(lambda: ran == ["second", "third"])
    assert len(running()) == 5
    release.set()


def test_a_job_does_not_wait_for_one_that_has_begun_long_ago(made):
    turns, release, done = Turns(), threading.Event(), threading.Event()
    threads = made(8, math.inf, lambda: turns)
    assert threads.submit(release.wait, 10)
    turns.end()
    eventually(lambda: long_at_work(threads))
    assert threads.submit(done.set)
    turns.end()
    assert done.wait(10)
    release.set()


def test_a_loop_that_has_ended_takes_no_jobs_of_another_with_it(made):
    ended, turns, done = Turns(), Turns(), threading.Event()
    one, other = made(8, math.inf, lambda: ended), made(8, math.inf, lambda: turns)
    assert one.submit(int)
    assert other.submit(done.set)
    turns.end()
    assert done.wait(10)


def test_there_is_room_for_so_many_until_some_are_done(made):
    threads, release = made(1, 2), threading.Event()
    assert threads.submit(release.wait, 10)
    assert threads.submit(release.wait, 10)
    assert not threads.submit(release.wait, 10)
    release.set()
    eventually(lambda: threads.submit(int))


def test_what_raises_takes_no_thread_with_it(made, caplog):
    threads, done = made(1), threading.Event()
    assert threads.submit(int, "nonsense")
    assert threads.submit(done.set)
    assert done.wait(10)
    assert "invalid literal" in caplog.text


@pytest.mark.parametrize("drop", [True, False])
def test_what_waits_is_dropped_or_has_its_turn(made, drop):
    threads, begun, release, ran = made(1), threading.Event(), threading.Event(), []

    def first():
        begun.set()
        release.wait(10)
        ran.append("first")

    threads.submit(first)
    threads.submit(ran.append, "second")
    assert begun.wait(10)
    threads.stop(drop=drop)
    assert not threads.submit(ran.append, "third")
    release.set()
    eventually(lambda: not running())
    assert ran == (["first"] if drop else ["first", "second"])
