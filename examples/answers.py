"""Ask first, then read answers as they come: `python examples/answers.py 127.0.0.1:9092 "What ...?" "Who ...?"`."""

import sys

from twinloop.client import Client

with Client.connect(sys.argv[1]) as client:
    queries = [client.publish(question) for question in sys.argv[2:]]
    for _, answer in zip(queries, client.answers(timeout_s=30), strict=False):
        print(answer.query_id, answer.text or answer.error)
