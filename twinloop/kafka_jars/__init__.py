"""A real Apache Kafka for development and tests, run from Maven jars with this machine's Java; no Docker needed."""
