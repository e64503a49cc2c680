"""A shop that sells recharges: it tells recharged of its orders, follows what becomes of them, and confirms refunds.

    python shop.py --brokers 127.0.0.1:9092 --orders 8

docs/PRODUCING.md explains each step.
"""

import argparse
import json
import sys
import time
import uuid
from datetime import datetime, timezone

from confluent_kafka import Consumer, KafkaException, Producer

SOURCE = "/examples/python"
CLOSED = {"succeeded", "failed", "cancelled"}


def now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Shop:
    def __init__(self, brokers, prefix):
        self.prefix = prefix
        self.undelivered = []
        self.producer = Producer(
            {
                "bootstrap.servers": brokers,
                # A retry inside the client then writes nothing twice, and overtakes nothing.
                "enable.idempotence": True,
                # Longer than an election of the partition's leader takes.
                "delivery.timeout.ms": 120_000,
                "linger.ms": 5,
            }
        )

    def tell(self, topic, event_type, event_id, data):
        """Publishes one event: a CloudEvent in binary mode, keyed by its order."""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": SOURCE,
            "ce_type": event_type,
            "ce_subject": data["order_id"],
            "ce_time": now(),
            "content-type": "application/json",
        }
        while True:
            try:
                self.producer.produce(
                    self.prefix + topic,
                    key=data["order_id"],
                    value=json.dumps(data).encode(),
                    headers=headers,
                    on_delivery=lambda error, _: error and self.undelivered.append((event_id, error)),
                )
                return
            except BufferError:
                # The client's queue is full: the broker is slower than we are.
                self.producer.poll(0.1)

    def create(self, order_id, phone, paid, payment_id=None):
        at = now()
        order = {
            "order_id": order_id,
            "phone": phone,
            "amount_minor": 5000,
            "currency": "CNY",
            "created_at": at,
            "metadata": {"channel": "example"},
        }
        if paid:
            order |= {"paid_at": at, "payment_id": payment_id}
        self.tell("orders", "recharge.order.created.v1", f"{order_id}/created", order)

    def pay(self, order_id, payment_id):
        data = {"order_id": order_id, "paid_at": now(), "payment_id": payment_id}
        self.tell("lifecycle", "recharge.order.paid.v1", f"{order_id}/paid", data)

    def cancel(self, order_id):
        data = {"order_id": order_id, "reason": "the customer changed their mind"}
        self.tell("lifecycle", "recharge.order.cancelled.v1", f"{order_id}/cancelled", data)

    def confirm_refund(self, order_id):
        # The same id for the same order: telling it twice is then one refund.
        data = {"order_id": order_id, "refund_id": f"re-{order_id}", "at": now()}
        self.tell("lifecycle", "recharge.refund.confirmed.v1", f"{order_id}/refunded", data)

    def flush(self):
        """Waits for the broker's acknowledgements. What has none must be told again, under the same ids."""
        left = self.producer.flush(120)
        if left or self.undelivered:
            for event_id, error in self.undelivered:
                print(f"not acknowledged: {event_id}: {error}", file=sys.stderr)
            sys.exit(f"{max(left, len(self.undelivered))} events are not acknowledged: send them again")


def follow(shop, brokers, orders, patience):
    """Reads what becomes of the orders until each has ended, and each refund is confirmed."""
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"shop-example-{uuid.uuid4()}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([shop.prefix + "order-events", shop.prefix + "refunds"])
    versions, states, confirmed = {}, {}, set()
    until = time.monotonic() + patience

    def has_ended(order_id):
        state = states.get(order_id)
        return state in CLOSED and (state != "failed" or order_id in confirmed)

    while not all(map(has_ended, orders)):
        if time.monotonic() > until:
            sys.exit(f"after {patience} s not all have ended: {states}")
        messages = consumer.consume(500, timeout=1.0)
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            event = json.loads(message.value())
            order_id = event["order_id"]
            if order_id not in orders:
                continue
            if message.topic() == shop.prefix + "refunds":
                # Here the payment side gives the money back. Perhaps it has: this event may come twice.
                shop.confirm_refund(order_id)
                continue
            # At least once, in order per order: what is not newer than the last one was seen before.
            if event["version"] <= versions.get(order_id, 0):
                continue
            versions[order_id] = event["version"]
            states[order_id] = event["state"]
            if "refund_id" in event:
                confirmed.add(order_id)
        if messages:
            shop.flush()
            # Only now: a crash before this reads them again, and every step above bears that.
            consumer.commit(asynchronous=False)
    consumer.close()
    return states, confirmed


def main():
    arguments = argparse.ArgumentParser(description="A shop that sells recharges.")
    arguments.add_argument("--brokers", default="127.0.0.1:9092")
    arguments.add_argument("--prefix", default="recharge.", help="kafka.topic_prefix of the service")
    arguments.add_argument("--orders", type=int, default=8)
    arguments.add_argument("--timeout", type=float, default=240, help="seconds until every order must have ended")
    given = arguments.parse_args()

    shop = Shop(given.brokers, given.prefix)
    run = uuid.uuid4().hex[:8]
    orders = [f"py-{run}-{number}" for number in range(given.orders)]
    for number, order_id in enumerate(orders):
        # Numbers of nobody.
        phone, payment = f"+861380000{number % 10_000:04}", f"pay-{order_id}"
        match number % 4:
            case 0:
                shop.create(order_id, phone, paid=True, payment_id=payment)
            case 1:
                shop.create(order_id, phone, paid=False)
                shop.pay(order_id, payment)
            case 2:
                shop.create(order_id, phone, paid=False)
                shop.cancel(order_id)
            case 3:
                # Paid, and no phone number: it fails at once, and the money goes back.
                shop.create(order_id, "12", paid=True, payment_id=payment)
    shop.flush()
    states, confirmed = follow(shop, given.brokers, set(orders), given.timeout)
    ends = list(states.values())
    print(json.dumps({state: ends.count(state) for state in sorted(CLOSED)} | {"refunds_confirmed": len(confirmed)}))


if __name__ == "__main__":
    main()
