"""Rules for arguments: each refusal names the field and the rule."""

from __future__ import annotations

import math

import pytest

from grenache_py import checks
from grenache_py.errors import ArgumentError, GrenacheError


@pytest.mark.parametrize(
    ("check", "good"),
    [
        (checks.check_name, ["a", "rest:util:net", "sérvice", "n" * 1000]),
        (checks.check_port, [1, 6001, 65535]),
        (checks.check_hash, ["e28910ea0adb94dd45ced75fbff3e135c01bc437"]),
        (checks.check_destination, ["127.0.0.1:6001", "localhost:1", "[::1]:65535", "my-host.example_1:80"]),
        (checks.check_grape, ["http://127.0.0.1:30001", "https://grape.example", "http://[::1]:30001"]),
        (checks.check_seconds, [1, 0.001, 600.5]),
        (checks.check_listen_port, [0, 65535]),
    ],
)
def test_good_arguments_come_back(check, good):
    for value in good:
        assert check(value) == value


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        (checks.check_name, ["", None, 5, b"a", "n" * 1001, "é" * 501, "\ud800"]),
        (checks.check_port, [0, -1, 65536, "6001", 6001.0, True, None]),
        (checks.check_hash, ["", "zz" * 20, "0" * 39, "0" * 41, None, b"0" * 40, "0" * 39 + "\n"]),
        (
            checks.check_destination,
            [
                "",
                "127.0.0.1",
                "127.0.0.1:0",
                "127.0.0.1:70000",
                "a b:1",
                "a/b:1",
                "h:1/x",
                "::1:80",
                "h:1\n",
                "@h:1",
                None,
                5,
                "h:",
                ":1",
                "h:٣",
            ],
        ),
        (
            checks.check_grape,
            [
                "",
                "127.0.0.1:30001",
                "ftp://a:1",
                "http://",
                "http://a:1/path",
                "http://a?x",
                "http://u@a:1",
                None,
            ],
        ),
        (checks.check_seconds, [0, -1, math.nan, math.inf, "5", None, True]),
        (lambda value: checks.check_count(value, "limit"), [0, -1, 1.0, "1", None, True]),
        (checks.check_listen_port, [-1, 65536, "0", None]),
        (checks.check_transport, ["client", "", None]),
        (lambda value: checks.check_event(value, ["request"]), ["stream", "request", None]),
    ],
)
def test_bad_arguments_are_refused(check, bad):
    for value in bad:
        with pytest.raises(ArgumentError) as caught:
            check(value)
        error = caught.value
        assert error.field in str(error)
        assert error.rule in str(error)
        assert isinstance(error, (GrenacheError, ValueError))


def test_a_grape_url_may_end_in_a_slash():
    assert checks.check_grape("http://127.0.0.1:30001/") == "http://127.0.0.1:30001"


def test_a_hash_is_read_in_either_case():
    assert checks.check_hash("E28910EA0ADB94DD45CED75FBFF3E135C01BC437").startswith("e28910ea")
