"""The cases, and how a driver runs them."""

import subprocess

from .place import environment

# In one process, on a server that stays.
CASES = [
    "unary", "watch", "collect", "converse", "metadata", "status", "deadline", "cancel", "sizes",
    "gzip", "parallel", "health", "reflection",
]
# Each ends the server, and is followed by the next when it has started again.
ENDING = ["lost", "restart"]


def driven(command, address, cases, env):
    """Runs a driver on some cases: the outcome of each, `ok` or what was different."""
    command = [str(part) for part in [*command, address, *cases]]
    try:
        done = subprocess.run(
            command, env=environment(env), stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=300,
        )
        output, end = done.stdout, f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
    except subprocess.TimeoutExpired as expired:
        output, end = (expired.stdout or b"").decode(), "no end within 5 minutes"
    told = dict(line.split("\t", 1) for line in output.splitlines() if "\t" in line)
    return {case: told.get(case, end) for case in cases}


def all_cases(command, served, env, cases, address=None):
    """The outcomes of all cases that the driver has, those that end the server last."""
    address = address or served.address
    told = driven(command, address, [case for case in CASES if case in cases], env)
    for case in ENDING:
        if case in cases:
            starts = served.starts
            told |= driven(command, address, [case], env)
            served.wait_for(starts + 1, 60)
    return told
