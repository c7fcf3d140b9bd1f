"""go-spiffe's workloadapi, as several users and programs, against examples/spiffe."""

import shutil

# Users that have no other meaning here.
WEB, DB, NOBODY_KNOWN = 4001, 4002, 4003


def check(place):
    socket = place.scratch / "run/api.sock"
    socket.parent.mkdir(mode=0o755)
    workload = place.scratch / "workload"
    database = place.scratch / "database"
    for copy in workload, database:
        shutil.copy(place.go_bin / "workload", copy)

    def ask(program, *arguments, uid, gid=NOBODY_KNOWN):
        environment = {"SPIFFE_ENDPOINT_SOCKET": f"unix://{socket}"}
        output = place.command(
            program, *arguments, env=environment, user=uid, group=gid, extra_groups=[]
        )
        place.say(f"uid {uid}, {program.name}: {output.strip().replace(chr(10), ', ')}")

    api = place.start(
        place.example("example-spiffe"), f"unix:{socket}", "example.org",
        f"uid:{WEB}=web", f"gid:{DB}=group", f"exe:{database}=database",
        # So short that renewals can be waited for: one every two seconds.
        env={"SVID_SECONDS": "4"},
    )
    with api:
        api.expect("listening on")
        ask(workload, "spiffe://example.org/web", "2", uid=WEB)
        ask(workload, "spiffe://example.org/group", uid=DB, gid=DB)
        ask(database, "spiffe://example.org/database", uid=DB)
        ask(workload, "none", uid=DB)
