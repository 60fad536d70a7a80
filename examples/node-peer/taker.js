'use strict'
// The taker's part: an order's way through the network.
//
//     announce to all peers -> offers -> confirm the best prices, release the other locks -> what is left rests
//
// A confirmation that is not answered is in doubt: the maker may have executed it. Its quantity stays reserved and
// the maker is asked again until it has answered; since its answer never changes, asking twice does no harm.

const { Refusal, checkId, checkName } = require('./instrument')
const { better, crosses } = require('./book')
const { isObject } = require('./maker')

const ANNOUNCE_TIMEOUT_MS = 1000
const CONFIRM_TIMEOUT_MS = 2000
const ROUNDS = 8 // announcements of one order in a row
const ASK_AGAIN_MS = [200, 5000] // first and longest pause, doubling

class Taker {
  // peers: () => [{name, destination}], who trades here now; destinationOf: name => destination;
  // call: (destination, type, payload, timeoutMs) => Promise of the answer; the others as for Maker.
  constructor ({ peer, instrument, book, peers, destinationOf, call, newId, tell }) {
    Object.assign(this, { peer, instrument, book, peers, destinationOf, call, newId, tell })
    this.queue = Promise.resolve() // one order at a time is on its way
    this.waiting = new Set() // orders that are to be announced again
  }

  // A new limit order. Resolves when its way through the network is over for now: it is filled, or rests.
  submit (side, quantityText, priceText) {
    const price = this.instrument.price(priceText)
    const quantity = this.instrument.quantity(quantityText)
    return this.next(async () => {
      // All orders here have one owner, and nobody trades with themselves.
      if (this.book.crossing(side, price).length) throw new Refusal('SELF_TRADE', 'it crosses an order of this peer')
      const order = this.book.add(this.newId(), side, price, quantity)
      await this.negotiate(order, quantity)
      return order
    })
  }

  // Announce a resting order once more: another peer's best price crosses it.
  again (order) {
    if (this.waiting.has(order)) return
    this.waiting.add(order)
    this.next(async () => {
      this.waiting.delete(order)
      const held = order.open
      this.book.move(order, 'open', 'reserved', held)
      if (held) await this.negotiate(order, held)
    })
  }

  next (step) {
    const done = this.queue.then(step)
    this.queue = done.catch(() => {})
    return done
  }

  // Find counterparties for `held` reserved lots of `order`; what they do not take is open in the end.
  async negotiate (order, held) {
    for (let round = 1; round <= ROUNDS && held; round++) {
      const offers = await this.collect(order, held, round)
      const outcomes = await Promise.all(choose(offers, order.side, held).map(({ offer, fills }) => {
        if (!fills.length) return this.release(offer)
        const lots = sum(fills)
        held -= lots
        return this.confirm(order, offer, fills).then((outcome) => {
          if (outcome === 'rejected') held += lots
          return outcome
        })
      }))
      // Only who was refused what had been offered has to look for it elsewhere; the others have met all there is.
      if (!outcomes.includes('rejected')) break
    }
    this.book.move(order, 'reserved', 'open', held)
  }

  // Announce to everybody and return the valid offers, in order of arrival.
  async collect (order, held, round) {
    const announcement = {
      order: {
        id: order.id,
        market: this.instrument.market,
        side: order.side,
        price: this.instrument.priceText(order.price),
        quantity: this.instrument.quantityText(held)
      },
      round,
      instrument: this.instrument.fingerprint
    }
    const offers = []
    await Promise.all(this.peers().map(async ({ destination }) => {
      let answer
      try {
        answer = await this.call(destination, 'AnnounceOpenOrder', announcement, ANNOUNCE_TIMEOUT_MS)
      } catch (error) {
        return // not there, too slow or not willing: no offer
      }
      if (!isObject(answer) || answer.lock_id === undefined) return // nothing to offer
      try {
        offers.push(this.checked(answer, order, held, destination))
      } catch (error) {
        this.tell({ error: `no valid offer from ${destination}: ${error.message}` })
        this.release({ destination, lockId: answer.lock_id })
      }
    }))
    return offers
  }

