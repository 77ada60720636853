//! Runs that are applied before they are synced, where a namespace asks for durability `periodic`.
//!
//! The data may reach the disk before the log does. So the batch that applies such a run has the run itself, too, as a note, until
//! the log is synced: whatever a power cut leaves of the data, either it has neither, or the log can be made whole from it.
//!
//! ```text
//! key    byte 4, 4 bytes era, 8 bytes node, 8 bytes incarnation, 8 bytes seq of the run's last write
//! value  the run: rdb_core::eventual::run
//! ```

use super::run::Run;
use super::vector::WriteId;
use crate::ids::Era;

const UNSYNCED: u8 = 4;

/// The note's key of a run.
pub fn key(run: &Run) -> Vec<u8> {
    let Run { era, origin, .. } = run;
    let mut out = of_era(*era).0;
    for number in [origin.node.0, origin.incarnation.0, run.last()] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out
}

/// What the keys of an era's runs lie between: those of an origin in the order of its log.
pub fn of_era(era: Era) -> (Vec<u8>, Vec<u8>) {
    let of = |era: u32| [&[UNSYNCED][..], &era.to_be_bytes()].concat();
    (of(era.0), of(era.0.saturating_add(1)))
}

/// What the keys of all eras' runs lie between.
pub fn all() -> (Vec<u8>, Vec<u8>) {
    (vec![UNSYNCED], vec![UNSYNCED + 1])
}

/// The name of a run's last write.
pub fn last(run: &Run) -> WriteId {
    WriteId { origin: run.origin, seq: run.last() }
}
