'use strict'

// nodejs-order-book at the work that contestants.py gives to the engines of Python: the same jobs, the same answers.

const fs = require('fs')
const { OrderBook } = require('nodejs-order-book')

const MIDDLE = 100000
const LEVELS = 1000
const LOTS = 1000000

const book = new OrderBook()
const job = JSON.parse(process.argv[2])

const seconds = (start) => Number(process.hrtime.bigint() - start) / 1e9

const resting = () => {
  const orders = Object.keys(book.orders).length
  let lots = 0
  for (const levels of book.depth()) for (const [, volume] of levels) lots += volume
  return { orders, lots }
}

const runFlow = (path) => {
  const rows = JSON.parse(fs.readFileSync(path)).map(
    ([action, id, buys, price, lots]) => [action, id, buys ? 'buy' : 'sell', price, lots])
  global.gc()
  const start = process.hrtime.bigint()
  for (const [action, id, side, price, size] of rows) {
    if (action === 'new') book.limit({ id, side, price, size })
    else if (action === 'cancel') book.cancel(id)
    else if (book.cancel(id) !== undefined) book.limit({ id, side, price, size })
  }
  const taken = seconds(start)
  return { rate: rows.length / taken, ...resting() }
}

const percentiles = (times) => {
  times.sort((a, b) => a - b)
  return [times[Math.floor(times.length / 2)] / 1000, times[Math.floor(times.length * 99 / 100)] / 1000]
}

const timed = (times, act) => {
  const start = process.hrtime.bigint()
  act()
  times.push(Number(process.hrtime.bigint() - start))
}

const runResting = (orders, samples) => {
  let seed = 1
  const dice = (most) => { // any generator does: uniform, and the same in every run
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff
    return Math.floor(seed / 0x80000000 * most)
  }
  const fresh = (number) => {
    const buys = dice(2) === 1
    const away = 1 + dice(LEVELS)
    return { id: String(number), side: buys ? 'buy' : 'sell', price: buys ? MIDDLE - away : MIDDLE + away, size: LOTS }
  }
  const waiting = Array.from({ length: orders + samples }, (_, number) => fresh(number + 1))
  const live = waiting.slice(0, orders).map((order) => order.id)
  global.gc()
  const before = process.memoryUsage().rss
  for (let number = 0; number < orders; number++) book.limit(waiting[number])
  global.gc()
  const bytes = (process.memoryUsage().rss - before) / orders
  const times = { rest: [], cancel: [], match: [] }
  for (let number = orders; number < waiting.length; number++) {
    const order = waiting[number]
    timed(times.rest, () => book.limit(order))
    live.push(order.id)
    const place = dice(live.length)
    const id = live[place]
    live[place] = live[live.length - 1]
    live.pop()
    timed(times.cancel, () => book.cancel(id))
    const buys = dice(2) === 1
    const taker = { id: 't' + number, side: buys ? 'buy' : 'sell', price: buys ? MIDDLE + LEVELS : MIDDLE - LEVELS, size: 1 }
    timed(times.match, () => book.limit(taker))
  }
  const left = resting().orders
  if (left !== orders) throw new Error(`${left} orders rest, not ${orders}`)
  const kinds = {}
  for (const kind of Object.keys(times)) kinds[kind] = percentiles(times[kind])
  return { bytes, kinds }
}

const answer = job.flow ? runFlow(job.flow) : runResting(job.orders, job.samples)
console.log(JSON.stringify(answer))
