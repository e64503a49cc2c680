// A shop that sells recharges: it tells recharged of its orders, follows what becomes of them, and confirms refunds.
//
//     node shop.ts --brokers 127.0.0.1:9092 --orders 8
//
// docs/PRODUCING.md explains each step.

import { randomUUID } from 'node:crypto'
import { parseArgs } from 'node:util'
import { Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'

interface Created {
  order_id: string
  phone: string
  amount_minor: number
  currency: string
  created_at: string
  paid_at?: string
  payment_id?: string
  metadata?: unknown
}

// What is read of an order's events; there is more in them.
interface OrderEvent {
  order_id: string
  version: number
  state: string
  refund_id?: string
}

const CLOSED = new Set(['succeeded', 'failed', 'cancelled'])
const now = () => new Date().toISOString()

class Shop {
  readonly prefix: string
  readonly #producer: Producer<string, string, string, string>

  constructor(brokers: string[], prefix: string) {
    this.prefix = prefix
    this.#producer = new Producer({
      clientId: 'shop-example',
      bootstrapBrokers: brokers,
      serializers: stringSerializers,
      // A retry inside the client then writes nothing twice, and overtakes nothing.
      idempotent: true,
    })
  }

  // Publishes one event, a CloudEvent in binary mode, keyed by its order, and waits for the broker's acknowledgement. What
  // has none must be told again, under the same id.
  async tell(topic: string, type: string, id: string, data: { order_id: string }): Promise<void> {
    const headers = {
      ce_specversion: '1.0',
      ce_id: id,
      ce_source: '/examples/typescript',
      ce_type: type,
      ce_subject: data.order_id,
      ce_time: now(),
      'content-type': 'application/json',
    }
    const event = { topic: this.prefix + topic, key: data.order_id, value: JSON.stringify(data), headers }
    await this.#producer.send({ messages: [event] })
  }

  async create(orderId: string, phone: string, paymentId?: string): Promise<void> {
    const at = now()
    const order: Created = {
      order_id: orderId,
      phone,
      amount_minor: 5000,
      currency: 'CNY',
      created_at: at,
      metadata: { channel: 'example' },
    }
    if (paymentId !== undefined) Object.assign(order, { paid_at: at, payment_id: paymentId })
    await this.tell('orders', 'recharge.order.created.v1', `${orderId}/created`, order)
  }

  async pay(orderId: string, paymentId: string): Promise<void> {
    const data = { order_id: orderId, paid_at: now(), payment_id: paymentId }
    await this.tell('lifecycle', 'recharge.order.paid.v1', `${orderId}/paid`, data)
  }

  async cancel(orderId: string): Promise<void> {
    const data = { order_id: orderId, reason: 'the customer changed their mind' }
    await this.tell('lifecycle', 'recharge.order.cancelled.v1', `${orderId}/cancelled`, data)
  }

  async confirmRefund(orderId: string): Promise<void> {
    // The same id for the same order: telling it twice is then one refund.
    const data = { order_id: orderId, refund_id: `re-${orderId}`, at: now() }
    await this.tell('lifecycle', 'recharge.refund.confirmed.v1', `${orderId}/refunded`, data)
  }

  async close(): Promise<void> {
    await this.#producer.close()
  }
}

// Reads what becomes of the orders until each has ended, and each refund is confirmed.
async function follow(shop: Shop, brokers: string[], orders: Set<string>): Promise<Record<string, number>> {
  const consumer = new Consumer({
    groupId: `shop-example-${randomUUID()}`,
    clientId: 'shop-example',
    bootstrapBrokers: brokers,
    deserializers: stringDeserializers,
  })
  const topics = [`${shop.prefix}order-events`, `${shop.prefix}refunds`]
  const stream = await consumer.consume({ topics, mode: 'earliest', autocommit: false })
  const versions = new Map<string, number>()
  const states = new Map<string, string>()
  const confirmed = new Set<string>()
  const hasEnded = (orderId: string) => {
    const state = states.get(orderId) ?? ''
    return CLOSED.has(state) && (state !== 'failed' || confirmed.has(orderId))
  }
  for await (const message of stream) {
    const event: OrderEvent = JSON.parse(message.value)
    const orderId = event.order_id
    if (orders.has(orderId)) {
      if (message.topic === `${shop.prefix}refunds`) {
        // Here the payment side gives the money back. Perhaps it has: this event may come twice.
        await shop.confirmRefund(orderId)
      } else if (event.version > (versions.get(orderId) ?? 0)) {
        // At least once, in order per order: what is not newer than the last one was seen before.
        versions.set(orderId, event.version)
        states.set(orderId, event.state)
        if (event.refund_id !== undefined) confirmed.add(orderId)
      }
    }
    // Only now: a crash before this reads it again, and every step above bears that.
    await message.commit()
    if ([...orders].every(hasEnded)) break
  }
  await stream.close()
  await consumer.close()
  const ends: Record<string, number> = { succeeded: 0, failed: 0, cancelled: 0, refunds_confirmed: confirmed.size }
  for (const state of states.values()) ends[state] = (ends[state] ?? 0) + 1
  return ends
}

const { values: given } = parseArgs({
  options: {
    brokers: { type: 'string', default: '127.0.0.1:9092' },
    prefix: { type: 'string', default: 'recharge.' },
    orders: { type: 'string', default: '8' },
    timeout: { type: 'string', default: '240' },
  },
})
const brokers = given.brokers.split(',')
const patience = setTimeout(() => {
  console.error(`after ${given.timeout} s not all have ended`)
  process.exit(1)
}, Number(given.timeout) * 1_000)
const shop = new Shop(brokers, given.prefix)
const run = randomUUID().slice(0, 8)
const orders = new Set<string>()
for (let number = 0; number < Number(given.orders); number += 1) {
  const orderId = `ts-${run}-${number}`
  orders.add(orderId)
  // Numbers of nobody.
  const phone = `+861380000${String(number % 10_000).padStart(4, '0')}`
  const payment = `pay-${orderId}`
  switch (number % 4) {
    case 0:
      await shop.create(orderId, phone, payment)
      break
    case 1:
      await shop.create(orderId, phone)
      await shop.pay(orderId, payment)
      break
    case 2:
      await shop.create(orderId, phone)
      await shop.cancel(orderId)
      break
    default:
      // Paid, and no phone number: it fails at once, and the money goes back.
      await shop.create(orderId, '12', payment)
  }
}
const ends = await follow(shop, brokers, orders)
clearTimeout(patience)
await shop.close()
console.log(JSON.stringify(ends))
