//! The way of a scan through a namespace, and the token with which another one goes on where it stopped.
//!
//! A token belongs to a way: the same namespace, the same range, the same direction. The namespace is named by its id,
//! which is never used twice, since one that was deleted and made again has other records.
//!
//! ```text
//! byte 0      format, now 1
//! byte 1      direction: 0 forward, 1 reverse
//! 4 bytes     namespace, highest byte first
//! 8 bytes     fingerprint of the range
//! rest        the key behind which to go on
//! 8 bytes     checksum of all before
//! ```

use crate::codec::{Corrupt, Reader, put_bytes};
use crate::ids::NamespaceId;
use crate::range::KeyRange;
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Which key comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The lowest.
    Forward = 0,
    /// The highest.
    Reverse = 1,
}

/// Which keys a scan goes over, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Whose keys.
    pub namespace: NamespaceId,
    /// Which of them.
    pub range: KeyRange,
    /// Which first.
    pub direction: Direction,
}

/// Why a scan cannot go on with a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The bytes are not what was given out.
    #[error("the scan's token is damaged, or is no token: {0}")]
    Damaged(#[from] Corrupt),
    /// It is of a scan of other records.
    #[error(
        "the scan's token is of another namespace: of the one with id {found}, while this one has id {expected} (one that \
         was deleted and made again is another one)"
    )]
    OtherNamespace {
        /// The namespace in the token.
        found: NamespaceId,
        /// The namespace that is to be scanned.
        expected: NamespaceId,
    },
    /// It is of a scan the other way.
    #[error("the scan's token is of a scan in the other direction")]
    OtherDirection,
    /// It is of a scan of other keys.
    #[error("the scan's token is of a scan of another range or prefix")]
    OtherRange,
}

impl Way {
    /// What is left of it behind `key`.
    pub fn behind(&self, key: &[u8]) -> KeyRange {
        match self.direction {
            // The very next key: nothing lies between the two.
            Direction::Forward => KeyRange { from: [key, &[0]].concat(), to: self.range.to.clone() },
            Direction::Reverse => KeyRange { from: self.range.from.clone(), to: key.to_vec() },
        }
    }

    /// The token to go on with behind `key`, a key of the range.
    pub fn token(&self, key: &[u8]) -> Vec<u8> {
        let mut out = vec![FORMAT, self.direction as u8];
        out.extend_from_slice(&self.namespace.0.to_be_bytes());
        out.extend_from_slice(&fingerprint(&self.range).to_be_bytes());
        out.extend_from_slice(key);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// What is left of it, as a token says that came from outside.
    ///
    /// # Errors
    /// The token is damaged, or of another way.
    pub fn resume(&self, token: &[u8]) -> Result<KeyRange, TokenError> {
        let mut reader = Reader::new("the token", whole(token)?);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB").into());
        }
        let direction = reader.u8()?;
        let mut namespace = [0; 4];
        namespace.copy_from_slice(reader.take(4)?);
        let found = NamespaceId(u32::from_be_bytes(namespace));
        if found != self.namespace {
            return Err(TokenError::OtherNamespace { found, expected: self.namespace });
        }
        if direction != self.direction as u8 {
            return Err(TokenError::OtherDirection);
        }
        let outside = reader.corrupt("its key is not one of the range's");
        if reader.u64()? != fingerprint(&self.range) {
            return Err(TokenError::OtherRange);
        }
        let key = reader.rest();
        if key.is_empty() || !self.range.contains(key) {
            return Err(outside.into());
        }
        Ok(self.behind(key))
    }
}

/// What comes before the checksum, if that is right.
fn whole(token: &[u8]) -> Result<&[u8], Corrupt> {
    let reader = Reader::new("the token", token);
    let split = token.len().checked_sub(CHECKSUM_BYTES).map(|at| token.split_at(at));
    match split {
        Some((rest, checksum)) if xxh3_64(rest).to_be_bytes() == *checksum => Ok(rest),
        Some(_) => Err(reader.corrupt("its checksum is wrong")),
        None => Err(reader.corrupt("it ends too early")),
    }
}

