//! A client's session in one namespace: names for its writes, so that the cluster can tell a repetition from a new one.
//!
//! A session belongs to the epoch that it was opened in. A write in doubt is repeated under the same session, so in the
//! same epoch, or not at all; a write that was certainly not done can take a new name in a new session.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

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
    pub(crate) fn new(client: u64, epoch: u64) -> Self {
        Self { client, epoch, waiting: Mutex::new(Waiting { lowest: 1, entries: VecDeque::new() }) }
    }

    pub(crate) fn name(self: &Arc<Self>) -> Named {
        let mut waiting = self.waiting.lock();
        let sequence = waiting.lowest + waiting.entries.len() as u64;
        waiting.entries.push_back(true);
        Named { session: self.clone(), sequence }
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
        let session = Arc::new(Session::new(7, 1));
        assert_eq!(session.lowest(), 1);
        let (first, second, third) = (session.name(), session.name(), session.name());
        assert_eq!((first.sequence, second.sequence, third.sequence), (1, 2, 3));
        drop(second);
        assert_eq!(session.lowest(), 1);
        drop(first);
        assert_eq!(session.lowest(), 3);
        drop(third);
        assert_eq!(session.lowest(), 4);
        assert_eq!(session.name().sequence, 4);
    }
}
