// Asks one question with nothing but Kafka's own client, as schemas/generated/asyncapi.json describes it:
// channels `queries` (message twinloop.query.v1) and `answers` (twinloop.answer.v1), CloudEvents in binary mode.
//
//   java -cp "$HOME/.cache/twinloop/kafka-4.4.0/jars/*" examples/java/Ask.java 127.0.0.1:9092 "What is ...?"
//
// Needs a JDK of version 17 or later, and kafka-clients, slf4j-api and jackson-databind on the class path: the jars that
// `make kafka-up` fetches hold them.
// Exit status: 0 answered, 1 an error answer, 2 bad arguments, 3 no answer at all.

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public class Ask {
    static final String PREFIX = "twinloop.";
    // Copied into the header `tl-client` of the answer, so that others' answers need no parsing.
    static final String CLIENT = "java-example";
    static final int DEADLINE_MS = 10_000;
    // The deadline answer is itself an answer; this is for its way back.
    static final int MARGIN_MS = 15_000;
    static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("usage: Ask.java BOOTSTRAP_SERVERS QUESTION");
            System.exit(2);
        }
        String id = UUID.randomUUID().toString();
        try (KafkaConsumer<byte[], byte[]> answers = answersFromNowOn(arguments[0])) {
            publish(arguments[0], id, arguments[1]);
            JsonNode answer = await(answers, id);
            if (answer == null) {
                System.err.println("no answer; `twinloop status` says what is running");
                System.exit(3);
            }
            boolean failed = answer.hasNonNull("error");
            System.out.println(failed ? answer.get("error") : answer.get("text").asText());
            System.out.println(answer.path("slot").asText() + " " + answer.path("release").asText());
            System.exit(failed ? 1 : 0);
        }
    }

    // Positions are fetched before the question is sent, so that its answer cannot be missed. Answers are written in
    // transactions: only committed ones count.
    static KafkaConsumer<byte[], byte[]> answersFromNowOn(String servers) {
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(
            Map.of("bootstrap.servers", servers, "isolation.level", "read_committed"),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> partitions = consumer.partitionsFor(PREFIX + "answers").stream()
            .map(each -> new TopicPartition(each.topic(), each.partition())).toList();
        consumer.assign(partitions);
        consumer.seekToEnd(partitions);
        partitions.forEach(consumer::position);
        return consumer;
    }

    // The record key is the subject, the sticky unit of a canary: here the query's own id.
    static void publish(String servers, String id, String question) throws Exception {
        byte[] query = JSON.writeValueAsBytes(Map.of(
            "id", id, "text", question, "asked_at", System.currentTimeMillis(), "deadline_ms", DEADLINE_MS,
            "client", CLIENT));
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(PREFIX + "queries", id.getBytes(UTF_8), query);
        Map.of(
            "ce_specversion", "1.0", "ce_id", id, "ce_type", "twinloop.query.v1", "ce_source", "client/" + CLIENT,
            "ce_time", Instant.now().toString(), "content-type", "application/json"
        ).forEach((name, value) -> record.headers().add(name, value.getBytes(UTF_8)));
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(
                Map.of("bootstrap.servers", servers), new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.send(record).get();
        }
    }

    static JsonNode await(KafkaConsumer<byte[], byte[]> answers, String id) throws Exception {
        long until = System.currentTimeMillis() + DEADLINE_MS + MARGIN_MS;
        while (System.currentTimeMillis() < until) {
            for (ConsumerRecord<byte[], byte[]> record : answers.poll(Duration.ofMillis(200))) {
                Header client = record.headers().lastHeader("tl-client");
                if (client == null || !CLIENT.equals(new String(client.value(), UTF_8))) {
                    continue;
                }
                JsonNode answer = JSON.readTree(record.value());
                if (id.equals(answer.path("query_id").asText())) {
                    return answer;
                }
            }
        }
        return null;
    }
}
