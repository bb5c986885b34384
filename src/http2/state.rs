//! A connection's state: what its frames and its streams' two halves change.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use bytes::{Bytes, BytesMut};

use super::{
    allowance::Allowance,
    config::Config,
    connection::Failure,
    frame::{Reason, WINDOW_DEFAULT, put_reset, put_window_update},
    hpack::{Decoder, Encoder},
    receive::Arriving,
    settings::PeerSettings,
    skipped::Skipped,
};

/// The state behind a connection and the halves of its streams.
#[derive(Debug)]
pub(super) struct State {
    pub(super) config: Config,
    /// What is to be sent.
    pub(super) out: BytesMut,
    pub(super) arriving: Arriving,
    pub(super) decoder: Decoder,
    pub(super) encoder: Encoder,
    pub(super) peer: PeerSettings,
    /// Has its entry until it is over, and both of its halves are gone. A box, since a table has room for
    /// more entries than it has.
    pub(super) streams: BTreeMap<u32, Box<Stream>>,
    /// Of those in the table, how many are not over.
    pub(super) open: usize,
    /// The newest stream of the peer.
    pub(super) last_stream: u32,
    /// Those below it that were never opened.
    pub(super) skipped: Skipped,
    /// Streams above this one come too late, once we are leaving.
    pub(super) last_served: u32,
    pub(super) leaving: Leaving,
    pub(super) is_peer_leaving: bool,
    /// What the peer may send on all streams, and what of that was read and not said yet: less than nothing
    /// while the peer may still send more than it was to be allowed, as at first.
    pub(super) receive_window: i64,
    pub(super) unsaid: i64,
    pub(super) send_window: i64,
    /// What the peer may still have on its way for streams that we have ended before it did: what their windows
    /// had left.
    pub(super) stray_bytes_max: i64,
    /// Streams that wait for the connection's window or for what was written to leave, by their turns.
    pub(super) waiting: BTreeMap<u64, u32>,
    /// The turn of the next one that has to wait.
    pub(super) next_turn: u64,
    pub(super) allowance: Allowance,
    /// When something came last.
    pub(super) now: Duration,
    /// What waits in all streams to be read, as allocated.
    pub(super) inbound_bytes: usize,
    /// Pings of ours, which are numbered from 1 on, and the newest that was answered.
    pub(super) pings: u64,
    pub(super) pongs: u64,
    /// Those who wait for an answer, by their pings.
    pub(super) pinging: BTreeMap<u64, Waker>,
    /// Once the connection is over.
    pub(super) is_over: bool,
    pub(super) driver: Option<Waker>,
}

/// How far we are with leaving in order (section 6.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The peer was told to begin no more streams; those on their way are still served.
    Told,
    /// It has answered: whatever it begins now, it has begun knowing.
    Last,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// What came and nobody has read.
    pub(super) inbound: BytesMut,
    /// What of `inbound` is in the account of all streams.
    pub(super) counted: usize,
    /// What is to come by `content-length`, if it was said.
    pub(super) body_left: Option<u64>,
    pub(super) receive_window: i64,
    pub(super) unsaid: u32,
    pub(super) send_window: i64,
    pub(super) has_ended: bool,
    pub(super) have_ended: bool,
    pub(super) reset: Option<Reason>,
    /// Whether it counts as open.
    pub(super) is_open: bool,
    /// Its place among those that wait, from when it first had to until it has sent something: whoever is
    /// woken and finds nothing left for it is before those that had some.
    pub(super) turn: Option<u64>,
    pub(super) has_reader: bool,
    pub(super) has_writer: bool,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

impl State {
    pub(super) fn new(config: Config) -> Self {
        Self {
            out: BytesMut::new(),
            arriving: Arriving::default(),
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            peer: PeerSettings::default(),
            streams: BTreeMap::new(),
            open: 0,
            last_stream: 0,
            skipped: Skipped::default(),
            last_served: u32::MAX,
            leaving: Leaving::No,
            is_peer_leaving: false,
            receive_window: WINDOW_DEFAULT,
            unsaid: i64::from(config.connection_window_bytes) - WINDOW_DEFAULT,
            send_window: WINDOW_DEFAULT,
            stray_bytes_max: 0,
            waiting: BTreeMap::new(),
            next_turn: 0,
            allowance: Allowance::new(),
            now: Duration::ZERO,
            inbound_bytes: 0,
            pings: 0,
            pongs: 0,
            pinging: BTreeMap::new(),
            is_over: false,
            driver: None,
            config,
        }
    }

    /// Opens a stream; both halves are there.
    pub(super) fn open(&mut self, id: u32, body_left: Option<u64>, has_ended: bool) {
        let stream = Stream {
            inbound: BytesMut::new(),
            counted: 0,
            body_left,
            receive_window: self.config.stream_window_bytes.into(),
            unsaid: 0,
            send_window: self.peer.stream_window,
            has_ended,
            have_ended: false,
            reset: None,
            is_open: true,
            turn: None,
            has_reader: true,
            has_writer: true,
            reader: None,
            writer: None,
        };
        self.open += 1;
        self.streams.insert(id, Box::new(stream));
    }

