//! The C library's heap, told to keep a little of what is freed for what is allocated next.
//!
//! A read and the batches made of it come and go thousands of times a second at the end of the heap. glibc
//! gives that end back to the system whenever 128 KiB of it are free, and takes it again, empty, at the
//! next read: tens of thousands of page faults a second, and an eighth of the processor's time with ten
//! publishers (ARCHITECTURE.md has the figures and the command).
//! The one module with `unsafe`: a setting of the C library has no other door. Other systems and C
//! libraries keep their own ways.

use std::time::Duration;

use tokio::time::Instant;

/// Kept at the end of each of the heap's arenas, of which there is one for each thread: more than what ten
/// busy connections have in their hands, and little beside the broker itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 4 << 20;

/// How often it is looked whether memory is to be given back: a fast publisher replaces all history in as long.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often what is free between what is in use goes back to the system, a page at a time: a burst's
/// memory is not kept for the next one. It takes a few milliseconds, in which allocations may wait.
const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(60);

/// When to [give back](give_back): now and then, and when resident memory has risen above the budget. What is
/// free may be in pieces too small for what is asked for next, as when messages get larger: the heap
/// then grows beside what it has.
#[derive(Debug)]
pub(crate) struct Schedule {
    budget: u64,
    /// The least that was resident since memory was given back.
    least: u64,
    given_back_at: Instant,
}

/// Above the budget, memory is given back each time that it has grown by this part of it: where nothing is free,
/// that is known after once.
const GROWTH_PART: u64 = 32;

impl Schedule {
    /// `budget` is in bytes.
    pub(crate) fn new(budget: u64) -> Self {
        Self {
            budget,
            least: 0,
            given_back_at: Instant::now(),
        }
    }

    /// Whether it is time, with so many bytes resident.
    pub(crate) fn is_due(&mut self, resident: u64) -> bool {
        self.least = self.least.min(resident);
        let grown = resident > self.budget && resident > self.least + self.budget / GROWTH_PART;
        let is_due = grown || self.given_back_at.elapsed() >= GIVE_BACK_INTERVAL;
        if is_due {
            self.given_back_at = Instant::now();
            self.least = resident;
        }
        is_due
    }
}

/// To be called before anything runs beside `main`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's settings have no safe door")]
pub(crate) fn keep_freed() {
    // SAFETY: takes two numbers and no memory; glibc locks what it changes. A refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Gives back what is free, but for what is kept.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's heap has no safe door")]
pub(crate) fn give_back() {
    // SAFETY: takes a number; glibc locks each arena while it looks through what is free in it.
    unsafe {
        libc::malloc_trim(KEPT_BYTES as usize);
    }
}

/// Nothing to tell.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed() {}

/// Nothing to ask for.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_each_minute_and_when_it_grows_above_the_budget() {
        let mut schedule = Schedule::new(3_200);
        let mut due = Vec::new();
        for look in 0..1_500 {
            let resident = match look {
                10..15 | 80 => 3_201,
                // It goes on growing: slowly, and then by leaps.
                700..800 => 3_201 + look - 700,
                800..900 => 3_601 + look,
                900.. => 5_000,
                _ => 3_000,
            };
            if schedule.is_due(resident) {
                due.push(look);
            }
            tokio::time::advance(LOOK_INTERVAL).await;
        }
        // 680: a minute after the last. At 80 it is given back again, since it had been less meanwhile.
        assert_eq!(due, [10, 80, 680, 700, 800, 900]);
    }
}
