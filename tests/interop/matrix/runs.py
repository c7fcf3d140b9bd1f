"""What is run against what."""

import subprocess

from . import proxy, tools
from .addresses import Addresses, free_port, reachable
from .cases import CASES, ENDING, all_cases, driven
from .languages import TCP, UNIX
from .place import Failed
from .served import Served
from .table import Outcome

# gRPC's own, less those that need cloud credentials or report loads. grpc-go's server does not know the
# last.
GRPC_CASES = [
    "empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong",
    "empty_stream", "timeout_on_sleeping_server", "cancel_after_begin",
    "cancel_after_first_response", "status_code_and_message", "special_status_message",
    "custom_metadata", "unimplemented_method", "unimplemented_service",
    "pick_first_unary",
]

THEIR_CLIENTS = "Their client, our server"
THEIR_SERVERS = "Our channel, their server"
GRPC = "gRPC's own cases"


def example(place, language, address):
    """The example client's outcome."""
    try:
        printed = place.command(*language.example, address, env=language.env)
    except Failed as failed:
        return str(failed)
    return "ok" if printed == "pong\n" else f"it prints {printed!r}"


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
                        told["example"] = example(place, language, served.address)
                    outcome.add(THEIR_CLIENTS, client.label, transport, columns, told)
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
                told = all_cases(command, served, {}, server.cases or columns)
                outcome.add(THEIR_SERVERS, server.label, transport, columns, told)
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
                    timeout=300, check=False,
                )
                told[case] = "ok" if done.returncode == 0 else done.stderr.strip()[-300:]
        outcome.add(GRPC, "grpc-go's client, our server", transport, GRPC_CASES, told)
        place.say(f"grpc-go's interop client over {transport}")

    port = free_port()
    process = subprocess.Popen(
        [server, f"-port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        # It says nothing when it is ready.
        reachable(port)
        told = driven(built["rust"].programs["testing"], f"127.0.0.1:{port}", GRPC_CASES[:-1], {})
        outcome.add(GRPC, "our channel, grpc-go's server", TCP, GRPC_CASES, told)
        place.say("our channel to grpc-go's interop server")
    finally:
        process.kill()
        process.wait()


def run(place, built):
    outcome = Outcome(built.values())
    their_clients(place, built, outcome)
    their_servers(place, built, outcome)
    grpc_cases(place, built, outcome)
    if "tools" in built:
        tools.run(place, built, outcome)
        if "go" in built:
            proxy.run(place, built, outcome)
    return outcome
