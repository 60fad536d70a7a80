"""Every error has a status, and the documentation says the same of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grenache_py import errors
from grenache_py.commands.status import ExitStatus, hint, status_of, status_of_all

GRAPE, PLACE = "http://127.0.0.1:1", "127.0.0.1:2"

# What a service of ours says when its handler has taken too long.
timed_out = errors.StatusError(PLACE, 504, "ERR_TIMEOUT")
timed_out.code = "ERR_TIMEOUT"

CASES = [
    (errors.ArgumentError("name", "must be a text"), ExitStatus.USAGE),
    (errors.KeyFileError("no key"), ExitStatus.FAILED),
    (errors.ListenError(98, "Address already in use"), ExitStatus.FAILED),
    (errors.LookupEmptyError(GRAPE, "svc"), ExitStatus.NOT_FOUND),
    (errors.GrapeUnreachableError(GRAPE, "lookup: refused"), ExitStatus.GRAPE_UNREACHABLE),
    (errors.GrapeUnreachableError(GRAPE, "lookup: no answer", "ERR_TIMEOUT"), ExitStatus.GRAPE_UNREACHABLE),
    (errors.GrapeReplyError(GRAPE, "put", "no", 200), ExitStatus.GRAPE_REFUSED),
    (errors.AnnounceError(GRAPE, "announce", "No nodes to query", 200), ExitStatus.GRAPE_REFUSED),
    (errors.ConnectError(PLACE, "refused"), ExitStatus.PEER_UNREACHABLE),
    (errors.ConnectionLost(PLACE, "reset"), ExitStatus.PEER_UNREACHABLE),
    (errors.ConnectTimeout(PLACE, "no connection"), ExitStatus.TIMEOUT),
    (errors.RequestTimeout(PLACE, "no reply"), ExitStatus.TIMEOUT),
    (errors.ReplyError(PLACE, "not JSON"), ExitStatus.BAD_REPLY),
    (errors.StatusError(PLACE, 403, "ERR_FORBIDDEN"), ExitStatus.BAD_REPLY),
    (timed_out, ExitStatus.TIMEOUT),
    (errors.RemoteError(PLACE, "ERR_NO"), ExitStatus.REMOTE_ERROR),
    # Also where the handler's own word is that of a time out.
    (errors.RemoteError(PLACE, "ERR_TIMEOUT: upstream"), ExitStatus.REMOTE_ERROR),
]


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda value: str(value))
def test_the_status_of_an_error(error, status):
    assert status_of(error) is status


def test_the_status_of_several():
    refused, lost = errors.ConnectError(PLACE, "refused"), errors.ConnectionLost(PLACE, "reset")
    assert status_of_all([refused, lost]) is ExitStatus.PEER_UNREACHABLE
    assert status_of_all([refused, errors.RemoteError(PLACE, "ERR_NO")]) is ExitStatus.FAILED


def test_hints_are_one_line():
    hints = {hint(error) for error, _ in CASES}
    assert len(hints) > 5
    assert not any("\n" in text or text.endswith(".") for text in hints)


def test_what_users_cannot_mend_has_no_hint():
    assert hint(errors.RemoteError(PLACE, "ERR_NO")) == ""


def test_the_documentation_has_every_status():
    text = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert documented == {int(status) for status in ExitStatus}
