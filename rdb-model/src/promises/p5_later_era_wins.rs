//! Promise 5: Any version of a later era beats any of an earlier one, whatever the clocks say; within a strong era the last write of
//! the log wins; within an eventual one the later clock does, an abort or not.

use crate::state::{State, Write};
use rdb_core::ids::Era;
use rdb_core::switch::Mode;
use rdb_core::version::Version;

pub(super) fn holds(state: &State) -> bool {
    (0..state.nodes.len()).all(|node| {
        let visible = state.visible(node);
        [0, 1].into_iter().all(|key| {
            let of_key = || visible.iter().map(|id| state.write(id)).filter(|write| write.key == key);
            let winner = of_key().max_by_key(|write| write.version);
            winner == of_key().max_by_key(|write| by_history(write))
        })
    })
}

/// As they happened: eras follow each other, strong writes are ordered by the log, eventual ones by their clocks.
fn by_history(write: &Write) -> (Era, u8, Version) {
    match write.mode {
        Mode::Strong => (write.era, write.place, Version::default()),
        Mode::Eventual => (write.era, 0, Version { era: Era(0), ..write.version }),
    }
}
