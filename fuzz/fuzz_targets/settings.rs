//! See `src/config/fuzzing.rs`.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the binary uses all of the configuration"
)]

#[path = "../../src/config/mod.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::fuzzing::settings(data));
