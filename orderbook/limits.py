"""Every bound of the order book in one place, each with its reason.

Times are in seconds, sizes in items unless the name says otherwise. What is Final is asked for on the way of
each order, and known to the compiler: where that has been, no test can change it.
"""

from __future__ import annotations

from typing import Final

# What a client or a stranger may write.
NAME_LENGTH = 64
"""Characters in a peer, owner, market, order or client order id: enough for a UUID with a prefix."""
DECIMAL_LENGTH = 40
"""Characters in a price or quantity: far beyond any real amount, small enough to parse at no cost."""
QUANTITY_LOTS = 2**63 - 1
"""Largest quantity in lots: sums of what one book holds stay exact in any language that reads our files."""
PRICE_TICKS = 2**53 - 1
"""Largest price in ticks: exact even where a reader keeps it in a double."""
WHOLE_NUMBER = 2**53 - 1
"""Largest count or time in a message: exact in any reader of JSON, and no more than a journal can keep."""
TEXTS_REMEMBERED = 4_096
"""Names, prices and quantities of which it is remembered what their text means, to work it out only once."""

# What one peer holds.
OPEN_ORDERS = 1_000_000
"""Live orders in one market; further ones are refused with a clear error."""
ICEBERG_TIPS = 1_000
"""Tips that an iceberg order shows one after the other at the most, so that one order that trades with all of
them takes a bounded time."""
MASS_QUOTE = 1_000
"""Orders in one mass quote: both sides of 500 prices."""
NEGOTIATIONS = 1_000
"""Orders of one market under way in the network at once; further ones wait in the book for their turn."""
RESERVATIONS = 100_000
"""Reservations for others at once; past it an announcement finds nothing here."""
RESERVATIONS_PER_COUNTERPARTY = 2_000
"""Of these, for one counterparty, so that no single peer can lock a whole book: twice what an honest one can
hold, with all its orders under way."""
COUNTERPARTIES = 10_000
"""Counterparties whose standing is remembered; further strangers reserve nothing until there is room."""
DOUBTS_PER_MAKER = 100
"""Confirmations that a maker may leave unanswered before no more of its offers are taken: more than an honest
one leaves that is restarted under load, and few enough to be asked about again and again."""
OFFER_FILLS: Final = 256
"""Resting orders that one offer names; the rest is found by the next announcement."""
PEERS = 1_000
"""Peers of one market kept in the roster; look-ups return at most 100 at a time."""
OWN_DESTINATIONS = 100
"""Places remembered where we were found ourselves, which are one or two; anybody may answer with our name."""
DUPLICATE_S = 30.0
"""Within this time of moving a peer comes back to where it was only if there are two of it, or it has two
addresses: each look-up, every 2 s, finds the one that the last one has lost."""
NONCES_PER_PEER = 5_000
"""Messages of one peer remembered so that none is taken twice. From one that sends more within the window,
only newer ones are taken."""
SIGNED_BYTES = 384 * 1024
"""Longest signed message: an answer with the trades of 256 orders and the longest names just fits, also where
each character of a counterparty's ids takes six bytes of JSON."""
PROOFS_IN_MEMORY = 10_000
"""Proofs of trades kept, newest first, where there is no journal."""
TRADES_IN_MEMORY = 10_000
"""Trades that a peer with a journal keeps in memory, newest first; older ones it looks up: more than are
executed while a counterparty repeats a question, so that it seldom has to. They take some 6 MB."""
TRADES_DROPPED = 200
"""Trades that leave the memory in one turn of the event loop: a tenth of a millisecond or two."""
TRADES_WITHOUT_JOURNAL = 200_000
"""Trades that a peer without a journal keeps, which has them nowhere else: some 125 MB. Whether an older
match was executed it can't say any more, and does not."""
ORDER_TRADES = 1_000
"""Trades that are shown with their order, newest first; ``GET /trades`` pages through all of them."""
CLOSED_ORDERS = 200_000
"""Closed orders kept for questions about them, oldest swept first."""
ORDERS_SWEPT = 200
"""Closed orders that are forgotten in one step: some tenths of a millisecond."""
CLOSED_ORDER_AGE_S = 3_600.0
"""How long a closed order can be asked for."""

