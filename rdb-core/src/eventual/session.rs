//! Session tokens: what a client has seen of a namespace, for a later read through another node to show no less. Their bytes
//! are the wire's (`rdb_proto::session`); what they mean is here.

use super::vector::Vector;
use crate::ids::{Era, NamespaceId};

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
}
