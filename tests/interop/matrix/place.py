"""Where everything is installed and built, and how commands are run there."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# What the languages build from; their outputs are beside the copies, never in the work tree.
SOURCES = ["proto", "examples/clients", "tests/interop/proto", "tests/interop/drivers"]


def environment(added):
    """This process's environment and what is added to it."""
    return os.environ | {key: str(value) for key, value in (added or {}).items()}


class Missing(Exception):
    """A toolchain is not here."""


class Failed(Exception):
    """A command that has to work did not."""


class Place:
    def __init__(self, cache, scratch, say):
        self.root = ROOT
        self.cache = cache.resolve()
        # Sockets, logs and what else is worth nothing afterwards; a short path, for sockets.
        self.scratch = scratch
        self.say = say
        self.tree = self.cache / "tree"
        self.bin = self.cache / "bin"
        self.bin.mkdir(parents=True, exist_ok=True)
        self.apt = threading.Lock()
        for source in SOURCES:
            shutil.copytree(ROOT / source, self.tree / source, dirs_exist_ok=True)
        self.clients = self.tree / "examples/clients"
        self.drivers = self.tree / "tests/interop/drivers"
        self.protos = [self.tree / "proto", self.tree / "tests/interop/proto"]

    def command(self, *command, cwd=None, env=None):
        """Runs a command that has to work; gives what it printed on standard output."""
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or self.tree,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            output = (done.stdout + done.stderr)[-4000:]
            shown = " ".join(str(part) for part in command)
            raise Failed(f"{shown}: exit code {done.returncode}:\n{output}")
        return done.stdout

    def need(self, *commands):
        """Fails with Missing unless all commands are here."""
        missing = [command for command in commands if not shutil.which(command)]
        if missing:
            raise Missing(f"{', '.join(missing)} not found")

    def debian(self, *packages):
        """Debian packages, installed where they are missing."""
        self.need("dpkg-query", "apt-get")
        with self.apt:
            absent = [package for package in packages if not self.debian_version(package)]
            if absent and os.geteuid() != 0:
                raise Missing(f"only root can install {' '.join(absent)}")
            if absent:
                self.command("apt-get", "update")
                quiet = {"DEBIAN_FRONTEND": "noninteractive"}
                install = ["apt-get", "install", "--yes", "--no-install-recommends"]
                self.command(*install, *absent, env=quiet)

    def debian_version(self, package):
        """The version that is installed, without epoch and Debian's revision, or an empty text."""
        shown = subprocess.run(
            ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Version}", package],
            capture_output=True,
            text=True,
        ).stdout
        status, _, version = shown.partition(" ")
        return version.split(":")[-1].split("-")[0] if status == "installed" else ""

    def protoc(self, *options, protos):
        """protoc, Debian's where there is none, on the project's protos."""
        if not shutil.which("protoc"):
            self.debian("protobuf-compiler", "libprotobuf-dev")
        self.command("protoc", *(f"-I{path}" for path in self.protos), *options, *protos)
