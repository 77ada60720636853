//! Runs from other nodes, between the connection that they came by and the thread: what finds no room is dropped here, before it
//! takes any. Any tokio thread calls it.

use super::{Event, Eventual};
use crate::budget::Budget;
use crate::disk::{Disk, Room};
use crate::metrics::Metrics;
use bytes::Bytes;
use rdb_core::codec::Corrupt;
use rdb_core::eventual::run::Run;
use rdb_core::ids::{NodeId, RegionId};
use std::sync::Arc;

/// What a run takes besides its bytes.
const RUN_OVERHEAD_BYTES: usize = 64;

/// One peer's way in. Cheap to clone; clones share what the peer may take.
#[derive(Clone)]
pub(crate) struct Inbox {
    pub(crate) eventual: Eventual,
    pub(crate) disk: Disk,
    pub(crate) budget: Budget,
    pub(crate) metrics: Arc<Metrics>,
}

impl Inbox {
    /// Takes encoded runs in, all or none. What is dropped is sent again: the peer hears what is here. So it is where the disk has no
    /// room, as with a follower's entries: a run that is taken in is logged, and a log that cannot be written stops the node.
    ///
    /// # Errors
    /// They are no runs.
    pub(crate) fn take(
        &self,
        from: NodeId,
        region: RegionId,
        runs: &[Bytes],
        awaited: bool,
    ) -> Result<(), Corrupt> {
        let bytes = runs.iter().map(|run| run.len() + RUN_OVERHEAD_BYTES).sum();
        let share = if self.disk.room() == Room::Gone { None } else { self.budget.take(bytes).ok() };
        let Some(share) = share else {
            self.metrics.messages_dropped(runs.len());
            return Ok(());
        };
        let decoded = runs.iter().map(|bytes| Ok((Run::decode(bytes)?, bytes.clone())));
        let runs = decoded.collect::<Result<Vec<_>, Corrupt>>()?;
        self.eventual.post(Event::Runs { from, region, runs, awaited, share });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::eventual::run::{Entry, Replaced};
    use rdb_core::eventual::vector::Origin;
    use rdb_core::ids::{Era, Incarnation};
    use rdb_core::version::Hlc;

    fn run() -> Bytes {
        let origin = Origin { node: NodeId(2), incarnation: Incarnation(1) };
        let (key, value) = (b"key".to_vec(), Some(b"value".to_vec()));
        let entry = Entry { seq: 1, hlc: Hlc(7), key, value, replaced: Replaced::Nothing(Hlc(0)), since: 1 };
        Run { era: Era(1), origin, after: 0, entries: vec![entry] }.encode().into()
    }

    #[test]
    fn a_disk_without_room_takes_no_runs_in_and_one_with_little_does() {
        let (eventual, events) = Eventual::new();
        let (disk, metrics) = (Disk::default(), Arc::new(Metrics::new()));
        let inbox = Inbox { eventual, disk, budget: Budget::new(1 << 20), metrics };
        let taken = |room| {
            inbox.disk.set_room(room);
            inbox.take(NodeId(2), RegionId(16), &[run()], false).unwrap();
            events.try_iter().filter(|event| matches!(event, Event::Runs { .. })).count()
        };
        assert_eq!([taken(Room::Enough), taken(Room::Gone), taken(Room::Little)], [1, 0, 1]);
        assert_eq!(inbox.budget.used(), 0, "what was dropped holds no memory");
        assert!(inbox.take(NodeId(2), RegionId(16), &[Bytes::from_static(b"none")], false).is_err());
    }
}
