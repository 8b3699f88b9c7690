"""Fixtures every kind of test may use; what they are is said in `tests/fixtures`."""

from __future__ import annotations

pytest_plugins = ["tests.fixtures.brokers"]
