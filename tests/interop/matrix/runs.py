"""What is run against what."""

import os
import socket
import subprocess
import threading

from .languages import ABSTRACT, TCP, UNIX
from .served import Served
from .table import Outcome

# In one process, on a server that stays.
CASES = [
    "unary", "watch", "collect", "converse", "metadata", "status", "deadline", "cancel", "sizes",
    "gzip", "parallel", "health", "reflection",
]
# Each ends the server, and is followed by the next when it has started again.
ENDING = ["lost", "restart"]

# gRPC's own, less those that need cloud credentials or report loads.
GRPC_CASES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong",
    "empty_stream", "timeout_on_sleeping_server", "cancel_after_begin",
    "cancel_after_first_response", "status_code_and_message", "special_status_message",
    "custom_metadata", "unimplemented_method", "unimplemented_service",
]

THEIR_CLIENTS = "Their client, our server"
THEIR_SERVERS = "Our channel, their server"
GRPC = "gRPC's own cases"


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Addresses:
    """An address of each transport that nobody else has, and the socket's file."""

    def __init__(self, place, name):
        self.path = place.scratch / f"{name}.sock"
        self.of = {
            UNIX: f"unix:{self.path}",
            ABSTRACT: f"unix-abstract:samehost-interop-{os.getpid()}-{name}",
            TCP: f"127.0.0.1:{free_port()}",
        }


def driven(command, address, cases, env):
    """Runs a driver on some cases: the outcome of each, `ok` or what was different."""
    environment = os.environ | {key: str(value) for key, value in env.items()}
    command = [str(part) for part in [*command, address, *cases]]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=120,
        )
        output, end = done.stdout, f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired as expired:
        output, end = (expired.stdout or b"").decode(), "no end within 2 minutes"
    told = dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)
    return {case: told.get(case, end) for case in cases}


def all_cases(command, served, env, cases):
    """The outcomes of all cases that the driver has, those that end the server last."""
    told = driven(command, served.address, [case for case in CASES if case in cases], env)
    for case in ENDING:
        if case in cases:
            starts = served.starts
            told |= driven(command, served.address, [case], env)
            if told[case] == "ok":
                served.wait_for(starts + 1, 20)
    return told


def example(built, address):
    """The example client's outcome."""
    environment = os.environ | {key: str(value) for key, value in built.env.items()}
    command = [str(part) for part in [*built.example, address]]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return "ok" if done.stdout == "pong\n" else (done.stdout + done.stderr).strip()[-300:]


def their_clients(place, built, outcome):
    columns = ["example", *CASES, *ENDING]
    ours = built["rust"].server
    addresses = Addresses(place, "ours")
    for transport in ours.transports:
        log = place.scratch / "ours.log"
        with Served(ours.command, addresses.of[transport], log=log) as served:
            for language in built.values():
                for number, client in enumerate(language.clients):
                    if transport not in client.transports:
                        continue
                    cases = client.cases or columns
                    told = all_cases(client.command, served, client.env, cases)
                    # The example is the first way of using the library.
                    if language.example and number == 0:
                        told["example"] = example(language, served.address)
                    outcome.add(THEIR_CLIENTS, f"{client.label}, {transport}", columns, told)
                    place.say(f"{client.label} over {transport}")


def their_servers(place, built, outcome):
    command = built["rust"].clients[0].command
    for name, language in built.items():
        server = language.server
        if name == "rust" or not server:
            continue
        addresses = Addresses(place, name)
        for transport in server.transports:
            with Served(
                server.command,
                addresses.of[transport],
                env=server.env,
                log=place.scratch / f"{name}.log",
                unlink=addresses.path,
            ) as served:
                columns = [*CASES, *ENDING]
                told = all_cases(command, served, {}, columns)
                outcome.add(THEIR_SERVERS, f"{server.label}, {transport}", columns, told)
                place.say(f"our channel to {server.label} over {transport}")


def grpc_cases(place, built, outcome):
    if "go" not in built:
        return
    client, server = (built["go"].programs[name] for name in ("client", "server"))
    ours = built["rust"].server
    addresses = Addresses(place, "testing")
    for transport in UNIX, TCP:
        address = addresses.of[transport]
        # The client joins host and port unless the port is 0.
        host, port = (address, "0") if transport == UNIX else address.split(":")
        where = [f"-server_host={host}", f"-server_port={port}"]
        told = {}
        with Served(ours.command, address, log=place.scratch / "testing.log"):
            for case in GRPC_CASES:
                done = subprocess.run(
                    [client, *where, f"-test_case={case}"], capture_output=True, text=True,
                    timeout=60, check=False,
                )
                told[case] = "ok" if done.returncode == 0 else done.stderr.strip()[-300:]
        outcome.add(GRPC, f"grpc-go's client, our server, {transport}", GRPC_CASES, told)
        place.say(f"grpc-go's interop client over {transport}")

    port = free_port()
    process = subprocess.Popen(
        [server, f"-port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # It says nothing when it is ready.
        reachable(port)
        told = driven(built["rust"].programs["testing"], f"127.0.0.1:{port}", GRPC_CASES, {})
        outcome.add(GRPC, "our channel, grpc-go's server, TCP", GRPC_CASES, told)
        place.say("our channel to grpc-go's interop server")
    finally:
        process.kill()
        process.wait()


def reachable(port):
    """Returns as soon as somebody listens, within 10 s."""
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            threading.Event().wait(0.05)


def run(place, built):
    outcome = Outcome([version for language in built.values() for version in language.versions.items()])
    their_clients(place, built, outcome)
    their_servers(place, built, outcome)
    grpc_cases(place, built, outcome)
    return outcome
