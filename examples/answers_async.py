"""Read answers in one task while another asks: `python examples/answers_async.py 127.0.0.1:9092 "What is ...?"`."""

import asyncio
import sys

from twinloop.client import AsyncClient


async def main(servers: str, question: str) -> None:
    async with await AsyncClient.connect(servers) as client:
        asking = asyncio.create_task(client.ask(question))
        async for answer in client.answers(timeout_s=30):
            print(answer.query_id, answer.text or answer.error)
            break
        await asking


asyncio.run(main(*sys.argv[1:]))
