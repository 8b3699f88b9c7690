"""A real Apache Kafka for development and tests, run from Maven jars with the Java on this machine; no Docker needed."""
