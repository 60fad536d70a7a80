'use strict'
// A Node RPC server, announced at a Grape. Argument: {"grape": url, "name": …, "secure"?: {key, cert, ca: files, …},
// "package"?: …}. Says {"ready": {port}} when announced.
// The payload says what the handler does: {"do": "error"}, …; anything else is echoed.

const readSecure = require('./secure')

const conf = JSON.parse(process.argv[2])
const { PeerRPCServer } = require(conf.package || 'grenache-nodejs-http')
const Link = require(conf.linkPackage || 'grenache-nodejs-link')
const link = new Link({ grape: conf.grape })
link.start()

const peer = new PeerRPCServer(link, readSecure(conf))
peer.init()
const service = peer.transport('server')
service.listen(0)

const actions = {
  error: (handler) => handler.reply(new Error('ERR_MY_ERROR')),
  'error and result': (handler) => handler.reply(new Error('ERR_MY_ERROR'), { some: 'data' }),
  'no message': (handler) => handler.reply(new Error('')),
  nothing: (handler) => handler.reply(),
  silence: () => {}
}

service.on('request', (rid, key, payload, handler) => {
  const action = payload && actions[payload.do]
  if (action) action(handler)
  else handler.reply(null, { key, payload, from: service.socket.address().port })
})

service.socket.once('listening', () => {
  const port = service.socket.address().port
  link.announce(conf.name, port, {}, (err) => {
    if (err) throw err
    console.log(JSON.stringify({ ready: { port } }))
  })
})

process.on('SIGTERM', () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume()
