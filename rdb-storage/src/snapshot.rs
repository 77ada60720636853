//! A region's data as of one moment: read on one node, taken in on another that has fallen behind the log.
//!
//! The reader walks over a RocksDB snapshot and hands out chunks: the region's state, its sessions, its records, each
//! as the log's own names for them, not as keys of this node's databases. The receiver writes table files, which
//! RocksDB then takes in by one call: each file holds a part of the region's keys and a tombstone over the same part, so
//! that what was there before goes in the same instant. Records in a file are not covered by the file's own tombstone,
//! and the parts do not overlap.
//!
//! The log must follow the data, and lies in another database. So a note in the log comes first:
//!
//! 1. the files are written and synced;
//! 2. the note is synced: which snapshot, and which vote this node had given ([`LogWriterHandle::note_snapshot`]);
//! 3. the data takes the files in, all or none of them ([`Data::install`]);
//! 4. the log drops all its entries, begins after the snapshot and forgets the note, in one synced batch (a
//!    [`LogWrite`](rdb_core::raft::LogWrite) with a `snapshot`).
//!
//! A start that finds a note looks at the data: if it is the snapshot's, step 4 is done again, and if it is not, the
//! note is dropped. Nobody was promised anything before step 4.
//!
//! [`LogWriterHandle::note_snapshot`]: crate::LogWriterHandle::note_snapshot

use crate::data::Data;
use crate::directory;
use crate::error::{Error, Result};
use crate::keys::{self, RaftState};
use crate::rocks;
use rdb_core::apply::State;
use rdb_core::codec::{Corrupt, Reader, put_bytes, put_varint};
use rdb_core::eventual::machine as eventual;
use rdb_core::ids::{NamespaceId, RegionId};
use rdb_core::raft::disk::{self, Terms};
use rdb_core::raft::{HardState, SnapshotPlace};
use rdb_core::switch::Region;
use rocksdb::{
    DB, IngestExternalFileOptions, Options, ReadOptions, SnapshotWithThreadMode, SstFileWriter, WriteBatch,
};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const FORMAT: u8 = 1;
/// A table file that has grown this large is finished and another one begun.
const FILE_BYTES: u64 = 64 << 20;

/// What the items of a chunk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// The region's state: one item, without a name.
    State = 1,
    /// Clients' sessions, by client: 8 bytes.
    Sessions = 2,
    /// The region's mode, and what it has of eventual mode: by what follows the region in this node's keys.
    Mode = 3,
    /// Records, by the user's key.
    Records = 4,
}

/// A part of a snapshot: items of one section, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What the items are.
    pub section: Section,
    /// Names and contents.
    pub items: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Chunk {
    /// As it travels.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, self.section as u8];
        for (name, content) in &self.items {
            put_bytes(&mut out, name);
            put_bytes(&mut out, content);
        }
        out
    }

    /// Reads what [`Chunk::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are damaged, or a later FlareDB wrote them.
    pub fn decode(bytes: &[u8]) -> std::result::Result<Self, Corrupt> {
        let mut reader = Reader::new("a part of a snapshot", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let section = match reader.u8()? {
            1 => Section::State,
            2 => Section::Sessions,
            3 => Section::Mode,
            4 => Section::Records,
            _ => return Err(reader.corrupt("its section is not known to this version of FlareDB")),
        };
        let mut items = Vec::new();
        while !reader.is_empty() {
            items.push((reader.bytes()?.to_vec(), reader.bytes()?.to_vec()));
        }
        Ok(Self { section, items })
    }
}

/// Reads one region's data as it was when this was made. What is written meanwhile does not show.
pub struct SnapshotReader<'d> {
    moment: SnapshotWithThreadMode<'d, DB>,
    region: RegionId,
    namespace: NamespaceId,
    state: State,
    eventual: Option<eventual::State>,
    /// The section that comes next or is under way, and the key of this node's database from which it goes on.
    next: Option<(Section, Vec<u8>)>,
}

