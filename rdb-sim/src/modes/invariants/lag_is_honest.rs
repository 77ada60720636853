//! The lag that a node tells is never below the true one: the age, by this node's clock, of the oldest write that it has and
//! some other node has not. And it is not said to be known while another node is silent.

use crate::invariants::{Violation, holds};
use crate::modes::world::World;
use rdb_core::eventual::lag::{Lag, Now, SILENCE_MS_MAX};
use rdb_core::eventual::vector::WriteId;
use rdb_core::ids::NodeId;

/// For clocks that run fast.
const SLACK: u64 = 2;

pub(in crate::modes) fn lag_is_honest(
    world: &World,
    id: NodeId,
    now: Now<'_>,
    told: Lag,
) -> Result<(), Violation> {
    for other in world.nodes.iter().filter(|other| other.id != id) {
        let heard = world.truth.heard.get(&(id, other.id)).copied().unwrap_or_default();
        let silence_ms = (world.now - heard) / 1_000;
        holds("the lag is honest", !told.known || silence_ms <= SLACK * SILENCE_MS_MAX, || {
            format!("node {id} says that it is known, and has not heard {} for {silence_ms} ms", other.id)
        })?;
        let of_other = other.process.as_ref().and_then(|process| process.eventual.as_ref());
        let Some(has) = of_other.filter(|other| other.logs.era() == now.era) else { continue };
        for (origin, has, _) in has.machine.state().applied.behind(now.synced) {
            let lacking = |id: &WriteId| id.origin == origin && has < id.seq && now.synced.has(*id);
            let of_era = world.truth.writes.values().filter(|written| written.version.era == now.era);
            let stamps = of_era.filter(|written| written.id.as_ref().is_some_and(lacking));
            let Some(stamp) = stamps.map(|written| written.version.hlc).min() else { continue };
            let age_ms = now.physical_ms.saturating_sub(stamp.millis());
            holds("the lag is honest", !told.known || age_ms <= told.at_least_ms, || {
                format!("node {id} tells {told:?}; {} is {age_ms} ms behind with {origin:?}", other.id)
            })?;
        }
    }
    Ok(())
}
