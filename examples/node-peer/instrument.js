'use strict'
// What a market trades and in which steps. Decimals are strings outside and whole counts (BigInt) inside: a price
// counts ticks, a quantity counts lots, so that nothing is ever rounded.

const { createHash } = require('crypto')

const DECIMAL = /^(0|[1-9][0-9]*)(?:\.([0-9]+))?$/
const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/
const DECIMAL_LENGTH = 40
const MAX_QUANTITY = 2n ** 63n - 1n // lots
const MAX_PRICE = 2n ** 53n - 1n // ticks

// What a peer or a user said that can't be done. Other peers get its message as the error of their call.
class Refusal extends Error {
  constructor (code, text) {
    super(`ERR_ORDERBOOK_${code}: ${text}`)
  }
}

// One tick or lot, such as "0.01".
class Unit {
  constructor (step, field, trims) {
    const match = typeof step === 'string' && step.length <= 20 ? DECIMAL.exec(step) : null
    if (!match || !/[1-9]/.test(step)) {
      throw new Refusal('INVALID_FIELD', `${field} must be a positive decimal such as "0.01"`)
    }
    const [, whole, fraction = ''] = match
    this.step = step
    this.trims = trims
    this.decimals = fraction.length
    this.perStep = BigInt(whole + fraction) // the step without its decimal point
  }

  // The count of steps in a decimal string. With the point removed both are whole numbers, and one divides the other.
  parse (text, field, most) {
    const match = typeof text === 'string' && text.length <= DECIMAL_LENGTH ? DECIMAL.exec(text) : null
    if (!match) throw new Refusal('INVALID_FIELD', `${field} must be a decimal string such as "0.5"`)
    const fraction = (match[2] || '').replace(/0+$/, '')
    const scaled = BigInt(match[1] + fraction.padEnd(this.decimals, '0'))
    if (fraction.length > this.decimals || scaled % this.perStep) {
      throw new Refusal('INVALID_FIELD', `${field} must be a multiple of ${this.step}`)
    }
    const count = scaled / this.perStep
    if (count === 0n) throw new Refusal('INVALID_FIELD', `${field} must be more than zero`)
    if (count > most) throw new Refusal('INVALID_FIELD', `${field} must be at most ${this.format(most)}`)
    return count
  }

  // The decimal string of a count: prices with all decimals of the tick, quantities without trailing zeros.
  format (count) {
    const digits = (count * this.perStep).toString().padStart(this.decimals + 1, '0')
    const whole = digits.slice(0, digits.length - this.decimals)
    let fraction = digits.slice(digits.length - this.decimals)
    if (this.trims) fraction = fraction.replace(/0+$/, '')
    return fraction ? `${whole}.${fraction}` : whole
  }
}

class Instrument {
  constructor (market, tick, lot) {
    this.market = checkName(market, 'market')
    this.tick = new Unit(tick, 'tick', false)
    this.lot = new Unit(lot, 'lot', true)
    // All peers of a market compare this: whoever trades in other steps under the same name is refused.
    const terms = `${market}|${tick}|${lot}|${MAX_QUANTITY}|${MAX_PRICE}`
    this.fingerprint = createHash('sha256').update(terms).digest('hex').slice(0, 16)
  }

  price (text, field = 'price') { return this.tick.parse(text, field, MAX_PRICE) }
  quantity (text, field = 'quantity') { return this.lot.parse(text, field, MAX_QUANTITY) }
  priceText (ticks) { return this.tick.format(ticks) }
  quantityText (lots) { return this.lot.format(lots) }

  check (fingerprint) {
    if (fingerprint != null && fingerprint !== this.fingerprint) {
      throw new Refusal('PROTOCOL', `instrument must be ${this.fingerprint}: the peers disagree on what they trade`)
    }
  }
}

// Peers and markets are named with 1 to 64 letters, digits, "_", "." and "-".
function checkName (text, field) {
  if (typeof text !== 'string' || !NAME.test(text)) {
    throw new Refusal('INVALID_FIELD', `${field} must be 1 to 64 letters, digits, "_", "." or "-"`)
  }
  return text
}

// Ids are whatever their peer made up, within a length.
function checkId (text, field, most = 64) {
  if (typeof text !== 'string' || !text.length || text.length > most) {
    throw new Refusal('PROTOCOL', `${field} must be a text of 1 to ${most} characters`)
  }
  return text
}

function checkSide (text, field) {
  if (text !== 'buy' && text !== 'sell') throw new Refusal('INVALID_FIELD', `${field} must be "buy" or "sell"`)
  return text
}

module.exports = { Instrument, Refusal, checkName, checkId, checkSide }
