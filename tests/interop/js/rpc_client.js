'use strict'
// A Node Link and RPC client. Argument: {"grape": url, "secure"?: {key, cert, ca: files}, "package"?: …}. Reads one call per line,
// {"call": "request" | "map" | "lookup" | "announce" | "put" | "get", "args": […]}, and answers {"err": …, "res": …}.

const readline = require('readline')
const readSecure = require('./secure')

const conf = JSON.parse(process.argv[2])
const { PeerRPCClient } = require(conf.package || 'grenache-nodejs-http')
const Link = require(conf.linkPackage || 'grenache-nodejs-link')
const link = new Link({ grape: conf.grape })
link.start()
const client = new PeerRPCClient(link, readSecure(conf))
client.init()

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { call, args } = JSON.parse(line)
  const target = call === 'request' || call === 'map' ? client : link
  target[call](...args, (err, res) => {
    console.log(JSON.stringify({ err: err ? err.message : null, res: res === undefined ? '<undefined>' : res }))
  })
}).on('close', () => process.exit(0))

process.on('SIGTERM', () => process.exit(0))
console.log(JSON.stringify({ ready: true }))