impl Data {
    /// Begins to read a region's data as it is now; `None` if nothing was ever applied to it, or a copy is being merged into it: its
    /// records are then ahead of what it says that they reflect.
    ///
    /// # Errors
    /// The disk could not be read, or what is on it is damaged.
    pub fn snapshot(&self, region: RegionId, namespace: NamespaceId) -> Result<Option<SnapshotReader<'_>>> {
        let moment = self.databases().data.snapshot();
        let stored = moment.get(keys::region_state(region)).map_err(Error::rocks("read a region's state"))?;
        let Some(stored) = stored else { return Ok(None) };
        let state = State::decode(&stored).map_err(Error::corrupt_region(region))?;
        let stored =
            moment.get(keys::eventual_state(region)).map_err(Error::rocks("read a region's state"))?;
        let eventual = stored.map(|bytes| eventual::State::decode(&bytes)).transpose();
        let eventual = eventual.map_err(Error::corrupt_region(region))?;
        if eventual.as_ref().is_some_and(|state| state.copied_pages != 0) {
            return Ok(None);
        }
        let next = Some((Section::State, Vec::new()));
        Ok(Some(SnapshotReader { moment, region, namespace, state, eventual, next }))
    }

    /// Replaces all of a region's data by a snapshot's: all of it or, after a crash, none. The note of it must be synced,
    /// and nothing else may read or write the region meanwhile.
    ///
    /// # Errors
    /// It could not be written. The node must stop.
    pub fn install(&self, snapshot: StagedSnapshot) -> Result<()> {
        // What is in memory of the region would else be flushed while the files are taken in, and all regions' writers
        // would wait for it.
        self.flush()?;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let StagedSnapshot { directory, files, state, region, .. } = snapshot;
        let taken = self.databases().data.ingest_external_file_opts(&options, files);
        taken.map_err(Error::rocks("take in a snapshot's files"))?;
        self.note_position(region, &state, true);
        self.forget_eventual(region);
        drop(directory);
        Ok(())
    }
}

impl SnapshotReader<'_> {
    /// Where the region stands in this snapshot.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Where the region's last eventual era stood in it; `None` if nothing was ever applied in one. Where writes are acknowledged
    /// before their sync, these are applied before it, too.
    pub fn eventual(&self) -> Option<&eventual::State> {
        self.eventual.as_ref()
    }

    /// The next part, of about `bytes_max` bytes; `None` at the end.
    ///
    /// # Errors
    /// The disk could not be read.
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Chunk>> {
        while let Some((section, from)) = self.next.take() {
            if section == Section::State {
                self.next = Some((Section::Sessions, keys::sessions(self.region).start));
                let items = vec![(Vec::new(), self.state.encode())];
                return Ok(Some(Chunk { section, items }));
            }
            let (items, goes_on) = self.items(section, from, bytes_max)?;
            self.next = match (goes_on, section) {
                (Some(from), _) => Some((section, from)),
                (None, Section::Sessions) => Some((Section::Mode, keys::modes(self.region).start)),
                (None, Section::Mode) => Some((Section::Records, keys::records(self.namespace).start)),
                (None, _) => None,
            };
            if !items.is_empty() {
                return Ok(Some(Chunk { section, items }));
            }
        }
        Ok(None)
    }

    /// Items from a key of this node's database on, and the key after them if there are more.
    fn items(&self, section: Section, from: Vec<u8>, bytes_max: usize) -> Result<(Items, Option<Vec<u8>>)> {
        let (range, prefix) = match section {
            Section::Records => (keys::records(self.namespace), keys::record(self.namespace, &[]).len()),
            Section::Mode => (keys::modes(self.region), keys::region(self.region).start.len()),
            _ => (keys::sessions(self.region), keys::sessions(self.region).start.len()),
        };
        let mut options = ReadOptions::default();
        options.set_iterate_range(from..range.end);
        options.set_verify_checksums(true);
        // Read once, and much: it must not drive out what is read often.
        options.fill_cache(false);
        let mut walk = self.moment.raw_iterator_opt(options);
        walk.seek_to_first();
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some((key, value)) = walk.item() {
            if bytes_max <= bytes {
                return Ok((items, Some(key.to_vec())));
            }
            bytes += key.len() + value.len();
            items.push((key[prefix..].to_vec(), value.to_vec()));
            walk.next();
        }
        walk.status().map_err(Error::rocks("read a region's data for a snapshot"))?;
        Ok((items, None))
    }
}

