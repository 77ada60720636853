//! Keeps on disk what this node has seen of the others' directories, so that one of them that comes back with an old state of its own
//! is noticed though this one was started in between.
//!
//! What was seen is noted a moment later, on a thread of its own: nobody waits for it. A directory that is older than the last note by
//! no more than [`NOTE_INTERVAL`] may pass, where all nodes were started in the meantime.

use crate::transport::{Directory, Peers};
use rdb_core::ids::NodeId;
use rdb_storage::Engine;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Logs go on all the time: how far they have come is noted this often. That a node has started is noted at once.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);

type Known = BTreeMap<NodeId, Directory>;

/// Notes what is known until `stop` is set, and once more then.
pub(crate) fn run_notes(peers: &Peers, engine: &Engine, stop: &AtomicBool) {
    let (mut noted, mut at, mut fails) = (engine.known_peers().clone(), Instant::now(), false);
    loop {
        let stops = stop.load(Ordering::Relaxed);
        let known = peers.directories();
        if is_due(&noted, &known, stops || NOTE_INTERVAL <= at.elapsed()) {
            match engine.note_peers(&known) {
                Ok(()) => (noted, at, fails) = (known, Instant::now(), false),
                // It is tried again, as a whole: nothing rests on what a failed sync may have left.
                Err(error) if !std::mem::replace(&mut fails, true) => {
                    tracing::warn!(%error, "what is known of the other nodes cannot be noted; it is tried again and again");
                }
                Err(_) => {}
            }
        }
        if stops {
            return;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

fn is_due(noted: &Known, known: &Known, waited: bool) -> bool {
    let starts = |of: &Known| -> Vec<_> {
        of.iter().map(|(node, directory)| (*node, directory.store_id, directory.incarnation)).collect()
    };
    noted != known && (waited || starts(noted) != starts(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_noted_at_once_and_a_log_that_goes_on_in_time() {
        let of = |incarnation, log_position| -> Known {
            [(NodeId(2), Directory { store_id: 7, incarnation, log_position, process: incarnation })].into()
        };
        assert!(is_due(&Known::new(), &of(1, 1), false));
        assert!(is_due(&of(1, 1), &of(2, 1), false));
        assert!(!is_due(&of(1, 1), &of(1, 2), false) && is_due(&of(1, 1), &of(1, 2), true));
        assert!(!is_due(&of(1, 1), &of(1, 1), true));
    }
}
