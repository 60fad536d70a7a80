"""Keys, and values signed with them: ``keygen``, ``put --mutable``, ``get``."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from grenache_py import Grape
from grenache_py.cli import cli
from tests.harness import eventually


@pytest.fixture(scope="module")
def grape() -> Iterator[str]:
    """The URL of one of two Grapes."""
    with (
        Grape(host="127.0.0.1") as first,
        Grape(host="127.0.0.1", bootstrap=[first.dht_address]) as second,
    ):
        eventually(lambda: CliRunner().invoke(cli, ["put", "ready?", "-g", first.url]).exit_code == 0)
        yield second.url


@pytest.fixture
def run(grape, tmp_path, monkeypatch):
    """Run a command there, with a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GRENACHE_GRAPE", grape)

    def call(*args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, list(args), input=stdin)

    return call


def test_a_key_is_its_owners_and_made_once(run, tmp_path):
    path = tmp_path / "a.pem"
    before = os.umask(0)
    try:
        result = run("keygen", "--out", str(path), "--json")
    finally:
        os.umask(before)
    made = json.loads(result.stdout)
    assert made["file"] == str(path)
    assert len(bytes.fromhex(made["key"])) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    pem = path.read_bytes()
    again = run("keygen", "--out", str(path))
    assert (again.exit_code, again.stdout) == (1, "")
    assert "exists already" in again.stderr
    assert path.read_bytes() == pem


def test_the_usual_key(run):
    result = run("put", "--mutable", "x")
    assert result.exit_code == 1
    assert "make one with `grenache-py keygen`" in result.stderr
    public = run("keygen").stdout.strip()
    folder = Path(os.environ["HOME"]).rglob("key.pem")
    assert [stat.S_IMODE(path.parent.stat().st_mode) & 0o077 for path in folder] == [0]
    key = run("put", "--mutable", "x").stdout.strip()
    assert key == sha1(bytes.fromhex(public)).hexdigest()


def test_versions_of_a_value(run):
    public = run("keygen").stdout.strip()
    key = run("put", "-m", "-s", "salt", "one").stdout.strip()
    assert run("put", "-m", "-s", "salt", "two").stdout.strip() == key
    item = json.loads(run("get", key, "-s", "salt", "--json").stdout)
    assert (item["value"], item["seq"], item["k"]) == ("two", 2, public)
    # The public key names it as well.
    assert run("get", public, "-s", "salt").stdout == "two\n"

    for name in ("--number", "--seq", "-n"):
        assert run("put", "-m", "-s", "salt", name, "1", "old").exit_code == 9
    assert run("put", "-m", "-s", "salt", "-n", "50", "new").exit_code == 0
    refused = run("put", "-m", "-s", "salt", "-n", "60", "--cas", "49", "newer")
    assert refused.exit_code == 9
    assert run("put", "-m", "-s", "salt", "-n", "60", "--cas", "50", "newer").exit_code == 0
    assert run("get", key, "-s", "salt", "--fresh").stdout == "newer\n"

    assert run("get", key).exit_code == 3
    other = run("put", "-m", "unsalted").stdout.strip()
    assert other != key
    assert run("get", public).stdout == "unsalted\n"


def test_a_key_file_implies_mutable_and_may_come_from_the_environment(run, tmp_path, monkeypatch):
    path = str(tmp_path / "b.pem")
    public = run("keygen", "--out", path).stdout.strip()
    key = run("put", "--key", path, "-", stdin="from stdin").stdout.strip()
    assert run("get", key).stdout == "from stdin\n"
    assert run("get", public, "--no-verify").stdout == "from stdin\n"
    os.chmod(path, 0o644)
    result = run("put", "--key", path, "x")
    assert result.exit_code == 1
    assert f"chmod 600 {path}" in result.stderr


def test_plain_values_need_no_key(run):
    key = run("put", "hello").stdout.strip()
    assert run("get", key, "--raw").stdout == "hello"


def test_what_became_of_it(run, tmp_path):
    path = str(tmp_path / "c.pem")
    run("keygen", "--out", path)
    put = json.loads(run("put", "--key", path, "--json", "x").stdout)
    assert put["key"] == run("put", "--key", path, "y").stdout.strip()
    assert put["report"] == {"asked": 2, "stored": 2, "silent": 0, "refused": []}
    refused = run("put", "--key", path, "--json", "--seq", "1", "z")
    assert (refused.exit_code, refused.stdout) == (9, "")
    error = json.loads(refused.stderr)["error"]
    assert error["report"] == {"asked": 1, "stored": 0, "silent": 0, "refused": [302]}
