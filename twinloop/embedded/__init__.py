"""Kafka's and Redis's stand-ins that pip alone installs: for the demo, for development, for quick tests."""
