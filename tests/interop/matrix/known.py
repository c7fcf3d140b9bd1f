"""Why what fails fails, where the fault is another implementation's: by row, less its address, and
case."""

KNOWN = {
    ("Node, grpc-js", "gzip"): (
        "grpc-js's server takes compressed requests and never compresses a response"
    ),
}
