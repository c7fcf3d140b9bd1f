"""Why what fails fails, where the fault is another implementation's: by section, whom (a row
less its transport) and case."""

KNOWN = {
    ("Our channel, their server", "Node, grpc-js", "gzip"): (
        "grpc-js's server takes compressed requests and never compresses a response "
        "(grpc/grpc-node issue 1823, open)"
    ),
    ("Their client, our server", "Node, connect-node", "lost"): (
        "connect-node reports a lost connection as CANCELLED (no issue known)"
    ),
    ("Through a proxy", "Go through HAProxy", "lost"): (
        "HAProxy ends the response without trailers, which clients report as INTERNAL, not UNAVAILABLE "
        "(no issue known)"
    ),
    ("Through a proxy", "Go through nginx", "lost"): (
        "nginx ends the stream with INTERNAL_ERROR, which clients report as INTERNAL, not UNAVAILABLE "
        "(no issue known)"
    ),
}
