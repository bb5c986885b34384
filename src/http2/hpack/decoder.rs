//! Header blocks to fields (RFC 7541, sections 5 and 6).
//!
//! A field that HTTP does not allow is a field all the same: the block is read to its end, or what
//! both ends keep in their tables would not agree from then on.

use bytes::Bytes;

use super::{
    field::{Field, Name},
    huffman,
    table::Table,
};

/// The table that a peer may fill: what it is unless told otherwise (RFC 9113, section 6.5.2).
const TABLE_BYTES_MAX: usize = 4_096;

/// A connection that says little keeps little.
const TEXT_BYTES_KEPT: usize = 128;

/// Why a block cannot be read, nor any block after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockError {
    /// Not HPACK.
    Malformed,
    /// It stands for much more than a request may have.
    TooLarge,
}

/// What a block is, beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Whole,
    /// The list is larger than allowed; the fields past that were not shown.
    Oversized,
}

#[derive(Debug)]
pub(crate) struct Decoder {
    table: Table,
    /// Where strings are decoded.
    text: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            table: Table::new(TABLE_BYTES_MAX),
            text: Vec::new(),
        }
    }
}

impl Decoder {
    /// Shows the fields of a block, of at most `list_bytes_max` together, as HTTP/2 counts them.
    ///
    /// # Errors
    /// A block that is none, or stands for more than `bomb_bytes_min`.
    pub(crate) fn decode(
        &mut self,
        mut block: &[u8],
        list_bytes_max: usize,
        bomb_bytes_min: usize,
        mut show: impl FnMut(&Field),
    ) -> Result<Block, BlockError> {
        let mut list_bytes = 0;
        let mut may_resize = true;
        let block = &mut block;
        while let Some(&first) = block.first() {
            if first & 0xe0 == 0x20 {
                let size_max = read_integer(block, 5)?;
                if !may_resize || size_max > TABLE_BYTES_MAX {
                    return Err(BlockError::Malformed);
                }
                self.table.resize(size_max);
                continue;
            }
            may_resize = false;
            let mut count = |field: &Field| {
                list_bytes += field.size();
                if list_bytes <= list_bytes_max {
                    show(field);
                }
            };
            if first & 0x80 != 0 {
                let index = read_integer(block, 7)?;
                count(self.table.field(index).ok_or(BlockError::Malformed)?);
            } else {
                let is_added = first & 0xc0 == 0x40;
                let field = self.read_literal(block, if is_added { 6 } else { 4 })?;
                count(&field);
                if is_added {
                    self.table.add(field);
                }
            }
            if list_bytes > bomb_bytes_min {
                return Err(BlockError::TooLarge);
            }
        }
        if self.text.capacity() > TEXT_BYTES_KEPT {
            self.text = Vec::new();
        }
        Ok(if list_bytes <= list_bytes_max {
            Block::Whole
        } else {
            Block::Oversized
        })
    }

    fn read_literal(&mut self, block: &mut &[u8], prefix_bits: u32) -> Result<Field, BlockError> {
        let (name, name_bytes) = match read_integer(block, prefix_bits)? {
            0 => {
                let name = self.read_string(block)?;
                (Name::parse(name), name.len())
            }
            index => self.table.name(index).ok_or(BlockError::Malformed)?,
        };
        let text = Bytes::copy_from_slice(self.read_string(block)?);
        Ok(Field::new(name, name_bytes, text))
    }

    /// Reads a string, which stays where it is unless it has to be decoded.
    fn read_string<'a, 'b: 'a>(&'a mut self, block: &mut &'b [u8]) -> Result<&'a [u8], BlockError> {
        let is_coded = block.first().ok_or(BlockError::Malformed)? & 0x80 != 0;
        let length = read_integer(block, 7)?;
        let (string, rest) = block
            .split_at_checked(length)
            .ok_or(BlockError::Malformed)?;
        *block = rest;
        if !is_coded {
            return Ok(string);
        }
        self.text.clear();
        huffman::decode(string, &mut self.text).map_err(|_| BlockError::Malformed)?;
        Ok(&self.text)
    }

    /// What the table takes, as allocated.
    pub(crate) fn bytes(&self) -> usize {
        self.table.bytes() + self.text.capacity()
    }

    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }
}

/// The bytes of an integer after its prefix: 28 bits, far more than any length or index here.
const INTEGER_BYTES_MAX: usize = 4;

/// Takes an integer off the front, of which the first byte has `prefix_bits` (section 5.1).
fn read_integer(block: &mut &[u8], prefix_bits: u32) -> Result<usize, BlockError> {
    let (&first, rest) = block.split_first().ok_or(BlockError::Malformed)?;
    let mask = (1_u8 << prefix_bits).wrapping_sub(1);
    *block = rest;
    if first & mask < mask {
        return Ok((first & mask).into());
    }
    let mut integer = usize::from(mask);
    for at in 0..INTEGER_BYTES_MAX {
        let (&byte, rest) = block.split_first().ok_or(BlockError::Malformed)?;
        *block = rest;
        integer += usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return Ok(integer);
        }
    }
    Err(BlockError::Malformed)
}
