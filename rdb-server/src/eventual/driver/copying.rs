//! What the thread does for copies and comparisons: it hands on what has come to the region, and what the region wants written to
//! the log.

use super::{Driver, Event, hears, post_then};
use crate::clocks::millis;
use crate::eventual::copy::Arrived;
use crate::eventual::replica::ReplicaError;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Era, RegionId};

impl Driver {
    /// Something has come for a region in an era. What is of another one is dropped, and who waits for an answer hears so.
    pub(super) fn arrived(
        &mut self,
        region: RegionId,
        era: Era,
        arrived: Arrived,
    ) -> Result<(), ReplicaError> {
        let Some(replica) = self.replicas.get_mut(&region).filter(|replica| replica.era() == era) else {
            return Ok(());
        };
        match arrived {
            Arrived::Opens { to, answer } => drop(answer.send(replica.opens_copy(to))),
            Arrived::Closes { vector, answer } => drop(answer.send(replica.has_synced(&vector))),
            Arrived::Page { attempt, piece } => {
                if let Some((write, go_on)) = replica.take_page(attempt, piece) {
                    post_then(&self.log, region, write, move || {
                        let _ = go_on.send(());
                    });
                }
            }
            Arrived::Failed { attempt, reason } => replica.copy_failed(attempt, &reason),
            Arrived::Noted => {
                // What this node writes from now on is stamped above it: who shows that stamp here again must not be told that it
                // is ahead of the clock.
                if let Some(highest) = replica.copy_noted()
                    && let Some(ahead_ms) = self.clock.saw(highest, millis(self.started.elapsed()))
                {
                    tracing::warn!(%region, ahead_ms, "a copy has writes that are stamped ahead of this node's clock");
                }
            }
            Arrived::Asked { answer } => drop(answer.send(replica.whole_digest())),
            Arrived::Digest { from, digest } => replica.compare_with(from, digest.as_ref(), &self.tools),
            Arrived::Records { piece } => {
                replica.repair(&piece.page, &self.tools)?;
                let _ = piece.go_on.send(());
            }
            Arrived::RecordsEnd { from, failed } => {
                replica.repair_ends(from, failed.as_deref(), &self.tools);
            }
        }
        Ok(())
    }

    /// Notes copies that are complete.
    pub(super) fn note_copies(&mut self) {
        for (region, replica) in &mut self.replicas {
            let gate = self.gates.get(region);
            let admits = |vector: &Vector| gate.is_some_and(|gate| gate.admits_copy(vector));
            let Some(write) = replica.note_copy(admits) else { continue };
            let (eventual, region, era) = (self.eventual.clone(), *region, write.era);
            post_then(&self.log, region, write, move || {
                eventual.post(Event::Copy { region, era, arrived: Arrived::Noted });
            });
        }
    }

    /// Begins copies and comparisons that are due, and removes what is left of those that are done. Called once a second.
    pub(super) fn look_after_copies(&mut self) {
        let now_ms = millis(self.started.elapsed());
        let health = &self.health;
        for (region, replica) in &mut self.replicas {
            if let Some(write) = replica.clean_up_copy(&self.tools) {
                post_then(&self.log, *region, write, || ());
            }
            let Some(gate) = self.gates.get(region) else { continue };
            let excluded = gate.goes_on_without();
            // Some copy, if not any.
            if gate.admits_copy(&Vector::default()) {
                replica.begin_copy(|node| hears(health, node) && !excluded.contains(&node), &self.tools);
            }
            if gate.is_open() {
                replica.compare(now_ms, &self.tools);
            }
        }
    }
}
