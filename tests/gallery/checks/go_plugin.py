"""go-plugin's own example, its host with our plugin and its plugin with our host."""

from .place import same


def check(place):
    # Where both sides put their sockets, to see what they leave there.
    sockets = place.scratch / "tmp"
    sockets.mkdir()
    host, plugin = place.go_bin / "grpc", place.go_bin / "plugin-go-grpc"
    ours = place.example("kv-plugin")
    environment = {"TMPDIR": str(sockets), "KV_PLUGIN": str(ours), "KV_PROTO": "grpc"}
    within = {"env": environment, "cwd": place.scratch}

    output = place.command(host, "put", "hello", "from Go", **within)
    # It was told to end and has; a plugin that does not is killed.
    if "the plugin has ended" not in output:
        same("the log of our plugin", output, "the plugin has ended")
    same("what the plugin has put", (place.scratch / "kv_hello").read_text(), "from Go")
    output = place.command(host, "get", "hello", **within)
    same("what Go's host gets", "from Go" in output.splitlines(), True)
    same("what our plugin leaves", list(sockets.iterdir()), [])
    place.say("go-plugin's host, our plugin: put, get, ended by Shutdown, nothing left")

    (place.scratch / "kv_hello").unlink()
    output = place.command(place.example("kv-host"), plugin, **within)
    same("what our host gets", [line for line in output.splitlines() if "world" in line][:1], ["world"])
    same("what the plugin in Go leaves", list(sockets.iterdir()), [])
    output = place.command(place.example("kv-host"), ours, **within)
    same("what our host gets of our plugin", "world\n" in output, True)
    same("what they leave", list(sockets.iterdir()), [])
    place.say("our host, go-plugin's plugin, and our own: put, get, ended by Shutdown, nothing left")

    output = place.command(ours, fails=True)
    same("a plugin started by hand", "its host starts it" in output, True)
    output = place.command(place.example("kv-host"), "/bin/echo", fails=True)
    same("a plugin that is none", "no handshake" in output, True)
