//! Session tokens: what a client has seen of a namespace, for a later read through another node to show no less.
//!
//! ```text
//! byte 0     format, now 1
//! 4 bytes    namespace, highest byte first
//! varint     era
//! vector     what was seen
//! 8 bytes    checksum of all before
//! ```

use super::vector::Vector;
use crate::codec::{Corrupt, Reader, put_varint};
use crate::ids::{Era, NamespaceId};
use xxhash_rust::xxh3::xxh3_64;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// What a client has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// Where.
    pub namespace: NamespaceId,
    /// In which era.
    pub era: Era,
    /// Of that era's writes.
    pub vector: Vector,
}

/// Why a token cannot be used. Nothing was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The bytes are not what was given out.
    #[error("the session token is damaged, or is no session token: {0}; nothing was read; go on without it")]
    Damaged(#[from] Corrupt),
    /// It speaks of other records.
    #[error(
        "the session token is of another namespace, the one with id {found}, while this one has id {expected} (one that was \
         deleted and made again is another one); nothing was read; keep one token for each namespace"
    )]
    OtherNamespace {
        /// The namespace in the token.
        found: NamespaceId,
        /// The namespace that is to be read.
        expected: NamespaceId,
    },
}

/// Whether a node can serve a read that must show what a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The node shows all of it.
    Satisfied,
    /// The node has yet to apply some of the token's writes.
    Behind,
    /// The node has yet to come into the token's era.
    LaterEra,
}

impl SessionToken {
    /// As it is given out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        out.extend_from_slice(&self.namespace.0.to_be_bytes());
        put_varint(&mut out, u64::from(self.era.0));
        self.vector.put(&mut out);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_be_bytes());
        out
    }

    /// As it comes back for a read of `namespace`.
    ///
    /// # Errors
    /// It is damaged, or of another namespace.
    pub fn decode(bytes: &[u8], namespace: NamespaceId) -> Result<Self, TokenError> {
        let mut reader = Reader::new("the token", whole(bytes)?);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB").into());
        }
        let mut found = [0; 4];
        found.copy_from_slice(reader.take(4)?);
        let found = NamespaceId(u32::from_be_bytes(found));
        if found != namespace {
            return Err(TokenError::OtherNamespace { found, expected: namespace });
        }
        let token = Self { namespace, era: Era(reader.varint32()?), vector: Vector::read(&mut reader)? };
        reader.finish()?;
        Ok(token)
    }

    /// Whether a node that stands at `vector` in `era` shows what was seen. A switch of mode ends an era with a base
    /// that has all of its acknowledged writes, so an earlier era's token is satisfied by any later one; a later era's
    /// cannot be compared with this one's vector at all.
    pub fn seen_at(&self, era: Era, vector: &Vector) -> Seen {
        if self.era < era || (self.era == era && vector.covers(&self.vector)) {
            Seen::Satisfied
        } else if self.era == era {
            Seen::Behind
        } else {
            Seen::LaterEra
        }
    }

    /// Takes in what another answer of the same namespace showed: of the later era, or of both.
    pub fn merge(&mut self, other: &SessionToken) {
        if self.era < other.era {
            self.era = other.era;
            self.vector = other.vector.clone();
        } else if self.era == other.era {
            self.vector.merge(&other.vector);
        }
    }
}

/// What comes before the checksum, if that is right.
fn whole(bytes: &[u8]) -> Result<&[u8], Corrupt> {
    let reader = Reader::new("the token", bytes);
    let split = bytes.len().checked_sub(CHECKSUM_BYTES).map(|at| bytes.split_at(at));
    match split {
        Some((rest, checksum)) if xxh3_64(rest).to_be_bytes() == *checksum => Ok(rest),
        Some(_) => Err(reader.corrupt("its checksum is wrong")),
        None => Err(reader.corrupt("it ends too early")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventual::vector::tests::vectors;
    use proptest::prelude::*;

    const NAMESPACE: NamespaceId = NamespaceId(7);

    fn token(era: u32, vector: Vector) -> SessionToken {
        SessionToken { namespace: NAMESPACE, era: Era(era), vector }
    }

    proptest! {
        #[test]
        fn tokens_come_back_and_damage_is_noticed(era: u32, vector in vectors(), at: prop::sample::Index, flip in 1u8..) {
            let token = token(era, vector);
            let mut bytes = token.encode();
            prop_assert_eq!(SessionToken::decode(&bytes, NAMESPACE).unwrap(), token);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(matches!(SessionToken::decode(&bytes, NAMESPACE), Err(TokenError::Damaged(_))));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = SessionToken::decode(&bytes, NAMESPACE);
        }

        #[test]
        fn a_read_shows_what_the_token_says(mine in vectors(), seen in vectors(), more in vectors()) {
            let covered = mine.covers(&seen);
            prop_assert_eq!(token(2, seen.clone()).seen_at(Era(2), &mine) == Seen::Satisfied, covered);
            prop_assert_eq!(token(2, seen.clone()).seen_at(Era(3), &mine), Seen::Satisfied);
            prop_assert_eq!(token(3, seen.clone()).seen_at(Era(2), &mine), Seen::LaterEra);
            // What satisfies a client's merged token shows it all that it has seen.
            let mut merged = token(2, seen.clone());
            merged.merge(&token(2, more.clone()));
            let satisfied = merged.seen_at(Era(2), &mine) == Seen::Satisfied;
            prop_assert_eq!(satisfied, covered && mine.covers(&more));
            merged.merge(&token(3, more.clone()));
            prop_assert_eq!(merged, token(3, more));
        }
    }

    #[test]
    fn a_token_of_another_namespace_is_an_error() {
        let bytes = token(1, Vector::default()).encode();
        let error = SessionToken::decode(&bytes, NamespaceId(8)).unwrap_err();
        assert_eq!(error, TokenError::OtherNamespace { found: NAMESPACE, expected: NamespaceId(8) });
    }
}
