//! SETTINGS (RFC 9113, section 6.5): what the peer says of itself, and what we do.

use bytes::BytesMut;

use super::{
    config::Config,
    frame::{FRAME_BYTES_MAX, Reason, WINDOW_DEFAULT, WINDOW_MAX, kind, put},
};

const HEADER_TABLE_SIZE: u16 = 1;
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_FRAME_SIZE: u16 = 5;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENTRY_BYTES: usize = 6;

/// The largest frame that a peer may ask for.
const FRAME_BYTES_CEILING: u32 = (1 << 24) - 1;

/// What the peer has said of itself, as far as it matters to one who only answers.
#[derive(Debug)]
pub(super) struct PeerSettings {
    pub(super) stream_window: i64,
    pub(super) frame_bytes_max: usize,
    /// The table for what we encode, once the peer has said.
    pub(super) table_bytes_max: Option<u32>,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            stream_window: WINDOW_DEFAULT,
            frame_bytes_max: FRAME_BYTES_MAX,
            table_bytes_max: None,
        }
    }
}

impl PeerSettings {
    /// Takes what a frame says; the last one of each counts.
    pub(super) fn take(&mut self, payload: &[u8]) -> Result<(), Reason> {
        if !payload.len().is_multiple_of(ENTRY_BYTES) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        for entry in payload.chunks_exact(ENTRY_BYTES) {
            let value = u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]);
            match u16::from_be_bytes([entry[0], entry[1]]) {
                HEADER_TABLE_SIZE => {
                    let least = self.table_bytes_max.map_or(value, |max| max.min(value));
                    self.table_bytes_max = Some(least);
                }
                ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_MAX => {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                INITIAL_WINDOW_SIZE => self.stream_window = value.into(),
                MAX_FRAME_SIZE
                    if !(FRAME_BYTES_MAX as u32..=FRAME_BYTES_CEILING).contains(&value) =>
                {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                MAX_FRAME_SIZE => self.frame_bytes_max = value as usize,
                // We push nothing, and unknown ones are to be ignored.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Says what we allow, first of all.
pub(super) fn put_ours(out: &mut BytesMut, config: &Config) {
    let streams_max = u32::try_from(config.streams_max).unwrap_or(u32::MAX);
    let entries = [
        (MAX_CONCURRENT_STREAMS, streams_max),
        (INITIAL_WINDOW_SIZE, config.stream_window_bytes),
        (MAX_HEADER_LIST_SIZE, config.header_list_bytes_max),
    ];
    let mut payload = [0; 3 * ENTRY_BYTES];
    for (out, (setting, value)) in payload.chunks_exact_mut(ENTRY_BYTES).zip(entries) {
        out[..2].copy_from_slice(&setting.to_be_bytes());
        out[2..].copy_from_slice(&value.to_be_bytes());
    }
    put(out, kind::SETTINGS, 0, 0, &payload);
}
