'use strict'
// The Node side of benchmarks/rpc_ws.py. Arguments: role ("server" or "client"), Grape URL, name of the service.
// A server says {"ready": port} once it is announced. A client reads {"name", "in_flight", "seconds", "size"} per line
// and answers {"calls": …, "seconds": …}.

const path = require('path')
const readline = require('readline')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const { PeerRPCServer, PeerRPCClient } = packages('grenache-nodejs-ws')
const Link = packages('grenache-nodejs-link')

const [role, grape, name] = process.argv.slice(2)
const link = new Link({ grape })
link.start()

const say = (message) => console.log(JSON.stringify(message))

if (role === 'server') {
  const peer = new PeerRPCServer(link, {})
  peer.init()
  const service = peer.transport('server')
  service.listen(0)
  service.on('request', (rid, key, payload, handler) => handler.reply(null, payload))
  service.socket.once('listening', () => {
    const port = service.socket.address().port
    link.announce(name, port, {}, (err) => {
      if (err) throw err
      say({ ready: port })
    })
  })
  process.stdin.on('end', () => process.exit(0)).resume()
} else {
  const client = new PeerRPCClient(link, {})
  client.init()

  const call = (name, payload) => new Promise((resolve, reject) => {
    client.request(name, payload, { timeout: 10000 }, (err, res) => err ? reject(err) : resolve(res))
  })

  const load = async ({ name, in_flight: inFlight, seconds, size }) => {
    const text = 'x'.repeat(size)
    const started = process.hrtime.bigint()
    const ends = started + BigInt(Math.round(seconds * 1e9))
    let calls = 0
    const worker = async () => {
      while (process.hrtime.bigint() < ends) {
        await call(name, { text, n: calls })
        calls++
      }
    }
    await Promise.all(Array.from({ length: inFlight }, worker))
    return { calls, seconds: Number(process.hrtime.bigint() - started) / 1e9 }
  }

  readline.createInterface({ input: process.stdin })
    .on('line', async (line) => say(await load(JSON.parse(line))))
    .on('close', () => process.exit(0))
  say({ ready: true })
}
