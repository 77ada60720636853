//! Reads in eventual mode: as the node's data is; not before it shows what a session has seen; or the newest that a majority
//! of the members has.

use super::acks::LOOK_INTERVAL;
use super::reads::{Served, Wanted};
use super::session::Saw;
use super::{Target, admit_read, session, status};
use crate::budget::Share;
use crate::eventual::Shown;
use crate::eventual::records::{self, Place, Stored, Unsaid};
use crate::shared::Shared;
use crate::transport::SILENCE_MAX;
use bytes::Bytes;
use rdb_core::eventual::session::SessionToken;
use rdb_core::eventual::vector::Origin;
use rdb_core::ids::{Incarnation, NodeId};
use rdb_core::record;
use rdb_pd::Mode;
use rdb_proto::v1;
use rdb_proto::v1::Consistency;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How a read is served, once the node shows what the token says.
#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) served: Served,
    /// What the node does not show yet.
    pub(super) awaits: Option<SessionToken>,
}

impl Shared {
    /// How a read of an eventual namespace is to be served.
    ///
    /// # Errors
    /// The mode has no such reads, the token is none for it, or the region is not here yet.
    pub(super) fn eventual_way(&self, target: Target, wanted: &Wanted) -> Result<Way, v1::Error> {
        let token = session::read(&wanted.session, target)?;
        let served = match wanted.consistency {
            Consistency::Linearizable => {
                return Err(status::requires_strong(
                    "a linearizable read",
                    "it sees all writes in their one order",
                ));
            }
            Consistency::Lease => {
                return Err(status::requires_strong(
                    "a read by lease",
                    "a lease is a leader's, and here nobody leads",
                ));
            }
            Consistency::Quorum => Served::QUORUM,
            Consistency::Session => Served::SESSION,
            _ if token.is_some() => Served::SESSION,
            Consistency::Unspecified | Consistency::Stale | Consistency::Local => Served::LOCAL,
        };
        self.found(target.region)?;
        // A region that starts hurries through eras: what has been asked in one that it has left would be read in a later one, before
        // this node shows its own writes there.
        let now = self.regions.get(target.region).map(|view| view.mode());
        if now.is_some_and(|(mode, era)| mode == Mode::Eventual && era != target.era) {
            return Err(status::era_mismatch());
        }
        let shown = self.eventual.shown_in(target.region, target.era);
        let shown = shown.ok_or_else(|| status::not_opened(self.config.node_id))?;
        let awaits = token.filter(|token| !shown.progress().shows(token));
        Ok(Way { served, awaits: with(awaits, self.answered_first(target, &shown)) })
    }

    /// What this node has answered and does not show yet.
    fn answered_first(&self, target: Target, shown: &Shown) -> Option<SessionToken> {
        let (era, seq) = shown.progress().answered_first()?;
        let me = Origin { node: self.config.node(), incarnation: Incarnation(self.identity.incarnation) };
        let vector = std::iter::once((me, seq)).collect();
        Some(SessionToken { namespace: target.namespace, era, vector })
    }

    /// Waits until this node shows what a session has seen.
    ///
    /// # Errors
    /// It does not in time, or is not what it was any more.
    pub(super) async fn until_shown(
        &self,
        target: Target,
        token: &SessionToken,
        deadline: Instant,
    ) -> Result<(), v1::Error> {
        let began = Instant::now();
        let shown = self.eventual.shown(target.region);
        let mut shown = shown.ok_or_else(|| status::not_opened(self.config.node_id))?;
        let mut applied = shown.progress().follow_applied();
        loop {
            if applied.borrow_and_update().shows(token) {
                return Ok(());
            }
            let lost = shown.ends().lost(token);
            if !lost.is_empty() && applied.borrow().era == token.era {
                return Err(status::session_lost(&lost));
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                let silence = |node| self.peers.silence(node);
                let applied = applied.borrow();
                return Err(status::behind(self.config.node_id, &applied, token, silence, began.elapsed()));
            };
            // It fails only when it takes too long, for `shown` keeps the other end.
            let _ = tokio::time::timeout(left.min(LOOK_INTERVAL), applied.changed()).await;
            let now = self.eventual.shown(target.region).ok_or_else(status::mode_changed)?;
            // Another era has begun, which may be the one that the session has seen.
            if !Arc::ptr_eq(&now, &shown) {
                shown = now;
                applied = shown.progress().follow_applied();
            }
        }
    }

