"""Calls with large messages by grpcio, all at once. Usage and output are those of client.go."""

import sys
import time

import grpc


def varint(number):
    encoded = bytearray()
    while number >= 128:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def main():
    address = sys.argv[1]
    connections, calls, size = map(int, sys.argv[2:])
    payload = bytes([7]) * size
    # PingRequest.payload
    request = bytes([2 << 3 | 2]) + varint(size) + payload
    # Channels of one process otherwise share a connection.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(address, options) for _ in range(connections)]
    started = time.monotonic()
    running = [
        channel.unary_unary("/ping.v1.PingService/Ping").future(request, timeout=120)
        for channel in channels
        for _ in range(calls)
    ]
    failed = []
    for call in running:
        error = call.exception()
        if error is None and payload not in call.result():
            error = f"{len(call.result())} bytes came back instead of more than {size}"
        if error is not None:
            failed.append(error)
    if failed:
        sys.exit(f"{len(failed)} of {len(running)} calls failed: {failed[0]}")
    print(f"{time.monotonic() - started:.3f}")


main()
