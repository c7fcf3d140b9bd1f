"""A server that is started again when it ends, as a service manager would."""

import subprocess
import threading
import time

from .place import Failed, environment


class Served:
    def __init__(self, command, address, *, env=None, log, unlink=None):
        self.command = [str(part) for part in [*command, address]]
        self.address = address
        self.env = environment(env)
        self.log = log
        # A socket file that this server would not replace.
        self.unlink = unlink
        self.changed = threading.Condition()
        self.starts = 0
        self.stopping = False
        self.process = None
        self.thread = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self):
        self.thread.start()
        if not self.wait_for(1, 60):
            self.__exit__()
            raise Failed(f"{' '.join(self.command)}: it does not start: {self.log.read_text()[-2000:]}")
        return self

    def __exit__(self, *_):
        with self.changed:
            self.stopping = True
            if self.process:
                self.process.kill()
        self.thread.join()

    def wait_for(self, starts, seconds):
        """Waits until the server has listened so many times, and says whether it has."""
        with self.changed:
            return self.changed.wait_for(lambda: self.starts >= starts, seconds)

    def _keep(self):
        while self._start():
            for line in self.process.stdout:
                if line.startswith("listening"):
                    with self.changed:
                        self.starts += 1
                        self.changed.notify_all()
            self.process.wait()
            # One that cannot even start is not to take the whole processor.
            time.sleep(0.05)

    def _start(self):
        with self.changed:
            if self.stopping:
                return False
            if self.unlink:
                self.unlink.unlink(missing_ok=True)
            with open(self.log, "a") as log:
                self.process = subprocess.Popen(
                    self.command, env=self.env, stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=log, text=True,
                )
            return True
