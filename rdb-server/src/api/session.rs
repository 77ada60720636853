//! Session tokens at the edge: what a request brings, and what an answer has shown.
//!
//! An answer's token names no more than the client was told: of a read, the writes that the records found are; of a write, the
//! write itself; of a scan, all that its moment holds. Were it all that the node has, a client that goes to another node would
//! wait there for writes that it never saw.

use super::request::Found;
use super::{Target, status};
use bytes::Bytes;
use rdb_core::eventual::session::SessionToken;
use rdb_core::eventual::vector::{Origin, Vector, WriteId};
use rdb_core::ids::{Era, Incarnation, NamespaceId, NodeId};
use rdb_proto::session::Token;
use rdb_proto::v1;

/// What a request's token says; `None`: it has brought none.
pub(super) fn read(bytes: &[u8], target: Target) -> Result<Option<SessionToken>, v1::Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let token = Token::decode(bytes).map_err(status::token_damaged)?;
    if token.namespace != target.namespace.0 {
        return Err(status::other_namespace(token.namespace, target.namespace));
    }
    let origin = |node, incarnation| Origin { node: NodeId(node), incarnation: Incarnation(incarnation) };
    let seen = token.seen.into_iter().map(|((node, incarnation), seq)| (origin(node, incarnation), seq));
    let vector = seen.collect::<Vector>();
    Ok(Some(SessionToken { namespace: target.namespace, era: Era(token.era), vector }))
}

/// What answers have shown of a namespace in eventual mode; of one in strong mode it stays empty.
#[derive(Debug, Clone, Default)]
pub(super) struct Saw(Option<Token>);

impl Saw {
    /// Something of this era.
    pub(super) fn era(&mut self, namespace: NamespaceId, era: Era) -> &mut Self {
        let token = Token { namespace: namespace.0, era: era.0, ..Token::default() };
        match &mut self.0 {
            None => self.0 = Some(token),
            Some(seen) => {
                seen.merge(&token);
            }
        }
        self
    }

    /// What was found under a key.
    pub(super) fn found(&mut self, found: &Found) {
        if let Some((era, write)) = found.write {
            self.write(era, write);
        }
    }

    /// A write of that era.
    pub(super) fn write(&mut self, era: Era, write: WriteId) {
        let Some(token) = &mut self.0 else { return };
        let WriteId { origin, seq } = write;
        let origin = (origin.node.0, origin.incarnation.0);
        if token.era == era.0 {
            token.raise(origin, seq);
        } else if token.era < era.0 {
            // The era began between the look at it and the read.
            *token = Token { namespace: token.namespace, era: era.0, seen: [(origin, seq)].into() };
        }
    }

    /// All of an era up to there.
    pub(super) fn all(&mut self, era: Era, vector: &Vector) {
        vector.iter().for_each(|(origin, seq)| self.write(era, WriteId { origin, seq }));
    }

    /// What another answer has shown.
    pub(super) fn join(&mut self, other: &Saw) {
        match (&mut self.0, &other.0) {
            (Some(seen), Some(other)) => {
                seen.merge(other);
            }
            (None, other) => self.0.clone_from(other),
            (Some(_), None) => {}
        }
    }

    /// For the header of the answer.
    pub(super) fn token(&self) -> Bytes {
        self.0.as_ref().map(Token::encode).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::{Epoch, RegionId};
    use rdb_pd::Mode;

    const NAMESPACE: NamespaceId = NamespaceId(20);
    const TARGET: Target = Target {
        namespace: NAMESPACE,
        region: RegionId(20),
        epoch: Epoch(1),
        mode: Mode::Eventual,
        era: Era(3),
    };

    fn write(node: u64, seq: u64) -> WriteId {
        WriteId { origin: Origin { node: NodeId(node), incarnation: Incarnation(2) }, seq }
    }

    #[test]
    fn what_an_answer_has_shown_comes_back_with_the_next_request() {
        let mut saw = Saw::default();
        saw.era(NAMESPACE, Era(3)).write(Era(3), write(1, 7));
        saw.write(Era(3), write(1, 5));
        saw.write(Era(2), write(9, 9));
        saw.era(NAMESPACE, Era(3)).write(Era(3), write(2, 1));
        let token = read(&saw.token(), TARGET).unwrap().unwrap();
        let vector: Vector =
            [write(1, 7), write(2, 1)].map(|write| (write.origin, write.seq)).into_iter().collect();
        assert_eq!(token, SessionToken { namespace: NAMESPACE, era: Era(3), vector });
        saw.write(Era(4), write(1, 1));
        let token = read(&saw.token(), TARGET).unwrap().unwrap();
        assert_eq!((token.era, token.vector.get(write(1, 1).origin)), (Era(4), 1));
    }

    #[test]
    fn of_strong_mode_there_is_no_token() {
        let mut saw = Saw::default();
        saw.write(Era(1), write(1, 1));
        assert!(saw.token().is_empty());
        assert_eq!(read(&[], TARGET).unwrap(), None);
    }

    #[test]
    fn a_token_that_does_not_fit_is_refused() {
        let mut saw = Saw::default();
        let other = saw.era(NamespaceId(21), Era(1)).token();
        assert_eq!(read(&other, TARGET).unwrap_err().code(), v1::Code::OtherNamespace);
        let error = read(&other[..3], TARGET).unwrap_err();
        assert_eq!((error.code(), error.outcome()), (v1::Code::InvalidArgument, v1::Outcome::NotDone));
    }
}
