"""Calls a server that is taken over again and again; see ../host/hand_overs.rs. Until its input ends:
unary calls and a stream on each of four channels, and new connections."""

import collections
import sys
import threading
import time

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest
from grpc_health.v1.health_pb2_grpc import HealthStub

CHANNELS = 4
CALL, CONNECT = 0.016, 0.010
# Channels of one process share connections unless they are told not to.
ALONE = [("grpc.use_local_subchannel_pool", 1)]


class Outcome:
    def __init__(self):
        self.lock = threading.Lock()
        self.all = 0
        self.failures = collections.Counter()

    def note(self, error=None):
        with self.lock:
            self.all += 1
            if error is not None:
                self.failures[f"{error.code()}: {error.details()}"] += 1


calls, connects, streams = Outcome(), Outcome(), Outcome()
stop = threading.Event()
address = sys.argv[1]


def check(channel, outcome):
    try:
        HealthStub(channel).Check(HealthCheckRequest(), timeout=30)
    except grpc.RpcError as error:
        outcome.note(error)
    else:
        outcome.note()


def every(interval, do):
    while not stop.wait(interval):
        do()


def connect():
    with grpc.insecure_channel(address, ALONE) as channel:
        check(channel, connects)


def watch(channel):
    """One stream after the other, each until its server ends it."""
    while not stop.is_set():
        stream = HealthStub(channel).Watch(HealthCheckRequest())
        watching.append(stream)
        failure = None
        try:
            for _ in stream:
                pass
        except grpc.RpcError as error:
            failure = error
        watching.remove(stream)
        if stop.is_set():
            return
        # The end at the server's drain deadline.
        if failure is not None and failure.code() == grpc.StatusCode.UNAVAILABLE:
            failure = None
        streams.note(failure)


watching = []
channels = [grpc.insecure_channel(address, ALONE) for _ in range(CHANNELS)]
threads = [threading.Thread(target=every, args=(CONNECT, connect))]
for channel in channels:
    HealthStub(channel).Check(HealthCheckRequest(), timeout=30)
    once = lambda channel=channel: check(channel, calls)
    threads.append(threading.Thread(target=every, args=(CALL, once)))
    threads.append(threading.Thread(target=watch, args=(channel,)))
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.read()
stop.set()
while any(thread.is_alive() for thread in threads):
    for stream in list(watching):
        stream.cancel()
    time.sleep(0.01)
print(
    " ".join(f"{name}={outcome.all} failed={outcome.failures.total()}"
             for name, outcome in (("calls", calls), ("connects", connects), ("streams", streams)))
)
for outcome in calls, connects, streams:
    for text, times in outcome.failures.items():
        print(times, "times", text)
