//! Frames about streams and about the connection, which carry nothing of a request.

use std::task::Waker;

use super::{
    connection::Failure,
    frame::{self, FrameHead, Reason, WINDOW_MAX, flag, kind, read_31_bits},
    state::{Leaving, State},
};

/// A PING's payload, by which we know the answer to it.
pub(super) const SHUTDOWN_PING: [u8; 8] = *b"shutdown";

impl State {
    pub(super) fn take_priority(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.stream == 0 {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a priority of no stream",
            ));
        }
        let (reason, what) = if payload.len() != 5 {
            (Reason::FRAME_SIZE_ERROR, "a priority of another size")
        } else if read_31_bits(payload) == Some(head.stream) {
            (Reason::PROTOCOL_ERROR, "a stream that depends on itself")
        } else {
            return Ok(());
        };
        let stream = self.streams.get(&head.stream);
        if stream.is_some_and(|stream| stream.is_open) {
            return self.fault(head.stream, reason);
        }
        // There is no stream to reset.
        Err(Failure::because(reason, what))
    }

    pub(super) fn take_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        let reason = payload.first_chunk().filter(|_| payload.len() == 4);
        let reason = reason.ok_or(Failure::because(
            Reason::FRAME_SIZE_ERROR,
            "a reset of another size",
        ))?;
        self.check_known(head.stream)?;
        self.reset(head.stream, Reason(u32::from_be_bytes(*reason)), false);
        Ok(())
    }

    pub(super) fn take_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "settings of a stream",
            ));
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(Failure::because(
                    Reason::FRAME_SIZE_ERROR,
                    "an acknowledgement that says something",
                ))
            };
        }
        let window_before = self.peer.stream_window;
        let taken = self.peer.take(payload);
        taken.map_err(|reason| Failure::because(reason, "settings that cannot be"))?;
        if let Some(table_bytes_max) = self.peer.table_bytes_max {
            self.encoder.resize(table_bytes_max);
        }
        let more = self.peer.stream_window - window_before;
        if more != 0 {
            for stream in self.streams.values_mut().filter(|stream| stream.is_open) {
                stream.send_window += more;
                if stream.send_window > WINDOW_MAX {
                    return Err(Failure::because(
                        Reason::FLOW_CONTROL_ERROR,
                        "a window that is too large",
                    ));
                }
                if stream.send_window > 0
                    && let Some(writer) = stream.writer.take()
                {
                    writer.wake();
                }
            }
        }
        frame::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    pub(super) fn take_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a ping of a stream",
            ));
        }
        let number = payload.first_chunk().filter(|_| payload.len() == 8);
        let number = number.ok_or(Failure::because(
            Reason::FRAME_SIZE_ERROR,
            "a ping of another size",
        ))?;
        if !head.has(flag::ACK) {
            frame::put(&mut self.out, kind::PING, flag::ACK, 0, payload);
        } else if *number == SHUTDOWN_PING {
            self.leave_last();
        } else {
            self.take_pong(u64::from_be_bytes(*number));
        }
        Ok(())
    }

    /// The peer has answered this ping of ours, which tells as much as an answer to those before it.
    fn take_pong(&mut self, number: u64) {
        if (self.pongs + 1..=self.pings).contains(&number) {
            self.pongs = number;
            let later = self.pinging.split_off(&(number + 1));
            let answered = std::mem::replace(&mut self.pinging, later);
            answered.into_values().for_each(Waker::wake);
        }
    }

    /// The peer knows by now that we are leaving: from here on nothing it begins is served.
    pub(super) fn leave_last(&mut self) {
        if self.leaving == Leaving::Told {
            self.leaving = Leaving::Last;
            self.last_served = self.last_stream;
            frame::put_goaway(&mut self.out, self.last_stream, Reason::NO_ERROR);
        }
    }

    pub(super) fn take_goaway(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Failure> {
        if head.stream != 0 {
            return Err(Failure::because(
                Reason::PROTOCOL_ERROR,
                "a goodbye of a stream",
            ));
        }
        if payload.len() < 8 {
            return Err(Failure::because(
                Reason::FRAME_SIZE_ERROR,
                "a goodbye that is too short",
            ));
        }
        self.is_peer_leaving = true;
        Ok(())
    }

    pub(super) fn take_window_update(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<(), Failure> {
        let bytes = read_31_bits(payload).filter(|_| payload.len() == 4);
        let bytes = i64::from(bytes.ok_or(Failure::because(
            Reason::FRAME_SIZE_ERROR,
            "a window update of another size",
        ))?);
        if head.stream == 0 {
            if bytes == 0 {
                return Err(Failure::because(
                    Reason::PROTOCOL_ERROR,
                    "a window that is opened by nothing",
                ));
            }
            self.send_window += bytes;
            if self.send_window > WINDOW_MAX {
                return Err(Failure::because(
                    Reason::FLOW_CONTROL_ERROR,
                    "a window that is too large",
                ));
            }
            self.wake_waiting();
            return Ok(());
        }
        self.check_known(head.stream)?;
        let stream = self.streams.get_mut(&head.stream);
        let Some(stream) = stream.filter(|stream| stream.is_open) else {
            return Ok(());
        };
        stream.send_window += bytes;
        if bytes == 0 {
            return self.fault(head.stream, Reason::PROTOCOL_ERROR);
        }
        if stream.send_window > WINDOW_MAX {
            return self.fault(head.stream, Reason::FLOW_CONTROL_ERROR);
        }
        if stream.send_window > 0
            && let Some(writer) = stream.writer.take()
        {
            writer.wake();
        }
        Ok(())
    }
}
