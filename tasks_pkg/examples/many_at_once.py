"""Send many tasks from asyncio, and take the results as they come."""

import asyncio

from tasks.client import AsyncClient


async def main() -> None:
    async with AsyncClient() as client:
        tasks = [await client.submit("ping") for _ in range(20)]
        waiting = [asyncio.create_task(task.result(timeout=60)) for task in tasks]
        for done in asyncio.as_completed(waiting):
            assert (await done)["status"] == "pong"
        print(len(tasks), "answers")


asyncio.run(main())
