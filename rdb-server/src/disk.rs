//! How much room there is on the disks: on this node's own, as the system says, and on the others', as their pings say.
//!
//! There are two marks. Below the first one, nothing is stored any more; what is left is for what is under way, for
//! flushes and compactions, and for requests that only remove. Below the second one these are refused too, and a follower
//! takes no more entries in: its leader sends them again when there is room. So a disk does not run full to the last byte,
//! at which the log could not be written and the node would have to stop.
//!
//! A thread of its own looks at them a few times a second, so that a slow flush cannot delay it; a request reads two
//! numbers. It also judges how fast the log is synced: [`Pace`].

use crate::config::Config;
use crate::pace::Pace;
use crate::shared::Shared;
use crate::transport::{Peers, SILENCE_MAX};
use rdb_core::ids::NodeId;
use rdb_storage::{Engine, LogWriterHandle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Between looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The second mark is so many times lower than the first. By default it is 320 MiB: what a node that takes nothing in any more
/// may have to write yet. A full memtable of the log is 128 MiB, the room that is taken ahead of time for the write-ahead log
/// after it is 141 MiB, and the rest is for the data.
const SECOND_MARK_PART: u64 = 4;

/// How much room a disk has, or the disks of a majority have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Room {
    /// For everything.
    Enough,
    /// Not for what stores something.
    Little,
    /// Not even for what removes something.
    Gone,
}

impl Room {
    /// As a peer sends it.
    pub(crate) fn from_wire(number: u32) -> Self {
        match number {
            0 => Room::Enough,
            1 => Room::Little,
            _ => Room::Gone,
        }
    }

    fn load(from: &AtomicU8) -> Self {
        Self::from_wire(from.load(Ordering::Relaxed).into())
    }
}

/// Why a write is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// This node's disk has fewer bytes free than this.
    Here(u64),
    /// No majority of the nodes has room: what is proposed could not be committed.
    Majority,
}

/// What was last found. Cheap to clone; every clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    here: AtomicU8,
    majority: AtomicU8,
    available_bytes: AtomicU64,
    slow_sync_ms: AtomicU32,
}

impl Disk {
    /// On this node's disk.
    pub(crate) fn room(&self) -> Room {
        Room::load(&self.0.here)
    }

    /// Bytes free on this node's disk.
    pub(crate) fn available_bytes(&self) -> u64 {
        self.0.available_bytes.load(Ordering::Relaxed)
    }

    /// What a sync of the log takes of late, in milliseconds, where this node's disk is slow; 0: it is not.
    pub(crate) fn slow_sync_ms(&self) -> u32 {
        self.0.slow_sync_ms.load(Ordering::Relaxed)
    }

    /// Why a write that a majority has to store must be refused, if it must; `stores` says whether it stores anything, or removes
    /// only.
    pub(crate) fn lack(&self, config: &Config, stores: bool) -> Option<Lack> {
        let of_majority = || (needed(stores) < Room::load(&self.0.majority)).then_some(Lack::Majority);
        self.lack_here(config, stores).or_else(of_majority)
    }

    /// The same of a write that this node answers for alone, as in eventual mode: other disks do not count.
    pub(crate) fn lack_here(&self, config: &Config, stores: bool) -> Option<Lack> {
        let mark = if stores { config.disk_reserve_bytes } else { second_mark(config.disk_reserve_bytes) };
        (needed(stores) < self.room()).then_some(Lack::Here(mark))
    }

    pub(crate) fn look(&self, engine: &Engine, config: &Config, peers: &Peers) {
        match engine.disk_space() {
            Ok(space) => self.judge(space.available_bytes, config.disk_reserve_bytes),
            // What was known last is the best guess. A disk that fails shows where it is written.
            Err(error) => tracing::debug!(%error, "the disk does not say how full it is"),
        }
        let majority = majority(config, peers, self.room());
        if Room::load(&self.0.majority) != majority {
            tracing::warn!(room = ?majority, "disk space of a majority of the nodes");
            self.0.majority.store(majority as u8, Ordering::Relaxed);
        }
    }
}

impl Disk {
    /// As if so much room had been found.
    #[cfg(test)]
    pub(crate) fn set_room(&self, room: Room) {
        self.0.here.store(room as u8, Ordering::Relaxed);
    }

    fn judge_pace(&self, slow_sync_ms: u32) {
        let before = self.0.slow_sync_ms.swap(slow_sync_ms, Ordering::Relaxed);
        match (before, slow_sync_ms) {
            (0, 1..) => tracing::warn!(slow_sync_ms, "the disk is slow to sync the log"),
            (1.., 0) => tracing::info!("the disk syncs the log quickly again"),
            _ => {}
        }
    }

    fn judge(&self, available_bytes: u64, reserve_bytes: u64) {
        self.0.available_bytes.store(available_bytes, Ordering::Relaxed);
        let before = self.room();
        let here = room(available_bytes, reserve_bytes, before);
        if here != before {
            tracing::warn!(room = ?here, available_bytes, reserve_bytes, "disk space");
            self.0.here.store(here as u8, Ordering::Relaxed);
        }
    }
}

fn needed(stores: bool) -> Room {
    if stores { Room::Enough } else { Room::Little }
}

fn second_mark(reserve_bytes: u64) -> u64 {
    reserve_bytes / SECOND_MARK_PART
}

