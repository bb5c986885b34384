//! Compiles `proto/` to Rust, without a `protoc`, and keeps the descriptor set for reflection.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

const PROTOS: [&str; 1] = ["pubsub/v1/pubsub.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");

    // Source info carries the proto's comments into reflection.
    let descriptors = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(PROTOS)?
        .file_descriptor_set();
    // `compile_fds` ignores `file_descriptor_set_path`, so the set is written here.
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
