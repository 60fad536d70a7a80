'use strict'
// A real Node Grape. Argument: JSON of its options. Says {"ready": {dht_port, api_port}} once it is up.
// With "verify": true it checks ed25519 signatures, so that it stores and finds mutable items.

const Grape = require('grenache-grape').Grape

const conf = { host: '127.0.0.1', dht_port: 0, dht_bootstrap: [], api_port: null, ...JSON.parse(process.argv[2]) }
const net = require('net')
const { createPublicKey, verify } = require('crypto')

if (conf.verify) {
  const prefix = Buffer.from('302a300506032b6570032100', 'hex') // ed25519 in SubjectPublicKeyInfo (RFC 8410)
  conf.verify = (sig, message, k) => {
    const key = createPublicKey({ key: Buffer.concat([prefix, k]), format: 'der', type: 'spki' })
    return verify(null, message, key, sig)
  }
}

// The Grape takes no api_port 0, so a free one is found first.
const probe = net.createServer().listen(conf.api_port || 0, '127.0.0.1', () => {
  conf.api_port = probe.address().port
  probe.close(() => {
    const grape = new Grape(conf)
    grape.on('announce', (name) => console.log(JSON.stringify({ announce: name })))
    let waiting = 2 // for the DHT to have bootstrapped, and for the HTTP API to listen
    const up = () => {
      if (--waiting) return
      console.log(JSON.stringify({ ready: { dht_port: grape.node.address().port, api_port: conf.api_port } }))
    }
    grape.once('ready', up)
    grape.start((err) => { if (err) throw err; up() })
  })
})
process.on('SIGTERM', () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume()
