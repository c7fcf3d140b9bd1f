"""A stand-in for kubelet on kubelet's own stubs, restarted twice, against examples/device-plugin."""

from .place import PATIENCE


def check(place):
    directory = place.scratch / "device-plugins"
    directory.mkdir(mode=0o750)
    device = place.scratch / "device"
    device.touch()
    resource = "example.com/tape"
    plugin = place.start(place.example("example-device-plugin"), directory, resource, device)
    with plugin:
        output = place.command(
            place.go_bin / "kubelet", directory, resource, device, timeout=4 * PATIENCE
        )
        for line in output.splitlines():
            place.say(line)
