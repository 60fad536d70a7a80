'use strict'
// Signs and verifies the order book's messages with nothing but Node's crypto. Argument: {"pem": private key}.
// Reads one call per line and answers {"res": …}:
//   {"call": "sign", "message": …}     the message with key and sig
//   {"call": "verify", "message": …}   whether its sig is that of its key
//   {"call": "digest", "message": …}   what an answer to it has to name as its request
//   {"call": "canonical", "message": …}

const crypto = require('crypto')
const readline = require('readline')

const privateKey = crypto.createPrivateKey(JSON.parse(process.argv[2]).pem)
const key = Buffer.from(crypto.createPublicKey(privateKey).export({ format: 'jwk' }).x, 'base64url').toString('hex')

function sorted (value) {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(Object.keys(value).sort().map((name) => [name, sorted(value[name])]))
}

function canonical (message) {
  const { sig, ...rest } = message
  return Buffer.from(JSON.stringify(sorted(rest)))
}

function publicKey (hex) {
  const x = Buffer.from(hex, 'hex').toString('base64url')
  return crypto.createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
}

const calls = {
  sign: (message) => {
    const keyed = { ...message, key }
    return { ...keyed, sig: crypto.sign(null, canonical(keyed), privateKey).toString('hex') }
  },
  verify: (message) =>
    crypto.verify(null, canonical(message), publicKey(message.key), Buffer.from(message.sig, 'hex')),
  digest: (message) => crypto.createHash('sha256').update(canonical(message)).digest('hex'),
  canonical: (message) => canonical(message).toString()
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const { call, message } = JSON.parse(line)
  console.log(JSON.stringify({ res: calls[call](message) }))
}).on('close', () => process.exit(0))

process.on('SIGTERM', () => process.exit(0))
console.log(JSON.stringify({ ready: { key } }))
