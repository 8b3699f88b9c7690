"""Ask and rate: `python examples/rate_async.py 127.0.0.1:9092 "What is ...?"`."""

import asyncio
import sys

from twinloop.client import AsyncClient


async def main(servers: str, question: str) -> None:
    async with await AsyncClient.connect(servers) as client:
        answer = await client.ask(question)
        given = await client.rate(answer, question=question, rater="ada", rating="up")
        print(given.id, await client.feedback_status(given.id) or "no status yet")


asyncio.run(main(*sys.argv[1:]))
