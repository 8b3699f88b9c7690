"""Ask many questions at once: `python examples/ask_async.py 127.0.0.1:9092 "What ...?" "Who ...?"`."""

import asyncio
import sys

from twinloop.client import AsyncClient


async def main(servers: str, questions: list[str]) -> None:
    async with await AsyncClient.connect(servers) as client:
        for answer in await asyncio.gather(*map(client.ask, questions)):
            print(answer.text or answer.error)


asyncio.run(main(sys.argv[1], sys.argv[2:]))
