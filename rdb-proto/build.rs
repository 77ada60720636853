//! Generates the wire's types from `proto/`. Needs `protoc`, which raft's own crates need as well.
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        // Ubuntu 22.04 has a protoc that wants to be asked for `optional`; later ones take the flag without a word.
        .protoc_arg("--experimental_allow_proto3_optional")
        // Keys and values stay slices of the message they came in.
        .bytes(".")
        // Rare, and errors are handed on in every call.
        .boxed(".flaredb.v1.Error.done_here")
        .file_descriptor_set_path(out.join("flaredb.bin"))
        .compile_protos(
            &[
                "proto/flaredb/v1/common.proto",
                "proto/flaredb/v1/kv.proto",
                "proto/flaredb/v1/namespace.proto",
                "proto/flaredb/v1/switch.proto",
                "proto/flaredb/v1/cluster.proto",
                "proto/flaredb/internal/v1/peer.proto",
                "proto/flaredb/internal/v1/faults.proto",
                "proto/flaredb/internal/v1/records.proto",
            ],
            &["proto"],
        )?;
    Ok(())
}
