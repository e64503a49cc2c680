"""From a shop's own table to events: publishes the rows of an outbox, in their order, each at least once.

    python outbox.py --database postgres://shop@127.0.0.1/shop --brokers 127.0.0.1:9092

The table is examples/outbox.sql, whose triggers write a row for each order that is created, paid or cancelled. docs/PRODUCING.md
says when to prefer change data capture.
"""

import argparse
import json
import sys
import time

import psycopg
from confluent_kafka import Producer

TOPICS = {
    "recharge.order.created.v1": "orders",
    "recharge.order.paid.v1": "lifecycle",
    "recharge.order.cancelled.v1": "lifecycle",
}
PAGE = 1_000


def publish(producer, prefix, rows):
    """Publishes rows; returns the ids of those that the broker has acknowledged."""
    acknowledged = []

    def on_delivery(row_id):
        return lambda error, _: None if error else acknowledged.append(row_id)

    for row_id, event_id, event_type, order_id, data, at in rows:
        producer.produce(
            prefix + TOPICS[event_type],
            key=order_id,
            value=json.dumps(data).encode(),
            headers={
                "ce_specversion": "1.0",
                "ce_id": event_id,
                "ce_source": "/examples/outbox",
                "ce_type": event_type,
                "ce_subject": order_id,
                "ce_time": at.isoformat(),
                "content-type": "application/json",
            },
            on_delivery=on_delivery(row_id),
        )
    producer.flush(120)
    return acknowledged


def main():
    arguments = argparse.ArgumentParser(description="Publishes the rows of an outbox.")
    arguments.add_argument("--database", required=True)
    arguments.add_argument("--brokers", default="127.0.0.1:9092")
    arguments.add_argument("--prefix", default="recharge.", help="kafka.topic_prefix of the service")
    arguments.add_argument("--once", action="store_true", help="end when the outbox is empty")
    given = arguments.parse_args()

    producer = Producer({"bootstrap.servers": given.brokers, "enable.idempotence": True, "linger.ms": 5})
    published = 0
    with psycopg.connect(given.database, autocommit=True) as database:
        while True:
            with database.transaction(), database.cursor() as cursor:
                # One publisher at a time, or an order's events could overtake each other.
                cursor.execute("select pg_try_advisory_xact_lock(hashtext('recharge_outbox'))")
                if cursor.fetchone()[0]:
                    cursor.execute(
                        "select id, event_id, event_type, order_id, data, at from recharge_outbox order by id limit %s",
                        (PAGE,),
                    )
                    rows = cursor.fetchall()
                    acknowledged = publish(producer, given.prefix, rows)
                    # A crash before this commit publishes them again, under the same ids: that is harmless.
                    cursor.execute("delete from recharge_outbox where id = any(%s)", (acknowledged,))
                    if len(acknowledged) < len(rows):
                        sys.exit(f"{len(rows) - len(acknowledged)} rows are not acknowledged: they stay in the outbox")
                    published += len(rows)
                    if rows:
                        continue
            if given.once:
                break
            time.sleep(0.2)
    print(json.dumps({"published": published}))


if __name__ == "__main__":
    main()