/// What is refused at a mark is let in again only when half as much again is free, so that it does not flap at the border.
fn room(available_bytes: u64, reserve_bytes: u64, before: Room) -> Room {
    let below = |mark: u64, was_below: bool| {
        let enough = if was_below { mark.saturating_add(mark / 2) } else { mark };
        available_bytes < enough
    };
    if below(second_mark(reserve_bytes), before == Room::Gone) {
        Room::Gone
    } else if below(reserve_bytes, before != Room::Enough) {
        Room::Little
    } else {
        Room::Enough
    }
}

/// What a majority of the nodes has. Who is silent has none to offer; but where all that are heard have enough, the disks
/// are not what is missing.
fn majority(config: &Config, peers: &Peers, here: Room) -> Room {
    let of = |node: NodeId| {
        if node == config.node() {
            return Some(here);
        }
        peers.silence(node).filter(|silence| *silence <= SILENCE_MAX).map(|_| peers.room(node))
    };
    of_majority(config.members().into_iter().map(of).collect())
}

fn of_majority(rooms: Vec<Option<Room>>) -> Room {
    if rooms.iter().flatten().all(|room| *room == Room::Enough) {
        return Room::Enough;
    }
    let mut rooms: Vec<Room> = rooms.into_iter().map(|room| room.unwrap_or(Room::Gone)).collect();
    rooms.sort_unstable();
    rooms[rooms.len() / 2]
}

/// Looks until `stop` is set.
pub(crate) fn run_looks(shared: &Shared, engine: &Engine, log: &LogWriterHandle, stop: &AtomicBool) {
    let mut pace = Pace::default();
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK_INTERVAL);
        shared.disk.look(engine, &shared.config, &shared.peers);
        let log = log.metrics();
        shared.disk.judge_pace(pace.look(log.sync().read(), log.under_way()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_are_left_only_with_room_to_spare() {
        assert_eq!(room(100, 100, Room::Enough), Room::Enough);
        assert_eq!(room(99, 100, Room::Enough), Room::Little);
        assert_eq!(room(149, 100, Room::Little), Room::Little);
        assert_eq!(room(150, 100, Room::Little), Room::Enough);
        assert_eq!(room(25, 100, Room::Little), Room::Little);
        assert_eq!(room(24, 100, Room::Little), Room::Gone);
        assert_eq!(room(36, 100, Room::Gone), Room::Gone);
        assert_eq!(room(37, 100, Room::Gone), Room::Little);
        assert_eq!(room(200, 100, Room::Gone), Room::Enough);
        assert_eq!(room(0, 0, Room::Enough), Room::Enough, "no reserve");
        assert_eq!(room(1 << 40, u64::MAX, Room::Gone), Room::Gone);
    }

    #[test]
    fn one_disk_that_is_full_does_not_count_and_two_do() {
        use Room::{Enough, Gone, Little};
        let of = |rooms: &[Option<Room>]| of_majority(rooms.to_vec());
        assert_eq!(of(&[Some(Enough), Some(Enough), Some(Gone)]), Enough);
        assert_eq!(of(&[Some(Enough), Some(Little), Some(Gone)]), Little);
        assert_eq!(of(&[Some(Enough), Some(Gone), Some(Gone)]), Gone);
        assert_eq!(of(&[Some(Little)]), Little);
        let five = [Some(Enough), Some(Enough), Some(Enough), Some(Gone), Some(Gone)];
        assert_eq!(of(&five), Enough);
        // A node that is silent cannot make up for one that is full; but by itself it is no full disk.
        assert_eq!(of(&[Some(Enough), Some(Little), None]), Little);
        assert_eq!(of(&[Some(Enough), None, None]), Enough);
    }

    #[test]
    fn what_removes_goes_on_up_to_the_second_mark() {
        let config = Config { disk_reserve_bytes: 100, ..Config::default() };
        let disk = Disk::default();
        let lacks = |disk: &Disk| (disk.lack(&config, true), disk.lack(&config, false));
        assert_eq!(lacks(&disk), (None, None));
        disk.0.here.store(Room::Little as u8, Ordering::Relaxed);
        assert_eq!(lacks(&disk), (Some(Lack::Here(100)), None));
        disk.0.here.store(Room::Gone as u8, Ordering::Relaxed);
        assert_eq!(lacks(&disk), (Some(Lack::Here(100)), Some(Lack::Here(25))));
        disk.0.here.store(Room::Enough as u8, Ordering::Relaxed);
        disk.0.majority.store(Room::Little as u8, Ordering::Relaxed);
        assert_eq!(lacks(&disk), (Some(Lack::Majority), None));
        disk.0.majority.store(Room::Gone as u8, Ordering::Relaxed);
        assert_eq!(lacks(&disk), (Some(Lack::Majority), Some(Lack::Majority)));
    }

    #[test]
    fn who_answers_alone_looks_at_no_other_disk() {
        let config = Config { disk_reserve_bytes: 100, ..Config::default() };
        let disk = Disk::default();
        let lacks = |disk: &Disk| (disk.lack_here(&config, true), disk.lack_here(&config, false));
        disk.0.majority.store(Room::Gone as u8, Ordering::Relaxed);
        assert_eq!(lacks(&disk), (None, None));
        disk.set_room(Room::Little);
        assert_eq!(lacks(&disk), (Some(Lack::Here(100)), None));
        disk.set_room(Room::Gone);
        assert_eq!(lacks(&disk), (Some(Lack::Here(100)), Some(Lack::Here(25))));
    }
}
