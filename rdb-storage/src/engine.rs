//! Opening a data directory: is it this node's, is it whole, and is it as new as it was?

use crate::data::Data;
use crate::directory::{self, DATA, DiskSpace, IDENTITY, LOG};
use crate::dropped_logs::{DroppedLogs, Removal};
use crate::error::{Error, Result};
use crate::identity::{Expected, Identity};
use crate::initialise::{self, Found};
use crate::keys::{self, Position};
use crate::log_store::LogStore;
use crate::origin_logs::OriginLogs;
use crate::outdated::{self, OutdatedMark};
use crate::peers::{self, PeerDirectory};
use crate::rocks::{self, Databases, EngineOptions};
use crate::snapshot::{self, SnapshotInbox};
use crate::wal;
use crate::watermark::Watermark;
use rdb_core::ids::NodeId;
use rocksdb::{DB, WriteBatch, WriteOptions};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Copies of what was cut off the log's end, beside the databases: this, and the name of the file that it was cut off.
const SAVED: &str = "cut-off";

/// A node's open data directory. It is closed, and its lock given back, when this and all that came from it is dropped.
pub struct Engine {
    path: PathBuf,
    identity: Identity,
    databases: Arc<Databases>,
    watermark: Arc<Watermark>,
    data: Data,
    inbox: SnapshotInbox,
    /// What was known of the other nodes' directories at the start.
    known_peers: BTreeMap<NodeId, PeerDirectory>,
    /// The position of the last batch in the log.
    position: u64,
}

impl Engine {
    /// Opens the directory of the node that `expected` names, or makes it if it does not exist or is empty.
    ///
    /// The node's incarnation has grown, for good, when this returns.
    ///
    /// # Errors
    /// The directory is not this node's, not whole, not as new as it was, in use, or readable by others: the error says
    /// which and what to do. Then the node must not start.
    pub fn open(path: &Path, expected: &Expected, options: &EngineOptions) -> Result<Self> {
        expected.validate()?;
        let lock = directory::enter(path)?;
        if initialise::inspect(path)? != Found::Used {
            initialise::run(path, expected, options)?;
        }
        let mut identity = Identity::read(path)?;
        identity.check(path, expected)?;
        outdated::check(path)?;
        let known_peers = peers::read(path, &identity)?;
        let watermark = Watermark::open(path, &identity)?;
        if directory::has_database(&path.join(LOG)) {
            wal::repair(&path.join(LOG), watermark.position(), &path.join(SAVED))?;
        }
        // Its space may be what opening the log needs. Nobody waits yet for a disk that this keeps busy.
        if let Err(error) = DroppedLogs::of(&path.join(LOG)).remove(Removal::Everything) {
            tracing::warn!(%error, "logs that are no longer needed stay on the disk");
        }
        let log = rocks::open_existing_log(path, options)?;
        identity.check_marker(&path.join(LOG), get(&log, keys::LOG_IDENTITY)?.as_deref())?;
        let data = rocks::open_existing_data(path, options)?;
        identity.check_marker(&path.join(DATA), get(&data, keys::DATA_IDENTITY)?.as_deref())?;
        let position = check_age(path, &identity, &log, &watermark)?;
        identity.incarnation += 1;
        let mut settled = WriteBatch::default();
        snapshot::settle_notes(&log, &data, &mut settled)?;
        let inbox = SnapshotInbox::empty(path)?;
        let position = begin(path, &identity, &log, &watermark, position + 1, settled)?;
        tracing::info!(path = %path.display(), %identity, identity.incarnation, position, "data directory opened");
        let databases = Arc::new(Databases { log, data, _lock: lock });
        Ok(Self {
            path: path.to_path_buf(),
            data: Data::new(databases.clone()),
            inbox,
            known_peers,
            identity,
            databases,
            watermark: Arc::new(watermark),
            position,
        })
    }

    /// Whose directory this is. Its incarnation is that of this start.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The regions' logs, for reading.
    pub fn log(&self) -> LogStore {
        LogStore::new(self.databases.clone(), self.identity.node_id, self.identity.incarnation)
    }

