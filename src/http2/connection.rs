//! A connection, for whoever moves its bytes.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::BytesMut;
use parking_lot::Mutex;

use super::{
    config::Config,
    control::SHUTDOWN_PING,
    frame::{self, Reason, kind},
    settings,
    state::{Leaving, State},
    stream::{Inbound, Outbound},
};

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    what: &'static str,
}

impl Failure {
    const FLOOD: &str = "too many frames that ask for nothing";

    pub(super) fn because(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    pub(super) fn flood() -> Self {
        Self::because(Reason::ENHANCE_YOUR_CALM, Self::FLOOD)
    }

    pub(super) fn faults() -> Self {
        Self::because(Reason::ENHANCE_YOUR_CALM, "too many streams that are wrong")
    }

    /// Whether it is for the number of frames that ask for nothing.
    pub(crate) fn is_flood(&self) -> bool {
        self.what == Self::FLOOD
    }
}

/// A request that has begun in what was received.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) id: u32,
    pub(super) head: http::Request<()>,
    pub(super) head_bytes: usize,
}

/// A request: its head, and the two halves of its stream.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: http::Request<Inbound>,
    /// What its head takes in memory.
    pub(crate) head_bytes: usize,
    pub(crate) answer: Outbound,
}

/// What a connection keeps of what came, as allocated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// What waits to be read in all of its streams.
    pub(crate) inbound_bytes: usize,
    /// What came in part, and the table of header fields.
    pub(crate) codec_bytes: usize,
}

/// One connection. Clones are handles to the same one.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Mutex<State>>);

impl Connection {
    /// A connection whose preface has come.
    pub(crate) fn new(config: Config) -> Self {
        let mut state = State::new(config);
        settings::put_ours(&mut state.out, &config);
        state.open_window();
        Self(Arc::new(Mutex::new(state)))
    }

    /// Takes what came, `now` after some moment that stays the same; shows the requests that begin in it.
    ///
    /// # Errors
    /// The peer broke the rules. It is told; whatever else is to be sent may be, and nothing more received.
    pub(crate) fn receive(
        &self,
        bytes: &[u8],
        now: Duration,
        mut begin: impl FnMut(Request),
    ) -> Result<(), Failure> {
        let (received, begun) = {
            let mut state = self.0.lock();
            state.now = now;
            let received = state.receive(bytes);
            (received, std::mem::take(&mut state.arriving.begun))
        };
        for Begun {
            id,
            head,
            head_bytes,
        } in begun
        {
            begin(Request {
                head_bytes,
                head: head.map(|()| Inbound::new(Arc::clone(&self.0), id)),
                answer: Outbound::new(Arc::clone(&self.0), id),
            });
        }
        received.inspect_err(|failure| self.fail(failure.reason))
    }

    /// Tells the peer why nothing more is received, and ends the connection.
    pub(crate) fn fail(&self, reason: Reason) {
        let mut state = self.0.lock();
        let state = &mut *state;
        // What was said to be the last one served may not grow (RFC 9113, section 6.8).
        let last = state.last_stream.min(state.last_served);
        frame::put_goaway(&mut state.out, last, reason);
        state.end();
    }

    /// Does something with what is to be sent.
    pub(crate) fn with_out<R>(&self, act: impl FnOnce(&mut BytesMut) -> R) -> R {
        act(&mut self.0.lock().out)
    }

    /// Gives what is to be sent some room. From `unsent_bytes_max` on, DATA waits for what was written before it
    /// to leave.
    pub(crate) fn make_room(&self, unsent_bytes_max: usize, lend: impl FnOnce(&mut BytesMut)) {
        let mut state = self.0.lock();
        state.config.unsent_bytes_max = unsent_bytes_max;
        lend(&mut state.out);
    }

    /// How much is to be sent.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.0.lock().out.len()
    }

    /// Something was sent: those who waited for that may go on. Whether anybody did.
    pub(crate) fn sent(&self) -> bool {
        let mut state = self.0.lock();
        let has_waiting = !state.waiting.is_empty() && state.send_window > 0;
        if has_waiting {
            state.wake_waiting();
        }
        has_waiting
    }

    /// What is kept of what came, as allocated.
    pub(crate) fn kept(&self) -> Kept {
        let state = self.0.lock();
        Kept {
            inbound_bytes: state.inbound_bytes,
            codec_bytes: state.arriving.bytes() + state.decoder.bytes(),
        }
    }

    /// How many streams are open.
    pub(crate) fn open_streams(&self) -> usize {
        self.0.lock().open
    }

    /// The newest stream, which tells whether there was one meanwhile.
    pub(crate) fn last_stream(&self) -> u32 {
        self.0.lock().last_stream
    }

    /// Asks the peer whether it is there; ready once it has answered, or the connection is over.
    pub(crate) async fn ping(&self) {
        let number = {
            let mut state = self.0.lock();
            state.pings += 1;
            let number = state.pings;
            frame::put(&mut state.out, kind::PING, 0, 0, &number.to_be_bytes());
            if let Some(driver) = state.driver.take() {
                driver.wake();
            }
            number
        };
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.pongs >= number || state.is_over {
                return Poll::Ready(());
            }
            state.pinging.insert(number, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Lets the peer begin no more streams, and ends once none is left.
    pub(crate) fn leave(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        if state.leaving == Leaving::No {
            state.leaving = Leaving::Told;
            frame::put_goaway(&mut state.out, (1 << 31) - 1, Reason::NO_ERROR);
            frame::put(&mut state.out, kind::PING, 0, 0, &SHUTDOWN_PING);
            if let Some(driver) = state.driver.take() {
                driver.wake();
            }
        }
    }

    /// The peer had its time to answer that it knows that we leave: what it begins from here on is not served.
    pub(crate) fn leave_unanswered(&self) {
        let mut state = self.0.lock();
        state.leave_last();
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
    }

    /// Ready once nothing is left to serve: one of both has left, and no stream is open.
    pub(crate) fn poll_done(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.is_over || (state.may_end() && state.open == 0) {
            return Poll::Ready(());
        }
        match &mut state.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => state.driver = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The connection is gone: nothing can be sent any more.
    pub(crate) fn end(&self) {
        self.0.lock().end();
    }
}

/// What tests look at.
#[cfg(test)]
impl Connection {
    /// Nothing is kept of any stream.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.0.lock();
        let is_empty = state.streams.is_empty() && state.waiting.is_empty();
        is_empty && state.open == 0 && state.inbound_bytes == 0
    }

    /// The window that the peer has on all streams, and what of it was given back and not said yet.
    pub(super) fn window(&self) -> (i64, i64) {
        let state = self.0.lock();
        (state.receive_window, state.unsaid)
    }

    /// The same of one stream, while it is kept.
    pub(super) fn stream_window(&self, id: u32) -> Option<(i64, u32)> {
        let state = self.0.lock();
        let stream = state.streams.get(&id)?;
        Some((stream.receive_window, stream.unsaid))
    }
}
