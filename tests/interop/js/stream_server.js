'use strict'
// A Node server of streams, announced at a Grape. Argument as for rpc_server.js. The action says what it does: "echo" sends
// back what comes as it comes, "sum" replies what it got and how, "cut" breaks off.

const crypto = require('crypto')
const readSecure = require('./secure')

const conf = JSON.parse(process.argv[2])
const { PeerRPCServer } = require(conf.package || 'grenache-nodejs-http')
const Link = require(conf.linkPackage || 'grenache-nodejs-link')
const link = new Link({ grape: conf.grape })
link.start()

const peer = new PeerRPCServer(link, { ...readSecure(conf), disableBuffered: true })
peer.init()
const service = peer.transport('server')
service.listen(0)

service.on('stream', (req, rep, meta, handler) => {
  const [rid, key] = meta.infoHeaders
  if (meta.action === 'echo') {
    req.pipe(rep)
  } else if (meta.action === 'cut') {
    rep.write('begun')
    req.once('data', () => req.destroy())
  } else {
    const hash = crypto.createHash('sha256')
    let size = 0
    req.on('data', (part) => {
      hash.update(part)
      size += part.length
    }).on('end', () => {
      handler.reply(rid, null, { key, size, sha256: hash.digest('hex'), isStream: meta.isStream, args: meta.args })
    })
  }
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