    /// For what is read from now on: in eventual mode it is of this era or a later one.
    pub(super) fn saw(&self, target: Target) -> Saw {
        let mut saw = Saw::default();
        if target.mode == Mode::Eventual {
            saw.era(target.namespace, target.era);
        }
        saw
    }

    /// The record of a key, as it is stored, read as it is served.
    pub(super) async fn fetch_record(
        &self,
        target: Target,
        served: Served,
        key: &Bytes,
        deadline: Instant,
    ) -> Result<Option<Bytes>, v1::Error> {
        if served == Served::QUORUM {
            let (mut found, _) = self.read_quorum(target, std::slice::from_ref(key), deadline).await?;
            return Ok(found.pop().flatten());
        }
        self.find_record(target, key, deadline).await
    }

    /// The newest records of many keys, asked for in as few questions as their bytes allow; with the memory that they take.
    pub(super) async fn read_quorum_in_parts(
        &self,
        target: Target,
        keys: &[Bytes],
        deadline: Instant,
    ) -> Result<(Stored, Vec<Share>), v1::Error> {
        let (mut stored, mut shares) = (Vec::with_capacity(keys.len()), Vec::new());
        let mut part = keys.len();
        while stored.len() < keys.len() {
            let rest = &keys[stored.len()..];
            part = part.min(rest.len());
            match self.read_quorum(target, &rest[..part], deadline).await {
                Ok((found, share)) => {
                    stored.extend(found);
                    shares.push(share);
                }
                Err(error) if error.code() == v1::Code::InvalidArgument && 1 < part => part /= 2,
                Err(error) => return Err(error),
            }
        }
        Ok((stored, shares))
    }

    /// The newest records that a majority of the members has, one for each key. With writes that a majority has acknowledged,
    /// a read that begins after such a write sees it or a newer one. It may also see one that only a minority has, and the
    /// next read may not.
    ///
    /// # Errors
    /// No majority has answered in time; who did not, and why.
    pub(super) async fn read_quorum(
        &self,
        target: Target,
        keys: &[Bytes],
        deadline: Instant,
    ) -> Result<(Stored, Share), v1::Error> {
        let place = Place { region: target.region, namespace: target.namespace, era: target.era };
        let mut question = Question::new(self, &place, keys);
        let budget = self.regions.budget(target.region);
        let mut newest = self.find_records(target, keys, deadline).await?;
        while question.answers < question.needed {
            let _waits = admit_read(&budget, bytes(&newest))?;
            let stored = question.next(deadline).await?;
            for (newest, stored) in newest.iter_mut().zip(stored) {
                take_newer(newest, stored)?;
            }
        }
        if !records::is_here(self, &place) {
            return Err(status::mode_changed());
        }
        let share = admit_read(&budget, bytes(&newest))?;
        Ok((newest, share))
    }
}

/// Both, where there are both.
fn with(token: Option<SessionToken>, other: Option<SessionToken>) -> Option<SessionToken> {
    match (token, other) {
        (Some(mut token), Some(other)) => {
            token.merge(&other);
            Some(token)
        }
        (token, other) => token.or(other),
    }
}

fn bytes(stored: &Stored) -> usize {
    stored.iter().map(|record| record.as_ref().map_or(0, Bytes::len)).sum()
}

