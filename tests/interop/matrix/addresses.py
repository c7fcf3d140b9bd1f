"""Addresses that nobody else has."""

import os
import socket
import threading

from .languages import ABSTRACT, TCP, UNIX


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


def reachable(port):
    """Returns as soon as somebody listens, within a minute."""
    for _ in range(1200):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
