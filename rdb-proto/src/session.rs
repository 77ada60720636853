//! Session tokens taken apart: for nodes, which look into them, and for clients that have many answers on their way and merge
//! what these have shown. The bytes are described at [`v1::SessionToken`].

use crate::v1;
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// The longest token that is looked at: a namespace's nodes would have to start some thousand times in one era to make such
/// a one.
pub const TOKEN_BYTES_MAX: usize = 64 << 10;

const CHECKSUM_BYTES: usize = 8;

/// What was seen of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Token {
    /// Which namespace.
    pub namespace: u32,
    /// In which era.
    pub era: u32,
    /// Of each node and incarnation, up to which of its writes.
    pub seen: BTreeMap<(u64, u64), u64>,
}

/// Why bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damaged {
    /// Longer than any token that a node gives out.
    TooLong,
    /// They end too early.
    TooShort,
    /// The checksum is wrong.
    Checksum,
    /// The checksum is right, and what it covers is no token that this version of FlareDB knows.
    Content,
}

impl std::fmt::Display for Damaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Damaged::TooLong => write!(f, "it has more than {TOKEN_BYTES_MAX} bytes"),
            Damaged::TooShort => f.write_str("it ends too early"),
            Damaged::Checksum => f.write_str("its checksum is wrong"),
            Damaged::Content => f.write_str("this version of FlareDB does not know what it says"),
        }
    }
}

impl Token {
    /// As it is passed on.
    pub fn encode(&self) -> Bytes {
        let seen = self.seen.iter();
        let seen = seen.map(|((node, incarnation), sequence)| v1::SeenWrites {
            node: *node,
            incarnation: *incarnation,
            sequence: *sequence,
        });
        let token = v1::SessionToken { namespace: self.namespace, era: self.era, seen: seen.collect() };
        let mut out = token.encode_to_vec();
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out.into()
    }

    /// As it comes back.
    ///
    /// # Errors
    /// No node gave that out.
    pub fn decode(bytes: &[u8]) -> Result<Self, Damaged> {
        if TOKEN_BYTES_MAX < bytes.len() {
            return Err(Damaged::TooLong);
        }
        let split = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(Damaged::TooShort)?;
        let (content, checksum) = bytes.split_at(split);
        if xxh3_64(content).to_be_bytes() != *checksum {
            return Err(Damaged::Checksum);
        }
        let token = v1::SessionToken::decode(content).map_err(|_| Damaged::Content)?;
        let mut decoded = Self { namespace: token.namespace, era: token.era, seen: BTreeMap::new() };
        for v1::SeenWrites { node, incarnation, sequence } in token.seen {
            decoded.raise((node, incarnation), sequence);
        }
        Ok(decoded)
    }

    /// Takes note of the writes of a node's start up to `sequence`.
    pub fn raise(&mut self, origin: (u64, u64), sequence: u64) {
        let seen = self.seen.entry(origin).or_default();
        *seen = sequence.max(*seen);
    }

    /// Takes in what another answer has shown: the later one's of two eras; and of two namespaces, the one that was made
    /// later, since the other one is gone. Returns whether this has changed.
    pub fn merge(&mut self, other: &Token) -> bool {
        let (mine, its) = ((self.namespace, self.era), (other.namespace, other.era));
        if mine < its {
            self.clone_from(other);
            return true;
        }
        if its < mine {
            return false;
        }
        let mut changed = false;
        for (origin, sequence) in &other.seen {
            if self.seen.get(origin).is_none_or(|seen| seen < sequence) {
                self.seen.insert(*origin, *sequence);
                changed = true;
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(namespace: u32, era: u32, seen: &[((u64, u64), u64)]) -> Token {
        Token { namespace, era, seen: seen.iter().copied().collect() }
    }

    #[test]
    fn tokens_come_back_and_damage_is_noticed() {
        for token in [token(16, 1, &[]), token(900, 3, &[((1, 7), 1 << 40), ((3, 1), 5)])] {
            let bytes = token.encode();
            assert_eq!(Token::decode(&bytes), Ok(token));
            for at in 0..bytes.len() {
                for flip in [1, 0x80] {
                    let mut damaged = bytes.to_vec();
                    damaged[at] ^= flip;
                    assert_eq!(Token::decode(&damaged), Err(Damaged::Checksum), "byte {at}");
                }
                assert!(Token::decode(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
        assert_eq!(Token::decode(b""), Err(Damaged::TooShort));
        assert_eq!(Token::decode(&vec![0; TOKEN_BYTES_MAX + 1]), Err(Damaged::TooLong));
    }

    #[test]
    fn a_write_makes_a_short_token() {
        let bytes = token(40, 2, &[((3, 120), 5_000_000)]).encode();
        assert!(bytes.len() <= 32, "{} bytes", bytes.len());
    }

    #[test]
    fn what_was_seen_is_merged_within_an_era_and_later_eras_stand() {
        let mut seen = token(16, 1, &[((1, 1), 5), ((2, 1), 9)]);
        assert!(!seen.merge(&token(16, 1, &[((1, 1), 4)])));
        assert!(seen.merge(&token(16, 1, &[((1, 1), 6), ((3, 4), 1)])));
        assert_eq!(seen, token(16, 1, &[((1, 1), 6), ((2, 1), 9), ((3, 4), 1)]));
        let later = token(16, 2, &[((1, 1), 1)]);
        assert!(seen.merge(&later));
        assert!(!seen.merge(&token(16, 1, &[((1, 1), 100)])));
        assert_eq!(seen, later);
        let anew = token(17, 1, &[]);
        assert!(seen.merge(&anew) && !seen.merge(&later));
        assert_eq!(seen, anew);
    }
}
