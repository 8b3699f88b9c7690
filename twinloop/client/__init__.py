"""For applications and collectors: publish queries, read answers, give feedback.

from twinloop.client import Client

with Client.connect("127.0.0.1:9092") as client:
    answer = client.ask("What is the notice period of contract Zorvan?")
    client.rate(answer, correction="42 days [law-0042]", question="What is ...?", rater="ada")

from twinloop.client import AsyncClient

async with await AsyncClient.connect("127.0.0.1:9092") as client:
    answer = await client.ask("What is the notice period of contract Zorvan?")
    await client.rate(answer, rating="up", question="What is ...?", rater="ada")
"""

from twinloop.client.async_client import AsyncClient
from twinloop.client.client import Client

__all__ = ["AsyncClient", "Client"]
