"""ACL files: notations, wildcards, bad files, reading again."""

from __future__ import annotations

import hashlib
import json
import logging
import os

import pytest

from grenache_py import limits
from grenache_py.acl import AclFile, parse_acl
from grenache_py.errors import ArgumentError
from grenache_py.tls import Certificate

ANN = Certificate(b"ann", {})
BEN = Certificate(b"ben", {})
SHA1 = hashlib.sha1(b"ann").hexdigest()
SHA256 = hashlib.sha256(b"ann").hexdigest()


def colons(digits: str) -> str:
    return ":".join(digits[place : place + 2] for place in range(0, len(digits), 2))


@pytest.mark.parametrize(
    "fingerprint",
    [SHA1, SHA1.upper(), colons(SHA1.upper()), colons(SHA1), SHA256, SHA256.upper(), colons(SHA256.upper())],
    ids=["ruby", "openssl", "node", "sha1 colons", "ours", "sha256 upper", "node256"],
)
@pytest.mark.parametrize("actions", [["get"], {"get": True, "put": False}, ["get", "head"]], ids=str)
def test_every_notation_of_a_fingerprint(fingerprint, actions):
    acl = parse_acl(json.dumps({fingerprint: actions}))
    assert acl.allows(ANN, "get")
    assert not acl.allows(ANN, "put")
    assert not acl.allows(BEN, "get")


@pytest.mark.parametrize(
    ("file", "ann_get", "ann_put", "ben_get", "ben_put"),
    [
        ({}, False, False, False, False),
        ({SHA1: "*"}, True, True, False, False),
        ({SHA1: ["*"]}, True, True, False, False),
        ({SHA1: {"*": True}}, True, True, False, False),
        ({SHA1: {"*": False, "get": True}}, True, False, False, False),
        ({SHA1: []}, False, False, False, False),
        ({"*": True}, True, True, True, True),
        ({"*": "*"}, True, True, True, True),
        # Node would let everybody do everything.
        ({"*": {"get": True}}, True, False, True, False),
        ({"*": ["get"], SHA1: ["put"]}, True, True, True, False),
        # Both fingerprints of one certificate: what either allows.
        ({SHA1: ["get"], SHA256: ["put"]}, True, True, False, False),
    ],
    ids=str,
)
def test_wildcards(file, ann_get, ann_put, ben_get, ben_put):
    acl = parse_acl(json.dumps(file))
    allowed = [acl.allows(*asked) for asked in ((ANN, "get"), (ANN, "put"), (BEN, "get"), (BEN, "put"))]
    assert allowed == [ann_get, ann_put, ben_get, ben_put]


def test_without_a_certificate_nothing_is_allowed():
    assert not parse_acl('{"*": "*"}').allows(None, "get")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "sec/acl.json, line 1, column 1: Expecting value"),
        ('{\n "*": ["a" "b"]\n}', "sec/acl.json, line 2, column 12: Expecting ',' delimiter"),
        ("[" * 100_000, "sec/acl.json: nested too deeply"),
        ("[]", "sec/acl.json: must be an object of fingerprints"),
        ('{\n\n "AB:CD": []}', 'sec/acl.json, line 3, "AB:CD": must be "*" or a fingerprint'),
        ('{"é": []}', 'sec/acl.json, line 1, "\\u00e9": must be "*" or a fingerprint'),
        (f'{{"{SHA1}": true}}', f'line 1, "{SHA1}": must be "*", a list of actions'),
        (f'{{"{SHA1}": null}}', f'line 1, "{SHA1}": must be "*", a list of actions'),
        (f'{{\n"{SHA1}": [1]}}', f'line 2, "{SHA1}": an action is a text that is not empty, not 1'),
        (f'{{"{SHA1}": [""]}}', "an action is a text that is not empty, not ''"),
        (f'{{"{SHA1}":\n ["get*"]}}', f'line 2, "{SHA1}", "get*": "*" stands alone'),
        (f'{{"{SHA1}":\n\n{{"get": 1}}}}', f'line 3, "{SHA1}", "get": must be true or false'),
        (f'{{"{SHA1}": [], "{SHA1}": []}}', f'"{SHA1}": stands there twice'),
        (f'{{"{SHA1}": {{"a": true, "a": false}}}}', '"a": stands there twice'),
        (
            f'{{"{SHA1}": [],\n "{SHA1.upper()}": []}}',
            f'line 2, "{SHA1.upper()}": is a fingerprint that',
        ),
    ],
)
def test_a_bad_file_is_told_by_line_and_field(text, says):
    with pytest.raises(ArgumentError) as raised:
        parse_acl(text, "sec/acl.json")
    assert raised.value.field == "acl"
    assert says in raised.value.rule


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_that_changes_is_read_again(tmp_path, caplog):
    caplog.set_level(logging.INFO, "grenache_py.acl")
    path, clock = tmp_path / "acl.json", Clock()
    path.write_text(json.dumps({SHA1: ["get"]}))
    acl = AclFile(path, clock)
    path.write_text(json.dumps({SHA1: ["put"], "*": ["more"]}))
    assert acl.allows(ANN, "get")  # not looked at yet
    clock.now += limits.ACL_CHECK_S
    assert not acl.allows(ANN, "get")
    assert acl.allows(ANN, "put")
    clock.now += limits.ACL_CHECK_S
    assert acl.allows(BEN, "more")
    assert [record.levelname for record in caplog.records] == ["INFO"]


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), os.remove], ids=["bad", "gone"])
def test_rights_stay_while_the_file_is_bad_or_gone(tmp_path, caplog, spoil):
    path, clock = tmp_path / "acl.json", Clock()
    path.write_text(json.dumps({SHA1: ["get"]}))
    acl = AclFile(path, clock)
    spoil(path)
    for _ in range(3):
        clock.now += limits.ACL_CHECK_S
        assert acl.allows(ANN, "get")
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # once
    assert str(path) in caplog.text
    path.write_text(json.dumps({SHA1: []}))
    clock.now += limits.ACL_CHECK_S
    assert not acl.allows(ANN, "get")


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"{", "line 1, column 2"), (b"\xff", "UTF-8"), (b" " * (limits.ACL_BYTES_MAX + 1), "at most")],
)
def test_a_bad_file_at_the_start_is_an_error(tmp_path, data, says):
    path = tmp_path / "acl.json"
    with pytest.raises(ArgumentError, match=r"acl\.json: No such file"):
        AclFile(path)
    path.write_bytes(data)
    with pytest.raises(ArgumentError, match=says):
        AclFile(path)