    /// The stream is over, by the peer's word or ours; its halves are told.
    pub(super) fn reset(&mut self, id: u32, reason: Reason, is_ours: bool) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.reset.is_some() || !stream.is_open {
            return;
        }
        stream.reset = Some(reason);
        stream.is_open = false;
        if is_ours && !stream.has_ended {
            self.stray_bytes_max += stream.receive_window.max(0);
        }
        self.open -= 1;
        self.leave_queue(id);
        if is_ours {
            put_reset(&mut self.out, id, reason);
            // Nobody is to read what came before the reset.
            self.discard(id);
        }
        if let Some(stream) = self.streams.get_mut(&id) {
            let halves = [stream.reader.take(), stream.writer.take()];
            halves.into_iter().flatten().for_each(Waker::wake);
        }
        self.forget(id);
    }

    /// After a half has ended or gone: a stream that both have ended is over, and one that we have
    /// ended and nobody reads needs no more of its request (RFC 9113, section 8.1).
    pub(super) fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        if stream.is_open && stream.have_ended {
            if stream.has_ended {
                stream.is_open = false;
                self.open -= 1;
            } else if !stream.has_reader {
                return self.reset(id, Reason::NO_ERROR, true);
            }
        }
        self.forget(id);
    }

    /// Lets go of a stream that is over and that nobody holds.
    fn forget(&mut self, id: u32) {
        let is_gone = |stream: &Stream| !stream.is_open && !stream.has_reader && !stream.has_writer;
        if self.streams.get(&id).is_some_and(|stream| is_gone(stream)) {
            self.discard(id);
            self.streams.remove(&id);
        }
        if self.open == 0
            && self.may_end()
            && let Some(driver) = self.driver.take()
        {
            driver.wake();
        }
    }

    /// Whether the connection ends once no stream is open.
    pub(super) fn may_end(&self) -> bool {
        self.is_peer_leaving || self.leaving == Leaving::Last
    }

    /// Drops what waits to be read of a stream, which the peer may send again on others.
    pub(super) fn discard(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let bytes = stream.inbound.len();
            stream.inbound = BytesMut::new();
            self.inbound_bytes -= std::mem::take(&mut stream.counted);
            self.release(bytes);
        }
    }

    /// So much of what the peer sent on the connection is out of the way.
    pub(super) fn release(&mut self, bytes: usize) {
        self.unsaid += bytes as i64;
        if self.unsaid >= i64::from(self.config.connection_window_bytes / 2) {
            self.open_window();
        }
    }

    /// Says what of the connection's window is not said yet.
    pub(super) fn open_window(&mut self) {
        if self.unsaid > 0 {
            put_window_update(&mut self.out, 0, self.unsaid as u32);
            self.receive_window += std::mem::take(&mut self.unsaid);
        }
    }

    /// Takes all that waits to be read of a stream, and opens its windows as much again.
    pub(super) fn take_inbound(&mut self, id: u32) -> Bytes {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Bytes::new();
        };
        let data = std::mem::take(&mut stream.inbound);
        self.inbound_bytes -= std::mem::take(&mut stream.counted);
        self.release_of(id, data.len());
        data.freeze()
    }

    /// So much of what the peer sent on a stream that is read is out of the way.
    pub(super) fn release_of(&mut self, id: u32, bytes: usize) {
        if let Some(stream) = self.streams.get_mut(&id)
            // No window is wanted where nothing more is to come, or to be read.
            && !stream.has_ended
            && stream.is_open
            && stream.has_reader
        {
            stream.unsaid += bytes as u32;
            if stream.unsaid >= self.config.stream_window_bytes / 2 {
                put_window_update(&mut self.out, id, stream.unsaid);
                stream.receive_window += i64::from(stream.unsaid);
                stream.unsaid = 0;
            }
        }
        self.release(bytes);
    }

    /// Lets streams go on that waited for what all share.
    pub(super) fn wake_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting).into_values() {
            if let Some(stream) = self.streams.get_mut(&id)
                && let Some(writer) = stream.writer.take()
            {
                writer.wake();
            }
        }
    }

    /// A stream waits for what all share, behind those that did before.
    pub(super) fn queue(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let turn = *stream.turn.get_or_insert(self.next_turn);
            self.next_turn = self.next_turn.max(turn + 1);
            self.waiting.insert(turn, id);
        }
    }

    /// A stream has had its turn, or wants none.
    pub(super) fn leave_queue(&mut self, id: u32) {
        let stream = self.streams.get_mut(&id);
        if let Some(turn) = stream.and_then(|stream| stream.turn.take()) {
            self.waiting.remove(&turn);
        }
    }

    /// Ends everything: no half can do any more, and all are told.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        for stream in self.streams.values_mut() {
            let halves = [stream.reader.take(), stream.writer.take()];
            halves.into_iter().flatten().for_each(Waker::wake);
        }
        let pinging = std::mem::take(&mut self.pinging);
        pinging.into_values().for_each(Waker::wake);
    }

    /// Takes a frame that asks for nothing from what the peer may send.
    pub(super) fn charge(&mut self) -> Result<(), Failure> {
        let may = self.allowance.take_frame(self.now);
        may.then_some(()).ok_or(Failure::flood())
    }

    /// Takes a stream that is wrong from what the peer may send.
    pub(super) fn charge_fault(&mut self) -> Result<(), Failure> {
        let may = self.allowance.take_fault(self.now);
        may.then_some(()).ok_or(Failure::faults())
    }

    /// A stream that is wrong is reset; a connection with too many of them ends.
    pub(super) fn fault(&mut self, id: u32, reason: Reason) -> Result<(), Failure> {
        self.charge_fault()?;
        if self.streams.contains_key(&id) {
            self.reset(id, reason, true);
        } else {
            put_reset(&mut self.out, id, reason);
            self.expect_strays();
        }
        Ok(())
    }

    /// The peer may have begun to send what comes after a request that was not taken.
    pub(super) fn expect_strays(&mut self) {
        self.stray_bytes_max += i64::from(self.config.stream_window_bytes);
    }
}
