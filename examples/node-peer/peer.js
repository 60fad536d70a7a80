'use strict'
// A peer of the order book in Node. It announces itself, answers other peers (maker.js), sends orders through the
// network (taker.js), and asks now and then who else is there. How to run it: README.md.

const path = require('path')
const readline = require('readline')
const { randomBytes } = require('crypto')
const { parseArgs } = require('util')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const { PeerRPCClient, PeerRPCServer } = packages('grenache-nodejs-http')
const Link = packages('grenache-nodejs-link')

const { Book } = require('./book')
const { Instrument, Refusal, checkName, checkSide } = require('./instrument')
const { Maker, isObject } = require('./maker')
const { Taker } = require('./taker')

const HEARTBEAT_MS = 1000
const SILENT_MS = 5000 // a peer not heard of for so long is gone
const CALL_MS = 1000
const LEAVE_MS = 3000
const ANNOUNCE_INTERVAL_MS = 45000 // a Grape may forget after 80 s, and the link waits up to 1.5 times this

const USAGE = 'node peer.js [--name nina] [--market BTC-USD] [--grape http://127.0.0.1:30001] [--tick 0.01] ' +
  '[--lot 0.00000001] [--lease 5] [--buy QUANTITY@PRICE …] [--sell QUANTITY@PRICE …]'

function options () {
  const text = (value) => ({ type: 'string', default: value })
  const { values } = parseArgs({
    options: {
      name: text('nina'),
      market: text('BTC-USD'),
      grape: text('http://127.0.0.1:30001'),
      tick: text('0.01'),
      lot: text('0.00000001'),
      lease: text('5'),
      buy: { type: 'string', multiple: true, default: [] },
      sell: { type: 'string', multiple: true, default: [] },
      help: { type: 'boolean', short: 'h' }
    }
  })
  if (values.help) {
    console.log(USAGE)
    process.exit(0)
  }
  if (!(Number(values.lease) > 0)) throw new Refusal('INVALID_FIELD', '--lease must be seconds, more than 0')
  return values
}

// Everything that happens is a line of JSON on standard output.
function tell (what) {
  console.log(JSON.stringify(what))
}

