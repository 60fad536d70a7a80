'use strict'
// A Node client of streams. Argument as for rpc_client.js. Reads {"key", "headers", "size"} per line, sends that many bytes, and
// answers {"size", "sha256", "text"} of what came back ("text" only when it is short) or {"err"}.

const crypto = require('crypto')
const readline = require('readline')
const readSecure = require('./secure')

const conf = JSON.parse(process.argv[2])
const { PeerRPCClient } = require(conf.package || 'grenache-nodejs-http')
const Link = require(conf.linkPackage || 'grenache-nodejs-link')
const link = new Link({ grape: conf.grape })
link.start()
const client = new PeerRPCClient(link, readSecure(conf))
client.init()

const say = (message) => console.log(JSON.stringify(message))

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { key, headers, size } = JSON.parse(line)
  const stream = client.stream(key, { timeout: 10000, headers })
  const hash = crypto.createHash('sha256')
  const kept = []
  let got = 0
  stream.on('data', (part) => {
    hash.update(part)
    got += part.length
    if (got < 1000) kept.push(part)
  }).on('end', () => {
    say({ size: got, sha256: hash.digest('hex'), text: got < 1000 ? Buffer.concat(kept).toString() : null })
  }).on('error', (err) => say({ err: err.message }))
  let left = size
  const part = Buffer.alloc(65536, 'grenache')
  const send = () => {
    while (left > 0) {
      const next = part.subarray(0, Math.min(left, part.length))
      left -= next.length
      if (!stream.write(next)) return stream.once('drain', send)
    }
    stream.end()
  }
  send()
}).on('close', () => process.exit(0))

process.on('SIGTERM', () => process.exit(0))
say({ ready: true })