# How long things take.
LEASE_S = 5.0
"""How long a reservation holds: several times an announcement's deadline, short enough that a vanished
counterparty does not bind a resting order for long."""
LEASE_LEAST_S = 1.5
"""The shortest lease, for a counterparty that wastes them: an announcement's deadline and a bit."""
LEASES_WASTED: Final = 8
"""Leases that a counterparty may let run out in a row before it cools off."""
COOL_OFF_S = 10.0
"""For how long it then reserves nothing; a peer that was cut off has long come back by then."""
ANNOUNCE_TIMEOUT_S: Final = 1.0
"""How long offers are waited for; a peer slower than that is as good as absent for this round."""
CONFIRM_TIMEOUT_S: Final = 2.0
"""How long the answer to a confirmation is waited for before its quantity counts as in-doubt."""
IN_DOUBT_RETRY_S = (0.2, 5.0)
"""First and longest pause before an in-doubt confirmation is asked again (doubling between them)."""
CONTENDED_RETRY_S = (0.03, 1.0)
"""First and longest mean pause before an order that met nobody, or was refused twice, is announced again
(doubling, jittered)."""
CONTENDED_RETRIES = 8
"""Announcements repeated for contention alone; after that the heartbeat finds what still crosses."""
ROUNDS: Final = 8
"""Announcements of one order in a row that get nothing: what was offered was refused."""
ROUNDS_MAX: Final = ICEBERG_TIPS
"""Announcements of one order in a row while each gets something: as many as an iceberg has tips."""
LEASE_LEFT_S = 0.25
"""What must be left of a lease when a fill-or-kill order is confirmed: many times a message's way, and less
than the shortest lease has left when all peers have had their time to answer."""
HEARTBEAT_S = 1.0
"""Mean pause between heartbeats, jittered by a quarter."""
HEARTBEATS_MISSED = 5
"""A peer not heard of for this many heartbeats leaves the roster."""
SIGNED_WINDOW_S = 30.0
"""How far the time in a signed message may be from our clock, either way: far longer than a message travels,
and room for clocks that nobody has set of late."""
NAME_HELD_S = max(HEARTBEATS_MISSED * HEARTBEAT_S, LEASE_S)
"""For how long a silent peer's name is kept from other keys: until it has left the roster, and nothing is
reserved under its name."""
LINES = 256
"""Connections to other peers that are kept open; further peers are reached over HTTP."""
LINE_REQUESTS = 1_000
"""Unanswered requests of one peer's connection; until some are answered, no more are read."""
GATHERED_ORDERS: Final = 5
"""Clients' orders on their way at once from which on a request waits for the end of its turn, since what is
said about the others may leave in the same write; with fewer of them the sooner the better."""
LINE_GATHERED_BYTES = 1024
"""What is said in one turn leaves in writes of about so much: four messages, each of which takes about as
long to handle as a write. So a peer works on the first ones while the next ones are made."""
LINE_IDLE_S = 60.0
"""For how long a connection is kept over which nothing goes, not even heartbeats: its peer has left."""
LINE_RETRY_S = 10.0
"""Least pause from one attempt to connect to a peer to the next; HTTP does meanwhile. Who breaks each
connection at once makes us open no more than that."""
SESSIONS = 1_000
"""Sessions that other peers keep open with one market: one for each that the roster holds."""
SESSIONS_PER_KEY = 4
"""Of these, of one key: the present one, its successor, and some whose connection has ended unnoticed."""
SESSION_OPEN_S = 5.0
"""How long the answer to the opening of a session is waited for; HTTP does meanwhile."""
SESSION_S = 3_600.0
"""Age at which who has opened a session opens another one. At twice that nothing more is taken in it."""
SESSION_FRAMES = 2**24
"""Frames in one direction after which it does the same: half an hour at 10,000 a second."""
LINE_TICK_S = 0.02
"""How late a time limit over a connection may be noticed."""
TIMER_SET_S = 0.002
"""How late a market's timer may be set after a step, so that it is set once for many of them; the shortest
pause is 15 times as long."""
MESSAGE_BYTES = 1024 * 1024
"""Longest answer that is taken: several times that with the trades of 256 orders and the longest names."""
DISCOVERY_S = 2.0
"""Longest pause between look-ups of a market's shared name."""
DISCOVERY_WANTED_S = 0.1
"""Pause before a look-up that is wanted at once, so that many who want it share one."""
REANNOUNCE_PER_HEARTBEAT = 32
"""Crossing orders announced again on one heartbeat; the next one continues."""
GARBAGE_OBJECTS = 20_000
"""New objects after which a peer's process looks for garbage: some orders' worth would be 700."""
SWITCH_S = 0.0005
"""After how long a thread of a peer's process lets another run: less than a disk takes to make a journal's
transaction durable."""
STOP_S = 3.0
"""How long a peer that stops waits for its clients' orders that are under way."""
JOURNAL_RETRY_S = 1.0
"""Pause before a journal that could not be written (a full disk) is tried again."""
JOURNAL_HANGS_S = 5.0
"""From this time without an answer on a disk hangs: new orders are refused, which would only pile up."""
JOURNAL_WRITE_EVENTS = 500
"""Events to a transaction, or those of one step: some milliseconds of the event loop."""
JOURNAL_CHECKPOINT_WRITES = 200
"""Transactions after which the log is copied to the database: some 1,000 pages, as many as SQLite's default.
Meanwhile nothing is written, for some milliseconds."""
JOURNAL_CHECKPOINT_EVENTS = 50
"""Events that count as another such transaction, where one has many: so many fill some pages."""
JOURNAL_REDO_HALF = 1_048_576
"""Bytes of a half of the redo log: a second of writing or more, and twice that to take over at a start. A
step that is larger goes straight to the tables."""
JOURNAL_TAKE_EVENTS = 2_000
"""Events that are taken over from the redo log in one transaction: some tens of milliseconds of a thread."""
JOURNAL_TAKE_S = 1.0
"""How soon the tables have what the redo log has: the more comes together, the fewer pages change."""
JOURNAL_GATHER_EVENTS = 32
"""Events that are worth a transaction of their own, so that no more are looked for: to write that many takes
longer than to make them durable."""
JOURNAL_LINGER_S = 0.05
"""How soon events are written that nobody waits for: most are written before, with others."""
JOURNAL_STARTS = 1_000
"""Starts that a journal remembers, the newest, some 25 bytes each: a confirmation from before these has been
in doubt for longer than anybody lets it."""
JOURNAL_TAIL = 50_000
"""Events after which a start replaces them by a snapshot: half a second of replay, at 6 us an event."""
JOURNAL_SNAPSHOT = 250_000
"""Events after which a running peer has another process replace them by a snapshot: one and a half seconds of
work, and never more than some seconds of replay for the next start."""
SNAPSHOT_CLOSED_ORDERS = 20_000
"""Closed orders, newest first, that a snapshot keeps, so that a client that repeats itself is recognised."""

