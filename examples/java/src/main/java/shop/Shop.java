package shop;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.temporal.ChronoUnit;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.UUID;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A shop that sells recharges: it tells recharged of its orders, follows what becomes of them, and confirms refunds.
 *
 * <p>{@code mvn -q compile exec:java -Dexec.args="-brokers 127.0.0.1:9092 -orders 8"}; docs/PRODUCING.md explains each step.
 */
public final class Shop implements AutoCloseable {
    private static final Set<String> CLOSED = Set.of("succeeded", "failed", "cancelled");
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String prefix;
    private final KafkaProducer<String, String> producer;
    private final List<Future<RecordMetadata>> unacknowledged = new ArrayList<>();

    Shop(String brokers, String prefix) {
        this.prefix = prefix;
        // The client writes idempotently and waits for all replicas unless it is told otherwise.
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "linger.ms", 5, "delivery.timeout.ms", 120_000);
        producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    /** Publishes one event: a CloudEvent in binary mode, keyed by its order. */
    private void tell(String topic, String type, String eventId, String orderId, Map<String, ?> data) throws Exception {
        ProducerRecord<String, String> event = new ProducerRecord<>(prefix + topic, orderId, JSON.writeValueAsString(data));
        Map<String, String> headers = Map.of(
                "ce_specversion", "1.0",
                "ce_id", eventId,
                "ce_source", "/examples/java",
                "ce_type", type,
                "ce_subject", orderId,
                "ce_time", now(),
                "content-type", "application/json");
        headers.forEach((name, value) -> event.headers().add(name, value.getBytes(StandardCharsets.UTF_8)));
        unacknowledged.add(producer.send(event));
    }

    void create(String orderId, String phone, String paymentId) throws Exception {
        String at = now();
        Map<String, Object> order = new LinkedHashMap<>(Map.of(
                "order_id", orderId,
                "phone", phone,
                "amount_minor", 5000,
                "currency", "CNY",
                "created_at", at,
                "metadata", Map.of("channel", "example")));
        if (paymentId != null) {
            order.put("paid_at", at);
            order.put("payment_id", paymentId);
        }
        tell("orders", "recharge.order.created.v1", orderId + "/created", orderId, order);
    }

    void pay(String orderId, String paymentId) throws Exception {
        Map<String, String> data = Map.of("order_id", orderId, "paid_at", now(), "payment_id", paymentId);
        tell("lifecycle", "recharge.order.paid.v1", orderId + "/paid", orderId, data);
    }

    void cancel(String orderId) throws Exception {
        Map<String, String> data = Map.of("order_id", orderId, "reason", "the customer changed their mind");
        tell("lifecycle", "recharge.order.cancelled.v1", orderId + "/cancelled", orderId, data);
    }

    void confirmRefund(String orderId) throws Exception {
        // The same id for the same order: telling it twice is then one refund.
        Map<String, String> data = Map.of("order_id", orderId, "refund_id", "re-" + orderId, "at", now());
        tell("lifecycle", "recharge.refund.confirmed.v1", orderId + "/refunded", orderId, data);
    }

    /** Waits for the broker's acknowledgements. What has none must be told again, under the same ids. */
    void flush() throws InterruptedException, ExecutionException {
        producer.flush();
        for (Future<RecordMetadata> sent : unacknowledged) {
            sent.get();
        }
        unacknowledged.clear();
    }

    @Override
    public void close() {
        producer.close();
    }

    /** Reads what becomes of the orders until each has ended, and each refund is confirmed. */
    static Map<String, Integer> follow(Shop shop, String brokers, Set<String> orders, Duration patience) throws Exception {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", brokers,
                "group.id", "shop-example-" + UUID.randomUUID(),
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false);
        Map<String, Long> versions = new HashMap<>();
        Map<String, String> states = new HashMap<>();
        Set<String> confirmed = new HashSet<>();
        Instant until = Instant.now().plus(patience);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(shop.prefix + "order-events", shop.prefix + "refunds"));
            while (!orders.stream().allMatch(id -> hasEnded(states.get(id), confirmed.contains(id)))) {
                if (Instant.now().isAfter(until)) {
                    throw new IllegalStateException("after " + patience + " not all have ended: " + states);
                }
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    JsonNode event = JSON.readTree(message.value());
                    String orderId = event.get("order_id").asText();
                    if (!orders.contains(orderId)) {
                        continue;
                    }
                    if (message.topic().equals(shop.prefix + "refunds")) {
                        // Here the payment side gives the money back. Perhaps it has: this event may come twice.
                        shop.confirmRefund(orderId);
                        continue;
                    }
                    // At least once, in order per order: what is not newer than the last one was seen before.
                    long version = event.get("version").asLong();
                    if (version <= versions.getOrDefault(orderId, 0L)) {
                        continue;
                    }
                    versions.put(orderId, version);
                    states.put(orderId, event.get("state").asText());
                    if (event.has("refund_id")) {
                        confirmed.add(orderId);
                    }
                }
                shop.flush();
                // Only now: a crash before this reads them again, and every step above bears that.
                consumer.commitSync();
            }
        }
        Map<String, Integer> ends = new TreeMap<>(Map.of("succeeded", 0, "failed", 0, "cancelled", 0));
        states.values().forEach(state -> ends.merge(state, 1, Integer::sum));
        ends.put("refunds_confirmed", confirmed.size());
        return ends;
    }

    private static boolean hasEnded(String state, boolean isRefunded) {
        return state != null && CLOSED.contains(state) && (!state.equals("failed") || isRefunded);
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at + 1 < arguments.length; at += 2) {
            given.put(arguments[at].replaceFirst("^-+", ""), arguments[at + 1]);
        }
        String brokers = given.getOrDefault("brokers", "127.0.0.1:9092");
        int count = Integer.parseInt(given.getOrDefault("orders", "8"));
        Duration patience = Duration.ofSeconds(Long.parseLong(given.getOrDefault("timeout", "240")));
        try (Shop shop = new Shop(brokers, given.getOrDefault("prefix", "recharge."))) {
            String run = UUID.randomUUID().toString().substring(0, 8);
            Set<String> orders = new HashSet<>();
            for (int number = 0; number < count; number++) {
                String orderId = "java-" + run + "-" + number;
                orders.add(orderId);
                // Numbers of nobody.
                String phone = String.format("+861380000%04d", number % 10_000);
                String payment = "pay-" + orderId;
                switch (number % 4) {
                    case 0 -> shop.create(orderId, phone, payment);
                    case 1 -> {
                        shop.create(orderId, phone, null);
                        shop.pay(orderId, payment);
                    }
                    case 2 -> {
                        shop.create(orderId, phone, null);
                        shop.cancel(orderId);
                    }
                    // Paid, and no phone number: it fails at once, and the money goes back.
                    default -> shop.create(orderId, "12", payment);
                }
            }
            shop.flush();
            System.out.println(JSON.writeValueAsString(follow(shop, brokers, orders, patience)));
        }
    }

    private static String now() {
        return Instant.now().truncatedTo(ChronoUnit.MILLIS).toString();
    }
}
