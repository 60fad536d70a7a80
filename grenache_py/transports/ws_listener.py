"""What picows tells of a connection, for its ``ws.Channel``, which is compiled; what inherits from picows can
not be.
"""

from __future__ import annotations

from picows import WSListener, WSTransport

from .ws import Channel


class Listener(WSListener):
    """Of one connection, from its handshake on."""

    def __init__(self, channel: Channel):
        super().__init__()
        self.channel = channel
        # Nothing stands between, where each message comes by.
        vars(self)["on_ws_frame"] = channel.received

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.channel.connected(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.channel.disconnected()

    def send_user_specific_ping(self, transport: WSTransport) -> None:
        self.channel.send_ping()

    def pause_writing(self) -> None:
        self.channel.pause_writing()

    def resume_writing(self) -> None:
        self.channel.resume_writing()
