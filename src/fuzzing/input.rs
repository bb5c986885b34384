//! Bytes read as choices: whatever they are, there is something that they mean, and a small change of
//! them is a small change of that.

/// What is left of the bytes. Once they are used up, all choices are the first one.
#[derive(Debug)]
pub(super) struct Input<'d>(&'d [u8]);

impl<'d> Input<'d> {
    pub(super) fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn rest(self) -> &'d [u8] {
        self.0
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }

    pub(super) fn choose<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[usize::from(self.byte()) % choices.len()]
    }

    /// So many bytes as the first one says.
    pub(super) fn bytes(&mut self) -> &'d [u8] {
        let count = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(count);
        self.0 = rest;
        bytes
    }

    /// So many bytes as the first one says, as text; what is not UTF-8 is replaced.
    pub(super) fn text(&mut self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// A few lengths, and then all that is left, to be cut into pieces of these lengths in turn.
    pub(super) fn cut(mut self) -> (&'d [u8], Vec<&'d [u8]>) {
        let lengths = self.bytes();
        let (whole, mut pieces) = (self.0, Vec::new());
        let mut rest = whole;
        let mut lengths = lengths.iter().map(|length| usize::from(*length)).cycle();
        // Lengths of nothing but 0 would never come to an end.
        while pieces.len() <= whole.len() && !rest.is_empty() {
            let length = lengths.next().unwrap_or(usize::MAX).min(rest.len());
            let (piece, left) = rest.split_at(length);
            pieces.push(piece);
            rest = left;
        }
        pieces.push(rest);
        (whole, pieces)
    }
}
