//! Compiles `proto/*.proto` without `protoc`. Nothing generated is committed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["cortexpb.proto", "client.proto", "remote.proto", "httpgrpc.proto", "rpc.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // A server that lacks a method answers `Unimplemented`; streaming methods return a boxed stream.
        .generate_default_stubs(true)
        // Which transport a client runs over is the business of the crate `grpc`.
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
