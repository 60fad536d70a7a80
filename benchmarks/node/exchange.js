'use strict'
// The order book protocol's shape on Node's own packages, for comparison: an order is announced to all makers
// of the market with `map`, the first answer that matches is taken, and that maker is asked to execute.
// Argument: JSON {role: 'maker' | 'taker', grape, market, name}. A taker reads {orders, inFlight} a line and
// answers {seconds, latencies_ms}. Both say {"ready": …} when they can begin.

const path = require('path')
const from = (name) => require(require.resolve(name, { paths: [path.join(__dirname, '..', '..', 'tests', 'interop')] }))
const { PeerRPCServer, PeerRPCClient } = from('grenache-nodejs-http')
const Link = from('grenache-nodejs-link')

const conf = JSON.parse(process.argv[2])
const link = new Link({ grape: conf.grape })
link.start()
const say = (message) => process.stdout.write(JSON.stringify(message) + '\n')

if (conf.role === 'maker') make()
else take()

function make () {
  const book = { id: `${conf.name}-1`, price: 100n, open: 10n ** 15n, reserved: 0n, filled: 0n }
  const locks = new Map()
  let count = 0
  const peer = new PeerRPCServer(link, { timeout: 300000 })
  peer.init()
  const service = peer.transport('server')
  service.on('request', (rid, key, { type, payload }, handler) => {
    if (type === 'AnnounceOpenOrder') {
      const quantity = BigInt(payload.order.quantity)
      if (BigInt(payload.order.price) < book.price || book.open < quantity) return handler.reply(null, null)
      const lockId = `${conf.name}-lock-${++count}`
      book.open -= quantity
      book.reserved += quantity
      const timer = setTimeout(() => free(lockId), 5000)
      locks.set(lockId, { quantity, timer })
      const fill = { order_id: book.id, price: String(book.price), quantity: String(quantity) }
      return handler.reply(null, { lock_id: lockId, fills: [fill], fully_matched: true })
    }
    if (type === 'CrossPeerMatch') {
      const lock = locks.get(payload.lock_id)
      if (!lock) return handler.reply(null, { status: 'rejected' })
      clearTimeout(lock.timer)
      locks.delete(payload.lock_id)
      book.reserved -= lock.quantity
      book.filled += lock.quantity
      return handler.reply(null, { status: 'committed', match_id: payload.match_id })
    }
    free(payload.lock_id)
    handler.reply(null, { released: true })
  })
  function free (lockId) {
    const lock = locks.get(lockId)
    if (!lock) return
    clearTimeout(lock.timer)
    locks.delete(lockId)
    book.reserved -= lock.quantity
    book.open += lock.quantity
  }
  service.listen(0)
  service.socket.once('listening', () => {
    const { port } = service.socket.address()
    link.announce(conf.market, port, {}, (err) => {
      if (err) throw err
      link.announce(`${conf.market}:${conf.name}`, port, {}, (err) => {
        if (err) throw err
        say({ ready: port })
      })
    })
  })
}

function take () {
  const client = new PeerRPCClient(link, {})
  client.init()
  let orders = 0
  const place = (done) => {
    const order = { id: `${conf.name}-${++orders}`, market: conf.market, side: 'buy', price: '100', quantity: '1' }
    const announce = { type: 'AnnounceOpenOrder', from: conf.name, payload: { order } }
    client.map(conf.market, announce, { timeout: 10000 }, (err, offers) => {
      if (err) throw err
      const found = offers.filter(Boolean)
      if (!found.length) throw new Error('no offer')
      const [chosen, ...others] = found
      for (const other of others) {
        const release = { type: 'ReleaseLock', from: conf.name, payload: { lock_id: other.lock_id } }
        client.request(`${conf.market}:${other.lock_id.split('-')[0]}`, release, { timeout: 10000 }, () => {})
      }
      const match = { match_id: order.id, lock_id: chosen.lock_id, fills: chosen.fills }
      const confirm = { type: 'CrossPeerMatch', from: conf.name, payload: match }
      client.request(`${conf.market}:${chosen.lock_id.split('-')[0]}`, confirm, { timeout: 10000 }, (err, answer) => {
        if (err || answer.status !== 'committed') throw err || new Error(JSON.stringify(answer))
        done()
      })
    })
  }
  const run = ({ orders: wanted, inFlight }) => {
    const latencies = []
    const begun = process.hrtime.bigint()
    let started = 0
    const next = () => {
      if (started === wanted) return
      started++
      const at = process.hrtime.bigint()
      place(() => {
        latencies.push(Number(process.hrtime.bigint() - at) / 1e6)
        if (latencies.length === wanted) say({ seconds: Number(process.hrtime.bigint() - begun) / 1e9, latencies_ms: latencies })
        else next()
      })
    }
    for (let n = 0; n < inFlight; n++) next()
  }
  require('readline').createInterface({ input: process.stdin }).on('line', (line) => run(JSON.parse(line)))
  say({ ready: true })
}
process.stdin.on('end', () => process.exit(0))
if (conf.role === 'maker') process.stdin.resume()
