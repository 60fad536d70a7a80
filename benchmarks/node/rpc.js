'use strict'
// The Node side of benchmarks/rpc.py. Arguments: role ("server" or "client"), transport ("http" or "ws"), "node", Grape URL,
// name of the service, how many services there are: the first is announced under the name, the others under the name and
// ":map". What is said, and what is answered: benchmarks/loads/orders.py.

const path = require('path')
const readline = require('readline')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const Link = packages('grenache-nodejs-link')

const [role, transport, , grape, name, peers] = process.argv.slice(2)
const { PeerRPCServer, PeerRPCClient } = packages(`grenache-nodejs-${transport}`)
const link = new Link({ grape })
link.start()

const say = (message) => console.log(JSON.stringify(message))

const onOrder = (run) => readline.createInterface({ input: process.stdin })
  .on('line', async (line) => {
    const order = JSON.parse(line)
    if (order.cpu) {
      const { user, system } = process.cpuUsage()
      say({ cpu_s: (user + system) / 1e6 })
    } else say(await run(order))
  })
  .on('close', () => process.exit(0))

if (role === 'server') {
  const peer = new PeerRPCServer(link, {})
  peer.init()
  const serve = (number) => new Promise((resolve, reject) => {
    const service = peer.transport('server')
    service.listen(0)
    service.on('request', (rid, key, payload, handler) => handler.reply(null, payload))
    service.socket.once('listening', () => {
      const port = service.socket.address().port
      link.announce(number ? `${name}:map` : name, port, {}, (err) => err ? reject(err) : resolve(port))
    })
  })
  const all = async () => {
    const ports = []
    for (let number = 0; number < Number(peers); number++) ports.push(await serve(number))
    say({ ready: ports[0] })
  }
  all()
  onOrder(() => {})
} else {
  const client = new PeerRPCClient(link, {})
  client.init()

  const call = ({ name, call, size }, n) => new Promise((resolve, reject) => {
    const payload = { hello: 'world', n, pad: 'x'.repeat(Math.max(0, size - 40)) }
    const done = (err, res) => err ? reject(err) : resolve(res)
    if (call === 'map') client.map(`${name}:map`, payload, { timeout: 10000 }, done)
    else client.request(name, payload, { timeout: 10000 }, done)
  })

  const load = async (order) => {
    const { in_flight: inFlight, seconds } = order
    const started = process.hrtime.bigint()
    const ends = started + BigInt(Math.round(seconds * 1e9))
    let calls = 0
    const worker = async () => {
      while (process.hrtime.bigint() < ends) {
        await call(order, calls)
        calls++
      }
    }
    await Promise.all(Array.from({ length: inFlight }, worker))
    return { calls, seconds: Number(process.hrtime.bigint() - started) / 1e9 }
  }

  onOrder(load)
  say({ ready: true })
}
