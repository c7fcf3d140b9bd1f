"""serve ADDRESS, or client|aio ADDRESS CASE...: see ../../README.md."""

import asyncio
import sys

import grpc

import cases
import server

command, address, *chosen = sys.argv[1:]


async def aio():
    return await cases.run(lambda: grpc.aio.insecure_channel(address), chosen)


if command == "serve":
    server.serve(address)
elif command == "aio":
    sys.exit(not asyncio.run(aio()))
elif command == "client":
    done = asyncio.run(cases.run(lambda: grpc.insecure_channel(address), chosen))
    sys.exit(not done)
else:
    sys.exit(f"{command}: serve, client or aio")
