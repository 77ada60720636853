//! A leader's lease: until when it may serve linearizable reads without asking anybody (Ongaro's thesis, section 6.4.1).
//!
//! A round of reads that was confirmed tells that a majority followed this leader when the round began, and each of them votes for
//! nobody else for an election timeout from then on, over a restart too ([`super::Options::leases`]). So nobody else leads for
//! most of that, but for two ways in which a leader itself shortens it: it hands the leadership over, and its successor waits for
//! nobody; or it proposes a marker, behind which others may acknowledge what this replica does not see yet.
//!
//! The clock is the caller's, a monotonic one, and so is how much shorter than an election timeout a lease is, for clocks and
//! ticks that are off.

use crate::coverage::{Branch, reached};
use crate::ids::{Index, Term};
use crate::switch::planted::{Wrong, wrong};

/// What is known of this node's lease on one region. `M` is a moment of the caller's monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Lease<M> {
    /// Until then nobody else leads, if this node still leads in this term.
    until: Option<(Term, M)>,
    /// In this term the leadership was handed over: there is no lease any more.
    handed_over: Term,
    /// In this term a marker was proposed: there is no lease before the region is strong again.
    marked: Term,
}

/// Where a replica stands, as far as a lease is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// The term in which it leads, if it does.
    pub leads_in: Option<Term>,
    /// Up to where entries are committed, as far as it knows. It must know it before anybody else can.
    pub commit: Index,
    /// Up to where its data has them.
    pub applied: Index,
}

impl<M> Default for Lease<M> {
    fn default() -> Self {
        Self { until: None, handed_over: 0, marked: 0 }
    }
}

impl<M: Copy + Ord> Lease<M> {
    /// A round of reads was confirmed in `term`, in which this node leads: it holds until `until`, counted from when the round
    /// began.
    pub fn confirmed(&mut self, term: Term, until: M) {
        if term == self.handed_over || term == self.marked {
            reached(Branch::RaftLeaseNotGranted);
            return;
        }
        if self.until.is_none_or(|(of, before)| of != term || before < until) {
            self.until = Some((term, until));
        }
    }

    /// The leadership of `term` is about to be handed over: from now on another node may lead at any moment. Also for good in this
    /// term, whatever becomes of it: the message that makes the successor stand for election may come late.
    pub fn hands_over(&mut self, term: Term) {
        if !wrong(Wrong::LeaseOutlivesHandOver) {
            self.handed_over = term;
            self.until = None;
        }
    }

    /// A marker is about to be proposed in `term`: others may act on it before this replica does.
    pub fn marks(&mut self, term: Term) {
        if !wrong(Wrong::LeaseKept) {
            self.marked = term;
            self.until = None;
        }
    }

    /// The region has entered a strong era: all that others may have acknowledged before this replica was there is in its data.
    pub fn is_strong(&mut self) {
        self.marked = 0;
        if wrong(Wrong::StrongForgetsHandOver) {
            self.handed_over = 0;
        }
    }

    /// Until when this replica may serve reads by itself, if it has a lease. Never while an entry is committed that its data has
    /// not: a reader at another node may have seen that one, and a read here must not go back behind it.
    pub fn until(&self, standing: Standing) -> Option<M> {
        let (term, until) = self.until?;
        let has_all = standing.commit <= standing.applied || wrong(Wrong::LeaseBeforeApplied);
        if standing.leads_in == Some(term) && !has_all {
            reached(Branch::RaftLeaseBehindCommit);
        }
        Some(until).filter(|_| standing.leads_in == Some(term) && has_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = 3;

    fn leading(commit: Index, applied: Index) -> Standing {
        Standing { leads_in: Some(TERM), commit, applied }
    }

    /// Whether a round that is confirmed now gives a lease.
    fn leases(lease: &mut Lease<u64>) -> bool {
        lease.confirmed(TERM, 100);
        lease.until(leading(5, 5)) == Some(100)
    }

    /// A follower that has applied an entry shows it to its readers before the leader need have. Whoever then reads at the
    /// leader must not find what was there before.
    #[test]
    fn a_lease_serves_nothing_while_an_entry_is_committed_and_not_applied() {
        let mut lease = Lease::default();
        assert!(leases(&mut lease));
        assert_eq!(lease.until(leading(6, 5)), None);
        assert_eq!(lease.until(leading(6, 6)), Some(100));
    }

    #[test]
    fn a_lease_is_of_one_term_and_of_who_leads_in_it() {
        let mut lease = Lease::default();
        assert_eq!(lease.until(leading(5, 5)), None, "nothing was confirmed");
        assert!(leases(&mut lease));
        assert_eq!(lease.until(Standing { leads_in: None, ..leading(5, 5) }), None);
        assert_eq!(lease.until(Standing { leads_in: Some(TERM + 1), ..leading(5, 5) }), None);
    }

    #[test]
    fn a_round_that_began_earlier_takes_nothing_away() {
        let mut lease = Lease::default();
        lease.confirmed(TERM, 100);
        lease.confirmed(TERM, 90);
        assert_eq!(lease.until(leading(5, 5)), Some(100));
        lease.confirmed(TERM + 1, 95);
        assert_eq!(lease.until(Standing { leads_in: Some(TERM + 1), ..leading(5, 5) }), Some(95));
    }

    #[test]
    fn a_marker_takes_the_lease_until_the_region_is_strong_again() {
        let mut lease = Lease::default();
        assert!(leases(&mut lease));
        lease.marks(TERM);
        assert_eq!(lease.until(leading(5, 5)), None);
        assert!(!leases(&mut lease), "a round that was under way is confirmed behind the marker");
        lease.is_strong();
        assert!(leases(&mut lease));
    }

    /// The successor of a hand-over waits for no lease, whatever eras begin in the meantime.
    #[test]
    fn what_is_handed_over_does_not_come_back_with_an_era() {
        let mut lease = Lease::default();
        lease.marks(TERM);
        lease.hands_over(TERM);
        lease.is_strong();
        assert!(!leases(&mut lease));
    }
}
