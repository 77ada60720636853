//! An input as a sequence of steps, each with bytes of its own.

use xxhash_rust::xxh3::xxh3_64;

/// Takes an input apart: numbers of one byte, and parts with their length in front.
pub(crate) struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    pub(crate) fn of(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 behind the end.
    pub(crate) fn number(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or_default()
    }

    /// The next eight bytes as a number; shorter at the end.
    pub(crate) fn long(&mut self) -> u64 {
        let bytes = self.bytes(8);
        bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// A part: two bytes of its length, the low one first, and as many bytes, or those that are left.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.number()) | usize::from(self.number()) << 8;
        self.bytes(length)
    }

    /// What is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// A part as [`Parts::part`] takes it.
pub(crate) fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes();
    [&length[..], bytes].concat()
}

/// With the checksum behind it that runs, pages and tokens have.
pub(crate) fn sealed(bytes: &[u8]) -> Vec<u8> {
    [bytes, &xxh3_64(bytes).to_be_bytes()].concat()
}

/// The same without that.
pub(crate) fn unsealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len().saturating_sub(8));
    bytes
}