# The client API.
PAGE_DEFAULT = 1_000
PAGE_MAX = 10_000
"""Rows in one answer of ``GET /orders`` and ``GET /trades``."""
API_BODY_BYTES = 16 * 1024
"""One order is a few hundred bytes."""
API_QUOTES_BYTES = 256 * MASS_QUOTE
"""A quote with a long name is some 200 bytes."""
API_PROOF_BYTES = 2 * SIGNED_BYTES
"""A proof is two signed messages."""
FEEDS = 100
"""Readers of feeds at once; further ones are refused."""
FEED_LEVELS = 25
"""Price levels a side of a feed unless asked otherwise: as many as its checksum covers."""
FEED_LEVELS_MAX = 1_000
"""At the most: they are looked at for each line of each reader."""
FEED_TRADES = 250
"""Trades in a line of a feed: some 200 KB with the longest names."""
FEED_PAUSE_S = 0.05
"""Shortest pause between two lines of a feed: quicker than anybody reads, and a busy book is not looked at
for each of its readers after every order."""
FEED_IDLE_S = 15.0
"""After how long without a change a feed says that it is alive, and how long a reader may take for a line."""
WAITS = 1_000
"""Requests at once that wait for an order; further ones are refused. Each is a connection and some KB."""
WAIT_MS_MAX = 60_000
"""Milliseconds that one of them may wait."""
WAIT_GONE_S = 1.0
"""How often it is looked whether their clients are still there."""
BOOK_LEVELS = 100
"""Price levels a side in ``GET /book`` unless asked otherwise."""
