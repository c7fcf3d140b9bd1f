"""The cases, on grpclib's channel."""

import asyncio
import os
import time

from google.protobuf import descriptor_pb2
from google.protobuf.any_pb2 import Any
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.health.v1.health_grpc import HealthStub
from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest
from interop.v1.interop_grpc import InteropServiceStub
from interop.v1.interop_pb2 import AnswerRequest, CrashRequest, EndedRequest, HoldRequest
from ping.v1.ping_grpc import PingServiceStub
from ping.v1.ping_pb2 import CollectRequest, ConverseRequest, PingRequest, WatchRequest

LIMIT = 4 << 20
PATIENCE = 30


class Different(Exception):
    """What was not as it should be."""


def expect(name, found, expected):
    if found != expected:
        raise Different(f"{name}: {found!r} instead of {expected!r}")


async def failure(awaitable, *kinds):
    try:
        result = await awaitable
    except (kinds or GRPCError) as error:
        return error
    raise Different(f"no error but {result}")


async def unary(channel):
    request = PingRequest(message="ping", payload=b"\x00\x01\xff", sequence=7)
    found = await PingServiceStub(channel).Ping(request, timeout=PATIENCE)
    expect("reply", (found.message, found.payload, found.sequence), ("pong", b"\x00\x01\xff", 7))


async def watch(channel):
    pongs = await PingServiceStub(channel).Watch(WatchRequest(count=3), timeout=PATIENCE)
    expect("sequences", [pong.sequence for pong in pongs], [0, 1, 2])


async def collect(channel):
    pings = [CollectRequest(payload=bytes(100))] * 3
    collected = await PingServiceStub(channel).Collect(pings, timeout=PATIENCE)
    expect("collected", (collected.count, collected.bytes), (3, 300))


async def converse(channel):
    async with PingServiceStub(channel).Converse.open(timeout=PATIENCE) as stream:
        for sequence in range(3):
            await stream.send_message(ConverseRequest(message="ping", sequence=sequence))
            reply = await stream.recv_message()
            expect("reply", (reply.message, reply.sequence), ("pong", sequence))
        await stream.send_message(ConverseRequest(message="end"), end=True)
        expect("after the end", await stream.recv_message(), None)


async def metadata(channel):
    text, data = "some text", b"\x00\x7f\x80\xff"
    sent = {"echo-text": text, "echo-bin": data}
    stub = InteropServiceStub(channel)
    async with stub.Answer.open(metadata=sent, timeout=PATIENCE) as stream:
        await stream.send_message(AnswerRequest(), end=True)
        await stream.recv_message()
        await stream.recv_trailing_metadata()
        initial, trailing = stream.initial_metadata, stream.trailing_metadata
    expect("initial", (initial.get("echo-text"), initial.get("echo-bin")), (text, data))
    expect("trailing", (trailing.get("trailing-text"), trailing.get("trailing-bin")), (text, data))


async def status(channel):
    detail = PingRequest(payload=b"\x00\xff", sequence=7)
    packed = Any()
    packed.Pack(detail)
    for code in Status:
        if code is Status.OK:
            continue
        request = AnswerRequest(code=code.value, message="100 % naïve: 鍵がない\n", details=[packed])
        error = await failure(InteropServiceStub(channel).Answer(request, timeout=PATIENCE))
        expect("code", error.status, code)
        expect("message", error.message, request.message)
        expect("details", list(error.details), [detail])


async def ended(channel, id):
    await InteropServiceStub(channel).Ended(EndedRequest(id=id), timeout=PATIENCE)


def unique():
    return f"{os.getpid()} {time.time_ns()}"


async def deadline(channel):
    id = unique()
    # Connecting is not to take from the deadline.
    await unary(channel)
    held = InteropServiceStub(channel).Hold(HoldRequest(id=id), timeout=0.5)
    # The library has an error of its own where its clock is the first to say so.
    error = await failure(held, GRPCError, asyncio.TimeoutError)
    if isinstance(error, GRPCError):
        expect("code", error.status, Status.DEADLINE_EXCEEDED)
    await ended(channel, id)


