"""The programs served over a connection to the server."""

import asyncio
import os

import inngest.connect
import programs


async def main() -> None:
    """Serve until SIGTERM."""
    await inngest.connect.connect([(programs.client, programs.functions)], instance_id=f"worker-{os.getpid()}").start()


asyncio.run(main())
