//! What clients did and were told: one line each, in memory while a run lasts, as JSON lines afterwards.
//!
//! Times are nanoseconds since the run began, by the monotonic clock of the one process that records. A call whose result
//! is unknown has no return: it may take effect at any time after it was made, and its client makes no other.

use crate::probe;
use crate::workloads::switched;
use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;
use rdb_check::Version;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// 2: tells how nodes stood.
const FORMAT: u32 = 2;
const FORMAT_MIN: u32 = 1;

/// A version as it stands in the file: `era.hlc.node`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(pub Version);

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> Self {
        format!("{:?}", stamp.0)
    }
}

impl TryFrom<String> for Stamp {
    type Error = rdb_client::ParseVersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(text.parse::<rdb_client::Version>()?.into())
    }
}

impl From<rdb_client::Version> for Stamp {
    fn from(version: rdb_client::Version) -> Self {
        Self(Version { era: version.era, hlc: version.hlc, node: version.node })
    }
}

impl From<rdb_proto::v1::Version> for Stamp {
    fn from(version: rdb_proto::v1::Version) -> Self {
        Self(Version { era: version.era, hlc: version.hlc, node: version.node })
    }
}

/// By which request a call was made. One request may be many calls, one for each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// A read of a key.
    Get,
    /// A read of some keys at one moment.
    BatchGet,
    /// A read of all keys of a range, page by page, at one moment.
    Scan,
    /// A write of a key.
    Put,
    /// A removal of a key.
    Delete,
    /// A removal of all keys of a range.
    DeleteRange,
    /// A write of a key that wants to find something first.
    CompareAndSwap,
    /// Writes of some keys at one moment.
    BatchWrite,
    /// Compares, and what follows from them.
    Transaction,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "f", content = "arg", rename_all = "snake_case")]
pub enum Call {
    /// A read that must see what was acknowledged before it.
    Get,
    /// A read of what a node has.
    Stale,
    /// A write of a value.
    Put(String),
    /// A removal.
    Delete,
    /// A write that wants to find something first.
    Cas(Swap),
}

/// What a compare-and-swap wants to find, and what it writes then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// What it wants to find.
    pub expect: Expect,
    /// What it writes.
    pub then: String,
}

/// What a compare-and-swap wants to find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    /// No such key.
    Absent,
    /// This value.
    Value(String),
    /// The record of this version.
    Version(Stamp),
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// A read's answer; no value where there is no such key.
    Found {
        /// The value.
        value: Option<String>,
        /// Its version.
        version: Option<Stamp>,
    },
    /// The write was applied.
    Done {
        /// As this version.
        version: Stamp,
    },
    /// The comparison failed: nothing was applied.
    Mismatch {
        /// Of the record found.
        version: Option<Stamp>,
        /// Its value, where the answer tells it.
        value: Option<String>,
    },
    /// Certainly not applied, or not read.
    NotDone {
        /// Why.
        why: String,
    },
    /// Not applied now, but nobody knows whether an earlier copy of it was: the record of its session is gone.
    Expired {
        /// In whose words.
        why: String,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A write's name in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The session.
    pub session: u64,
    /// The write in it.
    pub sequence: u64,
}

/// One operation of one client on one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Who asked. One client has one operation under way, and none after an unknown result.
    pub client: u64,
    /// Which workload it belongs to.
    pub workload: String,
    /// The key.
    pub key: String,
    /// By which request; none in histories that do not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// What was asked for.
    #[serde(flatten)]
    pub call: Call,
    /// When it was asked for.
    pub call_ns: u64,
    /// When the result came; none if it is unknown.
    pub return_ns: Option<u64>,
    /// What was told.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The namespace's epoch, where it was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The node that answered or was asked, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<u64>,
    /// How a read was served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Of a named write: copies of one write share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

impl Entry {
    /// Whether a write was acknowledged.
    #[must_use]
    pub fn is_acknowledged_write(&self) -> bool {
        matches!(self.outcome, Outcome::Done { .. })
    }

    /// Whether it was answered, if only by saying that its comparison failed.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Found { .. } | Outcome::Done { .. } | Outcome::Mismatch { .. })
    }

    /// Whether it did what it was there for: a write that was applied, or a read that was answered.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        matches!(self.outcome, Outcome::Found { .. } | Outcome::Done { .. })
    }

    /// Whether nobody knows what became of it.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. })
    }
}

/// How a node stood at a moment, by its own word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Which.
    pub node: u64,
    /// Whether it answered at all.
    pub answers: bool,
    /// In which term it leads the namespace that is strong all the time, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leads_in_term: Option<u64>,
    /// The mode of the namespace that is switched, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// How far replicas are behind this node's eventual writes, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag_ms: Option<u64>,
    /// Whether that is known; else it is at least so much.
    pub lag_known: bool,
    /// What it used, where it was measured: once a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
}

/// What a node used at a moment, as the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// By this process.
    pub process: u32,
    /// Memory.
    pub resident_bytes: u64,
    /// Files, connections among them.
    pub open_files: u64,
    /// Room on its disk.
    pub data_bytes: u64,
}

impl Seen {
    /// A node that does not answer.
    pub(crate) fn away(node: u64) -> Self {
        Self {
            node,
            answers: false,
            leads_in_term: None,
            mode: None,
            lag_ms: None,
            lag_known: false,
            used: None,
        }
    }
}

/// One line of a history's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// The first one.
    Head {
        /// Of the file.
        format: u32,
        /// Of the run.
        seed: u64,
    },
    /// Something that was done to the cluster.
    Note {
        /// What.
        note: String,
        /// When.
        at_ns: u64,
    },
    /// How a node stood.
    Seen {
        /// How.
        seen: Seen,
        /// When.
        at_ns: u64,
    },
    /// An operation.
    Entry(Box<Entry>),
}

