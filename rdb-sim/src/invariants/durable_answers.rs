//! Nobody is told "done" before a majority could lose its power and still know: the entry is looked up on the disks
//! themselves, as a power cut at this moment would leave them.

use super::{Violation, holds};
use crate::disks::log::LogDisk;
use rdb_core::ids::{Index, RegionId, Term};

/// Entry `index` of `term` is about to be answered; `disks` are those of all nodes, dead ones included.
pub(crate) fn answer_is_durable<'a>(
    disks: impl ExactSizeIterator<Item = &'a LogDisk>,
    region: RegionId,
    index: Index,
    term: Term,
) -> Result<(), Violation> {
    let members = disks.len();
    let holding = disks
        .filter(|disk| match disk.synced(region) {
            // What was dropped from a log's front was applied and flushed before.
            Some(log) => log.term(index) == Some(term) || index < log.terms().first_index(),
            // The region has ended there, which it does when a majority has synced all that came before its end.
            None => disk.has_destroyed(region),
        })
        .count();
    holds("answers are durable", members / 2 < holding, || {
        format!("region {region}: entry {index} is answered, but synced on {holding} of {members} nodes only")
    })
}
