'use strict'
// The Node client beside examples/client.py: calls one of the workers that serve rpc_test, then all of them.
//
// Install its packages once (make node) and start a Grape and a worker, each in its own terminal:
//
//     grape-py --dp 20001 --aph 30001
//     python examples/worker.py
//
// then:  node examples/node/client.js [grape url]

const path = require('path')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const { PeerRPCClient } = packages('grenache-nodejs-http')
const Link = packages('grenache-nodejs-link')

const link = new Link({ grape: process.argv[2] || 'http://127.0.0.1:30001' })
link.start()

const client = new PeerRPCClient(link, {})
client.init()

client.request('rpc_test', { n: 21 }, { timeout: 10000 }, (err, result) => {
  if (err) throw err
  console.log('one of them says', JSON.stringify(result))
  client.request('rpc_test', 'no number', { timeout: 10000 }, (err, result) => {
    console.log("a worker's own error:", err && err.message, JSON.stringify(result))
    client.map('rpc_test', { n: 4 }, { timeout: 10000 }, (err, results) => {
      if (err) throw err
      for (const result of results) console.log('says', JSON.stringify(result))
      process.exit(0)
    })
  })
})