/// A run's history while it grows.
pub struct History {
    began: Instant,
    seed: u64,
    lines: Mutex<Vec<Line>>,
    clients: AtomicU64,
    /// Acknowledged writes and answered reads.
    answered: AtomicU64,
    /// When each workload last made each request that succeeded.
    succeeded: Mutex<BTreeMap<(String, Request), u64>>,
}

impl History {
    /// An empty one, which begins now.
    #[must_use]
    pub fn begin(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            seed,
            lines: Mutex::default(),
            clients: AtomicU64::new(1),
            answered: AtomicU64::new(0),
            succeeded: Mutex::default(),
        }
    }

    /// Nanoseconds since it began.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that no client has had.
    pub(crate) fn new_client(&self) -> u64 {
        self.clients.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds an operation that has ended, well or not.
    pub fn record(&self, entry: Entry) {
        if entry.is_answered() {
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(request) = entry.request.filter(|_| entry.has_succeeded()) {
            let mut succeeded = self.succeeded.lock();
            let at_ns = succeeded.entry((entry.workload.clone(), request)).or_default();
            *at_ns = entry.call_ns.max(*at_ns);
        }
        self.lines.lock().push(Line::Entry(Box::new(entry)));
    }

    /// Adds what was done to the cluster.
    pub(crate) fn note(&self, note: impl Into<String>) {
        let line = Line::Note { note: note.into(), at_ns: self.now_ns() };
        self.lines.lock().push(line);
    }

    /// Adds how a node stands.
    pub(crate) fn see(&self, seen: Seen) {
        let line = Line::Seen { seen, at_ns: self.now_ns() };
        self.lines.lock().push(line);
    }

    /// All of it so far.
    pub(crate) fn all(&self) -> Vec<Line> {
        self.lines.lock().clone()
    }

    /// How nodes stood so far, without the operations, which are many more.
    pub(crate) fn looks(&self) -> Vec<Line> {
        let is_look = |line: &&Line| matches!(line, Line::Seen { .. });
        self.lines.lock().iter().filter(is_look).cloned().collect()
    }

    /// How many operations were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether a workload has made such a request since then, and it has succeeded.
    pub(crate) fn has_succeeded_since(&self, at_ns: u64, workload: &str, request: Request) -> bool {
        let last = self.succeeded.lock().get(&(workload.to_owned(), request)).copied();
        last.is_some_and(|last| at_ns <= last)
    }

    /// Why calls of the strong namespace's workloads were refused that were made since then.
    pub(crate) fn refused_since(&self, at_ns: u64) -> Vec<String> {
        let lines = self.lines.lock();
        // What is switched asks for what its mode does not do; these others ask nodes that do not lead, too.
        let asks_anybody = |workload: &str| [switched::NAME, probe::NAME, "retries"].contains(&workload);
        let ours = |entry: &&Entry| at_ns <= entry.call_ns && !asks_anybody(&entry.workload);
        let refused = lines.iter().filter_map(entry).filter(ours).filter_map(|entry| match &entry.outcome {
            Outcome::NotDone { why } => Some(format!("{:?} of {}: {why}", entry.request, entry.key)),
            _ => None,
        });
        refused.collect()
    }

    /// All operations so far.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.lines.lock().iter().filter_map(entry).cloned().collect()
    }

    /// Forgets the operations, and looks at nodes that did not measure what they use: a long run's would fill the memory.
    pub(crate) fn forget_operations(&self) {
        let stays = |line: &Line| match line {
            Line::Head { .. } | Line::Note { .. } => true,
            Line::Seen { seen, .. } => seen.used.is_some(),
            Line::Entry(_) => false,
        };
        let mut lines = self.lines.lock();
        lines.retain(stays);
        lines.shrink_to_fit();
    }

    /// All keys so far, by workload: what belongs together stands together.
    pub(crate) fn keys(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for entry in self.lines.lock().iter().filter_map(entry) {
            if let Some(known) = keys.get_mut(&entry.workload) {
                if !known.contains(&entry.key) {
                    known.insert(entry.key.clone());
                }
            } else {
                keys.insert(entry.workload.clone(), BTreeSet::from([entry.key.clone()]));
            }
        }
        keys
    }

    /// Writes all of it to a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file = std::fs::File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut out = BufWriter::new(file);
        let head = Line::Head { format: FORMAT, seed: self.seed };
        for line in std::iter::once(&head).chain(self.lines.lock().iter()) {
            serde_json::to_writer(&mut out, line)?;
            out.write_all(b"\n")?;
        }
        out.flush().with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads the lines of a file.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Vec<Line>> {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut lines = Vec::new();
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = serde_json::from_str(&line?)
                .with_context(|| format!("{}:{}: no line of a history", path.display(), number + 1))?;
            match line {
                Line::Head { format, .. } if !(FORMAT_MIN..=FORMAT).contains(&format) => {
                    bail!(
                        "{} has format {format}, and this program knows {FORMAT_MIN} to {FORMAT}",
                        path.display()
                    )
                }
                line => lines.push(line),
            }
        }
        Ok(lines)
    }

    /// The operations among these lines.
    #[must_use]
    pub fn operations(lines: &[Line]) -> Vec<Entry> {
        lines.iter().filter_map(entry).cloned().collect()
    }
}

fn entry(line: &Line) -> Option<&Entry> {
    match line {
        Line::Entry(entry) => Some(entry),
        Line::Head { .. } | Line::Note { .. } | Line::Seen { .. } => None,
    }
}
