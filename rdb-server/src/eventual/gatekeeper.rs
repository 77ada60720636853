//! One region's gate on this node: whether it may acknowledge eventual writes, and the region's way from one era to the next.
//!
//! What is decided is decided by [`switch::Peer`] and [`switch::Region`]; here its words are put into records, and who has to
//! wait waits.

use super::quarantine::Quarantine;
use crate::waiter::WriteWaiter;
use rdb_core::codec::{Corrupt, Reader, put_bytes};
use rdb_core::command::Encoded;
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::{Epoch, Era, Index, NodeId};
use rdb_core::raft::Failure;
use rdb_core::switch::quarantine::{Tail, tails};
use rdb_core::switch::{self, Control, Descriptor, Gate, Marker, Mode, Peer, Seal, Verdict};
use rdb_core::version::Hlc;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a write waits for the gate, at most: as long as callers mostly wait.
const HELD_MAX: Duration = Duration::from_secs(5);
/// Bytes of a region's writes that wait for the gate.
const HELD_BYTES_MAX: usize = 4 << 20;
/// What each takes besides its commands.
const HELD_OVERHEAD_BYTES: usize = 256;

/// Called once a replica may be replaced.
pub(crate) type Left = Box<dyn FnOnce() + Send>;

/// Called with the highest stamp of the era that has ended here.
pub(crate) type Reached = Box<dyn FnOnce(Hlc) + Send>;

/// A marker that the region's log has come to, and that waits for what this node lacks.
struct Awaited {
    marker: Marker,
    index: Index,
    reached: Reached,
    looked_at: bool,
}

/// A region's gate.
pub(super) struct Gatekeeper {
    peer: Peer,
    mode: switch::Region,
    /// All records that a restart may need, the one that is being written among them.
    controls: Vec<Control>,
    /// What belongs to earlier eras may go once the data is durable up to this entry.
    older_until: Option<Index>,
    awaited: Option<Awaited>,
    /// A snapshot of a later era, of which this replica is to become one; and whom to tell once it may.
    leaving: Option<(switch::Region, Left)>,
    /// What this node has set aside.
    quarantine: Quarantine,
    /// Writes that came while the gate was not open, in order.
    held: VecDeque<(Instant, Encoded, WriteWaiter)>,
    held_bytes: usize,
}

