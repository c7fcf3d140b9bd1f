# Short names for the commands in README.md and .ci/run; `just` alone lists them.

_:
    @just --list

# Everything that is checked before a change lands
ci:
    .ci/run

# The short check before a push
check:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    cargo test

test *args:
    cargo test {{args}}

lint:
    cargo fmt --check && cargo clippy --all-targets -- -D warnings

doc:
    cargo doc --no-deps --open

bench *args:
    cargo run --release -- bench {{args}}

serve *args:
    cargo run -- serve {{args}}

ping *args:
    cargo run -- ping {{args}}

# Other users, faults, many repetitions
host *args:
    tests/host/run {{args}}

# Every gRPC language, both ways
interop *args:
    tests/interop/run {{args}}

# The examples against csi-sanity, go-spiffe, go-plugin, containerd, Envoy...
gallery *args:
    tests/gallery/run {{args}}

# Licences, advisories, sources and doubled crates (cargo install cargo-deny)
deny:
    cargo deny check

# The proto's style (npm install -g @bufbuild/buf)
proto:
    buf lint
