"""Every bound of the DHT node in one place, each with its reason."""

from __future__ import annotations

from typing import Final

ID_BYTES: Final = 20
# Contacts per bucket, and nodes that a walk ends on: k-rpc/index.js (BEP 5 says 8, Node Grapes use 20).
K: Final = 20
# Queries of one walk under way at once: k-rpc/index.js.
CONCURRENCY: Final = 16

# Transactions.
QUERY_TIMEOUT_S: Final = 2.0  # k-rpc-socket/index.js: 2.0 to 2.5 s
TICK_S: Final = 0.25  # how coarse every limit in time is
# Queries under way to one address: what a receive buffer of the usual 208 KiB holds several times over.
IN_FLIGHT_PER_ADDRESS: Final = 64
QUEUED_MAX: Final = 20_000
# How long, at most, a Grape looks for the next datagram or request before it sleeps: what a look-up takes on
# one host, where a processor is slow. Looks in vain take 1 % of the time at the most.
BUSY_POLL_US: Final = 200
PENDING_MAX: Final = 50_000  # well below the 65,535 transaction ids of two bytes
# A query is sent again once, after as long as its node may take (RFC 6298), but no sooner than a busy node
# needs to come round to it; and after this where nothing is known of the node.
RESEND_MIN_S: Final = 0.1
RESEND_UNKNOWN_S: Final = 0.25
RESEND_TICK_S: Final = 0.05  # how coarse that is
# Of all queries, so many may be sent again, and at once: enough for 5 % of datagrams lost each way. Where
# more are missing, nodes are dead or have too much to do, and more datagrams make it worse.
RESEND_SHARE: Final = 0.2
RESEND_BURST: Final = 50.0
ROUND_TRIPS_MAX: Final = 2000  # addresses

# Datagrams.
NAME_BYTES_MAX: Final = 1024  # a name must fit a datagram with room to spare
VALUES_MAX: Final = 100  # peers in one reply, 800 bytes: still one unfragmented datagram
TRANSACTION_ID_BYTES_MAX: Final = 32  # what is echoed to a sender
TOKEN_BYTES_MAX: Final = 64  # what is echoed from a reply
NODES_READ_MAX: Final = 200  # contacts read from one reply; a Node Grape lists its whole table
VALUES_READ_MAX: Final = 200  # peers read from one reply; a Node Grape lists all, in random order
VALUES_FOUND_MAX: Final = 4000  # … and from all replies in a walk: from each of the K closest
STRANGER_DATAGRAM_BYTES_MAX: Final = 4096  # the largest query, a put, stays below 2,400
DATAGRAM_BYTES_MIN: Final = 15  # nothing shorter is a message
# To an address that has not proved itself a reply is at most so many times as long as its query; what a list
# of eight nodes (BEP 5) takes. More would make of us an amplifier aimed at whoever the address belongs to.
STRANGER_REPLY_RATIO: Final = 4
STRANGER_NODES_MAX: Final = 8
PROVEN_S: Final = 600.0  # how long a proof counts; tokens last as long
PROVEN_MAX: Final = 10_000

# Look-ups.
# An answer is given again for so long, unless the name is announced or withdrawn here meanwhile. With up to
# 20 Grapes each hears of every announce, so this only spares walks; with more a new service may be seen this
# much later.
ANSWER_MAX_AGE_S: Final = 0.05
ANSWERS_MAX: Final = 1000

# Walks.
WALKS_MAX: Final = 4096
WAITING_MAX: Final = 10_000  # callers that share one walk
CANDIDATES_MAX: Final = 500
# A silent node holds up the end of a walk in which others answered this long …
PATIENCE_S: Final = 1.0
PATIENCE_FOUND_S: Final = 0.5  # … when something was found already
SUSPECT_S: Final = 60.0  # … and not at all, this long after it let a query time out
SUSPECTS_MAX: Final = 2000