async function main (conf) {
  const instrument = new Instrument(conf.market, conf.tick, conf.lot)
  const peer = checkName(conf.name, 'name')
  const shared = `orderbook:${conf.market}` // all peers of the market announce this,
  const own = `orderbook:${conf.market}:${peer}` // and each one its own name

  const link = new Link({ grape: conf.grape, lruMaxAgeLookup: HEARTBEAT_MS / 2 })
  link.start()
  const client = new PeerRPCClient(link, {})
  client.init()
  const server = new PeerRPCServer(link, {})
  server.init()
  const service = server.transport('server')

  // Ids must never come twice, also not after a restart: a lock or match of the past is gone for good.
  const start = randomBytes(8).toString('hex')
  let count = 0
  const newId = () => `${start}-${++count}`
  const now = () => performance.now() / 1000

  // A request to one peer: the payload is always the envelope {type, from, payload}.
  const call = (destination, type, payload, timeout) => new Promise((resolve, reject) => {
    client.transport(destination).request(shared, { type, from: peer, payload }, { timeout }, (error, answer) => {
      if (error) reject(error)
      else resolve(answer)
    })
  })

  const roster = new Map() // name -> {name, destination, heard}
  const book = new Book()
  const maker = new Maker({ peer, instrument, book, leaseS: Number(conf.lease), now, newId, tell })
  const taker = new Taker({
    peer,
    instrument,
    book,
    peers: () => [...roster.values()],
    destinationOf: (name) => roster.has(name) ? roster.get(name).destination : null,
    call,
    newId,
    tell
  })

  // -- other peers ask ---------------------------------------------------------------------------------------

  service.on('request', (rid, key, payload, handler) => {
    try {
      if (key !== shared && key !== own) throw new Refusal('UNKNOWN_MARKET', `market must be ${conf.market}`)
      handler.reply(null, maker.answer(payload))
    } catch (error) {
      // A Refusal is meant for the other side. Anything else is our fault, and must not end the process.
      if (!(error instanceof Refusal)) tell({ error: error.stack })
      handler.reply(error instanceof Refusal ? error : new Error('ERR_ORDERBOOK_ERROR: internal error'))
    }
  })
  service.listen(0)
  await new Promise((resolve) => service.socket.once('listening', resolve))
  const port = service.socket.address().port
  for (const name of [shared, own]) {
    await new Promise((resolve, reject) => {
      link.startAnnouncing(name, port, { interval: ANNOUNCE_INTERVAL_MS }, (error) => error ? reject(error) : resolve())
    })
  }

  // -- we ask who is there -----------------------------------------------------------------------------------

  let announced = [] // what the last look-up has found; with no Grape to ask it stays as it is
  const look = () => new Promise((resolve) => {
    link.lookup(shared, {}, (error, destinations) => {
      if (!error) announced = destinations
      resolve()
    })
  })

  // Tell everybody our best prices and hear theirs. Whose best price crosses an order of ours has not met it, say
  // because both were on their way at the same time: we announce the order again, after a random pause, since the
  // other side does the same.
  const beat = async () => {
    maker.expire()
    const known = [...roster.values()].map(({ destination }) => destination)
    await Promise.all([...new Set([...announced, ...known])].map(async (destination) => {
      const answer = await call(destination, 'Heartbeat', maker.ownHeartbeat(), CALL_MS).catch(() => null)
      if (!isObject(answer) || answer.from === peer || answer.instrument !== instrument.fingerprint) return
      try {
        const name = checkName(answer.from, 'from')
        if (!roster.has(name)) tell({ met: { name, destination } })
        roster.set(name, { name, destination, heard: Date.now() })
        for (const [side, price] of [['buy', answer.best_bid], ['sell', answer.best_ask]]) {
          if (price == null) continue
          for (const order of book.crossing(side, instrument.price(price))) {
            if (order.open) setTimeout(() => taker.again(order), Math.random() * HEARTBEAT_MS / 2)
          }
        }
      } catch (error) {
        tell({ error: `no heartbeat from ${destination}: ${error.message}` })
      }
    }))
    for (const { name, heard } of roster.values()) if (Date.now() - heard > SILENT_MS) roster.delete(name)
  }
  const beats = async () => {
    look()
    await beat()
    setTimeout(beats, HEARTBEAT_MS * (0.75 + Math.random() / 2))
  }
  await look()
  await beats()

  // -- our own orders ----------------------------------------------------------------------------------------

  const shown = (order) => ({
    id: order.id,
    side: order.side,
    price: instrument.priceText(order.price),
    quantity: instrument.quantityText(order.quantity),
    open: instrument.quantityText(order.open),
    reserved: instrument.quantityText(order.reserved),
    filled: instrument.quantityText(order.filled)
  })
  const submit = async (side, quantity, price) => {
    const order = await taker.submit(checkSide(side, 'side'), quantity, price)
    tell({ order: shown(order) })
  }

  for (const side of ['buy', 'sell']) {
    for (const order of conf[side]) await submit(side, ...order.split('@'))
  }
  tell({ ready: { name: peer, market: conf.market, port } })

  const input = readline.createInterface({ input: process.stdin })
  input.on('line', async (line) => {
    const [command, ...words] = line.trim().split(/\s+/)
    try {
      if (command === 'orders') tell({ orders: [...book.orders.values()].map(shown) })
      else if (command) await submit(command, ...words)
    } catch (error) {
      tell({ error: error.message })
    }
  })

  // -- the end -----------------------------------------------------------------------------------------------

  let leaving = false
  const leave = async () => {
    if (leaving) return
    leaving = true
    for (const name of [shared, own]) link.stopAnnouncing(name, port)
    // Orders that are under way get a moment, then everybody hears that we are gone.
    await Promise.race([taker.queue, new Promise((resolve) => setTimeout(resolve, LEAVE_MS))])
    const farewells = [...roster.values()].map(({ destination }) => call(destination, 'Goodbye', {}, CALL_MS))
    await Promise.allSettled(farewells)
    process.exit(0)
  }
  input.once('close', leave)
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, leave)
}

Promise.resolve().then(() => main(options())).catch((error) => {
  console.error(`${error.message}\n${USAGE}`)
  process.exit(1)
})
