"""Every bound and default time of Link and RPC, with its reason. Times are seconds, sizes bytes."""

from __future__ import annotations

# --- Link; the values of grenache-nodejs-link 1.0.2 (its conf in index.js) unless said otherwise

GRAPE_TIMEOUT_S = 2.5
"""One try of a request to the Grape. A Grape's own queries give up after 2 to 2.5 s."""

GRAPE_TRIES = 3
"""Tries of ``lookup`` and ``announce``, without a pause. ``put`` and ``get`` are tried once."""

LOOKUP_CACHE_AGE_S = 10.0
"""How long a look-up is answered from memory, and how long a destination that failed is avoided."""

LOOKUP_CACHE_SIZE = 2500
"""Names (and, apart from them, failed destinations) remembered; the oldest goes first."""

DESTINATIONS_MAX = 100
"""Destinations kept per name. A Node Grape returns no more (grenache-grape/lib/Grape.js)."""

ANNOUNCE_INTERVAL_S = 120.0
"""Mean pause between announcements; each is drawn from 0.5 to 1.5 times this, so that services that started
together do not stay together. Grapes keep a record for 80 to 160 s."""

ANNOUNCE_RETRY_S = 1.0
"""Mean pause after the first failed announcement; it doubles with each further failure up to the interval."""

GRAPE_REPLY_BYTES_MAX = 256 * 1024
"""Ours: a look-up of 100 destinations takes 2 kB, a stored value at most 6 kB."""

NAME_BYTES_MAX = 1000
"""Ours: a service name travels in every DHT datagram, which should fit one packet."""

VALUE_BYTES_MAX = 999
"""BEP 44 allows 1000 bytes of bencoded value; Node refuses ``v.length >= 1000`` before sending."""

# --- RPC

REQUEST_TIMEOUT_S = 10.0
"""The default limit of a whole call. Node 1.0.2 waits for ever unless told otherwise."""

CONNECT_TIMEOUT_S = 5.0
"""A host that does not take a connection by then is taken for dead."""

IDLE_CONNECTION_S = 4.0
"""An unused client connection is not used again after this: Node servers close theirs after 5 s, and a
request that crosses such a close would be in doubt.
"""

BODY_BYTES_MAX = 16 * 1024 * 1024
"""Ours: the largest request or reply, also after decompression. Node has no limit."""

ERROR_TEXT_MAX = 500
"""Characters kept of a text that only appears in an error message."""

REPLY_HEAD_BYTES_MAX = 64 * 1024
"""The head of a reply, and whatever else of it is no body (chunk sizes, trailers)."""

SENT_AT_ONCE_BYTES = 16 * 1024
"""A request up to this size leaves at once over an idle connection, since any system's send buffer takes it:
``map`` begins such calls one after the other."""

CONNECTIONS_PER_DESTINATION = 100
"""Idle connections kept to one destination by the synchronous client."""

CONNECTIONS_MAX = 1000
"""Open connections of one asynchronous client; further calls wait, within their time limit."""

DESTINATION_POOLS = 256
"""Destinations to which a client keeps connections; the oldest goes first."""

HANDLER_TIMEOUT_S = 300.0
"""A request whose handler has not replied by then is answered with ``ERR_TIMEOUT``."""

REQUESTS_IN_FLIGHT_MAX = 1024
"""Requests of one service that wait for their reply, unless it has a ``concurrency`` of its own; further ones
are answered ``ERR_BUSY`` at once.
"""

HELD_BYTES_MAX = 1024 * 1024 * 1024
"""What the connections of one service may hold of requests that are not whole and of replies that are not
taken: 64 of the largest. Looked at once a second; then those that hold most are ended."""

CONNECTIONS_TOLD = 100
"""Connections beyond those that a server has room for: they are told so before they are closed."""

HANDSHAKE_S = 10.0
"""How long a TLS handshake with a server may take: two ways to the other side of the world and back."""

HANDSHAKES_MAX = 1000
"""TLS handshakes of one server under way; a further one takes the place of the oldest."""

STREAM_IDLE_S = 60.0
"""How long a stream waits for its other side to say or take something."""

STREAMS_MAX = 256
"""Connections of one service of streams; each holds up to half a megabyte."""

HANDLER_THREADS = 32
"""Threads that run the handlers of one synchronous service."""

DRAIN_S = 1.0
"""How long a service that stops waits for the replies to the requests it has taken."""

# --- Workers with actions; the values of bfx-facs-grc (index.js) unless said otherwise