async def cancel(channel):
    id = unique()
    async with InteropServiceStub(channel).Hold.open(timeout=3 * PATIENCE) as stream:
        await stream.send_message(HoldRequest(id=id), end=True)
        await stream.recv_message()
        await stream.cancel()
    await ended(channel, id)


def payload_of(size):
    """The payload that makes a ping, or its pong, `size` bytes."""
    return bytes(size - 11)


async def sizes(channel):
    ping = PingServiceStub(channel).Ping
    payloads = [bytes(length) for length in (1, 1 << 10, 1 << 16, 1 << 20)]
    for payload in [*payloads, payload_of(LIMIT - 1)]:
        found = await ping(PingRequest(message="ping", payload=payload), timeout=PATIENCE)
        expect(f"payload of {len(payload)}", found.payload == payload, True)
    too_large = PingRequest(message="ping", payload=payload_of(LIMIT + 1))
    error = await failure(ping(too_large, timeout=PATIENCE))
    refused = Status.RESOURCE_EXHAUSTED, Status.OUT_OF_RANGE
    expect("refused with", error.status if error.status not in refused else refused, refused)
    await ping(PingRequest(), timeout=PATIENCE)


async def parallel(channel):
    ping = PingServiceStub(channel).Ping
    requests = [PingRequest(payload=bytes(1000), sequence=n) for n in range(100)]
    replies = await asyncio.gather(*(ping(request, timeout=PATIENCE) for request in requests))
    expect("sequences", [reply.sequence for reply in replies], list(range(100)))


async def crash(channel):
    call = InteropServiceStub(channel).Crash(CrashRequest(), timeout=PATIENCE)
    await failure(call, GRPCError, StreamTerminatedError)


async def lost(channel):
    async def hold():
        async with InteropServiceStub(channel).Hold.open(timeout=PATIENCE) as stream:
            await stream.send_message(HoldRequest(id=unique()), end=True)
            await stream.recv_message()
            await crash(channel)
            await stream.recv_message()

    # What the library says in place of UNAVAILABLE.
    await failure(hold(), StreamTerminatedError)


async def restart(channel):
    ping = PingServiceStub(channel).Ping
    await ping(PingRequest(), timeout=PATIENCE)
    await crash(channel)
    # The library does not wait for a server.
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await ping(PingRequest(), timeout=PATIENCE)
        except (OSError, StreamTerminatedError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)


async def health(channel):
    check = HealthStub(channel).Check
    for service in "", "ping.v1.PingService":
        found = await check(HealthCheckRequest(service=service), timeout=PATIENCE)
        expect("status", found.status, HealthCheckResponse.SERVING)
    error = await failure(check(HealthCheckRequest(service="no.such.Service"), timeout=PATIENCE))
    expect("code", error.status, Status.NOT_FOUND)


async def reflection(channel):
    service = "ping.v1.PingService"
    questions = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol=service),
    ]
    stub = ServerReflectionStub(channel)
    services, files = await stub.ServerReflectionInfo(questions, timeout=PATIENCE)
    listed = [entry.name for entry in services.list_services_response.service]
    expect(f"{service} in {listed}", service in listed, True)
    files = files.file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files]
    methods = [len(file.service[0].method) for file in files if file.package == "ping.v1"]
    expect("methods", methods, [4])


async def run(open_channel, cases):
    """Runs each case on a channel of its own, says what was different, and whether nothing was."""
    failed = False
    for case in cases:
        channel = open_channel()
        try:
            await globals()[case](channel)
            print(case, "ok", sep="\t", flush=True)
        except (Different, GRPCError, StreamTerminatedError, OSError, TimeoutError) as error:
            failed = True
            print(case, " ".join(repr(error).split())[:500], sep="\t", flush=True)
        channel.close()
    return not failed
