//! Memory for what is under way. What does not fit is refused, so that no queue behind it needs a bound of its own.
//!
//! A budget can lie within another one: what is taken from it is taken from both. So each namespace has its part of the
//! node's, and each region its part of what a node may keep for its log writer and its applier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number of bytes that many share. Cheap to clone; every clone is the same.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    used: AtomicUsize,
    bytes_max: usize,
    /// How often there was no room, here or further out.
    refused: AtomicU64,
    /// The budget that this one lies in.
    within: Option<Budget>,
}

/// Bytes taken from a budget, and from all that it lies in, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    bytes: usize,
}

/// There is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What the budget that is at its limit has.
    pub(crate) bytes_max: usize,
    /// Whether that is one that others lie in.
    pub(crate) outermost: bool,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self::make(bytes_max, None)
    }

    /// A part of this budget. All parts together may be more than the whole: then each ends where the whole does.
    pub(crate) fn part(&self, bytes_max: usize) -> Self {
        Self::make(bytes_max, Some(self.clone()))
    }

    fn make(bytes_max: usize, within: Option<Budget>) -> Self {
        Self(Arc::new(Account { used: AtomicUsize::new(0), bytes_max, refused: AtomicU64::new(0), within }))
    }

    /// Takes `bytes`.
    ///
    /// # Errors
    /// That exceeds the budget, or one that it lies in. Nothing was taken.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share, Refused> {
        let share = self.charge(bytes);
        match self.exceeded() {
            None => Ok(share),
            Some(refused) => {
                drop(share);
                self.0.refused.fetch_add(1, Ordering::Relaxed);
                Err(refused)
            }
        }
    }

    fn exceeded(&self) -> Option<Refused> {
        let Account { used, bytes_max, within, .. } = &*self.0;
        if *bytes_max < used.load(Ordering::Relaxed) {
            return Some(Refused { bytes_max: *bytes_max, outermost: within.is_none() });
        }
        let refused = within.as_ref()?.exceeded()?;
        within.as_ref()?.0.refused.fetch_add(1, Ordering::Relaxed);
        Some(refused)
    }

    /// Takes `bytes` in any case, for what cannot be refused any more; until they are given back less is let in.
    pub(crate) fn charge(&self, bytes: usize) -> Share {
        self.add(bytes);
        Share { budget: self.clone(), bytes }
    }

    fn add(&self, bytes: usize) {
        self.0.used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(within) = &self.0.within {
            within.add(bytes);
        }
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(within) = &self.0.within {
            within.give_back(bytes);
        }
    }

    /// Whether more was charged than there is, here or further out.
    pub(crate) fn is_exceeded(&self) -> bool {
        let Account { used, bytes_max, within, .. } = &*self.0;
        *bytes_max < used.load(Ordering::Relaxed) || within.as_ref().is_some_and(Budget::is_exceeded)
    }

    /// Bytes taken.
    pub(crate) fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// How often there was no room.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}

impl Share {
    /// Has it take more, until it has `bytes`. It never takes less.
    ///
    /// # Errors
    /// That exceeds the budget, or one that it lies in. It has what it had.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Refused> {
        let mut more = self.budget.take(bytes.saturating_sub(self.bytes))?;
        self.bytes += std::mem::take(&mut more.bytes);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_given_back() {
        let budget = Budget::new(10);
        let share = budget.take(8).unwrap();
        assert_eq!(budget.take(3).unwrap_err(), Refused { bytes_max: 10, outermost: true });
        assert_eq!((budget.used(), budget.refused()), (8, 1));
        drop(share);
        assert!(budget.take(10).is_ok());
    }

    #[test]
    fn a_share_that_grows_gives_all_of_it_back() {
        let budget = Budget::new(10);
        let mut share = budget.take(4).unwrap();
        share.grow_to(9).unwrap();
        share.grow_to(3).unwrap();
        assert!(share.grow_to(11).is_err());
        assert_eq!(budget.used(), 9);
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_part_cannot_take_the_others_and_the_whole_is_the_end_of_all() {
        let whole = Budget::new(10);
        let (one, other) = (whole.part(6), whole.part(6));
        let held = one.take(6).unwrap();
        assert_eq!(one.take(1).unwrap_err(), Refused { bytes_max: 6, outermost: false });
        assert_eq!(other.take(5).unwrap_err(), Refused { bytes_max: 10, outermost: true });
        assert_eq!((whole.refused(), one.refused(), other.refused()), (1, 1, 1));
        assert_eq!((whole.used(), one.used(), other.used()), (6, 6, 0));
        let rest = other.take(4).unwrap();
        drop(held);
        assert_eq!((whole.used(), one.used(), other.used()), (4, 0, 4));
        drop(rest);
        assert_eq!((whole.used(), other.used()), (0, 0));
    }

    /// What is charged cannot be refused, and keeps out what comes after it, in the other parts too.
    #[test]
    fn a_charge_goes_past_the_limit_and_counts_until_it_is_given_back() {
        let whole = Budget::new(10);
        let (one, other) = (whole.part(5), whole.part(10));
        let charged = one.charge(12);
        assert!(one.is_exceeded() && other.is_exceeded() && other.take(1).is_err());
        drop(charged);
        assert!(!one.is_exceeded() && !other.is_exceeded() && other.take(10).is_ok());
    }
}
