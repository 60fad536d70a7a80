"""One WebSocket connection, on picows: either end of it, for whatever travels over it.

picows parses frames and answers pings; this bounds what it passes on, gathers what is sent, and ends
connections as RFC 6455 wants it. Nothing that can come from the other side raises. A Node peer ends its
process over frames that break the protocol, so none is ever sent: no extension, valid UTF-8, known close
codes, masks from a client.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast

from picows import WSCloseCode, WSMsgType, WSTransport

from .. import limits
from .busy_poll import BusyPoll
from .ws_frames import (
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    PROTOCOL_ERROR,
    TEXT,
    FrameError,
    Messages,
)

log = logging.getLogger(__name__)

# What picows has to say about connections is not news, or said here.
picows_log = logging.getLogger(__name__ + ".picows")
picows_log.setLevel(logging.CRITICAL)

# picows' own names are of an enumeration in Python, slow to compare with numbers.
_TEXT: Final = WSMsgType.TEXT
_BINARY: Final = WSMsgType.BINARY
_CLOSE: Final = WSMsgType.CLOSE
_PONG: Final = WSMsgType.PONG
# Up to here it pays to gather small frames, since each call of the system costs more than one of them; beyond
# it the other side waits for its work longer than a call takes.
_GATHERED_BYTES: Final = 2048


class Channel:
    """A connection after its handshake; picows tells of it by a ``ws_listener.Listener``.

    Calls ``on_message(opcode, content)`` for each message, and ``on_end(reason)`` once when no more will
    come, whoever ended it. Both run on the loop. Made before the handshake; usable from ``on_open`` on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_message: int,
        on_open: Callable[[Channel], None] | None = None,
        poll: BusyPoll | None = None,
    ):
        self.on_message: Callable[[int, bytes], None] = _ignore
        self.on_end: Callable[[str], None] = _ignore
        self.on_flow: Callable[[], None] = _ignore  # ``full`` has changed
        self.loop = loop
        self._on_open = on_open
        self._poll = poll
        self._messages = Messages(max_message)
        self._transport: WSTransport
        self._encoder: WSTransport
        self._client = False
        self._fd = -1  # where bytes go straight to the system
        self._waiting: list[bytes] = []  # frames for the next write
        self._waiting_bytes = 0
        self.gathered_bytes = _GATHERED_BYTES  # from here on what waits leaves before the end of the turn
        self.full = False  # the other side takes less than is sent to it
        self._holds = 0
        self._room: asyncio.Event | None = None
        self.more = False  # the present message is not the last of those that came together
        self.ended = False  # no more messages come or go
        self.end_code = 0  # sent by this side, if any
        self.gone = loop.create_future()  # done when the connection is closed

    # --- what the other side does

    def connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._client = transport.is_client_side
        self._encoder = _encoder(self._waiting, self._client, self.loop)
        if sys.platform != "win32" and not transport.is_secure:
            self._fd = transport.underlying_transport.get_extra_info("socket").fileno()
        if self._on_open is not None:
            self._on_open(self)

    def received(self, transport: WSTransport, frame: Any) -> None:
        """``frame`` is a ``WSFrame``; what that calls bool are numbers."""
        if self.ended:
            if frame.msg_type is _CLOSE and not self._client:
                self._transport.disconnect()  # the other side has consented
            return
        if self._poll is not None and self._poll.expected:
            self._poll.came()
        self.more = not frame.last_in_buffer
        opcode = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self.close(PROTOCOL_ERROR, "a frame of an extension that nobody asked for")
        elif opcode is _CLOSE:
            self.close(NORMAL, consented=True)
        elif opcode is not _PONG:
            content = frame.get_payload_as_bytes()
            if opcode is _TEXT and frame.fin and content.isascii() and not self._messages.begun:
                opcode = TEXT  # as nearly all are
            else:
                try:
                    message = self._messages.feed(int(opcode), bool(frame.fin), content)
                except FrameError as error:
                    self.close(error.code, error.message)
                    return
                if message is None:
                    return
                opcode, content = message
            try:
                self.on_message(opcode, content)
            except Exception:
                log.exception("a message could not be handled")
                self.close(INTERNAL_ERROR, "internal error")

    def disconnected(self) -> None:
        # What picows itself did not like ends here, without another word.
        handshake = self._transport.close_handshake
        sent = None if handshake is None else handshake.sent
        if sent is None:
            self._end(0, "closed without a word")
        else:
            self._end(int(sent.code.value), sent.reason)
        if self._client:
            # picows wants its view of the end to be looked at.
            self._looking = asyncio.ensure_future(_look_at(self._transport))
            self._looking.add_done_callback(lambda _: self.gone.set_result(None))
        else:
            self.gone.set_result(None)

    def send_ping(self) -> None:
        if self._holds and not self.full:
            # The answer could not be read. picows begins to wait for it after this returns.
            self.loop.call_soon(self._transport.notify_user_specific_pong_received)
        else:
            self._transport.send_ping()

    def pause_writing(self) -> None:
        self.full = True
        self.on_flow()

    def resume_writing(self) -> None:
        self.full = False
        self.on_flow()
        if self._room is not None:
            self._room.set()

    # --- what this side does

    @property
    def transport(self) -> asyncio.Transport:
        """The transport below, for addresses and certificates."""
        return self._transport.underlying_transport

    @property
    def answer(self) -> Mapping[str, str]:
        """Of a client: the headers of the answer to its handshake; names may be in either case."""
        return cast(Mapping[str, str], self._transport.response.headers)

    @property
    def unsent_bytes(self) -> int:
        """What was sent and has not left this process."""
        return self._waiting_bytes + self.transport.get_write_buffer_size()

    async def room(self) -> None:
        """Returns when the other side takes more, or never will."""
        while self.full and not self.ended:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    def send(self, content: bytes, opcode: int = TEXT, alone: bool = False) -> None:
        """Send a message; what is sent in one turn of the loop leaves in few pieces. Text must be UTF-8.

        ``alone`` says that nothing else is about to be sent before the other side answers, so that this need
        not wait for the end of the turn.
        """
        if self.ended:
            return
        kind = _TEXT if opcode == TEXT else _BINARY
        if alone and not self._waiting and len(content) <= self.gathered_bytes:
            self._transport.send(kind, content)
        else:
            if not self._waiting:
                self.loop.call_soon(self._flush)
            self._encoder.send(kind, content)
            self._waiting_bytes += len(content)
            if self._waiting_bytes > self.gathered_bytes:
                self._flush()  # so that the other side can begin
        if alone and self._poll is not None:
            self._poll.expect()

    def send_frame(self, frame: bytes) -> None:
        """Send a frame made by ``encode_frame``."""
        if self.ended:
            return
        if not self._waiting:
            self.loop.call_soon(self._flush)
        self._waiting.append(frame)
        self._waiting_bytes += len(frame)
        if self._waiting_bytes > self.gathered_bytes:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        if self.transport.is_closing():
            return
        if self._fd >= 0 and not self.transport.get_write_buffer_size():
            # At once, where a loop would do it at the end of its turn.
            try:
                data = data[os.write(self._fd, data) :]
            except OSError:
                pass  # the transport will find out, or wait
        if data:
            self.transport.write(data)

    def hold(self) -> None:
        """Read no more until ``release``; counted."""
        self._holds += 1
        if self._holds == 1 and not self.transport.is_closing():
            self.transport.pause_reading()
            if not self.full:
                self._transport.notify_user_specific_pong_received()

    def release(self) -> None:
        """Undo one ``hold``."""
        self._holds -= 1
        if not self._holds and not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int = NORMAL, reason: str = "", *, consented: bool = False) -> None:
        """Say goodbye; the connection ends with the other side's consent, or without it after a second."""
        if self.ended:
            return
        self._flush()
        self._transport.send_close(WSCloseCode(code), reason)
        if self._holds:
            self.transport.resume_reading()  # for its consent
        self._end(code, "closed by the other side" if consented else reason)
        if consented and not self._client:
            self._transport.disconnect()  # the server closes first, RFC 6455 section 7.1.1
        self.loop.call_later(limits.WS_CLOSE_S, self.abort)

    def abort(self) -> None:
        """End it now, whatever is still on its way."""
        self._end(0, "aborted")
        if not self._transport.is_disconnected:
            self._transport.disconnect(graceful=False)

    def _end(self, code: int, reason: str) -> None:
        if self.ended:
            return
        self.ended = True
        self.end_code = code
        if self._room is not None:
            self._room.set()
        self.on_end(reason)


