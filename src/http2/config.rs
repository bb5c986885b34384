//! What a connection is allowed.

/// What a connection allows its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Streams that may be open at once; further ones are refused.
    pub(crate) streams_max: usize,
    /// What the peer may send on one stream before it is read, in bytes. A peer takes it for 65,535 until it
    /// has seen our settings, and exceeds what is less.
    pub(crate) stream_window_bytes: u32,
    /// What the peer may send on all streams before it is read, in bytes. It may send 65,535 at first in any
    /// case (RFC 9113, section 6.9.2); where this is less, no more is allowed until that much is used up.
    pub(crate) connection_window_bytes: u32,
    /// A request's header fields together, in bytes, as HTTP/2 counts them.
    pub(crate) header_list_bytes_max: u32,
    /// From this much on, DATA waits for what was written before it to leave, in bytes.
    pub(crate) unsent_bytes_max: usize,
}
