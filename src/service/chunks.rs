//! What is taken from a mailbox, as few large chunks: small parts are copied together, large ones passed on as
//! they are.

use std::{collections::VecDeque, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::stream::Format;
use crate::broker::{Memory, Taken};

/// Frames of fewer bytes than this are copied together with their neighbours: sending each on its own
/// would cost more.
const FRAMES_BYTES_COPIED_MAX: usize = 2 * 1024;

/// What a chunk takes beside its bytes, with an entry of HTTP/2's table of frames; as measured, rounded up.
const CHUNK_OVERHEAD_BYTES: usize = 512;

/// Makes chunks of what is taken from a mailbox.
pub(super) struct Chunks<'c, F> {
    memory: &'c Arc<Memory>,
    format: &'c F,
    whole: &'c mut VecDeque<Bytes>,
    /// Few bytes that go as they are, if they stay alone.
    alone: Bytes,
    /// What is copied together until something follows that is not.
    gathered: BytesMut,
    /// To be told with the next message.
    missed: u64,
}

impl<'c, F: Format> Chunks<'c, F> {
    /// Chunks that are put behind `whole`.
    pub(super) fn new(
        memory: &'c Arc<Memory>,
        format: &'c F,
        whole: &'c mut VecDeque<Bytes>,
    ) -> Self {
        Self {
            memory,
            format,
            whole,
            alone: Bytes::new(),
            gathered: BytesMut::new(),
            missed: 0,
        }
    }

    pub(super) fn put(&mut self, taken: Taken) {
        match taken {
            Taken::Missed(missed) => self.missed += missed,
            Taken::Gap(gap, place) => {
                self.gather_alone();
                self.format.put_gap(&mut self.gathered, gap, place);
            }
            Taken::Frames(frames) => self.put_frames(frames),
            Taken::Delivery(delivery) => {
                self.gather_alone();
                let missed = std::mem::take(&mut self.missed);
                let large = self
                    .format
                    .put_delivery(&mut self.gathered, &delivery, missed);
                if let Some(payload) = large {
                    self.put_whole(payload);
                }
            }
        }
    }

    fn put_frames(&mut self, mut frames: Bytes) {
        let missed = std::mem::take(&mut self.missed);
        if missed > 0 {
            self.gather_alone();
            frames = self
                .format
                .put_missed_before(&mut self.gathered, missed, frames);
        }
        if frames.len() >= FRAMES_BYTES_COPIED_MAX {
            self.put_whole(frames);
        } else if self.alone.is_empty() && self.gathered.is_empty() {
            self.alone = frames;
        } else {
            self.gather_alone();
            self.gathered.extend_from_slice(&frames);
        }
    }

    fn put_whole(&mut self, chunk: Bytes) {
        self.pass_on();
        self.whole.push_back(chunk);
    }

    pub(super) fn finish(mut self) {
        if self.missed > 0 {
            self.gather_alone();
            self.format.put_missed(&mut self.gathered, self.missed);
        }
        self.pass_on();
    }

    fn gather_alone(&mut self) {
        self.gathered
            .extend_from_slice(&std::mem::take(&mut self.alone));
    }

    fn pass_on(&mut self) {
        if !self.alone.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.alone));
        }
        if !self.gathered.is_empty() {
            let gathered = std::mem::take(&mut self.gathered);
            let bytes = gathered.capacity() + CHUNK_OVERHEAD_BYTES;
            let held = self.memory.hold(bytes);
            self.whole.push_back(held.count(gathered));
        }
    }
}
