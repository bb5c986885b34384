//! The C library's heap, told to keep a little of what is freed for what is allocated next.
//!
//! A read and the batches made of it come and go thousands of times a second at the end of the heap. glibc
//! gives that end back to the system whenever 128 KiB of it are free, and takes it again, empty, at the
//! next read: tens of thousands of page faults a second, and an eighth of the processor's time with ten
//! publishers (ARCHITECTURE.md has the figures and the command).
//! The one module with `unsafe`: a setting of the C library has no other door. Other systems and C
//! libraries keep their own ways.

/// Kept at the end of each of the heap's arenas, of which there is one for each thread: more than what ten
/// busy connections have in their hands, and little beside the broker itself.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT_BYTES: libc::c_int = 4 << 20;

/// To be called before anything runs beside `main`.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's settings have no safe door")]
pub(crate) fn keep_freed() {
    // SAFETY: takes two numbers and no memory; glibc locks what it changes. A refusal changes nothing.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_BYTES);
    }
}

/// Nothing to tell.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed() {}
