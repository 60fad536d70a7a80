"""Actions between Node peers and ours: what bfx-facs-grc sends and how its callers are answered."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess

import pytest

from grenache_py import Actions
from grenache_py.errors import Refusal
from grenache_py.sec import load_client_context, load_sec
from tests.harness import need_node
from tests.unit.tls_files import make_ca

NAME = "rest:util:net"


@pytest.fixture
def sec(tmp_path):
    """The folder of a secured worker; the ACL has the fingerprint as Node writes it."""
    pem = make_ca(tmp_path)
    script = "console.log(new crypto.X509Certificate(fs.readFileSync(process.argv[1])).fingerprint)"
    asked = [need_node(), "-e", script, str(pem.client_cert)]
    fingerprint = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout.strip()
    (tmp_path / "acl.json").write_text(json.dumps({fingerprint: {"getIpInfo": True}}))
    return tmp_path


def call(action, *args):
    return {"action": action, "args": list(args)}


def test_node_clients_call_our_worker_and_its_twin(flavour, node_grapes, node_script, sec):
    actions = Actions()

    @actions.export
    def getIpInfo(space, ip):  # noqa: N802
        return [ip, space.svp]

    @actions.export
    def crash(space):
        raise ValueError("so wrong")

    link = flavour.link(node_grapes[1].url)
    flavour.make("Worker", link, NAME, actions, sec=load_sec(sec)).start()
    secure = {"key": "client-key.pem", "cert": "client-crt.pem", "ca": "ca-crt.pem"}
    secure = {what: str(sec / name) for what, name in secure.items()}
    for name, conf, crashed in (
        (NAME, {}, "ERR_API_ACTION: ValueError: so wrong"),
        (f"sec:{NAME}", {"secure": secure}, "ERR_API_AUTH"),
    ):
        process, _ = node_script("rpc_client.js", {"grape": node_grapes[0].url, **conf})
        for payload, answer in (
            (call("getIpInfo", "8.8.8.8"), [None, ["8.8.8.8", name.split(":")]]),
            (call("crash"), [crashed, None]),
        ):
            process.send_json({"call": "request", "args": [name, payload, {"timeout": 5000}]})
            said = process.next_json()
            assert [said["err"], said["res"]] == answer


def test_node_clients_stream_through_our_worker_and_its_twin(flavour, node_grapes, node_script, sec):
    actions = Actions()

    async def bounce(space, stream):
        async for piece in stream:
            await stream.write(piece)

    def count(space, stream, unit: int = 1):
        raise Refusal(f"ERR_COUNT: {unit}")

    @actions.export
    def getIpInfo(space, ip):  # noqa: N802
        return ip

    if flavour.name == "sync":
        actions.stream("bounceStream")(lambda space, stream: shutil.copyfileobj(stream, stream))
    else:
        actions.stream("bounceStream")(bounce)
    actions.stream("countStream")(count)
    acl = json.loads((sec / "acl.json").read_text())
    (sec / "acl.json").write_text(json.dumps({name: ["bounceStream", "countStream"] for name in acl}))
    link = flavour.link(node_grapes[1].url)
    flavour.make("Worker", link, NAME, actions, sec=load_sec(sec)).start()
    secure = {"key": "client-key.pem", "cert": "client-crt.pem", "ca": "ca-crt.pem"}
    secure = {what: str(sec / name) for what, name in secure.items()}
    sent = hashlib.sha256(b"grenache" * 125_000).hexdigest()
    for name, conf in ((NAME, {}), (f"sec:{NAME}", {"secure": secure})):
        process, _ = node_script("stream_client.js", {"grape": node_grapes[0].url, **conf})
        for headers, size, answer in (
            ({"_a": "bounceStream", "_ar": {}}, 1_000_000, sent),
            ({"_a": "countStream", "_ar": {"unit": 7}}, 10, "ERR_COUNT: 7"),
            ({"_a": "countStream", "_ar": [8]}, 0, "ERR_COUNT: 8"),
        ):
            process.send_json({"key": name, "size": size, "headers": headers})
            said = process.next_json()
            if size == 1_000_000:
                assert (said["size"], said["sha256"]) == (size, answer)
            else:
                assert json.loads(said["text"])[1:] == [answer, None]
        # Requests go to the same port.
        process, _ = node_script("rpc_client.js", {"grape": node_grapes[0].url, **conf})
        process.send_json({"call": "request", "args": [name, call("getIpInfo", "::"), {"timeout": 5000}]})
        said = process.next_json()
        assert [said["err"], said["res"]] == ([None, "::"] if name == NAME else ["ERR_API_AUTH", None])


def test_our_client_sends_what_node_workers_expect(flavour, node_grapes, node_script, sec):
    secure = {"key": "server-key.pem", "cert": "server-crt.pem", "ca": "ca-crt.pem"}
    secure = {what: str(sec / name) for what, name in secure.items()}
    for name, conf in ((NAME, {}), (f"sec:{NAME}", {"secure": {**secure, "requestCert": True}})):
        node_script("rpc_server.js", {"grape": node_grapes[0].url, "name": name, **conf})
    link = flavour.link(node_grapes[1].url)
    secured = flavour.client(link, ssl=load_client_context(sec))
    client = flavour.make("ActionClient", flavour.client(link), sec=secured)
    for name in (NAME, f"sec:{NAME}"):
        said = client.request(name, "getIpInfo", ["8.8.8.8", None])
        assert (said["key"], said["payload"]) == (name, call("getIpInfo", "8.8.8.8", None))


def test_node_clients_call_our_worker_over_websocket(ws_flavour, node_grapes, node_script, sec):
    actions = Actions()

    @actions.export
    def getIpInfo(space, ip):  # noqa: N802
        return [ip, space.svp]

    link = ws_flavour.link(node_grapes[1].url)
    ws_flavour.worker(link, NAME, actions, sec=load_sec(sec)).start()
    secure = {"key": "client-key.pem", "cert": "client-crt.pem", "ca": "ca-crt.pem"}
    secure = {what: str(sec / name) for what, name in secure.items()}
    for name, conf, refused in (
        (NAME, {}, "ERR_API_ACTION_NOTFOUND"),
        (f"sec:{NAME}", {"secure": secure}, "ERR_API_AUTH"),
    ):
        process, _ = node_script(
            "ws.js", {"role": "client", "grape": node_grapes[0].url, "name": name, **conf}
        )
        for payload, answer in (
            (call("getIpInfo", "8.8.8.8"), {"err": None, "res": ["8.8.8.8", name.split(":")]}),
            (call("crash"), {"err": refused, "res": None}),
        ):
            process.send_json({"args": [name, payload, {"timeout": 5000}]})
            assert process.next_json() == answer
