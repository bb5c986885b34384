//! The Huffman code of header strings (RFC 7541, section 5.2 and appendix B).
//!
//! The code is canonical: codes of one length follow each other in the order of their symbols, and each
//! length goes on where the one before ended. So the lengths say all of it.

/// The length of each byte's code in bits, and at last that of EOS (appendix B).
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5,
    5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6,
    6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22,
    23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22,
    21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20,
    22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19,
    21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22,
    22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const EOS: u16 = 256;
const LENGTH_MIN: u32 = 5;
const LENGTH_MAX: usize = 30;
/// Most bytes of text have codes of at most so many bits.
const SHORT_BITS: u32 = 8;

/// The code, made for decoding.
struct Code {
    /// Symbols in the order of their codes.
    symbols: [u16; 257],
    /// For each length, the place in `symbols` of its first code.
    first_symbol: [u16; LENGTH_MAX + 1],
    /// For each length, its first code, and the end of its codes, both moved to the top of 32 bits.
    first_code: [u32; LENGTH_MAX + 1],
    end: [u64; LENGTH_MAX + 1],
    /// For the first 8 bits, the symbol that they begin with and its length; 0 if that is longer.
    short: [(u8, u8); 1 << SHORT_BITS],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut code = Self {
            symbols: [0; 257],
            first_symbol: [0; LENGTH_MAX + 1],
            first_code: [0; LENGTH_MAX + 1],
            end: [0; LENGTH_MAX + 1],
            short: [(0, 0); 1 << SHORT_BITS],
        };
        let mut next_symbol = 0;
        let mut next_code: u64 = 0;
        let mut length = 1;
        while length <= LENGTH_MAX {
            next_code <<= 1;
            code.first_symbol[length] = next_symbol as u16;
            code.first_code[length] = (next_code << (32 - length)) as u32;
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == length {
                    code.symbols[next_symbol] = symbol as u16;
                    if length <= SHORT_BITS as usize {
                        let spare = SHORT_BITS as usize - length;
                        let first = (next_code as usize) << spare;
                        let mut at = first;
                        while at < first + (1 << spare) {
                            code.short[at] = (symbol as u8, length as u8);
                            at += 1;
                        }
                    }
                    next_symbol += 1;
                    next_code += 1;
                }
                symbol += 1;
            }
            code.end[length] = next_code << (32 - length);
            length += 1;
        }
        code
    }

    /// The symbol whose code `window` begins with, and its length.
    fn find(&self, window: u32) -> (u16, u32) {
        let (symbol, length) = self.short[(window >> (32 - SHORT_BITS)) as usize];
        if length > 0 {
            return (symbol.into(), length.into());
        }
        let mut length = SHORT_BITS as usize + 1;
        while u64::from(window) >= self.end[length] {
            length += 1;
        }
        let offset = (window - self.first_code[length]) >> (32 - length);
        let symbol = self.symbols[usize::from(self.first_symbol[length]) + offset as usize];
        (symbol, length as u32)
    }
}

/// Not a string in this code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadCode;

/// Appends what `data` stands for, which is at most 8 bytes for 5.
pub(super) fn decode(data: &[u8], out: &mut Vec<u8>) -> Result<(), BadCode> {
    let mut waiting: u64 = 0;
    let mut bits: u32 = 0;
    for &byte in data {
        // A code is 30 bits at most, so that fewer than 38 wait here.
        waiting = waiting << 8 | u64::from(byte);
        bits += 8;
        while bits >= LENGTH_MIN {
            let window = ((waiting << (64 - bits)) >> 32) as u32;
            let (symbol, length) = CODE.find(window);
            if length > bits {
                break;
            }
            if symbol == EOS {
                return Err(BadCode);
            }
            out.push(symbol as u8);
            bits -= length;
        }
    }
    // What is left is the beginning of EOS, and less than a byte.
    let padding = (1_u64 << bits) - 1;
    if bits >= 8 || waiting & padding != padding {
        return Err(BadCode);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes by the lengths alone, one bit after the other.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut order: Vec<usize> = (0..LENGTHS.len()).collect();
        order.sort_by_key(|&symbol| (LENGTHS[symbol], symbol));
        let mut codes = vec![0_u32; LENGTHS.len()];
        let mut next = 0;
        let mut before = 0;
        for symbol in order {
            next <<= LENGTHS[symbol] - before;
            before = LENGTHS[symbol];
            codes[symbol] = next;
            next += 1;
        }
        let mut bits: Vec<bool> = Vec::new();
        for &byte in text {
            let length = LENGTHS[usize::from(byte)];
            let code = codes[usize::from(byte)];
            bits.extend((0..length).rev().map(|at| code >> at & 1 == 1));
        }
        while !bits.len().is_multiple_of(8) {
            bits.push(true);
        }
        let byte = |bits: &[bool]| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
        bits.chunks(8).map(byte).collect()
    }

    fn decoded(data: &[u8]) -> Result<Vec<u8>, BadCode> {
        let mut out = Vec::new();
        decode(data, &mut out).map(|()| out)
    }

    /// RFC 7541, appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let examples: [(&[u8], &str); 4] = [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
                "custom-value",
            ),
        ];
        for (code, text) in examples {
            assert_eq!(decoded(code).unwrap(), text.as_bytes());
            assert_eq!(encode(text.as_bytes()), code);
        }
    }

    #[test]
    fn all_bytes_come_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encode(&all)).unwrap(), all);
    }

    #[test]
    fn padding_is_ones_and_less_than_a_byte_and_nothing_stands_for_the_end() {
        assert_eq!(decoded(&[]), Ok(Vec::new()));
        // '0' is five zeros.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(BadCode));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(BadCode));
        assert_eq!(decoded(&[0xff; 4]), Err(BadCode));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decoded(&encode(&text)), Ok(text));
        }

        #[test]
        fn what_is_decoded_has_one_code(data in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(text) = decoded(&data) {
                prop_assert_eq!(encode(&text), data);
            }
        }
    }
}