    /// The origins' logs of regions in eventual mode, for reading.
    pub fn origins(&self) -> OriginLogs {
        OriginLogs::new(self.databases.clone())
    }

    /// The regions' records and states.
    pub fn data(&self) -> Data {
        self.data.clone()
    }

    /// Where snapshots of other nodes are put while they come.
    pub fn inbox(&self) -> SnapshotInbox {
        self.inbox.clone()
    }

    /// What [`Engine::note_peers`] was given last before this start; nothing where it never was.
    pub fn known_peers(&self) -> &BTreeMap<NodeId, PeerDirectory> {
        &self.known_peers
    }

    /// Keeps what is known of other nodes' directories, for good.
    ///
    /// # Errors
    /// It cannot be written; what was written before, or this, is there.
    pub fn note_peers(&self, known: &BTreeMap<NodeId, PeerDirectory>) -> Result<()> {
        peers::write(&self.path, &self.identity, known)
    }

    /// For the moment at which another node says that this directory is outdated.
    pub fn outdated_mark(&self) -> OutdatedMark {
        OutdatedMark::of(&self.path)
    }

    /// How full the file system is.
    ///
    /// # Errors
    /// The system would not say.
    pub fn disk_space(&self) -> Result<DiskSpace> {
        DiskSpace::of(&self.path)
    }

    /// What the log database needs no longer.
    pub fn dropped_logs(&self) -> DroppedLogs {
        DroppedLogs::of(&self.path.join(LOG))
    }

    pub(crate) fn databases(&self) -> Arc<Databases> {
        self.databases.clone()
    }

    pub(crate) fn watermark(&self) -> Arc<Watermark> {
        self.watermark.clone()
    }

    /// Where the log stood when it was opened.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }
}

/// Refuses an identity file or a log that is older than what this node knew. Returns the log's position.
fn check_age(path: &Path, identity: &Identity, log: &DB, watermark: &Watermark) -> Result<u64> {
    let stored = get(log, keys::LOG_POSITION)?.as_deref().and_then(Position::decode);
    let position = stored.ok_or_else(|| not_there(keys::LOG_POSITION))?.at;
    if position < watermark.position() {
        return Err(Error::LogBehind {
            path: path.join(LOG),
            log: position,
            watermark: watermark.position(),
        });
    }
    let known = get_number(log, keys::LOG_INCARNATION)?.max(watermark.incarnation());
    if identity.incarnation < known {
        return Err(Error::IdentityOld { path: path.join(IDENTITY), found: identity.incarnation, known });
    }
    Ok(position)
}

/// Makes a new incarnation durable everywhere. The identity file goes first: it may be ahead of the log after a crash in
/// between, but never behind. The log's position moves too, so that a copy of the log from before this start is noticed
/// even if nothing else is written; what else is to change in the log is in `batch`. Returns that position.
fn begin(
    path: &Path,
    identity: &Identity,
    log: &DB,
    watermark: &Watermark,
    position: u64,
    mut batch: WriteBatch,
) -> Result<u64> {
    identity.write(path)?;
    batch.put(keys::LOG_INCARNATION, identity.incarnation.to_be_bytes());
    batch.put(keys::LOG_POSITION, Position { at: position, synced: position - 1 }.encode());
    let mut synced = WriteOptions::default();
    synced.set_sync(true);
    log.write_opt(batch, &synced).map_err(Error::rocks("begin a new incarnation in the log"))?;
    watermark.begin(identity.incarnation, position)?;
    Ok(position)
}

fn get(database: &DB, key: &[u8]) -> Result<Option<Vec<u8>>> {
    database.get(key).map_err(Error::rocks("read a database's marker"))
}

fn get_number(log: &DB, key: &[u8]) -> Result<u64> {
    let bytes = get(log, key)?.and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| not_there(key))
}

fn not_there(key: &[u8]) -> Error {
    Error::Damaged {
        what: "the log database".into(),
        problem: format!("its '{}' is missing or not a number", String::from_utf8_lossy(key)),
    }
}
