'use strict'
// Options of a peer whose `secure` names files: `{key, cert, ca}` as Buffers, the rest as it is.

const fs = require('fs')

module.exports = ({ secure }) => {
  if (!secure) return {}
  const { key, cert, ca, ...rest } = secure
  return { secure: { key: fs.readFileSync(key), cert: fs.readFileSync(cert), ca: fs.readFileSync(ca), ...rest } }
}
