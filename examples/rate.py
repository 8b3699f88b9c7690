"""Ask, correct the answer and say what became of it: `python examples/rate.py 127.0.0.1:9092 "What is ...?" "Lima"`."""

import sys

from twinloop.client import Client

servers, question, correction = sys.argv[1:]
with Client.connect(servers) as client:
    answer = client.ask(question)
    given = client.rate(answer, question=question, rater="ada", rating="down", correction=correction)
    client.flush()
    print(given.id, client.feedback_status(given.id) or "no status yet")
