"""serve ADDRESS, or client ADDRESS CASE...: see ../../README.md."""

import asyncio
import sys

from grpclib.client import Channel

import cases
import server


def options(address):
    """How grpclib is told of an address: by a path or by host and port."""
    scheme, _, rest = address.partition(":")
    if scheme == "unix":
        return {"path": rest}
    if scheme == "unix-abstract":
        return {"path": "\0" + rest}
    return {"host": scheme, "port": int(rest)}


command, address, *chosen = sys.argv[1:]
if command == "serve":
    asyncio.run(server.serve(address, options(address)))
elif command == "client":
    sys.exit(not asyncio.run(cases.run(lambda: Channel(**options(address)), chosen)))
else:
    sys.exit(f"{command}: serve or client")