type Items = Vec<(Vec<u8>, Vec<u8>)>;

/// What comes next of a snapshot that another node sends.
pub enum Incoming {
    /// A part.
    Chunk(Chunk),
    /// That was all.
    End,
    /// There will be no more: the sender is gone, or gave it up.
    Aborted,
}

/// A snapshot that has come as a whole and is synced, ready for [`Data::install`]. Dropped, its files go.
#[derive(Debug)]
pub struct StagedSnapshot {
    directory: Staging,
    files: Vec<PathBuf>,
    state: State,
    mode: Option<Region>,
    region: RegionId,
}

impl StagedSnapshot {
    /// The region's mode in it; `None` where it has never switched.
    pub fn mode(&self) -> Option<&Region> {
        self.mode.as_ref()
    }

    /// Where the region stands in it.
    pub fn state(&self) -> &State {
        &self.state
    }
}

/// A directory that goes with its contents.
#[derive(Debug)]
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        // The next start removes what this leaves.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where snapshots of other nodes are put while they come. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SnapshotInbox {
    path: PathBuf,
    file_bytes: u64,
    /// Counts what has come since the start: each gets a directory of its own, whatever its sender calls it.
    arrivals: Arc<AtomicU64>,
}

impl SnapshotInbox {
    /// Empties the inbox of the data directory `path`: what was on its way when the node stopped is of no use.
    pub(crate) fn empty(path: &Path) -> Result<Self> {
        let path = path.join(directory::INCOMING);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(Self { path, file_bytes: FILE_BYTES, arrivals: Arc::default() })
    }

    /// The same inbox, with files of another length than usual.
    #[must_use]
    pub fn with_file_bytes(self, file_bytes: u64) -> Self {
        Self { file_bytes, ..self }
    }

    /// Writes a snapshot's parts to files as they come; `None` if it was aborted. Waits for the disk, and for `next`.
    ///
    /// # Errors
    /// A file could not be written, or the parts are not those of a snapshot of this region.
    pub fn receive(
        &self,
        region: RegionId,
        namespace: NamespaceId,
        next: &mut dyn FnMut() -> Incoming,
    ) -> Result<Option<StagedSnapshot>> {
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{region}-{arrival}"));
        directory::create(&path)?;
        let staging = Staging(path.clone());
        let mut source = Source::new(region, namespace, next);
        let options = rocks::table_file_options();
        let mut files = Vec::new();
        // The state and the sessions in a file of their own, then the records in as many as they need.
        for part in [keys::region(region), keys::records(namespace)] {
            let mut from = part.start.clone();
            loop {
                let file = path.join(format!("{:06}.sst", files.len()));
                let ends = write_file(&options, self.file_bytes, &file, &from, &part, &mut source)?;
                files.push(file);
                match ends {
                    FileEnd::At(next) => from = next,
                    FileEnd::OfPart => break,
                    FileEnd::Aborted => return Ok(None),
                }
            }
        }
        directory::sync(&path)?;
        let (state, mode) = source.finish()?;
        Ok(Some(StagedSnapshot { directory: staging, files, state, mode, region }))
    }
}

/// Why a file ends where it does.
enum FileEnd {
    /// It is long enough; this key begins the next one.
    At(Vec<u8>),
    /// The source has no more keys of this part.
    OfPart,
    Aborted,
}

