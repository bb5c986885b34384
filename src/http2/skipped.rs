//! The streams that a peer has left out: closed by the next one that it opened, though they never were open
//! (RFC 9113, section 5.1.1).
//!
//! Frames for a stream that was open may be on their way when it is over, so that they are ignored for ever;
//! nothing may begin a stream that was left out. To tell these from those for ever would take a memory of all
//! streams, which no connection has. Almost every client leaves out none, so the newest few gaps are kept.
//! Invariant: no stream that was opened is ever taken for one that was left out; of those that were, all are
//! known that lie in the newest [`GAPS_MAX`] gaps.

use std::ops::Range;

/// Gaps that are known.
const GAPS_MAX: usize = 4;

/// The newest gap first; those that are empty were never there.
#[derive(Debug, Default)]
pub(super) struct Skipped([Range<u32>; GAPS_MAX]);

impl Skipped {
    /// A stream is opened after `last`, the newest until then.
    pub(super) fn open(&mut self, last: u32, id: u32) {
        let next = last + 1;
        // Between two streams of a client is one that only a server could have.
        if id - next > 1 {
            self.0.rotate_right(1);
            self.0[0] = next..id;
        }
    }

    /// Whether the stream is known to have been left out.
    pub(super) fn has(&self, id: u32) -> bool {
        self.0.iter().any(|gap| gap.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_stream_that_was_opened_is_known_as_left_out(
            steps in prop::collection::vec(prop_oneof![3 => Just(1_u32), 1 => 1..50_u32], 1..40),
        ) {
            let mut skipped = Skipped::default();
            let mut opened = Vec::new();
            let mut last = 0;
            for step in steps {
                let id = (2 * step + last).max(1) - u32::from(last == 0);
                skipped.open(last, id);
                opened.push(id);
                last = id;
            }
            let all = || (1..=last).step_by(2);
            let left_out: Vec<u32> = all().filter(|id| !opened.contains(id)).collect();
            // Those of the newest gaps are known, and no others.
            let gaps = left_out.chunk_by(|low, high| low + 2 == *high);
            let newest: Vec<_> = gaps.rev().take(GAPS_MAX).collect();
            for id in all() {
                prop_assert_eq!(skipped.has(id), newest.iter().any(|gap| gap.contains(&id)));
            }
        }
    }
}
