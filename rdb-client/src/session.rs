//! A client's session in one namespace: names for its writes, so that the cluster can tell a repetition from a new one.
//!
//! A session belongs to the epoch that it was opened in. A write in doubt is repeated under the same session, so in the
//! same epoch, or not at all; a write that was certainly not done can take a new name in a new session.
//!
//! The cluster keeps the answers from the lowest sequence on whose caller still waits, and only so many of them. One caller
//! that waits long must neither hold up the others nor lose its own answer: when [`NAMES_MAX`] names have been given from
//! the oldest one on, the session gives no more, and the writes after them go to another session. The old one lives for as
//! long as somebody holds a name of it. So a client has no more sessions in use than it has callers, and opens at most one
//! for every [`NAMES_MAX`] writes.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Names from the oldest in use on: the number of answers that the cluster keeps for a session (`ANSWERS_MAX` in
/// `rdb-core`), so that none is forgotten whose caller may still ask for it.
const NAMES_MAX: usize = 4096;

/// A session that was opened.
pub(crate) struct Session {
    /// What the cluster knows the session by.
    pub(crate) client: u64,
    /// Of the namespace when the session was opened.
    pub(crate) epoch: u64,
    waiting: Mutex<Waiting>,
}

/// The sequences from `lowest` on; each entry says whether its write's caller still waits.
struct Waiting {
    lowest: u64,
    entries: VecDeque<bool>,
}

/// One write's name, held until its caller has its answer, or has gone.
pub(crate) struct Named {
    pub(crate) session: Arc<Session>,
    pub(crate) sequence: u64,
}

impl Session {
    /// A session that the cluster has just opened. Returns its first name.
    pub(crate) fn open(client: u64, epoch: u64) -> Named {
        let waiting = Waiting { lowest: 1, entries: VecDeque::from([true]) };
        let session = Arc::new(Self { client, epoch, waiting: Mutex::new(waiting) });
        Named { session, sequence: 1 }
    }

    /// The next name; `None` once there are too many since the oldest that is in use.
    pub(crate) fn name(self: &Arc<Self>) -> Option<Named> {
        let mut waiting = self.waiting.lock();
        if waiting.entries.len() == NAMES_MAX {
            return None;
        }
        let sequence = waiting.lowest + waiting.entries.len() as u64;
        waiting.entries.push_back(true);
        Some(Named { session: self.clone(), sequence })
    }

    /// The lowest sequence whose caller still waits; the next one where nobody does.
    pub(crate) fn lowest(&self) -> u64 {
        self.waiting.lock().lowest
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let mut waiting = self.session.waiting.lock();
        let position = usize::try_from(self.sequence - waiting.lowest).unwrap_or(usize::MAX);
        if let Some(entry) = waiting.entries.get_mut(position) {
            *entry = false;
        }
        while waiting.entries.front() == Some(&false) {
            waiting.entries.pop_front();
            waiting.lowest += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_waits_for_the_oldest() {
        let first = Session::open(7, 1);
        let session = first.session.clone();
        assert_eq!(session.lowest(), 1);
        let name = || session.name().unwrap();
        let (second, third) = (name(), name());
        assert_eq!((first.sequence, second.sequence, third.sequence), (1, 2, 3));
        drop(second);
        assert_eq!(session.lowest(), 1);
        drop(first);
        assert_eq!(session.lowest(), 3);
        drop(third);
        assert_eq!(session.lowest(), 4);
        assert_eq!(name().sequence, 4);
    }

    #[test]
    fn no_name_is_given_that_the_cluster_could_not_keep() {
        let oldest = Session::open(7, 1);
        let session = oldest.session.clone();
        for _ in 1..NAMES_MAX {
            drop(session.name().unwrap());
        }
        assert!(session.name().is_none(), "its answer would push out the oldest one's");
        drop(oldest);
        assert_eq!(session.name().unwrap().sequence, NAMES_MAX as u64 + 1);
    }
}
