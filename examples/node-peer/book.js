'use strict'
// The orders of this peer, in memory. At every instant, for each of them:
//
//     quantity = open + reserved + filled
//
// open: free to be matched; reserved: set aside, for another peer (maker.js) or while the order itself is on its
// way through the network (taker.js); filled: traded.

class Book {
  constructor () {
    this.orders = new Map() // by id, in order of arrival
  }

  // A new order. All of it is reserved until its way through the network is over.
  add (id, side, price, quantity) {
    const order = { id, side, price, quantity, open: 0n, reserved: quantity, filled: 0n }
    this.orders.set(id, order)
    return order
  }

  // The one place where quantity moves: move(order, 'open', 'reserved', 5n).
  move (order, from, to, lots) {
    if (lots < 0n || lots > order[from]) throw new Error(`${order.id} has no ${lots} lots ${from}`)
    order[from] -= lots
    order[to] += lots
  }

  // Live orders of the other side that an order of `side` limited at `price` could trade with, best price first and
  // oldest first within a price (sort is stable, and the map is in order of arrival).
  crossing (side, price) {
    return [...this.orders.values()]
      .filter((order) => order.side !== side && crosses(side, price, order.price))
      .filter((order) => order.open || order.reserved)
      .sort((one, other) => better(side, one.price, other.price))
  }

  // What of that can be had now, up to `quantity` lots and `most` orders. `contended`: more would match, but is
  // reserved (or left out), so it is worth asking again later.
  available (side, price, quantity, most) {
    const fills = []
    let contended = false
    for (const order of this.crossing(side, price)) {
      if (quantity === 0n) return { fills, contended: false }
      if (order.reserved) contended = true
      if (!order.open) continue
      if (fills.length === most) return { fills, contended: true }
      const lots = order.open < quantity ? order.open : quantity
      fills.push({ order, lots })
      quantity -= lots
    }
    return { fills, contended: contended && quantity > 0n }
  }

  // The best price of `side` with open quantity, or null.
  best (side) {
    let best = null
    for (const order of this.orders.values()) {
      if (order.side !== side || !order.open) continue
      if (best === null || (order.price > best) === (side === 'buy')) best = order.price
    }
    return best
  }
}

// Whether an order of `side` limited at `price` can trade at `other`.
function crosses (side, price, other) {
  return side === 'buy' ? price >= other : price <= other
}

// For sort: the prices that are better for an order of `side` come first.
function better (side, one, other) {
  if (one === other) return 0
  return (one < other) === (side === 'buy') ? -1 : 1
}

module.exports = { Book, crosses, better }
