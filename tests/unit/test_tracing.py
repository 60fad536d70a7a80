"""OpenTelemetry's own SDK sees our spans, and the context crosses from client to service."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import grenache_py.aio.tracing
import grenache_py.tracing
from grenache_py import errors
from tests.flavours import Aio, Sync
from tests.harness import eventually, free_port
from tests.ws_flavours import AioWs, SyncWs

NOBODY = "http://127.0.0.1:1"


class Traced:
    """A flavour whose clients and services are traced, and the spans that it made."""

    def __init__(self, flavour):
        self.flavour = flavour
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        home = "grenache_py.aio.tracing" if isinstance(flavour, Aio) else "grenache_py.tracing"
        self._tracing = importlib.import_module(home)

    def service(self, handler, **options):
        middleware = [self._tracing.trace_server(self.provider)]
        service = self.flavour.service(handler, middleware=middleware, **options)
        return f"127.0.0.1:{service.port}"

    def client(self):
        middleware = [self._tracing.trace_client(self.provider)]
        return self.flavour.client(self.flavour.link(NOBODY), middleware=middleware)

    def spans(self, count):
        eventually(lambda: len(self.exporter.get_finished_spans()) == count)
        return {span.kind: span for span in self.exporter.get_finished_spans()}


@pytest.fixture(params=[Sync, Aio, SyncWs, AioWs], ids=["sync", "aio", "sync ws", "aio ws"])
def traced(request):
    flavour = request.param()
    yield Traced(flavour)
    flavour.close()


def test_a_call_has_a_span_on_either_side(traced):
    current = []

    def handle(rid, key, payload, handler):
        current.append(trace.get_current_span().get_span_context())
        handler.reply(None, "ok")

    place = traced.service(handle)
    assert traced.client().request_to(place, "rest:util:net", {"action": "getIpInfo", "args": []}) == "ok"
    spans = traced.spans(2)
    client, server = spans[SpanKind.CLIENT], spans[SpanKind.SERVER]
    assert client.name == server.name == "rest:util:net/getIpInfo"
    assert client.attributes == {
        "rpc.system": "grenache",
        "rpc.service": "rest:util:net",
        "rpc.method": "getIpInfo",
        "server.address": "127.0.0.1",
        "server.port": int(place.split(":")[1]),
    }
    assert server.attributes["client.address"] == "127.0.0.1"
    assert current == [server.context]
    assert {client.status.status_code, server.status.status_code} == {StatusCode.UNSET}
    assert server.context.trace_id == client.context.trace_id
    assert server.parent.span_id == client.context.span_id
    assert not trace.get_current_span().get_span_context().is_valid


def test_errors_are_in_both_spans(traced):
    def handle(rid, key, payload, handler):
        raise errors.Refusal("ERR_NO_SUCH_IP: none")

    place = traced.service(handle)
    with pytest.raises(errors.RemoteError):
        traced.client().request_to(place, "k", 1)
    for span in traced.spans(2).values():
        assert span.name == "k"
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description.startswith("ERR_NO_SUCH_IP: none")
        assert span.attributes["error.type"] == "ERR_NO_SUCH_IP"


def test_a_peer_that_is_not_there(traced):
    with pytest.raises(errors.ConnectError):
        traced.client().request_to(f"127.0.0.1:{free_port()}", "k", 1)
    assert traced.spans(1)[SpanKind.CLIENT].attributes["error.type"] == "ERR_REQUEST_GENERIC"


def test_a_span_lasts_until_the_reply(traced):
    held = []
    place = traced.service(lambda rid, key, payload, handler: held.append(handler), timeout=0.2)
    with pytest.raises(errors.PeerError):
        traced.client().request_to(place, "k", 1)
    server = traced.spans(2)[SpanKind.SERVER]
    assert server.attributes["error.type"] == "ERR_TIMEOUT"
    assert server.end_time - server.start_time > 0.15e9


def test_the_current_span_of_the_caller_is_the_parent(traced):
    if isinstance(traced.flavour, Aio):
        pytest.skip("the caller is on another thread than its loop")
    place = traced.service(
        lambda rid, key, payload, handler: handler.reply(None, handler.headers["traceparent"])
    )
    with traced.provider.get_tracer("test").start_as_current_span("mine") as mine:
        said = traced.client().request_to(place, "k", 1)
    assert said.split("-")[1] == f"{mine.get_span_context().trace_id:032x}"
    spans = {span.kind: span for span in traced.exporter.get_finished_spans()}
    assert spans[SpanKind.CLIENT].parent.span_id == mine.get_span_context().span_id


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-0"])
def test_a_spoiled_traceparent_begins_a_new_trace(traced, header):
    place = traced.service(lambda rid, key, payload, handler: handler.reply(None, 1))
    client = traced.flavour.client(traced.flavour.link(NOBODY))
    assert client.request_to(place, "k", 1, headers={"traceparent": header}) == 1
    assert traced.spans(1)[SpanKind.SERVER].parent is None


def test_names_from_the_network_are_cut(traced):
    place = traced.service(lambda rid, key, payload, handler: handler.reply(None, 1))
    traced.flavour.client(traced.flavour.link(NOBODY)).request_to(place, "k", {"action": "x" * 100_000})
    server = traced.spans(1)[SpanKind.SERVER]
    assert (len(server.name), len(server.attributes["rpc.method"])) == (200, 200)


@pytest.mark.parametrize("name", ["trace_client", "trace_server"])
def test_both_flavours_are_the_same(name):
    both = [getattr(module, name) for module in (grenache_py.tracing, grenache_py.aio.tracing)]
    assert inspect.signature(both[0]) == inspect.signature(both[1])
    assert both[0].__doc__ == both[1].__doc__


def test_without_opentelemetry_it_says_what_to_do():
    script = (
        "import sys; sys.modules['opentelemetry'] = None; import grenache_py.aio; import grenache_py.tracing"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "ImportError: tracing needs opentelemetry-api: pip install grenache-py[otel]" in done.stderr
