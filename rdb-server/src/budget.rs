//! Memory for requests under way. What does not fit is refused, so that no queue behind it needs a bound of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that requests share.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    used: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// Bytes taken from a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { used: Arc::default(), bytes_max }
    }

    /// Takes `bytes`, unless that exceeds the budget.
    pub(crate) fn take(&self, bytes: usize) -> Option<Share> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let share = Share { used: self.used.clone(), bytes };
        (before + bytes <= self.bytes_max).then_some(share)
    }

    /// Takes `bytes` in any case, for what cannot be refused any more; until they are given back less is let in.
    pub(crate) fn charge(&self, bytes: usize) -> Share {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Share { used: self.used.clone(), bytes }
    }

    /// Bytes taken.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// All there are.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_given_back() {
        let budget = Budget::new(10);
        let share = budget.take(8).unwrap();
        assert!(budget.take(3).is_none());
        assert_eq!(budget.used(), 8);
        drop(share);
        assert!(budget.take(10).is_some());
    }
}
