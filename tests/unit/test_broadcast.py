"""The calls of a map with asyncio, and what comes of them."""

from __future__ import annotations

import asyncio

from grenache_py.transports.broadcast import Broadcast


async def test_what_comes_is_kept_in_its_order_and_wakes_who_waits_for_so_many():
    broadcast = Broadcast()
    one, two, three = broadcast.begin(["one", "two", "three"])
    waits = asyncio.ensure_future(broadcast.wait(2))
    await asyncio.sleep(0)
    three.set_result(3)
    await asyncio.sleep(0)
    assert not waits.done()
    failure = ValueError("no")
    one.set_exception(failure)
    await asyncio.wait_for(waits, 10)
    await broadcast.wait(2)
    assert [(call.destination, call.result, call.error) for call in broadcast.ended] == [
        ("three", 3, None),
        ("one", None, failure),
    ]
    assert all(call.done() and call.elapsed_s >= 0 for call in broadcast.ended)
    assert not two.done()


async def test_a_future_is_followed_to_its_end():
    broadcast, loop = Broadcast(), asyncio.get_running_loop()
    futures = [loop.create_future() for _ in range(3)]
    for call, future in zip(broadcast.begin(["1", "2", "3"]), futures, strict=True):
        call.follow(future)
    failure = ValueError("no")
    futures[0].set_result("yes")
    futures[1].set_exception(failure)
    futures[2].cancel()
    await broadcast.wait(3)
    assert [call.result for call in broadcast.ended] == ["yes", None, None]
    assert [type(call.error) for call in broadcast.ended] == [type(None), ValueError, asyncio.CancelledError]


async def test_what_is_given_up_ends_and_says_nothing_any_more():
    broadcast, future = Broadcast(), asyncio.get_running_loop().create_future()
    direct, followed, failed = broadcast.begin(["direct", "followed", "failed"])
    followed.follow(future)
    late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    failed.follow(late)
    late.set_exception(ValueError("nobody asks for it"))
    broadcast.give_up()
    assert direct.done()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert future.cancelled()
    assert not broadcast.ended
