//! HPACK (RFC 7541): how HTTP/2 writes header fields.

mod decoder;
mod encoder;
mod field;
mod huffman;
mod table;

pub(super) use self::{
    decoder::{Block, BlockError, Decoder},
    encoder::Encoder,
    field::{Field, Value},
};

#[cfg(test)]
mod tests;
