//! Stubs of the services that only these tests have.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let protos = [
        "proto/interop/v1/interop.proto",
        "proto/grpc/testing/test.proto",
        "proto/grpc/health/v1/health.proto",
        "proto/grpc/reflection/v1/reflection.proto",
    ];
    samehost_build::compile(&protos, &["proto"])
}
