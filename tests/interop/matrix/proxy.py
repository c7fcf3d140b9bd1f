"""nginx before our server, with the very block that docs/beyond-one-host.md shows, and a Go client."""

import getpass
import subprocess

from .addresses import Addresses, free_port, reachable
from .cases import CASES, ENDING, all_cases
from .languages import TCP, UNIX
from .served import Served

SECTION = "Through a proxy"


def configuration(place, port, socket):
    """The document's server block with this run's paths, in the frame that a test needs."""
    document = (place.root / "docs/beyond-one-host.md").read_text()
    block = document.split("```nginx\n")[1].split("```")[0]
    certificate, key = place.scratch / "app.pem", place.scratch / "app.key"
    for shown, used in {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/app.pem": certificate,
        "/etc/ssl/app.key": key,
        "/run/app/ping.sock": socket,
    }.items():
        if shown not in block:
            raise ValueError(f"{shown} is not in the document's block")
        block = block.replace(shown, str(used))
    place.command(
        "openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec",
        "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate,
    )
    paths = "".join(
        f"{name}_temp_path {place.scratch}/nginx-{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
        daemon off;
        user {getpass.getuser()};
        pid {place.scratch}/nginx.pid;
        error_log {place.scratch}/nginx.log;
        events {{}}
        http {{
            access_log off;
            {paths}
            {block}
        }}
    """


def run(place, built, outcome):
    addresses, port = Addresses(place, "proxied"), free_port()
    file = place.scratch / "nginx.conf"
    file.write_text(configuration(place, port, addresses.path))
    ours = built["rust"].server
    with Served(ours.command, addresses.of[UNIX], log=place.scratch / "proxied.log") as served:
        nginx = subprocess.Popen(["nginx", "-c", file], stdin=subprocess.DEVNULL)
        try:
            reachable(port)
            client = [built["go"].programs["driver"], "tls"]
            env = {"CA": place.scratch / "app.pem"}
            columns = [*CASES, *ENDING]
            told = all_cases(client, served, env, columns, address=f"127.0.0.1:{port}")
            outcome.add(SECTION, "Go through nginx", TCP, columns, told)
            place.say("Go through nginx")
        finally:
            nginx.terminate()
            nginx.wait()
