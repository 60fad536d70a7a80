'use strict'
// What examples/pub_sub.py does, with Node: node examples/node/pub_sub.js publish|subscribe http://127.0.0.1:30001
// The packages are those of tests/interop (make node). A Node subscriber hears one publisher only.

const path = require('path')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const { PeerPub, PeerSub } = packages('grenache-nodejs-ws')
const Link = packages('grenache-nodejs-link')

const [what, grape = 'http://127.0.0.1:30001'] = process.argv.slice(2)
const NAME = 'pub_test'
const link = new Link({ grape })
link.start()

if (what === 'publish') {
  const peer = new PeerPub(link, {})
  peer.init()
  const service = peer.transport('server')
  service.listen(0)
  service.socket.once('listening', () => {
    const port = service.socket.address().port
    link.announce(NAME, port, {}, (err) => {
      if (err) throw err
      console.log(`publishing on port ${port}; Ctrl-C ends it`)
    })
  })
  let number = 0
  setInterval(() => service.pub(`message ${++number} of pub_sub.js ${process.pid}`), 100)
} else {
  const peer = new PeerSub(link, {})
  peer.init()
  peer.on('connected', () => console.log('connected'))
  peer.on('message', (message) => console.log(`says: ${message}`))
  peer.sub(NAME, { timeout: 10000 })
}

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0))
