//! Replaces a region's data by a snapshot's, on a thread of its own: the disk is slow, and other regions go on. The same
//! thread removes the files of snapshots that are of no use, wherever that is found out.

use crate::applier::{ApplierHandle, Machine, Task};
use crate::mailbox::{Event, Mailbox};
use crate::shared::CatalogCell;
use crossbeam_channel::{Receiver, Sender};
use fail::fail_point;
use rdb_core::apply::{self, State};
use rdb_core::ids::{NamespaceId, RegionId};
use rdb_core::raft::LogWrite;
use rdb_core::switch::{self, Mode};
use rdb_pd::{Catalog, Standing};
use rdb_storage::{AppendError, Data, LogWriterHandle, StagedSnapshot};
use std::sync::Arc;
use std::time::Duration;

/// Between looks whether the log writer has room again.
const ROOM_INTERVAL: Duration = Duration::from_millis(10);

/// A snapshot that a region's group has accepted.
pub(crate) struct Install {
    pub(crate) region: RegionId,
    pub(crate) staged: StagedSnapshot,
    /// What starts the log anew, once the data is replaced.
    pub(crate) write: LogWrite,
}

/// What the thread is to do with a snapshot.
pub(crate) enum Job {
    TakeIn(Install),
    Remove(StagedSnapshot),
}

/// A snapshot's files, which go when this is dropped: soon, and on the thread that may wait for the disk.
pub(crate) struct Staged {
    snapshot: Option<StagedSnapshot>,
    installer: Installer,
}

impl Staged {
    /// The region's mode in it, if it has ever switched.
    pub(crate) fn mode(&self) -> Option<&switch::Region> {
        self.snapshot.as_ref().and_then(StagedSnapshot::mode)
    }

    /// Where the region stands in it.
    pub(crate) fn state(&self) -> Option<&State> {
        self.snapshot.as_ref().map(StagedSnapshot::state)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            drop(self.installer.0.send(Job::Remove(snapshot)));
        }
    }
}

/// Hands snapshots to the thread that takes them in. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Installer(Sender<Job>);

impl Installer {
    pub(crate) fn new() -> (Self, Receiver<Job>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Self(sender), receiver)
    }

    /// At most one of each region is under way.
    pub(crate) fn install(&self, region: RegionId, mut staged: Staged, write: LogWrite) {
        if let Some(staged) = staged.snapshot.take() {
            drop(self.0.send(Job::TakeIn(Install { region, staged, write })));
        }
    }

    /// A snapshot whose files are all here.
    pub(crate) fn stage(&self, snapshot: StagedSnapshot) -> Staged {
        Staged { snapshot: Some(snapshot), installer: self.clone() }
    }
}

/// Takes snapshots in until nobody hands any more over.
pub(crate) fn run_installs(
    jobs: &Receiver<Job>,
    data: &Data,
    log: &LogWriterHandle,
    applier: &ApplierHandle,
    catalog: &CatalogCell,
    mailbox: &Mailbox,
) {
    while let Ok(job) = jobs.recv() {
        let install = match job {
            Job::TakeIn(install) => install,
            Job::Remove(snapshot) => {
                drop(snapshot);
                continue;
            }
        };
        let region = install.region;
        if let Err(error) = take_in(install, data, log, applier, catalog, mailbox) {
            crate::node::die(&format!("region {region}: a snapshot cannot be taken in: {error}"));
        }
    }
}

fn take_in(
    Install { region, staged, write }: Install,
    data: &Data,
    log: &LogWriterHandle,
    applier: &ApplierHandle,
    catalog: &CatalogCell,
    mailbox: &Mailbox,
) -> Result<(), String> {
    fail_point!("snapshot-staged");
    let text = |error: rdb_storage::Error| error.to_string();
    let (number, index) = (write.number, staged.state().applied);
    // Nothing waits for this but the region itself: others, whose writes cannot wait, go first.
    while log.is_crowded() {
        std::thread::sleep(ROOM_INTERVAL);
    }
    if !done(|done| applier.post(Task::Release { region, done })) {
        return Ok(());
    }
    // What this replica alone has of an eventual era goes nowhere but aside. By way of the raft loop, which may have yet to pass on
    // that such an era has begun.
    if let Some(offered) = staged.mode().cloned()
        && !done(|left| mailbox.post(Event::Leave { region, offered, left }))
    {
        return Ok(());
    }
    let mut asked = Ok(());
    if !done(|done| asked = log.note_snapshot(region, &write, done)) {
        return match asked {
            Err(rdb_storage::Error::LogQueueFull) => asked.map_err(text),
            // The writer has said why, or the node is about to stop. Nothing was replaced.
            _ => Ok(()),
        };
    }
    fail_point!("snapshot-noted");
    data.install(staged).map_err(text)?;
    fail_point!("snapshot-installed");
    let (state, machine) = load(data, region, catalog)?;
    tracing::info!(%region, index, "a snapshot has replaced the region's data");
    // Before the write: the report of that comes behind this.
    mailbox.post(Event::Installed { region, number, machine: Box::new(machine), state });
    match log.append(region, write) {
        // The next start finds the note, and the data replaced, and writes this again.
        Ok(()) | Err(AppendError::Stopped(_)) => Ok(()),
        Err(AppendError::Full(_)) => Err("the log writer's queue is full".to_owned()),
    }
}

/// Asks somebody for something and waits until it is done; false if they have stopped, and it never will be.
fn done(ask: impl FnOnce(Box<dyn FnOnce() + Send>)) -> bool {
    let (sender, done) = crossbeam_channel::bounded(1);
    ask(Box::new(move || {
        let _ = sender.send(());
    }));
    done.recv().is_ok()
}

/// The region's state machine, as the snapshot has left it.
fn load(data: &Data, region: RegionId, catalog: &CatalogCell) -> Result<(State, Machine), String> {
    let stored = data.load(region).map_err(|error| error.to_string())?;
    let (state, sessions) = stored.ok_or("it left nothing behind")?;
    if region != RegionId::META {
        let first = || match catalog.load().standing(region) {
            Standing::Named(namespace) => namespace.first_mode,
            // Its namespace goes, and so does this.
            _ => Mode::Strong,
        };
        let mode = data.load_mode(region).map_err(|error| error.to_string())?;
        let mode = mode.unwrap_or_else(|| switch::Region::new(first()));
        return Ok((state, Machine::Keys(apply::Machine::new(region, state, sessions).in_mode(mode))));
    }
    let mut found = Catalog::default();
    for (key, value) in data.records(NamespaceId::META).map_err(|error| error.to_string())? {
        found.load(&key, &value).map_err(|error| error.to_string())?;
    }
    catalog.store(Arc::new(found.clone()));
    Ok((state, Machine::Catalog(rdb_pd::Machine::new(state, found))))
}
