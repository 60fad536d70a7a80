"""The campaign in small: its goals hold, and it can tell when they do not."""

from __future__ import annotations

from dataclasses import replace

from tests.simulation.dht_campaign import Campaign, Measured, missed


def test_services_are_found_whoever_dies() -> None:
    results: list[Measured] = []
    for size in (40, 120):
        results += Campaign(size, services=100, seed=7).run()
    assert missed(results) == []
    assert all(result.hops and max(result.hops) <= 4 for result in results)
    assert all(len(result.found) == 100 for result in results)
    # The dead hold up nobody for the 2 s of a time-out, whoever they are.
    assert all(sorted(result.seconds)[len(result.seconds) // 2] < 1.2 for result in results)
    assert "100.00 %" in results[0].row()

    lost = replace(results[0], found=[False, *results[0].found[1:]])
    assert missed([lost, *results[1:]]) == ["40 nodes, none: 99.00 % found"]
    chatty = replace(results[-4], queries=[100] * 100)
    assert "queries grow by" in missed([*results[:-4], chatty, *results[-3:]])[0]
