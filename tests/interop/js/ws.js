'use strict'
// Node peers over WebSocket. Argument: {"role", "grape", "name", "secure"?: {key, cert, ca}} with PEM files.
// "server" and "pub" announce themselves and say {"ready": {port}}. "client" reads {"args": [key, payload, options]}
// per line and answers {"err", "res"}. "pub" reads {"pub": text} or {"pub_hex": hex} and answers {"sent": true}.
// "sub" says every message: {"text"} or {"hex"}.

const fs = require('fs')
const readline = require('readline')
const { PeerRPCClient, PeerRPCServer, PeerPub, PeerSub } = require('grenache-nodejs-ws')
const Link = require('grenache-nodejs-link')

const conf = JSON.parse(process.argv[2])
const say = (message) => console.log(JSON.stringify(message))
const link = new Link({ grape: conf.grape })
link.start()

const secure = conf.secure && {
  key: fs.readFileSync(conf.secure.key),
  cert: fs.readFileSync(conf.secure.cert),
  ca: fs.readFileSync(conf.secure.ca)
}

const announce = (service) => service.socket.once('listening', () => {
  const port = service.socket.address().port
  link.announce(conf.name, port, {}, (err) => {
    if (err) throw err
    say({ ready: { port } })
  })
})

const roles = {
  server () {
    const options = secure ? { secure: { ...secure, rejectUnauthorized: true, verifyClient: () => true } } : {}
    const peer = new PeerRPCServer(link, options)
    peer.init()
    const service = peer.transport('server')
    service.listen(conf.port || 0)
    service.on('request', (rid, key, payload, handler, cert) => {
      const action = payload && payload.do
      if (action === 'error') handler.reply(new Error('ERR_MY_ERROR'), { some: 'data' })
      else if (action === 'twice') { handler.reply(null, 1); handler.reply(null, 2) } else if (action === 'end') process.exit(1)
      else if (action !== 'silence') handler.reply(null, { key, payload, cn: cert ? cert.subject.CN : null })
    })
    if (secure) setTimeout(() => announceAt(service.port || conf.port), 100)
    else announce(service)
  },

  client () {
    const client = new PeerRPCClient(link, secure ? { secure } : {})
    client.init()
    readline.createInterface({ input: process.stdin }).on('line', (line) => {
      client.request(...JSON.parse(line).args, (err, res) => {
        say({ err: err ? err.message : null, res: res === undefined ? '<undefined>' : res })
      })
    })
    say({ ready: true })
  },

  pub () {
    const peer = new PeerPub(link, {})
    peer.init()
    const service = peer.transport('server')
    service.listen(0)
    announce(service)
    readline.createInterface({ input: process.stdin }).on('line', (line) => {
      const { pub, pub_hex: hex } = JSON.parse(line)
      service.pub(hex === undefined ? pub : Buffer.from(hex, 'hex'))
      say({ sent: true })
    })
  },

  sub () {
    const peer = new PeerSub(link, {})
    peer.init()
    peer.on('connected', () => say({ connected: true }))
    peer.on('disconnected', () => say({ disconnected: true }))
    peer.on('message', (message) => say(typeof message === 'string' ? { text: message } : { hex: message.toString('hex') }))
    peer.sub(conf.name, { timeout: 10000 })
    say({ ready: true })
  }
}

const announceAt = (port) => link.announce(conf.name, port, {}, (err) => {
  if (err) throw err
  say({ ready: { port } })
})

roles[conf.role]()
process.on('SIGTERM', () => process.exit(0))
process.stdin.on('end', () => process.exit(0)).resume()
