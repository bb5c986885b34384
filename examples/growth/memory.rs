//! What this process has in memory, and the fresh processes in which each thing is measured.

use std::{
    alloc::System,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use serde_json::Value;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::interrupt;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The memory of this process at one moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What was asked of the allocator and not given back: exact, and the same in every run.
    pub(crate) allocated: u64,
    /// What the system gave, with the allocator's own share and what it keeps for later.
    pub(crate) resident: u64,
}

impl Memory {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let path = "/proc/self/status";
        let status = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        let unexpected = || format!("{path} is not as proc(5) describes it");
        let stats = ALLOCATOR.stats();
        Ok(Self {
            allocated: (stats.bytes_allocated - stats.bytes_deallocated) as u64,
            resident: resident_bytes(&status).with_context(unexpected)?,
        })
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let resident = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// What this program prints in a process of its own.
pub(crate) fn in_new_process(arguments: &[&str]) -> anyhow::Result<Value> {
    interrupt::check()?;
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()?;
    let status = output.status;
    ensure!(status.success(), "{} failed: {status}", arguments.join(" "));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_found() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        assert_eq!(resident_bytes(status), Some(2 * 1024 * 1024));
    }
}
