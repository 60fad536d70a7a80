'use strict'
// The maker's part: what this peer answers to others. It offers what it has open, under a lease, and it alone
// decides whether a match happens.

const { Refusal, checkId, checkName, checkSide } = require('./instrument')

const OFFER_FILLS = 256 // orders named in one offer
const LOCKS = 1000 // reservations for others at once
const REASON_LOCK = 'lock_gone: released, run out, or from before a restart'

class Maker {
  // now: seconds on a clock that never steps; newId: ids that are unique in the network, also over restarts;
  // tell: is told what happens, {offered: …}, {trade: …}, …
  constructor ({ peer, instrument, book, leaseS, now, newId, tell }) {
    Object.assign(this, { peer, instrument, book, leaseS, now, newId, tell })
    this.locks = new Map() // lock id -> {id, announcement, counterparty, orderId, fills, expires}, oldest first
    this.lockOf = new Map() // announcement -> lock id
    this.matches = new Map() // match id -> {taker, trades}: what was executed, for good
    this.beats = 0
  }

  // Answer one request of another peer. Throws a Refusal, having changed nothing.
  answer (envelope) {
    if (!isObject(envelope) || !isObject(envelope.payload)) {
      throw new Refusal('PROTOCOL', 'a request must be {type, from, payload}')
    }
    const sender = checkName(envelope.from, 'from')
    if (sender === this.peer) return null // our own broadcast: a look-up finds us too
    this.expire()
    switch (envelope.type) {
      case 'AnnounceOpenOrder': return this.announced(sender, envelope.payload)
      case 'CrossPeerMatch': return this.match(sender, envelope.payload)
      case 'ReleaseLock': return this.release(sender, envelope.payload)
      case 'Heartbeat': return this.heartbeat(envelope.payload)
      case 'Goodbye': return this.goodbye(sender)
      default: throw new Refusal('PROTOCOL', 'type is none of the order book')
    }
  }

  // "Who can match this?" Reserve what is open and offer it. An offer names whole reservations: nobody else gets
  // them until they are confirmed or released, or until the lease is over.
  announced (sender, { order, round = 0, instrument }) {
    if (!isObject(order)) throw new Refusal('PROTOCOL', 'order is missing')
    this.instrument.check(instrument)
    if (order.market !== this.instrument.market) {
      throw new Refusal('PROTOCOL', `order.market must be ${this.instrument.market}`)
    }
    const side = checkSide(order.side, 'order.side')
    const price = this.instrument.price(order.price, 'order.price')
    const quantity = this.instrument.quantity(order.quantity, 'order.quantity')
    const orderId = checkId(order.id, 'order.id')
    if (!Number.isSafeInteger(round) || round < 0) throw new Refusal('PROTOCOL', 'round must be a count')

    // The same announcement again (a repeated message) gets the same lock; the next round gets a new one.
    const announcement = JSON.stringify([sender, orderId, round])
    let lock = this.locks.get(this.lockOf.get(announcement))
    let contended = false
    if (!lock) {
      const found = this.book.available(side, price, quantity, OFFER_FILLS)
      contended = found.contended
      if (!found.fills.length || this.locks.size >= LOCKS) {
        return contended || found.fills.length ? { contended: true, from: this.peer } : null
      }
      lock = {
        id: this.newId(),
        announcement,
        counterparty: sender,
        orderId,
        fills: found.fills,
        expires: this.now() + this.leaseS
      }
      for (const { order, lots } of lock.fills) this.book.move(order, 'open', 'reserved', lots)
      this.locks.set(lock.id, lock)
      this.lockOf.set(announcement, lock.id)
    }
    const offered = lock.fills.reduce((sum, { lots }) => sum + lots, 0n)
    const offer = {
      lock_id: lock.id,
      fills: lock.fills.map(({ order, lots }) => ({
        order_id: order.id,
        price: this.instrument.priceText(order.price),
        quantity: this.instrument.quantityText(lots)
      })),
      quantity: this.instrument.quantityText(offered),
      fully_matched: offered === quantity,
      lease: Math.max(1, Math.round((lock.expires - this.now()) * 1000)), // milliseconds
      contended,
      from: this.peer
    }
    this.tell({ offered: { lock_id: lock.id, to: sender, quantity: offer.quantity } })
    return offer
  }

