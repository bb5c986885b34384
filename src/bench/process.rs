//! What a process on this machine has used, from Linux's `/proc` (see proc(5)).

use std::{fs, time::Duration};

use anyhow::{Context, anyhow};

/// `/proc/PID/stat` counts in this unit on every Linux that Rust runs on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Processor time, user and system.
    pub(super) cpu: Duration,
    /// Memory that is resident.
    pub(super) rss_bytes: u64,
}

impl Usage {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
        };
        Self::parse(&read("stat")?, &read("status")?)
            .ok_or_else(|| anyhow!("/proc/{pid} is not as proc(5) describes it"))
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        let cpu = TICK * (ticks()? + ticks()?);
        let rss = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu,
            rss_bytes: kib * 1024,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_memory_are_found() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 1 1 1";
        let usage = Usage::parse(stat, "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t4\n").unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(2));
        assert_eq!(usage.rss_bytes, 2 * 1024 * 1024);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(Usage::of(std::process::id()).unwrap().rss_bytes > 0);
    }
}
