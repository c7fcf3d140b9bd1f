"""csi-sanity, the test suite of the Container Storage Interface, against examples/csi."""

import re

from .place import Failed, same

# The forms in which deployments write CSI_ENDPOINT for one path.
FORMS = ["/{path}", "unix://{path}", "unix:///{path}"]


def check(place):
    # An emptyDir, as sidecars share it.
    shared = place.scratch / "csi"
    shared.mkdir()
    shared.chmod(0o777)
    socket = shared / "csi.sock"
    for form in FORMS:
        endpoint = form.format(path=str(socket)[1:])
        with place.start(place.example("example-csi"), env={"CSI_ENDPOINT": endpoint}) as driver:
            driver.expect("listening on")
            output = place.command(
                place.go_bin / "csi-sanity", "--csi.endpoint", socket,
                "--csi.mountdir", place.scratch / "mount", "--csi.stagingdir", place.scratch / "stage",
                "--ginkgo.no-color", cwd=place.scratch, timeout=120,
            )
        counts = re.search(r"(\d+) Passed \| (\d+) Failed \| (\d+) Pending \| (\d+) Skipped", output)
        if not counts:
            raise Failed(f"csi-sanity says no result:\n{output}")
        passed, failed = int(counts[1]), int(counts[2])
        # All that the capabilities of the example offer: fewer means that one was lost.
        same(f"csi-sanity with {endpoint}, passed and failed", (passed, failed), (57, 0))
        place.say(f"csi-sanity with CSI_ENDPOINT={endpoint}: {passed} passed, {failed} failed")
        same("the socket after the end", socket.exists(), False)
