//! The operations that are on their way, found again by the id that the answer brings.

use super::{Lane, Reply};
use crate::seen::Seen;
use std::sync::Arc;
use tokio::time::Instant;

/// An operation that waits for its answer.
pub(super) struct Pending {
    pub(super) reply: Reply,
    pub(super) deadline: Instant,
    /// Where it counts as on its way.
    pub(super) lane: Lane,
    pub(super) slot: usize,
    /// Told of the answer before the caller is.
    pub(super) seen: Arc<Seen>,
}

/// A table whose places are used again. An id holds the place and how often it was used, so that an answer which comes
/// after its caller's deadline does not reach the next one there.
#[derive(Default)]
pub(super) struct InFlight {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Place {
    uses: u32,
    pending: Option<Pending>,
}

impl InFlight {
    pub(super) fn insert(&mut self, pending: Pending) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("operations in flight are bounded")
        });
        let place = &mut self.places[index as usize];
        place.pending = Some(pending);
        u64::from(place.uses) << 32 | u64::from(index)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Pending> {
        let index = u32::try_from(id & u64::from(u32::MAX)).ok()?;
        let place = self.places.get_mut(index as usize)?;
        if u64::from(place.uses) != id >> 32 {
            return None;
        }
        let pending = place.pending.take()?;
        place.uses = place.uses.wrapping_add(1);
        self.free.push(index);
        Some(pending)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Takes out what should have been answered by `now`.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Pending> {
        self.take(|pending| pending.deadline <= now)
    }

    pub(super) fn take_all(&mut self) -> Vec<Pending> {
        self.take(|_| true)
    }

    fn take(&mut self, chosen: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        let mut taken = Vec::new();
        for (index, place) in (0..).zip(&mut self.places) {
            if let Some(pending) = place.pending.take_if(|pending| chosen(pending)) {
                place.uses = place.uses.wrapping_add(1);
                self.free.push(index);
                taken.push(pending);
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;

    fn pending(deadline: Instant) -> Pending {
        Pending { reply: oneshot::channel().0, deadline, lane: Lane::Reads, slot: 0, seen: Arc::default() }
    }

    #[test]
    fn a_late_answer_finds_nobody() {
        let now = Instant::now();
        let mut table = InFlight::default();
        let first = table.insert(pending(now));
        let second = table.insert(pending(now + Duration::from_secs(9)));
        assert_eq!(table.take_expired(now).len(), 1);
        let third = table.insert(pending(now));
        assert_eq!(third & u64::from(u32::MAX), first & u64::from(u32::MAX), "the place is used again");
        assert!(table.remove(first).is_none(), "its first user is gone");
        assert!(table.remove(third).is_some());
        assert!(table.remove(third).is_none());
        assert!(!table.is_empty());
        assert!(table.remove(second).is_some());
        assert!(table.is_empty());
    }
}
