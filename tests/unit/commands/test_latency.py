"""The histogram of latencies, against the exact answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grenache_py.commands.latency import Histogram, summary

seconds = st.floats(1e-6, 10_000)


def filled(durations: list[float]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(st.lists(seconds, min_size=1), st.floats(0, 1))
def test_quantiles_are_within_one_percent_of_the_exact_ones(durations, share):
    histogram = filled(durations)
    exact = sorted(durations)[max(1, math.ceil(share * len(durations))) - 1]
    assert exact / 1.0101 <= histogram.quantile(share) <= exact * 1.0101


@given(st.lists(seconds, min_size=1))
def test_the_extremes_and_the_mean_are_exact(durations):
    figures = summary(filled(durations))
    assert figures is not None
    assert figures["min_s"] == round(min(durations), 7)
    assert figures["max_s"] == round(max(durations), 7)
    assert figures["mean_s"] == pytest.approx(sum(durations) / len(durations), abs=1e-6)
    in_order = [figures[name] for name in ("min_s", "p50_s", "p90_s", "p99_s", "p99.9_s", "max_s")]
    assert in_order == sorted(in_order)


@given(st.lists(st.tuples(seconds, st.integers(1, 50)), min_size=1))
def test_many_at_once_are_as_many_one_by_one(pairs):
    at_once, one_by_one = Histogram(), Histogram()
    for duration, times in pairs:
        at_once.add(duration, times)
        for _ in range(times):
            one_by_one.add(duration)
    assert at_once.count == one_by_one.count
    assert at_once.quantile(0.7) == one_by_one.quantile(0.7)
    assert at_once.bars(20) == one_by_one.bars(20)


@given(st.lists(st.floats(0, 1e12), max_size=200))
def test_memory_is_bounded_whatever_comes(durations):
    histogram = filled(durations)
    assert len(histogram._buckets) <= 2500
    assert len(histogram.bars(24)) <= 24


def test_bars():
    assert filled([]).bars(10) == ""
    assert filled([0.001]).bars(10) == "█"
    assert filled([0.001] * 8 + [0.1]).bars(5) == "█   ▁"


def test_nothing_has_no_summary():
    assert summary(Histogram()) is None
    with pytest.raises(ValueError, match="no durations"):
        Histogram().quantile(0.5)
