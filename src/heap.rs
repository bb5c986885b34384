//! The C library's heap, told to keep a little of what is freed for what is allocated next.
//!
//! A read and the batches made of it come and go thousands of times a second at the end of the heap. glibc
//! gives that end back to the system whenever 128 KiB of it are free, and takes it again, empty, at the
//! next read: tens of thousands of page faults a second, and an eighth of the processor's time with ten
//! publishers (ARCHITECTURE.md has the figures and the command).
//! The one module with `unsafe`: a setting of the C library has no other door. Other systems and C
//! libraries keep their own ways.

use std::time::Duration;

/// Kept at the end of each of the heap's arenas, of which there is one for each thread: more than what ten
/// busy connections have in their hands, and little beside the broker itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 4 << 20;

/// How often what is free between what is in use goes back to the system, a page at a time: a burst's
/// memory is not kept for the next one. It takes a few milliseconds, in which allocations may wait.
pub(crate) const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(60);

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
