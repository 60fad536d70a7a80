"""A server of nothing but streams: what ``disable_buffered`` is to grenache-nodejs-http 1.0.2."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from ssl import SSLContext

from .. import limits
from ..errors import GrenacheError
from ..tls import Certificate
from .ports import Listener, bind, listen_error, serve
from .rpc_server import Handler, Receiver
from .stream_exchange import StreamExchange, Streams
from .streams import Stream

log = logging.getLogger(__name__)


class StreamServer:
    """Listens, and hands streams to ``receiver``, see ``Streams``. ``ssl`` is as for ``RpcServer``."""

    def __init__(
        self,
        receiver: Receiver,
        *,
        concurrency: int = limits.STREAMS_MAX,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
    ):
        self._streams = Streams(receiver, concurrency=concurrency, authorize=authorize)
        self._ssl = ssl
        self._server: Listener | None = None
        self._port: int | None = None
        self.loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        if self._port is None:
            raise RuntimeError("the server does not listen yet")
        return self._port

    async def listen(self, port: int, host: str | None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        if self._server is not None:
            raise RuntimeError("the server listens already")
        self.loop = asyncio.get_running_loop()
        self._streams.begin()
        try:
            sock = await bind(self.loop, port, host)
        except OSError as error:
            raise listen_error(error, port, host) from error
        self._server = await serve(sock, lambda: StreamExchange(self._streams), self._ssl)
        self._port = sock.getsockname()[1]

    async def close(self, drain_s: float) -> None:
        """Accept no more; streams have ``drain_s`` seconds to come to their end, then they are cut."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        await self._streams.close(drain_s)
        await server.wait_closed()


async def finish(stream: Stream, handler: Handler, error: Exception | None = None) -> None:
    """The listener of a stream has returned, or raised ``error``: so the stream ends, or is cut."""
    if error is None:
        try:
            await stream.end()
        except GrenacheError as failure:
            log.debug("a stream had ended before its listener: %s", failure)
        handler.ended(None)
        return
    if error is stream.error:
        # Not the listener's doing, and nobody is there to be told.
        log.debug("a stream ended before its listener: %s", error)
        handler.ended(str(error))
        stream.cut()
        return
    begun = handler.replied
    handler.fail(error)
    if begun:
        stream.cut()
