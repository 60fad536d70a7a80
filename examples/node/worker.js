'use strict'
// The Node worker beside examples/worker.py: serves rpc_test until Ctrl-C.
//
// Install its packages once (make node) and start a Grape in another terminal:
//
//     grape-py --dp 20001 --aph 30001
//
// then:  node examples/node/worker.js [grape url]

const path = require('path')
const packages = require('module').createRequire(path.join(__dirname, '../../tests/interop/package.json'))
const { PeerRPCServer } = packages('grenache-nodejs-http')
const Link = packages('grenache-nodejs-link')

const link = new Link({ grape: process.argv[2] || 'http://127.0.0.1:30001' })
link.start()

const peer = new PeerRPCServer(link, { timeout: 300000 })
peer.init()

const service = peer.transport('server')
service.listen(0)

service.on('request', (rid, key, payload, handler) => {
  if (!payload || typeof payload.n !== 'number') {
    handler.reply(new Error('ERR_NO_NUMBER'), { got: payload })
    return
  }
  handler.reply(null, { doubled: payload.n * 2, by: 'worker.js' })
})

service.socket.once('listening', () => {
  const port = service.socket.address().port
  link.startAnnouncing('rpc_test', port, {}, (err) => {
    if (err) throw err
    console.log(`serving rpc_test on port ${port}; Ctrl-C ends it`)
  })
})

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(0))
