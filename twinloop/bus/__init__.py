"""Kafka and everything that speaks to it; the only folder that imports confluent_kafka, faust or aiokafka."""
