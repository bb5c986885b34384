//! How much a peer may ask that no window and no number of streams bounds.
//!
//! A PING must be answered and a SETTINGS acknowledged, a PRIORITY and an empty DATA read: each costs us more
//! than its sender, and HTTP/2 knows no flow control for them. So a connection may send
//! [`FRAMES_PER_SECOND`] of such frames, beside those that it is owed: a peer that is sent much has windows
//! to open and round trips to measure. And it may be wrong so often: requests that are malformed, and those
//! above the limit on streams, are each answered, and at no cost to whoever sends them.

use std::time::Duration;

/// Control frames that a connection may send for ever. The busiest clients known send a PING for each
/// round trip in which they were sent something, which is what credit is for.
const FRAMES_PER_SECOND: u64 = 1_000;
/// Control frames that a connection may send at once: enough to take back all calls that may be open on it,
/// and to open a window for each of its subscriptions, several times over. And few enough for the work they
/// make to be over in a fraction of a millisecond.
const FRAMES_BURST: u64 = 2_000;
/// Control frames that a connection may be owed: for a busy peer that has stood still, the windows of all that
/// it was sent meanwhile, opened at once. Their work is over in some milliseconds, and whoever makes it
/// has been sent megabytes for it.
const FRAMES_OWED_MAX: u64 = 16_384;
/// Frames that a peer is owed for each part of an answer: it opens two windows, and measures.
const FRAMES_PER_PART: u64 = 4;
/// Beside those, one for so many bytes: windows are opened for much less than a frame at times.
const BYTES_PER_FRAME: usize = 256;

/// Streams that may be reset at once for what is wrong with them (RUSTSEC-2024-0003), and for ever.
const FAULTS_BURST: u64 = 1_024;
const FAULTS_PER_SECOND: u64 = 10;

/// What a connection may still ask.
#[derive(Debug)]
pub(super) struct Allowance {
    frames: Bucket,
    /// Frames that may come beside those, for what the peer was sent.
    owed: u64,
    faults: Bucket,
}

impl Allowance {
    pub(super) fn new() -> Self {
        Self {
            frames: Bucket::new(FRAMES_BURST, FRAMES_PER_SECOND),
            owed: 0,
            faults: Bucket::new(FAULTS_BURST, FAULTS_PER_SECOND),
        }
    }

    /// The peer is sent a part of an answer.
    pub(super) fn grant(&mut self, bytes: usize) {
        let frames = FRAMES_PER_PART + (bytes / BYTES_PER_FRAME) as u64;
        self.owed = (self.owed + frames).min(FRAMES_OWED_MAX);
    }

    /// Takes a control frame from what the peer may send; false if it may not.
    pub(super) fn take_frame(&mut self, now: Duration) -> bool {
        if self.frames.take(now) {
            return true;
        }
        let is_owed = self.owed > 0;
        self.owed = self.owed.saturating_sub(1);
        is_owed
    }

    /// Takes a stream that is wrong; false if there were too many.
    pub(super) fn take_fault(&mut self, now: Duration) -> bool {
        self.faults.take(now)
    }
}

/// Fills up by so many a second, and holds so many.
#[derive(Debug)]
struct Bucket {
    left: u64,
    size: u64,
    period: Duration,
    filled_at: Duration,
}

impl Bucket {
    fn new(size: u64, per_second: u64) -> Self {
        Self {
            left: size,
            size,
            period: Duration::from_secs(1) / per_second as u32,
            filled_at: Duration::ZERO,
        }
    }

    fn take(&mut self, now: Duration) -> bool {
        if self.left == 0 {
            let elapsed = now.saturating_sub(self.filled_at);
            let earned = (elapsed.as_nanos() / self.period.as_nanos()) as u64;
            if earned >= self.size {
                // Nothing is saved up beyond that.
                self.filled_at = now;
                self.left = self.size;
            } else {
                self.filled_at += self.period * earned as u32;
                self.left = earned;
            }
        }
        let is_there = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(allowance: &mut Allowance, count: u64, now: Duration) -> bool {
        (0..count).all(|_| allowance.take_frame(now))
    }

    #[test]
    fn a_burst_passes_and_then_so_many_frames_a_second() {
        let mut allowance = Allowance::new();
        let second = Duration::from_secs(1);
        assert!(frames(&mut allowance, FRAMES_BURST, second));
        let half = Duration::from_millis(500);
        // What was earned before the burst was over counts from then on.
        assert!(frames(&mut allowance, FRAMES_PER_SECOND, second));
        assert!(frames(&mut allowance, FRAMES_PER_SECOND / 2, second + half));
        assert!(!frames(&mut allowance, 1, second + half));
        let hour = Duration::from_secs(3_600);
        assert!(frames(&mut allowance, FRAMES_BURST, hour));
        assert!(
            !frames(&mut allowance, 1, hour),
            "silence is saved up within bounds"
        );
    }

    #[test]
    fn whoever_is_sent_much_may_say_more() {
        let now = Duration::ZERO;
        let mut allowance = Allowance::new();
        assert!(frames(&mut allowance, FRAMES_BURST, now));
        allowance.grant(0);
        assert!(frames(&mut allowance, FRAMES_PER_PART, now));
        assert!(!frames(&mut allowance, 1, now));
        allowance.grant(BYTES_PER_FRAME * 5_000);
        assert!(frames(&mut allowance, 5_000 + FRAMES_PER_PART, now));
        assert!(!frames(&mut allowance, 1, now));
        (0..10).for_each(|_| allowance.grant(1 << 30));
        assert!(frames(&mut allowance, FRAMES_OWED_MAX, now));
        assert!(!frames(&mut allowance, 1, now), "and no more than that");
    }

    #[test]
    fn faults_are_few_for_ever_and_many_at_once() {
        let mut allowance = Allowance::new();
        let now = Duration::ZERO;
        assert!((0..FAULTS_BURST).all(|_| allowance.take_fault(now)));
        assert!(!allowance.take_fault(now));
        let later = Duration::from_secs(1);
        assert!((0..FAULTS_PER_SECOND).all(|_| allowance.take_fault(later)));
        assert!(!allowance.take_fault(later));
    }
}
