"""Why what fails fails, where the fault is another implementation's: by whom (a row less its
transport) and case."""

KNOWN = {
    ("Node, grpc-js", "gzip"): (
        "grpc-js's server takes compressed requests and never compresses a response "
        "(grpc/grpc-node issue 1823, open)"
    ),
    ("Go through nginx", "lost"): (
        "nginx ends the stream with INTERNAL_ERROR, which clients report as INTERNAL, not UNAVAILABLE "
        "(no issue known)"
    ),
}