  // "Execute these of what you reserved." Executed now, or never: the answer for a match id stays the same for good.
  // That is why what was executed is kept, and why a lock that is gone never comes back.
  match (sender, message) {
    const matchId = checkId(message.match_id, 'match_id')
    const lockId = checkId(message.lock_id, 'lock_id', 128)
    const known = this.matches.get(matchId)
    if (known) {
      if (known.taker !== sender) throw new Refusal('PROTOCOL', 'match_id belongs to another match')
      return { status: 'committed', trades: known.trades, from: this.peer }
    }
    const lock = this.lockHeldBy(sender, lockId)
    if (!lock) return { status: 'rejected', reason: REASON_LOCK, from: this.peer }
    let wanted
    try {
      wanted = this.wanted(lock, message.fills)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      this.end(lock)
      return { status: 'rejected', reason: error.message.slice(0, 200), from: this.peer }
    }
    const trades = []
    const time = Date.now() // one for the whole match: both sides keep the same
    for (const { order } of lock.fills) {
      const lots = wanted.get(order.id)
      if (!lots) continue
      this.book.move(order, 'reserved', 'filled', lots)
      trades.push({
        match_id: matchId,
        market: this.instrument.market,
        price: this.instrument.priceText(order.price), // the maker's price, always
        quantity: this.instrument.quantityText(lots),
        maker_order_id: order.id,
        taker_order_id: lock.orderId,
        maker_peer: this.peer,
        taker_peer: sender,
        time,
        side: order.side === 'buy' ? 'sell' : 'buy' // what the taker did
      })
    }
    this.end(lock, wanted) // what was reserved and not asked for is open again
    this.matches.set(matchId, { taker: sender, trades })
    for (const trade of trades) this.tell({ trade })
    return { status: 'committed', trades, from: this.peer }
  }

  // The lots to execute, by order id. Throws a Refusal if they are not within the reservation.
  wanted (lock, fills) {
    if (!Array.isArray(fills) || !fills.length) throw new Refusal('PROTOCOL', 'fills must name what to execute')
    const reserved = new Map(lock.fills.map((fill) => [fill.order.id, fill]))
    const wanted = new Map()
    for (const fill of fills) {
      const held = isObject(fill) ? reserved.get(fill.order_id) : undefined
      if (!held || wanted.has(fill.order_id)) throw new Refusal('PROTOCOL', 'fills must be within what was reserved')
      const lots = this.instrument.quantity(fill.quantity, 'fills.quantity')
      if (lots > held.lots) throw new Refusal('PROTOCOL', 'fills must be within what was reserved')
      if (this.instrument.price(fill.price, 'fills.price') !== held.order.price) {
        throw new Refusal('PROTOCOL', 'fills.price must be the price that was offered')
      }
      wanted.set(fill.order_id, lots)
    }
    return wanted
  }

  // "I do not need what you reserved."
  release (sender, message) {
    const lock = this.lockHeldBy(sender, checkId(message.lock_id, 'lock_id', 128))
    if (!lock) return { released: false }
    this.end(lock)
    this.tell({ released: { lock_id: lock.id, by: sender } })
    return { released: true }
  }

  // "I am here, and these are my best open prices"; the answer says the same of us.
  heartbeat (message) {
    this.instrument.check(message.instrument)
    return this.ownHeartbeat()
  }

  ownHeartbeat () {
    const [bid, ask] = [this.book.best('buy'), this.book.best('sell')]
    return {
      sequence: ++this.beats,
      best_bid: bid === null ? null : this.instrument.priceText(bid),
      best_ask: ask === null ? null : this.instrument.priceText(ask),
      instrument: this.instrument.fingerprint,
      from: this.peer
    }
  }

  // "I leave."
  goodbye (sender) {
    for (const lock of this.locks.values()) if (lock.counterparty === sender) this.end(lock)
    return null
  }

  // Free what was reserved for peers that have not come back in time.
  expire () {
    for (const lock of this.locks.values()) {
      if (lock.expires > this.now()) break // all leases are equally long, so the oldest ends first
      this.end(lock)
      this.tell({ expired: { lock_id: lock.id, of: lock.counterparty } })
    }
  }

  // A lock belongs to the peer that it was made for.
  lockHeldBy (sender, lockId) {
    const lock = this.locks.get(lockId)
    return lock && lock.counterparty === sender ? lock : null
  }

  // A lock ends exactly once; what was not executed of it is open again.
  end (lock, executed = new Map()) {
    this.locks.delete(lock.id)
    this.lockOf.delete(lock.announcement)
    for (const { order, lots } of lock.fills) {
      this.book.move(order, 'reserved', 'open', lots - (executed.get(order.id) || 0n))
    }
  }
}

function isObject (value) {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

module.exports = { Maker, isObject }
