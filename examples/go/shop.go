// A shop that sells recharges: it tells recharged of its orders, follows what becomes of them, and confirms refunds.
//
//	go run . -brokers 127.0.0.1:9092 -orders 8
//
// docs/PRODUCING.md explains each step.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// What the shop says. Fields of no value are left out.

type created struct {
	OrderID     string            `json:"order_id"`
	Phone       string            `json:"phone"`
	AmountMinor int64             `json:"amount_minor"`
	Currency    string            `json:"currency"`
	CreatedAt   time.Time         `json:"created_at"`
	PaidAt      *time.Time        `json:"paid_at,omitempty"`
	PaymentID   string            `json:"payment_id,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

type paid struct {
	OrderID   string    `json:"order_id"`
	PaidAt    time.Time `json:"paid_at"`
	PaymentID string    `json:"payment_id,omitempty"`
}

type cancelled struct {
	OrderID string `json:"order_id"`
	Reason  string `json:"reason,omitempty"`
}

type refundConfirmed struct {
	OrderID  string    `json:"order_id"`
	RefundID string    `json:"refund_id"`
	At       time.Time `json:"at"`
}

// What is read of an order's events; there is more in them.
type orderEvent struct {
	OrderID  string `json:"order_id"`
	Version  int64  `json:"version"`
	State    string `json:"state"`
	RefundID string `json:"refund_id"`
}

// event is a CloudEvent in binary mode, keyed by its order.
func event(topic, eventType, id, orderID string, data any) *kgo.Record {
	value, err := json.Marshal(data)
	if err != nil {
		log.Fatal(err)
	}
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return &kgo.Record{
		Topic: topic,
		Key:   []byte(orderID),
		Value: value,
		Headers: []kgo.RecordHeader{
			header("ce_specversion", "1.0"),
			header("ce_id", id),
			header("ce_source", "/examples/go"),
			header("ce_type", eventType),
			header("ce_subject", orderID),
			header("ce_time", time.Now().UTC().Format(time.RFC3339Nano)),
			header("content-type", "application/json"),
		},
	}
}

func confirmRefund(prefix, orderID string) *kgo.Record {
	// The same id for the same order: telling it twice is then one refund.
	data := refundConfirmed{orderID, "re-" + orderID, time.Now().UTC()}
	return event(prefix+"lifecycle", "recharge.refund.confirmed.v1", orderID+"/refunded", orderID, data)
}

// sell gives the events of an order: one that is paid at once, paid later, cancelled, or paid with a number that is none.
func sell(prefix, orderID string, number int) []*kgo.Record {
	now := time.Now().UTC()
	order := created{
		OrderID: orderID, Phone: fmt.Sprintf("+861380000%04d", number%10_000), // numbers of nobody
		AmountMinor: 5000, Currency: "CNY", CreatedAt: now, Metadata: map[string]string{"channel": "example"},
	}
	create := func() *kgo.Record {
		return event(prefix+"orders", "recharge.order.created.v1", orderID+"/created", orderID, order)
	}
	switch number % 4 {
	case 0:
		order.PaidAt, order.PaymentID = &now, "pay-"+orderID
		return []*kgo.Record{create()}
	case 1:
		data := paid{orderID, now, "pay-" + orderID}
		return []*kgo.Record{create(), event(prefix+"lifecycle", "recharge.order.paid.v1", orderID+"/paid", orderID, data)}
	case 2:
		data := cancelled{orderID, "the customer changed their mind"}
		return []*kgo.Record{create(), event(prefix+"lifecycle", "recharge.order.cancelled.v1", orderID+"/cancelled", orderID, data)}
	default:
		order.Phone, order.PaidAt, order.PaymentID = "12", &now, "pay-"+orderID
		return []*kgo.Record{create()}
	}
}

// tell waits for the broker's acknowledgements. What has none must be told again, under the same ids.
func tell(ctx context.Context, client *kgo.Client, records ...*kgo.Record) {
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		log.Fatalf("not all events are acknowledged, send them again: %v", err)
	}
}

// follow reads what becomes of the orders until each has ended, and each refund is confirmed.
func follow(ctx context.Context, client *kgo.Client, prefix string, orders map[string]bool) (map[string]string, int) {
	states, versions := map[string]string{}, map[string]int64{}
	confirmed := map[string]bool{}
	ended := func() bool {
		for orderID := range orders {
			switch states[orderID] {
			case "succeeded", "cancelled":
			case "failed":
				if !confirmed[orderID] {
					return false
				}
			default:
				return false
			}
		}
		return true
	}
	for !ended() {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			log.Fatalf("not all have ended: %v: %v", err, states)
		}
		var refunded []*kgo.Record
		fetches.EachRecord(func(record *kgo.Record) {
			var event orderEvent
			if err := json.Unmarshal(record.Value, &event); err != nil {
				log.Fatalf("%s: %v", record.Topic, err)
			}
			switch {
			case !orders[event.OrderID]:
			case record.Topic == prefix+"refunds":
				// Here the payment side gives the money back. Perhaps it has: this event may come twice.
				refunded = append(refunded, confirmRefund(prefix, event.OrderID))
			// At least once, in order per order: what is not newer than the last one was seen before.
			case event.Version > versions[event.OrderID]:
				versions[event.OrderID], states[event.OrderID] = event.Version, event.State
				if event.RefundID != "" {
					confirmed[event.OrderID] = true
				}
			}
		})
		tell(ctx, client, refunded...)
		// Only now: a crash before this reads them again, and every step above bears that.
		if err := client.CommitUncommittedOffsets(ctx); err != nil {
			log.Fatal(err)
		}
	}
	return states, len(confirmed)
}

func main() {
	brokers := flag.String("brokers", "127.0.0.1:9092", "bootstrap servers")
	prefix := flag.String("prefix", "recharge.", "kafka.topic_prefix of the service")
	count := flag.Int("orders", 8, "how many")
	patience := flag.Duration("timeout", 240*time.Second, "until every order must have ended")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *patience)
	defer cancel()

	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	run := hex.EncodeToString(random)
	// The client writes idempotently and waits for all replicas unless it is told otherwise.
	client, err := kgo.NewClient(
		kgo.SeedBrokers(*brokers),
		kgo.ConsumerGroup("shop-example-"+run),
		kgo.ConsumeTopics(*prefix+"order-events", *prefix+"refunds"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	orders := map[string]bool{}
	for number := range *count {
		orderID := fmt.Sprintf("go-%s-%d", run, number)
		orders[orderID] = true
		tell(ctx, client, sell(*prefix, orderID, number)...)
	}
	states, confirmed := follow(ctx, client, *prefix, orders)
	ends := map[string]int{"succeeded": 0, "failed": 0, "cancelled": 0, "refunds_confirmed": confirmed}
	for _, state := range states {
		ends[state]++
	}
	if err := json.NewEncoder(os.Stdout).Encode(ends); err != nil {
		log.Fatal(err)
	}
}
