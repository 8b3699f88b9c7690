"""Ask and print what answered: `python examples/ask.py 127.0.0.1:9092 "What is ...?"`."""

import sys

from twinloop.client import Client

with Client.connect(sys.argv[1]) as client:
    answer = client.ask(sys.argv[2])
    print(answer.text or answer.error)
    print(answer.slot, answer.release, [citation.document_id for citation in answer.citations])
