"""The tools that people hold in the hand, on what the command serves."""

import json

from .addresses import Addresses
from .languages import TCP, UNIX
from .place import Failed
from .served import Served

SECTION = "Tools"
METHOD = "ping.v1.PingService/Ping"
# A gRPC message, uncompressed, of six bytes: message = "ping".
BODY = b"\x00\x00\x00\x00\x06\x0a\x04ping"
PONG = BODY.replace(b"ping", b"pong")
GRPC = ["--header", "content-type: application/grpc", "--header", "te: trailers"]


def expect(found, *expected):
    """`ok` if all that is expected is found, else what was found."""
    missing = [part for part in expected if part not in found]
    return "ok" if not missing else f"no {missing} in {found[-300:]!r}"


def curl(place, *url):
    body, headers = place.scratch / "curl.body", place.scratch / "curl.headers"
    (place.scratch / "ping").write_bytes(BODY)
    place.command(
        "curl", "--silent", "--show-error", "--http2-prior-knowledge", *GRPC, "--dump-header",
        headers, "--output", body, "--data-binary", f"@{place.scratch / 'ping'}", *url,
    )
    if body.read_bytes() != PONG:
        return f"body {body.read_bytes()!r}"
    return expect(headers.read_text().lower(), "grpc-status: 0")


def ghz(place, address):
    call = ["--insecure", "--call", METHOD, "--data", '{"message":"ping"}', "--total", "500"]
    report = json.loads(
        place.command(place.bin / "ghz", *call, "--concurrency", "10", "--format", "json", address)
    )
    return expect(json.dumps(report["statusCodeDistribution"]), '{"OK": 500}')


def h2load(place, *url):
    (place.scratch / "ping").write_bytes(BODY)
    load = ["--requests=500", "--clients=2", "--max-concurrent-streams=10"]
    data = f"--data={place.scratch / 'ping'}"
    return expect(
        place.command("h2load", *load, data, *GRPC, *url), "500 succeeded, 0 failed, 0 errored"
    )


def checks(place, transport, address, path):
    """What each tool has to do, by its name in the page."""
    unix = transport == UNIX
    grpcurl = [place.bin / "grpcurl", "-plaintext", *["-unix"] * unix]
    target = path if unix else address
    ping = ["-d", '{"message":"ping","sequence":7}', target, METHOD]
    probe = [place.bin / "grpc-health-probe", "-addr", address, "-service", "ping.v1.PingService"]
    url = f"http://{'localhost' if unix else address}/{METHOD}"
    curls = ["--unix-socket", path, url] if unix else [url]
    loads = [f"--base-uri=unix:{path}", url] if unix else [url]
    run = place.command
    return {
        "grpcurl list": lambda: expect(
            run(*grpcurl, target, "list"), "ping.v1.PingService", "grpc.health.v1.Health"
        ),
        "grpcurl describe": lambda: expect(
            run(*grpcurl, target, "describe", "ping.v1.PingService"), "rpc Watch"
        ),
        "grpcurl call": lambda: expect(run(*grpcurl, *ping), '"pong"', '"sequence": "7"'),
        "ghz": lambda: ghz(place, address),
        # It tells by its exit code.
        "grpc_health_probe": lambda: expect(run(*probe)),
        "h2load": lambda: h2load(place, *loads),
        "curl": lambda: curl(place, *curls),
    }


def run(place, built, outcome):
    command = [built["rust"].programs["samehost"], "serve"]
    addresses = Addresses(place, "tools")
    for transport in UNIX, TCP:
        address = addresses.of[transport]
        told = {}
        with Served(command, address, log=place.scratch / "tools.log"):
            for name, check in checks(place, transport, address, addresses.path).items():
                try:
                    told[name] = check()
                except Failed as failed:
                    told[name] = str(failed)
        outcome.add(SECTION, "`samehost serve`", transport, list(told), told)
        place.say(f"tools over {transport}")