impl Gatekeeper {
    /// The gate as a start finds it: the region as its data has it, and the records that were synced.
    ///
    /// # Errors
    /// The records are damaged.
    pub(super) fn open(
        node: NodeId,
        mode: switch::Region,
        (controls, quarantine): (Option<&[u8]>, Option<&[u8]>),
    ) -> Result<Self, Corrupt> {
        let controls = decode(controls.unwrap_or_default())?;
        let quarantine = Quarantine::decode(quarantine.unwrap_or_default())?;
        let peer = Peer::start(node, &mode, &controls);
        // What the data stands in at a start is durable.
        let older_until = (Era(1) < mode.era()).then_some(0);
        let (awaited, leaving, held) = (None, None, VecDeque::new());
        Ok(Self { peer, mode, controls, older_until, awaited, leaving, quarantine, held, held_bytes: 0 })
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    pub(super) fn mode(&self) -> &switch::Region {
        &self.mode
    }

    /// The newest descriptor that this node has heard of.
    pub(super) fn heard(&self) -> Option<&Arc<Descriptor>> {
        self.peer.heard()
    }

    /// Whom the switch that is under way goes on without, as far as this node has heard.
    pub(super) fn goes_on_without(&self) -> &BTreeSet<NodeId> {
        static NOBODY: BTreeSet<NodeId> = BTreeSet::new();
        self.heard().map_or(&NOBODY, |heard| heard.goes_on_without())
    }

    pub(super) fn hear(&mut self, descriptor: &Arc<Descriptor>) {
        self.peer.hear(descriptor);
    }

    /// Whether eventual writes are taken in now.
    pub(super) fn is_open(&self) -> bool {
        // A replica that is to be replaced must come to rest.
        self.mode.mode() == Mode::Eventual && *self.peer.gate() == Gate::Open && self.leaving.is_none()
    }

    /// Whether a copy of all up to `vector` may count here from now on. Where the gate is open, as with runs; and where this
    /// node is sealed and lacks part of the cut, if all of it lies within.
    pub(super) fn admits_copy(&self, vector: &Vector) -> bool {
        let within = |seal: &Seal, heard: &Arc<Descriptor>| {
            self.leaving.is_none() && seal.cut(heard).is_some_and(|cut| cut.covers(vector))
        };
        match (self.peer.gate(), self.peer.heard()) {
            (Gate::Sealed(seal), Some(heard)) => self.mode.mode() == Mode::Eventual && within(seal, heard),
            _ => self.is_open(),
        }
    }

    /// Looks again at what has been heard. What is to be synced now, if anything: the record, and all of them encoded.
    pub(super) fn review(&mut self, answering: bool) -> Option<(Control, Vec<u8>)> {
        let control = self.peer.review(&self.mode, answering)?;
        // Of an era and a kind the last one counts.
        let overruled = |old: &Control| old.era() == control.era() && is_seal(old) == is_seal(&control);
        self.controls.retain(|old| !overruled(old));
        self.controls.push(control.clone());
        Some((control, encode(&self.controls)))
    }

    pub(super) fn synced(&mut self, control: &Control) {
        self.peer.synced(control);
    }

    /// The region's log has put it into this mode, by the entry at `index`.
    pub(super) fn enter(&mut self, mode: switch::Region, index: Index) {
        self.mode = mode;
        self.older_until = Some(index);
        self.peer.era_changed(&self.mode);
    }

    /// A write that cannot be taken in now waits, if few do: reads share the memory for requests. Else it is not done.
    pub(super) fn hold(&mut self, commands: Encoded, waiter: WriteWaiter) {
        if HELD_BYTES_MAX <= self.held_bytes {
            return waiter.answer(Err(Failure::ModeChanged));
        }
        self.held_bytes += commands.bytes.len() + HELD_OVERHEAD_BYTES;
        self.held.push_back((Instant::now(), commands, waiter));
    }

    /// What was held so long that its caller has most likely gone is not done: it would be done much later, over what the caller has
    /// written since by another way.
    pub(super) fn let_go_of_old(&mut self, now: Instant) {
        while self.held.front().is_some_and(|(since, ..)| HELD_MAX <= now.saturating_duration_since(*since))
            && let Some((_, commands, waiter)) = self.held.pop_front()
        {
            self.held_bytes -= commands.bytes.len() + HELD_OVERHEAD_BYTES;
            waiter.answer(Err(Failure::ModeChanged));
        }
    }

    /// What was held, if the gate is open again, or the region is strong and the raft loop knows it.
    pub(super) fn release(&mut self, shown_strong: bool) -> VecDeque<(Instant, Encoded, WriteWaiter)> {
        let goes_on = self.is_open() || self.mode.mode() == Mode::Strong && shown_strong;
        if !goes_on {
            return VecDeque::new();
        }
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// Whether this is the first time that is asked for the marker that is awaited.
    pub(super) fn is_first_look(&mut self) -> bool {
        self.awaited.as_mut().is_some_and(|awaited| !std::mem::replace(&mut awaited.looked_at, true))
    }

    /// The region's log has come to `marker`, which ends an eventual era.
    pub(super) fn await_end(&mut self, marker: Marker, index: Index, reached: Reached) {
        self.awaited = Some(Awaited { marker, index, reached, looked_at: false });
    }

    /// Whether the marker that the region's log has come to can be applied now, at a node that has synced this much; `None` where
    /// there is none, or where this thread has yet to hear of the era before it. At a start the applier may be many markers ahead,
    /// since it comes here at once and the raft loop's word of an era that begins comes later: to pass over that era would be to
    /// pass over its writes.
    pub(super) fn judge(&self, synced: &Vector) -> Option<Verdict> {
        let awaited = self.awaited.as_ref()?;
        if self.mode.era().0 + 1 < awaited.marker.era.0 {
            return None;
        }
        Some(self.mode.judge(self.peer.node(), &awaited.marker, synced))
    }

    /// Ends the era by the marker that was awaited; the caller says who is to hear of it.
    pub(super) fn end_era(&mut self) -> Option<Reached> {
        let Awaited { marker, index, reached, .. } = self.awaited.take()?;
        let mut mode = self.mode.clone();
        mode.enter(&marker);
        self.enter(mode, index);
        Some(reached)
    }

    /// A snapshot is to replace this replica: see [`Self::leave`].
    pub(super) fn await_leave(&mut self, offered: switch::Region, left: Left) {
        // The marker that waits is behind the snapshot.
        self.awaited = None;
        self.leaving = Some((offered, left));
    }

    /// Whether a snapshot is to replace this replica.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// What this node has, which has logged so much, that the era of the snapshot does not hold.
    pub(super) fn tails(&self, logged: &Vector) -> Vec<Tail> {
        self.leaving.as_ref().map_or_else(Vec::new, |(offered, _)| tails(&self.mode, logged, offered))
    }

    /// That is set aside, `from_records` of it out of the records. What is to be synced before the replica is replaced, if there is
    /// anything; and whom to tell then.
    pub(super) fn leave(&mut self, tails: &[Tail], from_records: u64) -> Option<(Option<Vec<u8>>, Left)> {
        let (_, left) = self.leaving.take()?;
        if tails.is_empty() {
            return Some((None, left));
        }
        self.quarantine.add(self.mode.era(), tails, from_records);
        Some((Some(self.quarantine.encode()), left))
    }

    /// What this node has set aside.
    pub(super) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    /// Forgets the records of earlier eras, if the data is durable in this one: no restart begins before it. What the records
    /// are then, encoded, and the first era whose logs stay.
    pub(super) fn forget_older(&mut self, durable: Index) -> Option<(Era, Vec<u8>)> {
        self.older_until.take_if(|until| *until <= durable)?;
        let era = self.mode.era();
        self.controls.retain(|control| era <= control.era());
        Some((era, encode(&self.controls)))
    }
}

/// The eras and epochs that the gate's records are of.
///
/// # Errors
/// They are damaged.
pub(crate) fn epochs_in(controls: Option<&[u8]>) -> Result<Vec<(Era, Epoch)>, Corrupt> {
    let controls = decode(controls.unwrap_or_default())?;
    Ok(controls.iter().map(|control| (control.era(), control.epoch())).collect())
}

fn is_seal(control: &Control) -> bool {
    matches!(control, Control::Seal(_))
}

fn encode(controls: &[Control]) -> Vec<u8> {
    let mut out = Vec::new();
    controls.iter().for_each(|control| put_bytes(&mut out, &control.encode()));
    out
}

fn decode(bytes: &[u8]) -> Result<Vec<Control>, Corrupt> {
    let mut reader = Reader::new("a region's control records", bytes);
    let mut controls = Vec::new();
    while !reader.is_empty() {
        controls.push(Control::decode(reader.bytes()?)?);
    }
    Ok(controls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_core::switch::{Boundary, SwitchId};

    fn marker(era: u32, mode: Mode) -> Marker {
        let (epoch, boundary) = (Epoch(u64::from(era)), Boundary::default());
        Marker { switch: SwitchId(u64::from(era)), epoch, era: Era(era), mode, boundary }
    }

    /// A start applies the markers of many eras at once, and this thread hears of the eventual ones in its own time.
    #[test]
    fn no_era_is_passed_over() {
        let mut mode = switch::Region::new(Mode::Eventual);
        let mut gate = Gatekeeper::open(NodeId(1), mode.clone(), (None, None)).unwrap();
        let nothing = Vector::default();
        gate.await_end(marker(2, Mode::Strong), 10, Box::new(drop));
        assert_eq!(gate.judge(&nothing), Some(Verdict::ToStrong));
        gate.end_era().unwrap()(Hlc(1));
        mode.enter(&marker(2, Mode::Strong));
        assert_eq!(gate.mode(), &mode);
        // The end of the third era is here before its beginning.
        gate.await_end(marker(4, Mode::Strong), 30, Box::new(drop));
        assert_eq!(gate.judge(&nothing), None);
        mode.enter(&marker(3, Mode::Eventual));
        gate.enter(mode, 20);
        assert_eq!(gate.judge(&nothing), Some(Verdict::ToStrong));
    }
}