/// Writes one table file: the keys of `part` from `from` on, until it is long enough, and a tombstone over all of that.
fn write_file(
    options: &Options,
    bytes_max: u64,
    path: &Path,
    from: &[u8],
    part: &Range<Vec<u8>>,
    source: &mut Source<'_>,
) -> Result<FileEnd> {
    let failed = Error::rocks("write a snapshot's file");
    let mut file = SstFileWriter::create(options);
    file.open(path).map_err(&failed)?;
    let end = loop {
        match source.peek()? {
            Peeked::Aborted => break FileEnd::Aborted,
            Peeked::Item(key, _) if !part.contains(key) => break FileEnd::OfPart,
            Peeked::End => break FileEnd::OfPart,
            Peeked::Item(key, _) if bytes_max <= file.file_size() => break FileEnd::At(key.to_vec()),
            Peeked::Item(key, value) => file.put(key, value).map_err(&failed)?,
        }
        source.advance();
    };
    let to = match &end {
        FileEnd::At(key) => key,
        FileEnd::OfPart => &part.end,
        // Nobody wants it; it goes with its directory.
        FileEnd::Aborted => return Ok(end),
    };
    file.delete_range(from, to.as_slice()).map_err(&failed)?;
    file.finish().map_err(&failed)?;
    Ok(end)
}

/// The parts of a snapshot as keys of this node's database, each checked.
struct Source<'n> {
    region: RegionId,
    namespace: NamespaceId,
    next: &'n mut dyn FnMut() -> Incoming,
    section: Section,
    items: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
    /// The item that was looked at, and the last one taken.
    peeked: Option<(Vec<u8>, Vec<u8>)>,
    last: Vec<u8>,
    state: Option<State>,
    mode: Option<Region>,
    ended: bool,
}

enum Peeked<'s> {
    Item(&'s Vec<u8>, &'s [u8]),
    End,
    Aborted,
}

impl<'n> Source<'n> {
    fn new(region: RegionId, namespace: NamespaceId, next: &'n mut dyn FnMut() -> Incoming) -> Self {
        Self {
            region,
            namespace,
            next,
            section: Section::State,
            items: Vec::new().into_iter(),
            peeked: None,
            last: Vec::new(),
            state: None,
            mode: None,
            ended: false,
        }
    }

    fn peek(&mut self) -> Result<Peeked<'_>> {
        while self.peeked.is_none() && !self.ended {
            let Some((name, content)) = self.items.next() else {
                match (self.next)() {
                    Incoming::Chunk(chunk) => {
                        if chunk.section < self.section {
                            return Err(self.damaged("its sections are out of order"));
                        }
                        self.section = chunk.section;
                        self.items = chunk.items.into_iter();
                    }
                    Incoming::End => self.ended = true,
                    Incoming::Aborted => return Ok(Peeked::Aborted),
                }
                continue;
            };
            let key = self.key(&name, &content)?;
            if key <= self.last {
                return Err(self.damaged("its items are out of order"));
            }
            self.peeked = Some((key, content));
        }
        Ok(self.peeked.as_ref().map_or(Peeked::End, |(key, content)| Peeked::Item(key, content)))
    }

    fn key(&mut self, name: &[u8], content: &[u8]) -> Result<Vec<u8>> {
        match self.section {
            Section::State if name.is_empty() && self.state.is_none() => {
                self.state = Some(State::decode(content).map_err(Error::corrupt_region(self.region))?);
                Ok(keys::region_state(self.region).to_vec())
            }
            Section::Sessions => {
                let client =
                    name.try_into().map_err(|_| self.damaged("it has a session without a client"))?;
                Ok(keys::session(self.region, u64::from_be_bytes(client)).to_vec())
            }
            Section::Mode => {
                let key = [&keys::region(self.region).start[..], name].concat();
                if !keys::modes(self.region).contains(&key) {
                    return Err(self.damaged("it has an item that is not of its mode"));
                }
                if key == keys::region_mode(self.region) {
                    self.mode = Some(Region::decode(content).map_err(Error::corrupt_region(self.region))?);
                }
                Ok(key)
            }
            Section::Records if !name.is_empty() => Ok(keys::record(self.namespace, name)),
            _ => Err(self.damaged("it has an item that cannot be")),
        }
    }

    fn advance(&mut self) {
        if let Some((key, _)) = self.peeked.take() {
            self.last = key;
        }
    }

    fn finish(self) -> Result<(State, Option<Region>)> {
        match self.state {
            Some(state) if self.ended && self.peeked.is_none() => Ok((state, self.mode)),
            _ => Err(self.damaged("it has no state, or goes on after its end")),
        }
    }

    fn damaged(&self, problem: &'static str) -> Error {
        Error::damaged_region(self.region, format!("a snapshot that another node sent: {problem}"))
    }
}

