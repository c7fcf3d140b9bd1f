"""The server that our channel meets: Ping, health, reflection and the tests' own service."""

import asyncio
import os

from google.protobuf.any_pb2 import Any
from grpclib.const import Status
from grpclib.health.check import ServiceStatus
from grpclib.health.service import Health
from grpclib.reflection.service import ServerReflection
from grpclib.server import Server
from google.protobuf import symbol_database
from interop.v1 import interop_grpc, interop_pb2
from ping.v1 import ping_grpc, ping_pb2


class Ping(ping_grpc.PingServiceBase):
    async def Ping(self, stream):
        request = await stream.recv_message()
        await stream.send_message(
            ping_pb2.PingResponse(message="pong", payload=request.payload, sequence=request.sequence)
        )

    async def Converse(self, stream):
        async for request in stream:
            if request.message == "end":
                return
            await stream.send_message(ping_pb2.ConverseResponse(
                message="pong", payload=request.payload, sequence=request.sequence
            ))

    async def Watch(self, stream):
        request = await stream.recv_message()
        for sequence in range(request.count):
            await stream.send_message(
                ping_pb2.WatchResponse(message="pong", payload=request.payload, sequence=sequence)
            )

    async def Collect(self, stream):
        lengths = [len(request.payload) async for request in stream]
        await stream.send_message(ping_pb2.CollectResponse(count=len(lengths), bytes=sum(lengths)))


class Interop(interop_grpc.InteropServiceBase):
    def __init__(self):
        self.changed = asyncio.Condition()
        self.ended = set()

    async def Answer(self, stream):
        request = await stream.recv_message()
        sent = stream.metadata
        initial = {key: sent[key] for key in ("echo-text", "echo-bin") if key in sent}
        await stream.send_initial_metadata(metadata=initial)
        trailing = {key.replace("echo", "trailing"): value for key, value in initial.items()}
        if not request.code:
            await stream.send_message(interop_pb2.AnswerResponse())
            await stream.send_trailing_metadata(metadata=trailing)
            return
        await stream.send_trailing_metadata(
            status=Status(request.code),
            status_message=request.message,
            status_details=[unpacked(detail) for detail in request.details],
            metadata=trailing,
        )

    async def Hold(self, stream):
        request = await stream.recv_message()
        try:
            await stream.send_message(interop_pb2.HoldResponse())
            await asyncio.Event().wait()
        finally:
            # The call is over; its task may not wait any more.
            asyncio.get_running_loop().create_task(self.end(request.id))

    async def end(self, id):
        async with self.changed:
            self.ended.add(id)
            self.changed.notify_all()

    async def Ended(self, stream):
        request = await stream.recv_message()
        async with self.changed:
            await self.changed.wait_for(lambda: request.id in self.ended)
        await stream.send_message(interop_pb2.EndedResponse())

    async def Crash(self, stream):
        os._exit(0)


def unpacked(detail):
    """The library packs details itself."""
    message = symbol_database.Default().GetSymbol(detail.TypeName())()
    Any.Unpack(detail, message)
    return message


async def serve(address, options):
    ping = Ping()
    healthy = ServiceStatus()
    healthy.set(True)
    services = ServerReflection.extend([ping, Interop(), Health({ping: [healthy]})])
    server = Server(services)
    await server.start(**options)
    print("listening on", address, flush=True)
    await server.wait_closed()
