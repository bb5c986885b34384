//! What a process on this machine has used, from Linux's `/proc` (see proc(5)).

use std::{fs, io, time::Duration};

/// `/proc/PID/stat` counts in this unit on every Linux that Rust runs on (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Processor time since its start, user and system.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Of the process with this number.
    ///
    /// # Errors
    /// There is no such process, or no `/proc`.
    pub fn of(pid: u32) -> io::Result<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        Self::parse(&read("stat")?, &read("status")?).ok_or_else(malformed)
    }

    fn parse(stat: &str, status: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let after_name = stat.rsplit_once(')')?.1;
        let mut fields = after_name.split_ascii_whitespace().skip(11);
        let mut ticks = || fields.next()?.parse::<u32>().ok();
        let cpu = TICK * (ticks()? + ticks()?);
        Some(Self {
            cpu,
            rss_bytes: rss_of(status)?,
        })
    }
}

/// How much memory of this process is resident, in bytes; costs some microseconds.
///
/// # Errors
/// There is no `/proc`.
pub fn resident_bytes() -> io::Result<u64> {
    rss_of(&fs::read_to_string("/proc/self/status")?).ok_or_else(malformed)
}

fn rss_of(status: &str) -> Option<u64> {
    let rss = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not as proc(5) describes it")
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
        assert!(resident_bytes().unwrap() > 0);
    }
}