WORKER_ANNOUNCE_S = 45.0
"""Mean pause between announcements (``tickInterval``); each is drawn from 0.5 to 1.5 times this."""

WORKER_TIMEOUT_S = 600.0
"""An action that has not answered by then is answered ``ERR_TIMEOUT`` (``server_timeout``)."""

ACTION_TIMEOUT_S = 120.0
"""The default limit of a call of an action (``_doReq``)."""

SEC_PORT_OFFSET = 2000
"""From the port of a worker to that of its ``sec:`` twin (``secPortOffset``)."""

ACL_CHECK_S = 1.0
"""Ours: how often, at most, an ACL file is looked at for changes. There, it is read once."""

ACL_BYTES_MAX = 1024 * 1024
"""Ours: the largest ACL file; some thousand fingerprints."""

ACCESS_TEXT_MAX = 200
"""Ours: characters of a name in the access log and in spans, so that no caller can fill a disk."""

# --- WebSocket; sizes of messages as above

WS_CONNECTIONS_PER_DESTINATION = 3
"""Connections of a client to one destination (Node's maxActiveDestTransports). A further one is opened only
while all others hold back what they are to send."""

WS_IDLE_CONNECTION_S = 60.0
"""A client closes a connection that was not used for this long; Node servers never close theirs."""

WS_IDLE_CONNECTION_SYNC_S = 15.0
"""The synchronous client does not use a connection again after this: nobody reads on an idle one, and a
server of ours asks for a sign of life after WS_PING_S."""

WS_PING_S = 20.0
"""A connection that is silent for this long is asked for a sign of life."""

WS_PONG_S = 10.0
"""Without any by then, it is taken for dead."""

WS_CLOSE_S = 1.0
"""How long the end of a connection waits for the other side's consent."""

WS_CONNECTIONS_MAX = 4096
"""Connections of one service; further ones are closed with code 1013 (try again later)."""

WS_REQUESTS_PER_CONNECTION = 256
"""Unanswered requests of one connection; until some are answered, no more are read."""

MESSAGE_HEADERS_MAX = 100
MESSAGE_HEADERS_BYTES = 16 * 1024
"""Ours: headers of one request, and their names and values together; as many as our HTTP servers take."""

BUSY_POLL_US = 50
"""How long, at most, a client or an asyncio service looks for an answer again and again before it sleeps;
about what it costs to sleep and to be woken, and Linux' advice for ``net.core.busy_poll``."""

BUSY_POLL_US_MAX = 1000
"""Beyond this a user means something else."""

PUB_QUEUE_BYTES = 4 * 1024 * 1024
"""Unsent bytes of one subscriber; who is slower is disconnected, and may come back."""

SUB_QUEUE_MESSAGES = 1000
"""Messages that wait for the listener of a subscriber; until it has caught up, no more are read."""

SUB_LOOKUP_S = 10.0
"""Mean pause between look-ups for new publishers; each is drawn from 0.5 to 1.5 times this."""

SUB_RECONNECT_S = 0.2
"""Mean pause before a lost publisher is connected to again; doubles with each failure up to SUB_LOOKUP_S."""

SUB_LOOKUP_TIMEOUT_S = 5.0
"""Time limit of each of these look-ups (grenache-nodejs-base: PeerSub)."""

# --- Command line

PINGED_PEERS_MAX = 1000
"""Peers of which ``grenache-py ping`` keeps figures; a Grape names 100 at a time, other ones each time."""

BENCH_CODES_MAX = 50
"""Error codes that ``grenache-py bench`` counts apart; they come from peers, who could make up new ones."""

BENCH_DURATION_MAX_S = 3600.0
BENCH_CALLS_MAX = 100_000_000
BENCH_RATE_MAX = 1_000_000.0
"""A load test ends, also one that was forgotten."""

EXEC_TIMEOUT_S = 30.0
"""A command of ``grenache-py serve`` is killed after this."""

EXEC_WAITING_MAX = 100
"""Requests of ``grenache-py serve`` that wait for a command to end; further ones are told to ask another
peer."""

EXEC_STDERR_BYTES = 4096
"""What is kept of a command's messages: its last line is the caller's error."""

EXEC_GONE_S = 1.0
"""A killed command is gone at once; should the system take longer, its caller is not held up."""

EXEC_DRAIN_S = 5.0
"""How long ``grenache-py serve`` waits at its end for the commands that run. Supervisors kill after 10 s."""
