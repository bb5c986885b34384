//! What requests may take while they arrive: time, bytes of one, bytes of all, and of all memory.
//!
//! Whatever protocol a request comes by, its bytes are counted as they arrive, and given back when it has
//! arrived or is given up.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::time::Sleep;

use super::{refusal::CallError, room::room, share::ConnectionShare};
use crate::broker::{Held, Memory};

/// What a request takes that has begun, beside its bytes and its call: a timer; as measured, rounded up.
const REQUEST_OVERHEAD_BYTES: usize = 512;

/// What requests may take while they arrive.
#[derive(Debug)]
pub(crate) struct Receiving {
    /// The largest request, in bytes.
    pub(crate) request_bytes_max: usize,
    /// How long one may take.
    pub(crate) patience: Duration,
    /// The most bytes of all requests that have not arrived completely.
    pub(crate) bytes_max: usize,
    pub(crate) bytes: AtomicUsize,
    /// What has arrived of them is in this account.
    pub(crate) memory: Arc<Memory>,
}

impl Receiving {
    /// One connection's share of them: a sixteenth, so that one alone cannot take it all, and room for
    /// two of the largest requests at least.
    fn bytes_per_connection_max(&self) -> usize {
        (self.bytes_max / 16).max(2 * self.request_bytes_max)
    }
}

/// The bytes of one message that has not arrived completely.
pub(crate) struct Received<'r> {
    pub(crate) receiving: &'r Receiving,
    share: ConnectionShare,
    pub(crate) buffer: BytesMut,
    /// How many of the bytes of all are these.
    counted: usize,
    held: Option<Held>,
    /// When the message is given up, if it has begun.
    overdue: Option<Pin<Box<Sleep>>>,
}

impl<'r> Received<'r> {
    pub(crate) fn new(receiving: &'r Receiving, share: &ConnectionShare) -> Self {
        Self {
            receiving,
            share: share.clone(),
            buffer: BytesMut::new(),
            counted: 0,
            held: None,
            overdue: None,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// How much more is allocated for so many bytes more. A buffer that is too small doubles at least, and is
    /// there twice meanwhile.
    fn growth(&self, bytes: usize) -> usize {
        let (needed, capacity) = (self.buffer.len() + bytes, self.buffer.capacity());
        let fits = needed <= capacity;
        if fits { 0 } else { needed.max(2 * capacity) }
    }

    /// Waits for a moment, if there is no room for so many bytes more.
    pub(crate) async fn wait_for_room(&self, bytes: usize) {
        room(&self.receiving.memory, self.growth(bytes)).await;
    }

    pub(crate) fn extend(&mut self, data: &[u8]) -> Result<(), CallError> {
        if data.is_empty() {
            return Ok(());
        }
        let memory = &self.receiving.memory;
        if memory.would_pass(self.growth(data.len())) {
            let budget = memory.budget();
            return Err(CallError::MemoryFull { budget });
        }
        let counts = [
            (
                self.share.receiving_bytes(),
                self.receiving.bytes_per_connection_max(),
                "on this connection",
            ),
            (
                &self.receiving.bytes,
                self.receiving.bytes_max,
                "on all connections",
            ),
        ];
        self.counted += data.len();
        let passed = counts.map(|(count, max, whose)| {
            let before = count.fetch_add(data.len(), Ordering::Relaxed);
            (before + data.len() > max).then_some((whose, max))
        });
        if let Some((whose, max)) = passed.into_iter().flatten().next() {
            return Err(CallError::ReceivingTooMuch { whose, max });
        }
        self.buffer.extend_from_slice(data);
        self.weigh();
        Ok(())
    }

    /// Counts what the buffer takes, which grows in steps, and what a request takes beside it.
    fn weigh(&mut self) {
        let memory = &self.receiving.memory;
        self.held
            .get_or_insert_with(|| memory.hold(0))
            .set(self.buffer.capacity() + REQUEST_OVERHEAD_BYTES);
    }

    /// Takes the bytes out to cut messages from them; the rest is to be put back.
    pub(crate) fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn put_back(&mut self, mut rest: BytesMut) {
        // Messages were completed; what is left has begun just now.
        if rest.len() < self.counted {
            let done = self.counted - rest.len();
            self.give_back(done);
            self.counted = rest.len();
            self.overdue = None;
            // A copy, since the rest of a large message's buffer keeps all of it.
            rest = BytesMut::from(&rest[..]);
        }
        if rest.is_empty() {
            // An empty buffer gives its memory back.
            self.held = None;
        } else {
            self.buffer = rest;
            self.weigh();
        }
    }

    fn give_back(&self, bytes: usize) {
        self.receiving.bytes.fetch_sub(bytes, Ordering::Relaxed);
        let of_connection = self.share.receiving_bytes();
        of_connection.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Resolves once a message that has begun should have arrived.
    pub(crate) async fn overdue(&mut self) {
        if self.buffer.is_empty() {
            return std::future::pending().await;
        }
        let patience = self.receiving.patience;
        let overdue = self
            .overdue
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        overdue.as_mut().await;
    }
}

impl Drop for Received<'_> {
    fn drop(&mut self) {
        self.give_back(self.counted);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Buf;

    use super::*;
    use crate::access::Peer;

    fn receiving(memory: usize) -> Receiving {
        Receiving {
            request_bytes_max: 100,
            patience: Duration::from_secs(30),
            bytes_max: 1 << 30,
            bytes: AtomicUsize::new(0),
            memory: Arc::new(Memory::new(memory)),
        }
    }

    #[test]
    fn what_arrives_counts_in_the_account_of_memory_and_ends_with_it() {
        let receiving = receiving(20_000);
        let share = ConnectionShare::new(1, Peer::default());
        let mut received = Received::new(&receiving, &share);
        received.extend(&[0; 10_000]).unwrap();
        let error = received.extend(&[0; 1]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the memory budget of 20000 bytes is used up",
            "there is no room to grow"
        );
        assert_eq!(
            receiving.memory.used(),
            10_000 + REQUEST_OVERHEAD_BYTES,
            "and what was refused takes none"
        );
        let mut buffer = received.take();
        buffer.advance(9_990);
        received.put_back(buffer);
        assert_eq!(receiving.memory.used(), 10 + REQUEST_OVERHEAD_BYTES);
        drop(received);
        assert_eq!(receiving.memory.used(), 0);
    }

    #[test]
    fn the_rest_of_a_large_message_keeps_none_of_its_memory() {
        let receiving = receiving(1 << 30);
        let share = ConnectionShare::new(1, Peer::default());
        let mut received = Received::new(&receiving, &share);
        received.extend(&vec![0; 1 << 20]).unwrap();
        let mut buffer = received.take();
        buffer.advance((1 << 20) - 1);
        received.put_back(buffer);
        assert!(received.buffer.capacity() < 100);
        assert_eq!(receiving.bytes.load(Ordering::Relaxed), 1);
        assert_eq!(share.receiving_bytes().load(Ordering::Relaxed), 1);
    }
}