# Routing table.
NODE_LIVENESS_S: Final = 300.0  # grenache-grape/lib/Grape.js: dht_nodeLiveness
FAILURES_MAX: Final = 2  # unanswered queries in a row: the second one is a ping right after the first
PING_BEFORE_EVICT_S: Final = 10.0  # bittorrent-dht/client.js: contacts seen since then are not questioned
SAVED_CONTACTS_MAX: Final = 100  # in the state file; all are asked at once after a restart
VERIFYING_MAX: Final = 256  # strangers that are being pinged
# … at one public IP address, of which a few Grapes are behind one: the others must not wait for their turn.
VERIFYING_PER_HOST_MAX: Final = 16
PINGS_PER_TICK: Final = 8  # of contacts that were silent: no burst, and the whole table within minutes
# Contacts, and candidates of a walk, at one public IP address: room for the usual pair of Grapes on a host,
# none for a crowd that surrounds a name. Private networks are not limited: tests run on loopback.
CONTACTS_PER_HOST: Final = 4
# Who tells us our own public address, and how many must agree (BEP 42).
ADDRESS_VOTERS_MAX: Final = 32
ADDRESS_VOTES_MIN: Final = 4
OWN_HOSTS_MAX: Final = 8  # addresses that were taken for our own
REFRESH_S: Final = 900.0  # BEP 5: buckets unchanged for 15 minutes are refreshed
BOOTSTRAP_RETRY_S: Final = 1.0  # doubling up to …
BOOTSTRAP_RETRY_MAX_S: Final = 30.0
# Contacts that were given up, the last K, are asked again while there are no others; outages are shorter.
EARLIER_MAX_AGE_S: Final = 24 * 3600.0

# Stores.
PEER_MAX_AGE_S: Final = 120.0  # grenache-grape/lib/Grape.js
PEERS_MAX: Final = 50_000
PEERS_PER_NAME_MAX: Final = 1000
PEERS_PER_SOURCE_MAX: Final = 10_000  # one Grape announces all the services of its host
TABLES_MAX: Final = 5000  # grenache-grape/lib/Grape.js: dht_maxTables
TABLE_MAX_AGE_S: Final = 270.0  # a little less than the five minutes that tokens are good for
ITEMS_MAX: Final = 5000  # grenache-grape/lib/Grape.js: dht_maxValues
# Of those, put by one address: a quarter, which is more than a Node Grape of the command line keeps in all.
ITEMS_SOURCE_SHARE: Final = 4
ITEM_MAX_AGE_S: Final = 24 * 3600.0  # BEP 44 asks for two hours at least
REPUBLISH_S: Final = 3600.0  # BEP 44
REPUBLISHED_PER_TICK: Final = 4
ITEM_BYTES_MAX: Final = 1000  # BEP 44
SALT_BYTES_MAX: Final = 64  # BEP 44
ITEM_DEPTH_MAX: Final = 32
OWN_ANNOUNCES_MAX: Final = 5000
WELCOMES_MAX: Final = 10_000  # own announces still to be told to nodes that joined
WELCOMES_PER_TICK: Final = 64
TOKEN_ROTATE_S: Final = 300.0  # BEP 5

# Datagrams per second, and at once, from an IP address that has not proved itself by answering a query.
STRANGER_RATE: Final = 100.0  # public addresses, as jech/dht
STRANGER_BURST: Final = 400.0
# All public addresses together, for sender addresses are easily made up.
STRANGERS_RATE: Final = 5_000.0
STRANGERS_BURST: Final = 10_000.0
# From a public IP address that has: more look-ups than one Grape asks another for, and a small part of what
# we can answer.
PROVEN_RATE: Final = 5_000.0
PROVEN_BURST: Final = 10_000.0
PRIVATE_RATE: Final = 50_000.0  # loopback and private networks
PRIVATE_BURST: Final = 100_000.0
MALFORMED_COST: Final = 10.0  # an undecodable datagram counts as many
STRANGERS_MAX: Final = 10_000  # addresses remembered
