"""Tasks that have to end do, also those that take a cancellation for something else."""

from __future__ import annotations

import asyncio

import pytest

from grenache_py import tasks
from grenache_py.tasks import end_tasks


async def test_all_have_ended_whatever_they_end_with() -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("not like this") from None

    async def quick() -> int:
        return 1

    ended = [asyncio.ensure_future(work) for work in (stubborn(), asyncio.sleep(60), quick())]
    await asyncio.sleep(0)
    await end_tasks(ended)
    assert all(task.done() for task in ended)
    assert isinstance(ended[0].exception(), ValueError)
    assert ended[1].cancelled()
    assert ended[2].result() == 1
    await end_tasks([])


async def test_who_keeps_a_cancellation_to_itself_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_TELL_AGAIN_S", 0.01)
    kept = 0

    async def deaf() -> None:
        nonlocal kept
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                kept += 1
                if kept == 3:
                    raise

    task = asyncio.ensure_future(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(end_tasks([task]), 10)
    assert task.cancelled()
    assert kept == 3