class _Frames:
    """A list of frames, as a transport that picows writes to."""

    def __init__(self, frames: list[bytes]):
        self.write = frames.append

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def get_extra_info(self, name: str) -> Any:
        # A socket; and the TLS object that keeps picows from writing to that by itself.
        return self

    def get_write_buffer_size(self) -> int:
        return 0

    def fileno(self) -> int:
        return -1


def _encoder(frames: list[bytes], client: bool, loop: asyncio.AbstractEventLoop) -> WSTransport:
    """What adds to ``frames`` those of the messages that are sent by it: headers and masks are picows'
    business, which does it without Python.
    """
    make: Any = WSTransport
    encoder: WSTransport = make(client, _Frames(frames), picows_log, loop)
    return encoder


def picows_options(ping_s: float) -> dict[str, Any]:
    """How picows looks after silent connections, moves bytes (by the loop's own transports, which stay quiet
    when a stranger breaks off a TLS handshake), and names its log.
    """
    return {
        "use_aiofastnet": False,
        "enable_auto_ping": True,
        "auto_ping_idle_timeout": ping_s,
        "auto_ping_reply_timeout": min(limits.WS_PONG_S, ping_s),
        "logger_name": picows_log,
    }


async def all_gone(channels: list[Channel], code: int = GOING_AWAY) -> None:
    """Close channels, and return when their connections are."""
    for channel in channels:
        channel.close(code, "stopped")
    if channels:
        await asyncio.wait([channel.gone for channel in channels])


def _ignore(*_: Any) -> None:
    pass


async def _look_at(transport: WSTransport) -> None:
    try:
        await transport.wait_disconnected()
    except Exception:
        pass
