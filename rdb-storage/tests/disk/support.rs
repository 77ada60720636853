//! A node's directory in a test: opening, writing, copying while it is open (which is what a killed process leaves),
//! and breaking it.

use crossbeam_channel::{Receiver, Sender, unbounded};
use rdb_core::codec::put_varint;
use rdb_core::ids::{Index, NodeId, RegionId, Term};
use rdb_core::raft::disk::{Terms, encode_entry};
use rdb_core::raft::{Entry, LogWrite, Message};
use rdb_storage::{
    Engine, EngineOptions, Error, Expected, LogSink, LogWriter, LogWriterHandle, LogWriterOptions, Result,
};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The region that most tests write to.
pub(crate) const REGION: RegionId = RegionId(16);

pub(crate) fn expected() -> Expected {
    Expected { cluster_id: "test".into(), node_id: NodeId(1) }
}

/// A directory that a node takes.
pub(crate) fn private() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap()
}

pub(crate) fn open(path: &Path) -> Result<Engine> {
    Engine::open(path, &expected(), &EngineOptions::default())
}

/// The error of a start that must be refused.
pub(crate) fn refused(path: &Path) -> Error {
    match open(path) {
        Ok(engine) => panic!("{} was opened: {}", path.display(), engine.identity()),
        Err(error) => error,
    }
}

/// What a sink heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Persisted(RegionId, u64),
    /// Messages, each with the number of the write that it waited for in its index.
    Sent(RegionId, Vec<u64>),
    Failed(String),
}

/// Tells a test what the log writer says.
pub(crate) struct Teller(pub(crate) Sender<Event>);

impl LogSink for Teller {
    fn persisted(&mut self, region: RegionId, number: u64) {
        let _ = self.0.send(Event::Persisted(region, number));
    }
    fn send(&mut self, region: RegionId, messages: Vec<Message>) {
        let numbers = messages.iter().map(|message| message.index).collect();
        let _ = self.0.send(Event::Sent(region, numbers));
    }
    fn failed(&mut self, error: Error) {
        let _ = self.0.send(Event::Failed(error.to_string()));
    }
}

/// An open engine with its log writer.
pub(crate) struct Node {
    pub(crate) engine: Engine,
    pub(crate) writer: LogWriter,
    pub(crate) handle: LogWriterHandle,
    pub(crate) events: Receiver<Event>,
}

impl Node {
    pub(crate) fn open(path: &Path) -> Self {
        Self::open_with(path, &LogWriterOptions::default())
    }

    pub(crate) fn open_with(path: &Path, options: &LogWriterOptions) -> Self {
        let engine = open(path).unwrap();
        let (teller, events) = unbounded();
        let writer = LogWriter::spawn(&engine, options, Teller(teller)).unwrap();
        Self { engine, handle: writer.handle(), writer, events }
    }

    /// Makes [`REGION`] and waits for it.
    pub(crate) fn with_region(path: &Path) -> Self {
        let node = Self::open(path);
        node.create(REGION);
        node
    }

    pub(crate) fn create(&self, region: RegionId) {
        let (done, created) = unbounded();
        let members = vec![NodeId(1), NodeId(2), NodeId(3)];
        self.handle.create_region(region, members, move || done.send(()).unwrap()).unwrap();
        created.recv_timeout(PATIENCE).unwrap();
    }

    pub(crate) fn write(&self, write: LogWrite) {
        let number = write.number;
        self.handle.append(REGION, write).unwrap();
        loop {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                Event::Persisted(_, found) if found == number => return,
                Event::Failed(error) => panic!("{error}"),
                _ => {}
            }
        }
    }

    pub(crate) fn close(self) {
        self.writer.shutdown().unwrap();
    }
}

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A synced write of entries `indices`, all of `term`, with a table of terms that begins at 1.
pub(crate) fn entries(number: u64, indices: std::ops::RangeInclusive<Index>, term: Term) -> LogWrite {
    let mut terms = Terms::default();
    terms.push(1, term);
    LogWrite {
        number,
        entries: indices.map(|index| (index, entry(index, term))).collect(),
        hard_state: Some(hard_state(term, 1, 0)),
        terms: Some(terms.encode()),
        sync: true,
        ..LogWrite::default()
    }
}

pub(crate) fn entry(index: Index, term: Term) -> Vec<u8> {
    encode_entry(&Entry { index, term, data: format!("entry {index}").into_bytes(), ..Entry::default() })
}

pub(crate) fn hard_state(term: Term, vote: u64, commit: Index) -> Vec<u8> {
    let mut bytes = vec![1];
    [term, vote, commit].into_iter().for_each(|number| put_varint(&mut bytes, number));
    bytes
}

pub(crate) fn message(number: u64) -> Message {
    Message { index: number, ..Message::default() }
}

/// Copies a directory as it is now. The manifest goes first: the tables that it names then are there, too.
pub(crate) fn copy(from: &Path, to: &Path) {
    DirBuilder::new().mode(0o700).create(to).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(from).unwrap().map(|item| item.unwrap().file_name()).collect();
    names.sort_by_key(|name| {
        let name = name.to_string_lossy();
        (!name.starts_with("CURRENT"), !name.starts_with("MANIFEST"), name.into_owned())
    });
    for name in names {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() {
            copy(&from, &to);
        } else if let Err(error) = std::fs::copy(&from, &to) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "copy {}: {error}", from.display());
        }
    }
}

/// The log database's newest write-ahead log.
pub(crate) fn wal(path: &Path) -> PathBuf {
    let files = std::fs::read_dir(path.join("log")).unwrap().map(|item| item.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|ending| ending == "log")).max().unwrap()
}