/// Takes the other record if it is newer.
fn take_newer(newest: &mut Option<Bytes>, other: Option<Bytes>) -> Result<(), v1::Error> {
    let version = |record: &Option<Bytes>| match record {
        Some(record) => record::decode(record).map(|record| Some(record.version)),
        None => Ok(None),
    };
    let read = |record| version(record).map_err(|error| status::internal(error.to_string()));
    if read(newest)? < read(&other)? {
        *newest = other;
    }
    Ok(())
}

/// One question to the other members, under way.
struct Question {
    asked: JoinSet<(NodeId, Result<Stored, Unsaid>)>,
    /// Who has not answered.
    open: Vec<NodeId>,
    /// Who will not, and why.
    failed: Vec<(NodeId, String)>,
    began: Instant,
    /// Of others, so that there are enough with this node.
    needed: usize,
    answers: usize,
    members: usize,
}

impl Question {
    /// Asks all that are heard.
    fn new(shared: &Shared, place: &Place, keys: &[Bytes]) -> Self {
        let members = shared.config.members();
        let mut question = Self {
            asked: JoinSet::new(),
            open: Vec::new(),
            failed: Vec::new(),
            began: Instant::now(),
            needed: members.len() / 2,
            answers: 0,
            members: members.len(),
        };
        if question.needed == 0 {
            return question;
        }
        let keys: Arc<[Bytes]> = keys.into();
        for node in members.into_iter().filter(|node| *node != shared.config.node()) {
            match shared.peers.silence(node) {
                Some(silence) if silence <= SILENCE_MAX => {
                    let (shared, place, keys) = (shared.clone(), place.clone(), keys.clone());
                    question.open.push(node);
                    question
                        .asked
                        .spawn(async move { (node, records::find(&shared, node, &place, &keys).await) });
                }
                silence => question.failed.push((node, status::not_heard(silence))),
            }
        }
        question
    }

    /// The next answer.
    async fn next(&mut self, deadline: Instant) -> Result<Stored, v1::Error> {
        loop {
            let next = tokio::time::timeout_at(deadline.into(), self.asked.join_next()).await;
            match next {
                Ok(Some(Ok((node, answer)))) => {
                    self.open.retain(|open| *open != node);
                    match answer {
                        Ok(stored) => {
                            self.answers += 1;
                            return Ok(stored);
                        }
                        Err(Unsaid::Because(reason)) => self.failed.push((node, reason)),
                        Err(Unsaid::TooMuch) => return Err(status::read_too_much()),
                    }
                }
                // A task that panicked or was aborted.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => return Err(self.in_vain()),
            }
        }
    }

    fn in_vain(&mut self) -> v1::Error {
        let waited: Duration = self.began.elapsed();
        let late = format!("did not answer within {} ms", waited.as_millis());
        self.failed.extend(self.open.drain(..).map(|node| (node, late.clone())));
        self.failed.sort();
        status::no_quorum(1 + self.answers, self.members, &self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::ids::Era;
    use rdb_core::version::{Hlc, Version};

    fn stored(hlc: u64, node: u64) -> Option<Bytes> {
        let version = Version { era: Era(1), hlc: Hlc(hlc), node: NodeId(node) };
        Some(record::encode(version, Some(b"value")).into())
    }

    #[test]
    fn the_newest_record_is_taken() {
        let newest = |first: Option<Bytes>, second: Option<Bytes>| {
            let mut newest = first;
            take_newer(&mut newest, second).unwrap();
            newest
        };
        assert_eq!(newest(stored(5, 1), stored(6, 1)), stored(6, 1));
        assert_eq!(newest(stored(6, 1), stored(5, 9)), stored(6, 1));
        assert_eq!(newest(stored(6, 1), stored(6, 2)), stored(6, 2));
        assert_eq!(newest(None, stored(1, 1)), stored(1, 1));
        assert_eq!(newest(stored(1, 1), None), stored(1, 1));
        assert_eq!(newest(None, None), None);
        let mut damaged = Some(Bytes::from_static(b"?"));
        assert!(take_newer(&mut damaged, stored(1, 1)).is_err());
    }
}
