"""Makes a call by gRPC for Python, prints what it is told, and stays for three seconds."""

import sys
import time

import grpc

channel = grpc.insecure_channel(sys.argv[1])
try:
    channel.unary_unary("/ping.v1.PingService/Ping")(b"", timeout=10)
    print("OK")
except grpc.RpcError as error:
    print(error.code().name, error.details(), flush=True)
time.sleep(3)
