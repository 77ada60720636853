//! What was written, outside the nodes, and whether they have it.
//!
//! Each key of its own has one writer, which has at most one write of it under way; so the last acknowledged write must be
//! there, or one that was sent after it. Contended keys are written at every node: of them only that replicas agree is asked.

use parking_lot::Mutex;
use std::collections::BTreeMap;

/// What became of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Acknowledged,
    NotDone,
    InDoubt,
}

/// The writes of one key. Numbers count up with each write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Written {
    acknowledged: Option<u64>,
    /// The last one that was acknowledged or is in doubt.
    last: u64,
    /// The first one in doubt. It may take effect at any time, also after later ones.
    doubtful: Option<u64>,
}

impl Written {
    /// Whether this may be what is found.
    fn allows(&self, found: Option<u64>) -> bool {
        match (found, self.acknowledged) {
            (None, acknowledged) => acknowledged.is_none(),
            (Some(found), None) => self.doubtful.is_some_and(|first| first <= found) && found <= self.last,
            (Some(found), Some(acknowledged)) => {
                let first = self.doubtful.map_or(acknowledged, |doubtful| doubtful.min(acknowledged));
                (first..=self.last).contains(&found)
            }
        }
    }
}

/// All writes of one node's clients.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    keys: BTreeMap<String, Written>,
    acknowledged: u64,
    not_done: u64,
    in_doubt: u64,
    skipped: u64,
    last: Option<(String, u64)>,
}

/// How many writes had which fate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) not_done: u64,
    pub(super) in_doubt: u64,
    /// Not even sent, since too many were under way.
    pub(super) skipped: u64,
}

impl Counts {
    /// Those since an earlier look.
    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            acknowledged: self.acknowledged - earlier.acknowledged,
            not_done: self.not_done - earlier.not_done,
            in_doubt: self.in_doubt - earlier.in_doubt,
            skipped: self.skipped - earlier.skipped,
        }
    }
}

impl Tally {
    /// A write of a key of its own has ended.
    pub(super) fn wrote(&self, key: &str, number: u64, fate: Fate) {
        let mut inner = self.0.lock();
        inner.count(fate);
        if fate == Fate::NotDone {
            return;
        }
        let written = inner.keys.entry(key.to_owned()).or_default();
        written.last = written.last.max(number);
        if fate == Fate::Acknowledged {
            written.acknowledged = Some(written.acknowledged.map_or(number, |before| before.max(number)));
            inner.last = Some((key.to_owned(), number));
        } else {
            written.doubtful = written.doubtful.or(Some(number));
        }
    }

    /// A write of a contended key has ended.
    pub(super) fn contended(&self, fate: Fate) {
        self.0.lock().count(fate);
    }

    /// A write was not sent.
    pub(super) fn skipped(&self) {
        self.0.lock().skipped += 1;
    }

    /// How many there were.
    pub(super) fn counts(&self) -> Counts {
        let Inner { acknowledged, not_done, in_doubt, skipped, .. } = *self.0.lock();
        Counts { acknowledged, not_done, in_doubt, skipped }
    }

    /// The key that was acknowledged last, and its number.
    pub(super) fn last(&self) -> Option<(String, u64)> {
        self.0.lock().last.clone()
    }

    /// Says which keys are not as they may be, of so many.
    ///
    /// # Errors
    /// Names some of them.
    pub(super) fn check(&self, found: impl Fn(&str) -> Option<u64>) -> Result<String, String> {
        let inner = self.0.lock();
        let wrong: Vec<String> = inner
            .keys
            .iter()
            .filter(|(key, written)| !written.allows(found(key)))
            .map(|(key, written)| format!("{key} holds {:?} of {written:?}", found(key)))
            .collect();
        match wrong.first() {
            None => Ok(format!("{} keys as they were written", inner.keys.len())),
            Some(first) => Err(format!(
                "lost: {} of {} keys do not hold what was acknowledged: {first}",
                wrong.len(),
                inner.keys.len()
            )),
        }
    }
}

impl Inner {
    fn count(&mut self, fate: Fate) {
        match fate {
            Fate::Acknowledged => self.acknowledged += 1,
            Fate::NotDone => self.not_done += 1,
            Fate::InDoubt => self.in_doubt += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(writes: &[(u64, Fate)]) -> Tally {
        let tally = Tally::default();
        for (number, fate) in writes {
            tally.wrote("key", *number, *fate);
        }
        tally
    }

    #[test]
    fn the_last_acknowledged_write_must_be_there_or_a_later_one() {
        use Fate::{Acknowledged, InDoubt, NotDone};
        let holds = |tally: &Tally, found| tally.check(|_| found).is_ok();
        let plain = tally(&[(1, Acknowledged), (2, Acknowledged), (3, NotDone)]);
        assert!(holds(&plain, Some(2)));
        for wrong in [None, Some(1), Some(3)] {
            assert!(!holds(&plain, wrong), "{wrong:?}");
        }
        let doubtful = tally(&[(1, Acknowledged), (2, InDoubt)]);
        assert!(holds(&doubtful, Some(1)) && holds(&doubtful, Some(2)) && !holds(&doubtful, None));
        // One in doubt may come after one that was acknowledged later.
        let late = tally(&[(1, Acknowledged), (2, InDoubt), (3, Acknowledged)]);
        assert!(holds(&late, Some(2)) && holds(&late, Some(3)) && !holds(&late, Some(1)));
        let never = tally(&[(4, InDoubt)]);
        assert!(holds(&never, None) && holds(&never, Some(4)) && !holds(&never, Some(5)));
        assert_eq!(late.last(), Some(("key".to_owned(), 3)));
    }

    #[test]
    fn counts_are_since_a_look() {
        let tally = tally(&[(1, Fate::Acknowledged), (2, Fate::NotDone)]);
        let before = tally.counts();
        tally.contended(Fate::Acknowledged);
        tally.skipped();
        let since = tally.counts().since(before);
        assert_eq!(since, Counts { acknowledged: 1, skipped: 1, ..Counts::default() });
    }
}
