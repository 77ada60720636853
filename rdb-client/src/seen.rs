//! What a client has been shown of a namespace in eventual mode, and what it sends along for it: with session reads a token, so
//! that another node shows no less, and with writes the highest version, so that they win over all that was read before.
//!
//! It is told of an answer before the caller is. Of strong mode it holds nothing.

use crate::values::{Acks, Consistency, Version};
use bytes::Bytes;
use parking_lot::Mutex;
use rdb_proto::session::{Damaged, Token};
use rdb_proto::v1;
use std::sync::Arc;
use std::time::Duration;

/// A node may take so long to come to what a session has seen; then another one is asked, while there is time.
const SESSION_PATIENCE: Duration = Duration::from_secs(1);

/// Shared by all who read and write in one session.
#[derive(Default)]
pub(crate) struct Seen(Mutex<State>);

#[derive(Default)]
struct State {
    token: Option<Token>,
    /// The token's bytes, until it changes.
    encoded: Option<Bytes>,
    highest: Version,
}

impl Seen {
    /// What was seen, for a request; empty where nothing was.
    pub(crate) fn token(&self) -> Bytes {
        let State { token, encoded, .. } = &mut *self.0.lock();
        let encode = || token.as_ref().map(Token::encode).unwrap_or_default();
        encoded.get_or_insert_with(encode).clone()
    }

    /// The highest version that was seen.
    pub(crate) fn highest(&self) -> Option<v1::Version> {
        let highest = self.0.lock().highest;
        (highest != Version::default()).then(|| highest.into())
    }

    /// An answer has shown this.
    pub(crate) fn saw(&self, shown: &Token, version: Option<Version>) {
        let State { token, encoded, highest } = &mut *self.0.lock();
        let Some(seen) = token else {
            *token = Some(shown.clone());
            *encoded = None;
            *highest = version.unwrap_or_default();
            return;
        };
        // One that was deleted and made again starts anew.
        if seen.namespace < shown.namespace {
            *highest = Version::default();
        }
        if seen.merge(shown) {
            *encoded = None;
        }
        if seen.namespace == shown.namespace {
            *highest = version.unwrap_or_default().max(*highest);
        }
    }

    /// The same, as it came in a header or an error.
    pub(crate) fn saw_bytes(&self, shown: &[u8], version: Option<Version>) {
        if let Some(shown) = read(shown) {
            self.saw(&shown, version);
        }
    }

    /// Takes in a token that somebody else was given.
    pub(crate) fn resume(&self, token: &[u8]) -> Result<(), Damaged> {
        self.saw(&Token::decode(token)?, None);
        Ok(())
    }

    /// The namespace is not the one that was seen.
    pub(crate) fn forget(&self) {
        *self.0.lock() = State::default();
    }
}

/// What an answer has shown, if it is of eventual mode. A token that is none would do no good to anybody.
pub(crate) fn read(shown: &[u8]) -> Option<Token> {
    if shown.is_empty() { None } else { Token::decode(shown).ok() }
}

/// How an operation is to be done, besides what it is.
#[derive(Clone)]
pub(crate) struct Manner {
    /// Of reads.
    pub(crate) consistency: Consistency,
    /// Of writes.
    pub(crate) acks: Acks,
    pub(crate) seen: Arc<Seen>,
}

impl Manner {
    /// Whether two operations can share a message.
    pub(crate) fn fits(&self, other: &Manner) -> bool {
        let asked = (self.consistency, self.acks) == (other.consistency, other.acks);
        asked && Arc::ptr_eq(&self.seen, &other.seen)
    }

    /// The token for a read; empty where it needs none.
    pub(crate) fn token(&self) -> Bytes {
        if self.consistency == Consistency::Session { self.seen.token() } else { Bytes::new() }
    }

    /// How long one node may be asked.
    pub(crate) fn patience(&self, remaining: Duration) -> Duration {
        if self.consistency == Consistency::Session { remaining.min(SESSION_PATIENCE) } else { remaining }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(namespace: u32, era: u32, sequence: u64) -> Token {
        Token { namespace, era, seen: [((1, 1), sequence)].into() }
    }

    fn version(hlc: u64) -> Version {
        Version { era: 1, hlc, node: 1 }
    }

    #[test]
    fn what_was_seen_only_grows() {
        let seen = Seen::default();
        assert!(seen.token().is_empty() && seen.highest().is_none());
        seen.saw(&token(16, 1, 5), Some(version(50)));
        seen.saw(&token(16, 1, 4), Some(version(40)));
        assert_eq!(Token::decode(&seen.token()), Ok(token(16, 1, 5)));
        assert_eq!(seen.highest(), Some(version(50).into()));
        seen.saw_bytes(&token(16, 1, 6).encode(), None);
        seen.saw_bytes(b"no token", Some(version(90)));
        assert_eq!(Token::decode(&seen.token()), Ok(token(16, 1, 6)));
        assert_eq!(seen.highest(), Some(version(50).into()));
    }

    #[test]
    fn a_namespace_that_was_made_again_is_another_one() {
        let seen = Seen::default();
        seen.saw(&token(16, 4, 5), Some(version(50)));
        seen.saw(&token(17, 1, 1), Some(version(7)));
        seen.saw(&token(16, 4, 9), Some(version(60)));
        assert_eq!(Token::decode(&seen.token()), Ok(token(17, 1, 1)));
        assert_eq!(seen.highest(), Some(version(7).into()));
        seen.forget();
        assert!(seen.token().is_empty());
    }

    #[test]
    fn a_token_of_somebody_else_is_taken_in_or_refused() {
        let (seen, other) = (Seen::default(), Seen::default());
        other.saw(&token(16, 1, 5), Some(version(50)));
        seen.resume(&other.token()).unwrap();
        assert_eq!(seen.token(), other.token());
        assert_eq!(seen.resume(b"damaged!?"), Err(Damaged::Checksum));
    }
}
