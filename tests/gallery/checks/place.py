"""Where the checks run: what is built and installed, and the programs that they start."""

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

# Seconds that anything may take that should take a moment.
PATIENCE = 30


class Failed(Exception):
    """A check has not come out as it should."""


class Place:
    def __init__(self, cache, scratch, say):
        self.cache, self.scratch, self.say = cache, scratch, say
        self.target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()

    def sub(self, name):
        """The same place, with a new folder of its own to work in."""
        folder = self.scratch / name
        folder.mkdir(mode=0o755)
        return Place(self.cache, folder, self.say)

    def build(self):
        """Builds the examples and the Go programs; the cache for Go is the user's."""
        self.say("building")
        manifest = ROOT / "examples/gallery/Cargo.toml"
        self.command(
            "cargo", "build", "--quiet", "--manifest-path", manifest,
            "--target-dir", self.target, timeout=1200,
        )
        self.go_bin.mkdir(parents=True, exist_ok=True)
        self.command(
            "go", "build", "-o", f"{self.go_bin}/", "./...", "tool",
            cwd=ROOT / "tests/gallery/go", timeout=1200,
        )

    @property
    def go_bin(self):
        return self.cache / "go-bin"

    def example(self, name):
        return self.target / "debug" / name

    def debian(self, *packages):
        """Installs what is missing of Debian's packages."""
        missing = [p for p in packages if not self._installed(p)]
        if missing:
            apt = ("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0")
            environment = {"DEBIAN_FRONTEND": "noninteractive"}
            self.command(*apt, "update", timeout=300, env=environment)
            self.command(
                *apt, "install", "--yes", "--no-install-recommends", *missing,
                timeout=600, env=environment,
            )

    def _installed(self, package):
        status = ("dpkg-query", "--show", "--showformat=${db:Status-Status}", package)
        asked = subprocess.run(status, capture_output=True, text=True)
        return asked.stdout == "installed"

    def python(self, *requirements):
        """Installs Python packages into a virtual environment and returns its folder."""
        venv = self.cache / "venv"
        if not venv.exists():
            self.command(sys.executable, "-m", "venv", venv)
        self.command(venv / "bin/pip", "install", "--quiet", *requirements, timeout=600)
        return venv

    def command(self, *command, timeout=PATIENCE, env=None, fails=False, **more):
        """Runs a command and returns what it printed. It has to succeed, or with `fails` to fail."""
        command = [str(word) for word in command]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, text=True, timeout=timeout,
                env={**os.environ, **(env or {})}, **more,
            )
        except subprocess.TimeoutExpired as late:
            raise Failed(f"{command[0]} has not ended in {timeout} s:\n{late.output}") from late
        if (done.returncode != 0) != fails:
            raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def start(self, *command, **more):
        return Program([str(word) for word in command], **more)

    def tool(self, name):
        """The path of a program that was just installed."""
        return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or name


class Program:
    """A program in the background. As a context manager it is ended, and must end well."""

    def __init__(self, command, env=None, status=0, **more):
        self.name, self.status = Path(command[0]).name, status
        self.lines, self.seen = queue.Queue(), []
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env={**os.environ, **(env or {})}, **more,
        )
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.seen.append(line)
            self.lines.put(line)
        self.lines.put(None)

    @property
    def output(self):
        return "".join(self.seen)

    def expect(self, text):
        """Waits for a line that has `text` in it."""
        while True:
            try:
                line = self.lines.get(timeout=PATIENCE)
            except queue.Empty:
                line = None
            if line is None:
                raise Failed(f"{self.name} has not said {text!r}:\n{self.output}")
            if text in line:
                return line

    def stop(self, by=signal.SIGTERM):
        """Ends it, which has to go well, and returns what it has printed."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        self.wait()
        return self.output

    def wait(self):
        try:
            status = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired as late:
            self.process.kill()
            raise Failed(f"{self.name} does not end:\n{self.output}") from late
        self.reader.join(timeout=PATIENCE)
        if status != self.status:
            raise Failed(f"{self.name} ended with {status}:\n{self.output}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.stop()
        elif self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def same(what, found, wanted):
    if found != wanted:
        raise Failed(f"{what}: {found!r}, not {wanted!r}")
