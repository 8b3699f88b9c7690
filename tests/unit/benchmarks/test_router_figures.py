"""The router's figures come from the samples alone, those of an older result included; the page shows what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import page
from benchmarks.router import figures

OLD: dict[str, Any] = {
    "queries": 10,
    "rounds": [
        {"bare": 100.0, "router": 80.0, "bare_cpu": 200.0, "router_cpu": 100.0},
        {"bare": 50.0, "router": 30.0, "bare_cpu": 100.0, "router_cpu": 60.0},
        {"bare": 10.0, "router": 7.0, "bare_cpu": 10.0, "router_cpu": 7.0},
    ],
    "batch_ms": [1.0, 2.0, 3.0],
}
REFERENCE = {"aiokafka": 5.0, "aiokafka_cpu": 5.0, "faust": 2.0, "faust_cpu": 1.0}
NEW: dict[str, Any] = {
    **OLD,
    "rounds": [{**each, **REFERENCE} for each in OLD["rounds"]],
    "end_to_end_per_s": 200.0,
    "end_to_end_ms": {"router": [20.0, 30.0, 40.0], "bare": [10.0, 20.0, 25.0]},
}


def test_an_older_result_has_the_figures_it_had() -> None:
    assert figures(OLD) == {
        "throughput_over_bare": 0.7,
        "added_p99_ms": 3.0,
        "throughput_over_bare_cpu": 0.6,
        "added_p50_ms": 2.0,
        "routed_per_s": 30.0,
        "routed_per_cpu_s": 60.0,
    }


def test_end_to_end_and_references_come_after_them() -> None:
    found, older = figures(NEW), figures(OLD)
    assert list(found)[: len(older)] == list(older)
    assert {name: value for name, value in found.items() if name not in older} == {
        "end_to_end_p99_ms": 40.0,
        "end_to_end_p50_ms": 30.0,
        "bare_end_to_end_p99_ms": 25.0,
        "bare_end_to_end_p50_ms": 20.0,
        "aiokafka_over_bare": 0.1,
        "aiokafka_over_bare_cpu": 0.05,
        "faust_over_bare": 0.04,
        "faust_over_bare_cpu": 0.01,
    }


@pytest.mark.parametrize("samples", [OLD, NEW])
def test_the_page_shows_every_figure_there_is(
    samples: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = figures(samples)
    machine = {"cores": 2, "load": [0.1, 0.1, 0.1], "python": "3.11"}
    result = {"commit": "0", "machine": machine, "goals": {}, "figures": found, "samples": samples}
    (tmp_path / "router.json").write_text(json.dumps(result))
    monkeypatch.setattr(page, "FOLDER", tmp_path)
    text = page.page()
    assert all(f"| `{name}` |" in text for name in found)
