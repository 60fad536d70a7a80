"""A Grape within a Python worker is a member of a network of Node Grapes."""

from __future__ import annotations


def test_node_peers_and_ours_find_each_other_through_the_sidecar(flavour, node_grapes, node_script):
    bootstrap = [grape.dht_address for grape in node_grapes]
    link = flavour.link("embedded", bootstrap=bootstrap)
    service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, ["py", payload]), link)
    assert link.start_announcing("py:worker", service.port)
    node_script("rpc_server.js", {"grape": node_grapes[0].url, "name": "node:worker"})

    for grape in node_grapes:
        process, _ = node_script("rpc_client.js", {"grape": grape.url})
        process.send_json({"call": "request", "args": ["py:worker", 1, {"timeout": 5000}]})
        assert process.next_json() == {"err": None, "res": ["py", 1]}
    assert flavour.client(link).request("node:worker", {"n": 1})["payload"] == {"n": 1}
