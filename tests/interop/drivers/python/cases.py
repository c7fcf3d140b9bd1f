"""The cases, for grpcio's two kinds of channel: what a call returns is awaited if it has to be."""

import asyncio
import inspect
import os
import time

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.any_pb2 import Any
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from interop.v1.interop_pb2 import AnswerRequest, CrashRequest, EndedRequest, HoldRequest
from interop.v1.interop_pb2_grpc import InteropServiceStub
from ping.v1.ping_pb2 import CollectRequest, ConverseRequest, PingRequest, WatchRequest
from ping.v1.ping_pb2_grpc import PingServiceStub

LIMIT = 4 << 20
PATIENCE = 30


class Different(Exception):
    """What was not as it should be."""


def expect(name, found, expected):
    if found != expected:
        raise Different(f"{name}: {found!r} instead of {expected!r}")


async def value(result):
    return await result if inspect.isawaitable(result) else result


async def call(method, request, timeout=PATIENCE, **options):
    """The reply of a call and the call itself."""
    if hasattr(method, "with_call"):
        return method.with_call(request, timeout=timeout, **options)
    called = method(request, timeout=timeout, **options)
    return await called, called


async def reply(method, request, **options):
    return (await call(method, request, **options))[0]


async def failure(awaitable):
    try:
        result = await awaitable
    except grpc.RpcError as error:
        return error
    raise Different(f"no error but {result}")


async def first(stream):
    return await anext(aiter(stream)) if hasattr(stream, "__aiter__") else next(stream)


async def messages(stream):
    if hasattr(stream, "__aiter__"):
        return [message async for message in stream]
    return list(stream)


async def unary(channel):
    request = PingRequest(message="ping", payload=b"\x00\x01\xff", sequence=7)
    found = await reply(PingServiceStub(channel).Ping, request)
    expect("reply", (found.message, found.payload, found.sequence), ("pong", b"\x00\x01\xff", 7))


async def watch(channel):
    pongs = PingServiceStub(channel).Watch(WatchRequest(count=3), timeout=PATIENCE)
    expect("sequences", [pong.sequence for pong in await messages(pongs)], [0, 1, 2])


async def collect(channel):
    pings = iter([CollectRequest(payload=bytes(100))] * 3)
    collected = await value(PingServiceStub(channel).Collect(pings, timeout=PATIENCE))
    expect("collected", (collected.count, collected.bytes), (3, 300))


async def converse(channel):
    turns = [ConverseRequest(message="ping", sequence=n) for n in range(3)]
    turns.append(ConverseRequest(message="end"))
    replies = PingServiceStub(channel).Converse(iter(turns), timeout=PATIENCE)
    found = [(reply.message, reply.sequence) for reply in await messages(replies)]
    expect("replies", found, [("pong", 0), ("pong", 1), ("pong", 2)])


async def metadata(channel):
    text, data = "some text", b"\x00\x7f\x80\xff"
    sent = (("echo-text", text), ("echo-bin", data))
    _, called = await call(InteropServiceStub(channel).Answer, AnswerRequest(), metadata=sent)
    initial = dict(await value(called.initial_metadata()))
    trailing = dict(await value(called.trailing_metadata()))
    expect("initial", (initial.get("echo-text"), initial.get("echo-bin")), (text, data))
    expect("trailing", (trailing.get("trailing-text"), trailing.get("trailing-bin")), (text, data))


async def status(channel):
    detail = Any()
    detail.Pack(PingRequest(payload=b"\x00\xff", sequence=7))
    for code in grpc.StatusCode:
        if code is grpc.StatusCode.OK:
            continue
        number, _ = code.value
        request = AnswerRequest(code=number, message="100 % naïve: 鍵がない\n", details=[detail])
        error = await failure(reply(InteropServiceStub(channel).Answer, request))
        expect("code", error.code(), code)
        expect("message", error.details(), request.message)
        found = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        expect("details", AnswerRequest.FromString(found), request)


async def ended(channel, id):
    await reply(InteropServiceStub(channel).Ended, EndedRequest(id=id))