/// The note in the log of a snapshot that is being taken in: where it stands, and the term and vote that this node had
/// given by then, which the write after it stores.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    pub(crate) place: SnapshotPlace,
    pub(crate) hard_state: HardState,
}

impl Note {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.place.index);
        put_varint(&mut out, self.place.term);
        out.extend_from_slice(&disk::encode_hard_state(&self.hard_state));
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> std::result::Result<Self, Corrupt> {
        let mut reader = Reader::new("the note of a snapshot", bytes);
        if reader.u8()? != FORMAT {
            return Err(reader.corrupt("its format is not known to this version of FlareDB"));
        }
        let place = SnapshotPlace { index: reader.varint()?, term: reader.varint()? };
        Ok(Self { place, hard_state: disk::decode_hard_state(reader.rest())? })
    }

    /// The table of terms of a log that begins after the snapshot.
    pub(crate) fn terms(&self) -> Terms {
        Terms::after(self.place.index, self.place.term)
    }
}

/// Finishes or forgets what a stop has interrupted, in one batch that is not yet written: see the top of this file.
/// Returns how many notes there were.
pub(crate) fn settle_notes(log: &DB, data: &DB, batch: &mut WriteBatch) -> Result<usize> {
    let missing =
        || Error::Damaged { what: "the log database".into(), problem: "a column family is gone".into() };
    let state = log.cf_handle(keys::RAFT_STATE).ok_or_else(missing)?;
    let entries = log.cf_handle(keys::RAFT_LOG).ok_or_else(missing)?;
    let mut notes = 0;
    for item in log.iterator_cf(&state, rocksdb::IteratorMode::Start) {
        let (key, bytes) = item.map_err(Error::rocks("read the regions' states from the log"))?;
        let Some((region, RaftState::Snapshot)) = keys::parse_raft_state(&key) else { continue };
        notes += 1;
        let note = Note::decode(&bytes).map_err(Error::corrupt_region(region))?;
        let stored = data.get(keys::region_state(region)).map_err(Error::rocks("read a region's state"))?;
        let stored = stored.map(|bytes| State::decode(&bytes)).transpose();
        let stored = stored.map_err(Error::corrupt_region(region))?.unwrap_or_default();
        let taken_in = note.place.index <= stored.applied;
        tracing::warn!(%region, index = note.place.index, taken_in, "this node stopped while it took in a snapshot");
        if taken_in {
            let all = keys::entries(region);
            batch.delete_range_cf(&entries, all.start, all.end);
            let hard_state = HardState { commit: note.place.index, ..note.hard_state.clone() };
            let hard_state = disk::encode_hard_state(&hard_state);
            batch.put_cf(&state, keys::raft_state(region, RaftState::HardState), hard_state);
            let terms = note.terms().encode();
            batch.put_cf(&state, keys::raft_state(region, RaftState::Terms), terms);
        }
        batch.delete_cf(&state, key);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn chunks_and_notes_come_back() {
        let chunk = Chunk {
            section: Section::Records,
            items: vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), Vec::new())],
        };
        assert_eq!(Chunk::decode(&chunk.encode()).unwrap(), chunk);
        let note = Note {
            place: SnapshotPlace { index: 700, term: 3 },
            hard_state: HardState { term: 4, vote: 2, commit: 700 },
        };
        assert_eq!(Note::decode(&note.encode()).unwrap(), note);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = (Chunk::decode(&bytes), Note::decode(&bytes));
        }
    }
}
