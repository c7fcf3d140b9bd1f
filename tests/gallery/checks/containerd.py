"""examples/containerd against Debian's containerd, with folders and a socket of its own."""

import re

from .place import same

CONFIG = """
version = 2
root = "{scratch}/root"
state = "{scratch}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{scratch}/containerd.sock"
[ttrpc]
  address = "{scratch}/containerd.sock.ttrpc"
"""


def check(place):
    place.debian("containerd")
    config = place.scratch / "config.toml"
    config.write_text(CONFIG.format(scratch=place.scratch))
    containerd = place.start(place.tool("containerd"), "--config", config)
    with containerd:
        containerd.expect("containerd successfully booted")
        # Twice: the first has to have removed what it made.
        for _ in range(2):
            output = place.command(
                place.example("example-containerd"), f"unix:{place.scratch}/containerd.sock"
            )
            lines = output.splitlines()
            same("namespaces", lines[1], 'namespaces: ["samehost-example"]')
            digest = re.fullmatch(r"wrote (sha256:[0-9a-f]{64})", lines[2])
            same("stored", lines[3], f"stored {digest and digest[1]} of 3145728 bytes")
            same("read", lines[4], "read 3145728 bytes, the same")
    place.say(f"{lines[0]}: version, namespaces, content streams")
