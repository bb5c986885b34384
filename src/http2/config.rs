//! What a connection is allowed.

/// What a connection allows its peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Streams that may be open at once; further ones are refused.
    pub(crate) streams_max: usize,
    /// What the peer may send on one stream before it is read, in bytes.
    pub(crate) stream_window_bytes: u32,
    /// What the peer may send on all streams before it is read, in bytes.
    pub(crate) connection_window_bytes: u32,
    /// A request's header fields together, in bytes, as HTTP/2 counts them.
    pub(crate) header_list_bytes_max: u32,
    /// From this much on, DATA waits for what was written before it to leave, in bytes.
    pub(crate) unsent_bytes_max: usize,
}
