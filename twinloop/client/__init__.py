"""For applications and collectors: publish queries, read answers, give feedback.

from twinloop.client import Client

with Client.connect("127.0.0.1:9092") as client:
    answer = client.ask("What is the notice period of contract Zorvan?")
    client.rate(answer, correction="42 days [law-0042]", question="What is ...?")
"""

from twinloop.client.client import Client

__all__ = ["Client"]