/// Tells ranges apart.
fn fingerprint(range: &KeyRange) -> u64 {
    let mut bytes = Vec::with_capacity(range.from.len() + range.to.len() + 4);
    put_bytes(&mut bytes, &range.from);
    put_bytes(&mut bytes, &range.to);
    xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 1..4)
    }

    fn end() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(Vec::new()), key()]
    }

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![Just(Direction::Forward), Just(Direction::Reverse)]
    }

    fn way() -> impl Strategy<Value = Way> {
        (0..3u32, end(), end(), direction()).prop_map(|(namespace, from, to, direction)| Way {
            namespace: NamespaceId(namespace),
            range: KeyRange { from, to },
            direction,
        })
    }

    /// The keys of a range in the order in which a scan meets them.
    fn met(keys: &BTreeSet<Vec<u8>>, range: &KeyRange, direction: Direction) -> Vec<Vec<u8>> {
        let mut met: Vec<_> = keys.iter().filter(|key| range.contains(key)).cloned().collect();
        if direction == Direction::Reverse {
            met.reverse();
        }
        met
    }

    proptest! {
        #[test]
        fn a_scan_in_parts_meets_what_a_whole_one_does(
            way in way(), keys in prop::collection::btree_set(key(), 0..20), part in 1..4usize,
        ) {
            let whole = met(&keys, &way.range, way.direction);
            let (mut parts, mut rest) = (Vec::new(), way.range.clone());
            loop {
                let mut next = met(&keys, &rest, way.direction);
                next.truncate(part);
                let Some(last) = next.last() else { break };
                let token = way.token(last);
                rest = way.resume(&token).unwrap();
                parts.append(&mut next);
            }
            prop_assert_eq!(parts, whole);
        }

        #[test]
        fn a_token_is_of_no_other_way(way in way(), other in way(), key in key()) {
            prop_assume!(way.range.contains(&key));
            let resumed = other.resume(&way.token(&key));
            if way.namespace != other.namespace {
                let expected = TokenError::OtherNamespace { found: way.namespace, expected: other.namespace };
                prop_assert_eq!(resumed, Err(expected));
            } else if way.direction != other.direction {
                prop_assert_eq!(resumed, Err(TokenError::OtherDirection));
            } else if way.range != other.range {
                prop_assert_eq!(resumed, Err(TokenError::OtherRange));
            } else {
                prop_assert_eq!(resumed, Ok(way.behind(&key)));
            }
        }

        #[test]
        fn a_damaged_token_is_called_so(way in way(), key in key(), at: prop::sample::Index, bit in 0..8u32) {
            prop_assume!(way.range.contains(&key));
            let token = way.token(&key);
            let mut flipped = token.clone();
            flipped[at.index(token.len())] ^= 1 << bit;
            let cut = &token[..at.index(token.len())];
            for damaged in [&flipped[..], cut] {
                prop_assert!(matches!(way.resume(damaged), Err(TokenError::Damaged(_))), "{:?}", damaged);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(way in way(), bytes: Vec<u8>) {
            prop_assert!(way.resume(&bytes).is_err());
        }
    }

    #[test]
    fn a_token_with_a_key_outside_of_its_range_is_none() {
        let range = KeyRange { from: b"b".to_vec(), to: b"c".to_vec() };
        let way = Way { namespace: NamespaceId(1), range, direction: Direction::Forward };
        for outside in [&b"a"[..], b"c", b""] {
            assert!(matches!(way.resume(&way.token(outside)), Err(TokenError::Damaged(_))), "{outside:?}");
        }
        assert!(way.resume(&way.token(b"b")).is_ok());
    }

    #[test]
    fn nothing_is_left_behind_the_last_key_there_can_be() {
        let range = KeyRange { from: b"b".to_vec(), to: b"b\0".to_vec() };
        for direction in [Direction::Forward, Direction::Reverse] {
            let way = Way { namespace: NamespaceId(1), range: range.clone(), direction };
            assert!(way.behind(b"b").is_empty());
        }
    }
}