def unique():
    return f"{os.getpid()} {time.time_ns()}"


async def deadline(channel):
    id = unique()
    # Connecting is not to take from the deadline.
    await unary(channel)
    held = InteropServiceStub(channel).Hold(HoldRequest(id=id), timeout=0.5)
    error = await failure(messages(held))
    expect("code", error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    await ended(channel, id)


async def cancel(channel):
    id = unique()
    held = InteropServiceStub(channel).Hold(HoldRequest(id=id), timeout=3 * PATIENCE)
    await first(held)
    held.cancel()
    await ended(channel, id)


def payload_of(size):
    """The payload that makes a ping, or its pong, `size` bytes."""
    return bytes(size - 11)


async def sizes(channel):
    ping = PingServiceStub(channel).Ping
    payloads = [bytes(length) for length in (1, 1 << 10, 1 << 16, 1 << 20)]
    for payload in [*payloads, payload_of(LIMIT - 1)]:
        found = await reply(ping, PingRequest(message="ping", payload=payload))
        expect(f"payload of {len(payload)}", found.payload == payload, True)
    too_large = PingRequest(message="ping", payload=payload_of(LIMIT + 1))
    error = await failure(reply(ping, too_large))
    refused = grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OUT_OF_RANGE
    expect("refused with", error.code() if error.code() not in refused else refused, refused)
    await reply(ping, PingRequest())


async def gzip(channel):
    request = PingRequest(message="ping", payload=bytes(1 << 16))
    found, called = await call(
        PingServiceStub(channel).Ping, request, compression=grpc.Compression.Gzip
    )
    expect("payload", found.payload == request.payload, True)
    initial = dict(await value(called.initial_metadata()))
    expect("request", initial.get("request-encoding"), "gzip")
    expect("response", initial.get("response-encoding"), "gzip")


async def parallel(channel):
    ping = PingServiceStub(channel).Ping
    requests = [PingRequest(payload=bytes(1000), sequence=n) for n in range(100)]
    if hasattr(ping, "future"):
        calls = [ping.future(request, timeout=PATIENCE) for request in requests]
        replies = [called.result() for called in calls]
    else:
        replies = await asyncio.gather(*(ping(request, timeout=PATIENCE) for request in requests))
    expect("sequences", [reply.sequence for reply in replies], list(range(100)))


async def crash(channel):
    await failure(reply(InteropServiceStub(channel).Crash, CrashRequest()))


async def lost(channel):
    held = InteropServiceStub(channel).Hold(HoldRequest(id=unique()), timeout=PATIENCE)
    await first(held)
    await crash(channel)
    error = await failure(messages(held))
    expect("code", error.code(), grpc.StatusCode.UNAVAILABLE)


async def restart(channel):
    ping = PingServiceStub(channel).Ping
    await reply(ping, PingRequest())
    await crash(channel)
    for attempt in range(10):
        try:
            await reply(ping, PingRequest(), wait_for_ready=True)
            break
        except grpc.RpcError as error:
            # The connection that is being lost may take another call with it.
            if error.code() is not grpc.StatusCode.UNAVAILABLE or attempt == 9:
                raise


async def health(channel):
    check = HealthStub(channel).Check
    for service in "", "ping.v1.PingService":
        found = await reply(check, HealthCheckRequest(service=service))
        expect("status", found.status, HealthCheckResponse.SERVING)
    error = await failure(reply(check, HealthCheckRequest(service="no.such.Service")))
    expect("code", error.code(), grpc.StatusCode.NOT_FOUND)


async def reflection(channel):
    service = "ping.v1.PingService"
    questions = [
        ServerReflectionRequest(list_services=""),
        ServerReflectionRequest(file_containing_symbol=service),
    ]
    stub = ServerReflectionStub(channel)
    answers = stub.ServerReflectionInfo(iter(questions), timeout=PATIENCE)
    services, files = await messages(answers)
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
        except (Different, grpc.RpcError) as error:
            failed = True
            print(case, " ".join(repr(error).split()), sep="\t", flush=True)
        await value(channel.close())
    return not failed
