"""What runs here is open: Kafka's own tools and Java client ask and read, peft and faiss alone read a release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.answers import Answer
from twinloop.bus.reader import LogReader
from twinloop.client.client import Client
from twinloop.codec import decode
from twinloop.kafka_jars.jars import fetch, fetch_tools
from twinloop.stack.installation import Installation

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = "What does the starter collection say about this?"
WITHOUT_US = "import sys; sys.modules['twinloop'] = sys.modules['services'] = sys.modules['schemas'] = None\n"
PEFT_ALONE = """
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2])
print(sum(p.numel() for n, p in model.named_parameters() if "lora_" in n))
"""
FAISS_ALONE = """
import faiss
index = faiss.read_index(sys.argv[1])
found = index.search(index.index.reconstruct(0).reshape(1, -1), 1)
print(index.ntotal, type(index).__name__, round(float(found[0][0][0]), 3))
"""


def tool(main_class: str, *arguments: str, stdin: str | None = None) -> str:
    ended = subprocess.run(
        fetch_tools().command(main_class, *arguments, heap_mb=256),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def printed(servers: str, topics: Sequence[str], *until: str) -> list[str]:
    """What Kafka's console consumer prints of these topics: headers, a tab, the value."""
    include = "|".join(name.replace(".", r"\.") for name in topics)
    return tool(
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        *("--bootstrap-server", servers, "--include", include, "--from-beginning"),
        *("--isolation-level", "read_committed", "--formatter-property", "print.headers=true", *until),
    ).splitlines()


def alone(program: str, *arguments: str) -> str:
    """The output of a program in which our own packages cannot be imported."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_US + program, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def answers_to(installation: Installation, wanted: Sequence[str], timeout_s: float) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    deadline = time.monotonic() + timeout_s
    with LogReader(installation.kafka, topics=[installation.topics.name("answers")]) as reader:
        while set(wanted) - set(found) and time.monotonic() < deadline:
            for record in reader.poll(100, 0.2):
                answer = decode(record, Answer)
                found[answer.query_id] = answer
    return found


def test_a_query_typed_into_the_console_producer_is_answered(on_real_kafka: Installation) -> None:
    ids = [f"console-{number}" for number in range(3)]
    rows = [
        json.dumps({"id": each, "text": QUESTION, "asked_at": int(time.time() * 1000), "deadline_ms": 60_000})
        for each in ids
    ]
    tool(
        "org.apache.kafka.tools.ConsoleProducer",
        *("--bootstrap-server", on_real_kafka.kafka.bootstrap_servers),
        *("--topic", on_real_kafka.topics.name("queries")),
        stdin="\n".join(rows) + "\n",
    )
    found = answers_to(on_real_kafka, ids, 60)
    assert set(ids) <= set(found)
    assert [found[each].error for each in ids] == [None, None, None]
    assert {found[each].release for each in ids} == {on_real_kafka.bootstrap_release}


def test_a_java_program_written_from_the_asyncapi_document_asks(on_real_kafka: Installation) -> None:
    """`examples/java/Ask.java` with Kafka's own client: nothing of this project is on its class path."""
    jars = fetch()
    modules = subprocess.run([jars.java, "--list-modules"], capture_output=True, text=True, check=True).stdout
    if "jdk.compiler" not in modules:
        pytest.skip(f"{jars.java} is a runtime without a compiler: it cannot run a single source file")
    asked = [jars.java, "-Xmx256m", "-cp", jars.classpath, "examples/java/Ask.java"]
    ended = subprocess.run(
        [*asked, on_real_kafka.kafka.bootstrap_servers, "What is the enforcing court of statute Markemfan?"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answer, produced_by = ended.stdout.splitlines()[-2:]
    assert answer.endswith("[law-9743]")
    slot, release = produced_by.split()
    assert slot in ("blue", "green")
    assert release == on_real_kafka.bootstrap_release


def test_the_console_consumer_reads_every_topic(on_real_kafka: Installation) -> None:
    servers = on_real_kafka.kafka.bootstrap_servers
    names = [spec.name for spec in on_real_kafka.topics.specs()]
    listed = tool("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", servers, "--list").split()
    assert set(names) <= set(listed)
    with Client(on_real_kafka.kafka, on_real_kafka.topics, name="e2e") as client:
        client.publish(QUESTION, query_id="e2e-1")
        client.flush()
    answers_to(on_real_kafka, ["e2e-1"], 60)
    # Ticks and readiness never pause, so the one run ends by count; all else is idle now, so the other ends by silence.
    busy = [
        name for name in names if on_real_kafka.topics.declared_name(name) in ("gate-inputs", "readiness")
    ]
    lines = printed(servers, busy, "--max-messages", "20")
    lines += printed(servers, sorted(set(names) - set(busy)), "--timeout-ms", "5000")
    headers = [part for line in lines for part in line.split("\t")[0].split(",")]
    types = {part.partition(":")[2] for part in headers if part.startswith("ce_type:")}
    assert {"twinloop.query.v1", "twinloop.answer.v1", "twinloop.decision.v1"} <= types
    for line in lines:
        value = line.split("\t", 1)[1]
        assert value == "null" or isinstance(json.loads(value), dict)


def test_peft_and_faiss_alone_read_an_exported_release(on_real_kafka: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "release"
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "twinloop.cli",
                "export",
                on_real_kafka.bootstrap_release[:12],
                str(folder),
            ),
            "--home",
            str(on_real_kafka.plan.home.root),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert int(alone(PEFT_ALONE, "foundation/tiny", str(folder / "adapters" / "law"))) > 0
    documents = (folder / "indexes" / "law" / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    count, kind, score = alone(FAISS_ALONE, str(folder / "indexes" / "law" / "index.faiss")).split()
    assert (int(count), kind, float(score)) == (len(documents), "IndexIDMap2", 1.0)