  // What a peer offers, if it is within what was asked. Throws a Refusal.
  checked (answer, order, held, destination) {
    const maker = checkName(answer.from, 'from')
    const lockId = checkId(answer.lock_id, 'lock_id', 128)
    if (!Array.isArray(answer.fills) || !answer.fills.length) throw new Refusal('PROTOCOL', 'fills are missing')
    const fills = answer.fills.map((fill) => {
      if (!isObject(fill)) throw new Refusal('PROTOCOL', 'a fill must be {order_id, price, quantity}')
      const price = this.instrument.price(fill.price)
      if (!crosses(order.side, order.price, price)) throw new Refusal('PROTOCOL', 'a price is outside the limit')
      return { orderId: checkId(fill.order_id, 'order_id'), price, lots: this.instrument.quantity(fill.quantity) }
    })
    if (sum(fills) > held) throw new Refusal('PROTOCOL', 'more is offered than was asked for')
    const orders = new Set(fills.map((fill) => fill.orderId))
    if (orders.size < fills.length) throw new Refusal('PROTOCOL', 'an order is offered twice')
    return { maker, destination, lockId, fills }
  }

  // Ask a maker to execute. Resolves to 'committed', 'rejected', or 'in doubt' after the first silence.
  confirm (order, offer, fills) {
    const lots = sum(fills)
    const message = {
      match_id: this.newId(),
      lock_id: offer.lockId,
      fills: fills.map((fill) => ({
        order_id: fill.orderId,
        price: this.instrument.priceText(fill.price),
        quantity: this.instrument.quantityText(fill.lots)
      })),
      side: order.side,
      order_id: order.id
    }
    return new Promise((resolve) => {
      const ask = async (silences) => {
        const destination = this.destinationOf(offer.maker) || offer.destination // it may have moved
        const answer = await this.call(destination, 'CrossPeerMatch', message, CONFIRM_TIMEOUT_MS).catch(() => null)
        // Another peer may have come to the maker's old address: what it says is no answer.
        const status = isObject(answer) && answer.from === offer.maker ? answer.status : null
        if (status === 'committed') {
          this.book.move(order, 'reserved', 'filled', lots)
          for (const trade of this.trades(message, order, offer, answer)) this.tell({ trade })
          resolve('committed')
        } else if (status === 'rejected') {
          // negotiate() goes on with the quantity, unless it has given up waiting: then it is open again.
          if (silences) this.book.move(order, 'reserved', 'open', lots)
          resolve('rejected')
        } else {
          this.tell({ in_doubt: { match_id: message.match_id, maker: offer.maker } })
          resolve('in doubt')
          setTimeout(ask, Math.min(ASK_AGAIN_MS[1], ASK_AGAIN_MS[0] * 2 ** silences), silences + 1)
        }
      }
      ask(0)
    })
  }

  // A maker executes exactly what it was asked for, or nothing: so the trades are ours to write down.
  trades (message, order, offer, answer) {
    const [first] = Array.isArray(answer.trades) ? answer.trades : []
    return message.fills.map((fill) => ({
      match_id: message.match_id,
      market: this.instrument.market,
      price: fill.price,
      quantity: fill.quantity,
      maker_order_id: fill.order_id,
      taker_order_id: order.id,
      maker_peer: offer.maker,
      taker_peer: this.peer,
      time: isObject(first) && Number.isSafeInteger(first.time) ? first.time : Date.now(),
      side: order.side
    }))
  }

  // Nobody waits for the answer: a release that is lost ends with the lease.
  release ({ destination, lockId }) {
    this.call(destination, 'ReleaseLock', { lock_id: lockId }, ANNOUNCE_TIMEOUT_MS).catch(() => {})
  }
}

// What to take of each offer: best price first; among equals from the larger offer, then the earlier one. It may
// combine several peers. An offer of which nothing is taken gets no fills: it is to be released.
function choose (offers, side, quantity) {
  const choices = offers.map((offer) => ({ offer, fills: [] }))
  const candidates = choices.flatMap((choice) => {
    const size = sum(choice.offer.fills)
    return choice.offer.fills.map((fill) => ({ choice, fill, size }))
  })
  candidates.sort((one, other) => {
    if (one.fill.price !== other.fill.price) return better(side, one.fill.price, other.fill.price)
    return one.size === other.size ? 0 : one.size > other.size ? -1 : 1
  })
  for (const { choice, fill } of candidates) {
    const lots = fill.lots < quantity ? fill.lots : quantity
    if (!lots) break
    choice.fills.push({ ...fill, lots })
    quantity -= lots
  }
  return choices
}

function sum (fills) {
  return fills.reduce((total, { lots }) => total + lots, 0n)
}

module.exports = { Taker }
