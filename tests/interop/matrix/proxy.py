"""Proxies before our server, each with the very block that docs/beyond-one-host.md shows, and a Go
client."""

import getpass
import subprocess

from .addresses import Addresses, free_port, reachable
from .cases import CASES, ENDING, all_cases
from .languages import TCP, UNIX
from .place import environment
from .served import Served

SECTION = "Through a proxy"


def block(place, language, replaced):
    """The document's block with this run's paths."""
    document = (place.root / "docs/beyond-one-host.md").read_text()
    found = document.split(f"```{language}\n")[1].split("```")[0]
    for shown, used in replaced.items():
        if shown not in found:
            raise ValueError(f"{shown} is not in the document's {language} block")
        found = found.replace(shown, str(used))
    return found


def certificate(place):
    """Makes app.pem with its key app.key, and both.pem, which has both."""
    pem, key = place.scratch / "app.pem", place.scratch / "app.key"
    place.command(
        "openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec",
        "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", pem,
    )
    (place.scratch / "both.pem").write_text(pem.read_text() + key.read_text())


def nginx(place, port, socket):
    """nginx's command, with its block in the frame that a test needs."""
    server = block(place, "nginx", {
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "/etc/ssl/app.pem": place.scratch / "app.pem",
        "/etc/ssl/app.key": place.scratch / "app.key",
        "/run/app/ping.sock": socket,
    })
    paths = "".join(
        f"{name}_temp_path {place.scratch}/nginx-{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = place.scratch / "nginx.conf"
    file.write_text(f"""
        daemon off;
        user {getpass.getuser()};
        pid {place.scratch}/nginx.pid;
        error_log {place.scratch}/nginx.log;
        events {{}}
        http {{
            access_log off;
            {paths}
            {server}
        }}
    """)
    return ["nginx", "-c", file]


def haproxy(place, port, socket):
    """HAProxy's command; its block is a whole configuration."""
    file = place.scratch / "haproxy.cfg"
    file.write_text(block(place, "haproxy", {
        "bind *:443 ": f"bind 127.0.0.1:{port} ",
        "/etc/ssl/app.pem": place.scratch / "both.pem",
        "/run/app/ping.sock": socket,
    }))
    return ["haproxy", "-db", "-f", file]


def run(place, built, outcome):
    certificate(place)
    for name, configured in {"nginx": nginx, "HAProxy": haproxy}.items():
        one(place, built, outcome, name, configured)


def one(place, built, outcome, name, configured):
    addresses, port = Addresses(place, f"behind-{name}"), free_port()
    command = configured(place, port, addresses.path)
    ours = built["rust"].server
    with Served(ours.command, addresses.of[UNIX], log=place.scratch / "proxied.log") as served:
        # Debian has them among root's programs.
        path = {"PATH": f"{environment(None)['PATH']}:/usr/sbin"}
        proxy = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(path)
        )
        try:
            reachable(port)
            client = [built["go"].programs["driver"], "tls"]
            env = {"CA": place.scratch / "app.pem"}
            columns = [*CASES, *ENDING]
            told = all_cases(client, served, env, columns, address=f"127.0.0.1:{port}")
            outcome.add(SECTION, f"Go through {name}", TCP, columns, told)
            place.say(f"Go through {name}")
        finally:
            proxy.terminate()
            proxy.wait()
