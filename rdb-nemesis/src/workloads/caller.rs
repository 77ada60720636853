//! A client whose every call is recorded.

use super::pace::Pace;
use crate::cluster::NAMESPACE;
use crate::dice::Dice;
use crate::history::{Call, Entry, Expect, History, Outcome, Request, Stamp, Swap};
use anyhow::Result;
use rdb_client::{
    Bytes, CasOutcome, Client, Consistency, Error, Namespace, Options, Record, Served, Version, WriteError,
    Written,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long a call may take. Short, so that what a fault leaves in doubt is many calls and not one.
const CALL_LIMIT: Duration = Duration::from_millis(500);
/// How long a call may take whose result must be known in the end.
const PATIENT_LIMIT: Duration = Duration::from_secs(90);

/// Of a value that was padded: as much as a page of a scan holds.
const PADDED_BYTES: usize = 256 << 10;

/// What all clients of a run share.
pub(crate) struct Scene {
    pub(crate) history: Arc<History>,
    /// Where clients reach each node.
    pub(crate) addresses: BTreeMap<u64, String>,
    /// Whether leaders serve reads by their lease.
    pub(crate) lease: bool,
    pub(crate) seed: u64,
    /// Named compare-and-swaps to make, however long it takes; 0: as many as there is time for.
    pub(crate) tries: u64,
    /// Those made so far.
    pub(crate) tried: AtomicU64,
    /// Grows whenever another leader is seen.
    pub(crate) leader_changes: AtomicU64,
    /// Which namespace is switched.
    pub(crate) switched: &'static str,
    /// Where clients share so many turns a second.
    pub(crate) pace: Option<Pace>,
    pub(crate) stop: AtomicBool,
}

impl Scene {
    /// What clients share who read by no lease, and have no tries to make.
    pub(crate) fn new(
        history: Arc<History>,
        addresses: BTreeMap<u64, String>,
        seed: u64,
        switched: &'static str,
    ) -> Self {
        Self {
            history,
            addresses,
            lease: false,
            seed,
            tries: 0,
            tried: AtomicU64::new(0),
            leader_changes: AtomicU64::new(0),
            switched,
            pace: None,
            stop: AtomicBool::new(false),
        }
    }

    /// Whether clients should end.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits so long between two calls of a client, and until it is its turn, where turns are shared.
    pub(crate) async fn pause(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
        if let Some(pace) = &self.pace {
            pace.turn().await;
        }
    }

    /// Chance for the client of this number in this workload.
    pub(crate) fn dice(&self, workload: &str, number: u64) -> Dice {
        let stream =
            workload.bytes().fold(number + 1, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Dice::new(self.seed, stream)
    }

    pub(super) fn options(&self, limit: Duration, sessions: bool) -> Options {
        let endpoints = self.addresses.values().cloned().collect();
        let connect_patience = Duration::from_secs(30);
        Options { endpoints, request_timeout: limit, connect_patience, sessions, ..Options::default() }
    }
}

/// A client whose every call is recorded. After an unknown result it goes on as another one.
pub(crate) struct Caller {
    pub(crate) scene: Arc<Scene>,
    workload: &'static str,
    client: u64,
    /// Follows the leader.
    namespace: Namespace,
    /// Asks one node, whoever leads.
    at: BTreeMap<u64, Namespace>,
    /// Names its writes and repeats them until they are answered.
    patient: Namespace,
}

/// Where a read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// To the leader.
    Leader,
    /// To this node, whoever leads.
    Node(u64),
}

impl Caller {
    /// A client of the namespace that most workloads share.
    pub(crate) async fn connect(scene: &Arc<Scene>, workload: &'static str) -> Result<Self> {
        Self::connect_to(scene, workload, NAMESPACE).await
    }

    /// A client of this namespace.
    pub(crate) async fn connect_to(scene: &Arc<Scene>, workload: &'static str, name: &str) -> Result<Self> {
        let client = Client::connect(scene.options(CALL_LIMIT, false)).await?;
        let patient = Client::connect(scene.options(PATIENT_LIMIT, true)).await?;
        let mut at = BTreeMap::new();
        for (node, address) in &scene.addresses {
            at.extend(client.namespace_at(name, address).map(|namespace| (*node, namespace)));
        }
        Ok(Self {
            scene: scene.clone(),
            workload,
            client: scene.history.new_client(),
            namespace: client.namespace(name),
            at,
            patient: patient.namespace(name),
        })
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.at.keys().copied().collect()
    }

    pub(super) fn to(&self, place: Where) -> &Namespace {
        match place {
            Where::Leader => &self.namespace,
            Where::Node(node) => self.at.get(&node).unwrap_or(&self.namespace),
        }
    }

    /// Reads a key.
    pub(crate) async fn get(
        &mut self,
        key: &str,
        place: Where,
        consistency: Consistency,
    ) -> Option<Option<Record>> {
        let namespace = self.to(place).clone().with_consistency(consistency);
        let call_ns = self.scene.history.now_ns();
        let answer = namespace.get_served(key.to_owned()).await;
        let (outcome, served) = match &answer {
            Ok((record, served)) => (found(record.as_ref()), Some(*served)),
            Err(error) => (failed(error), None),
        };
        let mut entry = self.entry(key, Request::Get, read_of(consistency), call_ns, outcome);
        mark(&mut entry, served, place);
        self.scene.history.record(entry);
        answer.ok().map(|(record, _)| record)
    }

    /// Reads keys at one moment.
    pub(crate) async fn batch_get(
        &mut self,
        keys: &[String],
        place: Where,
        consistency: Consistency,
    ) -> Option<Vec<Record>> {
        let namespace = self.to(place).clone().with_consistency(consistency);
        let call_ns = self.scene.history.now_ns();
        let asked = keys.iter().map(|key| Bytes::from(key.clone())).collect();
        let answer = namespace.batch_get(asked).await;
        let mut records = answer.as_deref().unwrap_or_default().iter().peekable();
        for key in keys {
            let outcome = match &answer {
                Ok(_) => found(records.next_if(|record| record.key == key.as_bytes())),
                Err(error) => failed(error),
            };
            let mut entry = self.entry(key, Request::BatchGet, read_of(consistency), call_ns, outcome);
            mark(&mut entry, None, place);
            self.scene.history.record(entry);
        }
        answer.ok()
    }

    /// Stores a value. Returns its version, if it was acknowledged.
    pub(crate) async fn put(&mut self, key: &str, value: &str) -> Option<Version> {
        self.put_at(key, value, Where::Leader).await
    }

    /// The same, asking this node.
    pub(crate) async fn put_at(&mut self, key: &str, value: &str, place: Where) -> Option<Version> {
        let call_ns = self.scene.history.now_ns();
        let answer = self.to(place).put(key.to_owned(), value.to_owned()).await;
        self.wrote(&[key], Request::Put, &Call::Put(value.to_owned()), call_ns, answer)
    }

    /// Removes a key. A removal leaves no value by which somebody could see that it has happened, so its result must be
    /// known: it is repeated under its name until it is, and the client does not wait for that for longer than for other
    /// calls.
    pub(crate) async fn delete(&mut self, key: &str, resolving: &mut JoinSet) {
        let (patient, asked) = (self.patient.clone(), key.to_owned());
        let answer = async move { patient.delete(asked).await };
        self.removed(vec![key.to_owned()], Request::Delete, answer, resolving).await;
    }

    /// Removes all keys from `from` up to, and without, `to`, in the same way. They are among `keys`, which must be all that
    /// anybody writes there.
    pub(crate) async fn delete_range(
        &mut self,
        keys: &[String],
        from: usize,
        to: usize,
        resolving: &mut JoinSet,
    ) {
        let patient = self.patient.clone();
        let (begin, end) = (keys[from].clone(), keys[to].clone());
        let answer = async move { patient.delete_range(begin, end).await };
        self.removed(keys[from..to].to_vec(), Request::DeleteRange, answer, resolving).await;
    }

    async fn removed(
        &mut self,
        keys: Vec<String>,
        request: Request,
        answer: impl Future<Output = Result<Written, WriteError>> + Send + 'static,
        resolving: &mut JoinSet,
    ) {
        let mut alone = self.alone();
        let call_ns = self.scene.history.now_ns();
        let mut call = tokio::spawn(async move {
            let answer = answer.await;
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            alone.wrote(&keys, request, &Call::Delete, call_ns, answer);
            Ok(())
        });
        if tokio::time::timeout(CALL_LIMIT, &mut call).await.is_err() {
            resolving.spawn(async move { call.await? });
            self.client = self.scene.history.new_client();
        }
    }

    /// The same client once more, for a call that somebody else waits for.
    fn alone(&self) -> Self {
        Self {
            scene: self.scene.clone(),
            workload: self.workload,
            client: self.client,
            namespace: self.namespace.clone(),
            at: BTreeMap::new(),
            patient: self.patient.clone(),
        }
    }

    /// Stores a value if the key is as expected.
    pub(crate) async fn compare_and_swap(&mut self, key: &str, expect: Expect, then: &str) {
        let wire = match &expect {
            Expect::Absent => rdb_client::Expect::Absent,
            Expect::Value(value) => rdb_client::Expect::Value(value.clone().into()),
            Expect::Version(version) => rdb_client::Expect::Version(wire(*version)),
        };
        let call_ns = self.scene.history.now_ns();
        let answer =
            self.namespace.compare_and_swap(key.to_owned(), wire, Some(then.to_owned().into())).await;
        let outcome = match answer {
            Ok(CasOutcome::Swapped(version)) => Outcome::Done { version: version.into() },
            Ok(CasOutcome::Mismatch { version, found }) => Outcome::Mismatch {
                version: version.map(Stamp::from),
                value: found.map(|value| text(&value)),
            },
            Err(error) => write_failed(&error),
        };
        let swap = Swap { expect, then: then.to_owned() };
        self.swapped(key, Request::CompareAndSwap, swap, call_ns, outcome);
    }

    /// Records a compare-and-swap, however it was made.
    pub(crate) fn swapped(
        &mut self,
        key: &str,
        request: Request,
        swap: Swap,
        call_ns: u64,
        outcome: Outcome,
    ) {
        let entry = self.entry(key, request, Call::Cas(swap), call_ns, outcome);
        let unknown = entry.is_unknown();
        self.scene.history.record(entry);
        self.retire_if(unknown);
    }

    /// Records a write of one value to some keys at one moment.
    pub(crate) fn wrote(
        &mut self,
        keys: &[&str],
        request: Request,
        call: &Call,
        call_ns: u64,
        answer: Result<Written, WriteError>,
    ) -> Option<Version> {
        let (outcome, epoch) = match &answer {
            Ok(written) => (Outcome::Done { version: written.version.into() }, Some(written.epoch)),
            Err(error) => (write_failed(error), None),
        };
        let unknown = matches!(outcome, Outcome::Unknown { .. });
        for key in keys {
            let mut entry = self.entry(key, request, call.clone(), call_ns, outcome.clone());
            entry.epoch = epoch;
            self.scene.history.record(entry);
        }
        self.retire_if(unknown);
        answer.ok().map(|written| written.version)
    }

    fn retire_if(&mut self, unknown: bool) {
        if unknown {
            self.client = self.scene.history.new_client();
        }
    }

    /// The namespace, by way of the leader, for calls that are recorded by hand.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(super) fn entry(
        &self,
        key: &str,
        request: Request,
        call: Call,
        call_ns: u64,
        outcome: Outcome,
    ) -> Entry {
        let known = !matches!(outcome, Outcome::Unknown { .. });
        Entry {
            client: self.client,
            workload: self.workload.to_owned(),
            key: key.to_owned(),
            request: Some(request),
            call,
            call_ns,
            return_ns: known.then(|| self.scene.history.now_ns()),
            outcome,
            epoch: None,
            node: None,
            served: None,
            name: None,
        }
    }
}

/// Calls whose results are still to come.
pub(crate) type JoinSet = tokio::task::JoinSet<Result<()>>;

/// Waits for calls whose results are still to come.
pub(crate) async fn resolve(mut resolving: JoinSet) -> Result<()> {
    while let Some(ended) = resolving.join_next().await {
        ended??;
    }
    Ok(())
}

pub(super) fn read_of(consistency: Consistency) -> Call {
    if matches!(consistency, Consistency::Stale { .. }) { Call::Stale } else { Call::Get }
}

pub(super) fn mark(entry: &mut Entry, served: Option<Served>, place: Where) {
    entry.served = served.and_then(|served| served.by).map(|by| by.to_string());
    entry.node = match (served, place) {
        (Some(served), _) => Some(served.node),
        (None, Where::Node(node)) => Some(node),
        (None, Where::Leader) => None,
    };
}

pub(super) fn found(record: Option<&Record>) -> Outcome {
    Outcome::Found {
        value: record.map(|record| text(&record.value)),
        version: record.map(|record| record.version.into()),
    }
}

pub(super) fn failed(error: &Error) -> Outcome {
    Outcome::NotDone { why: error.to_string() }
}

pub(crate) fn write_failed(error: &WriteError) -> Outcome {
    match error {
        WriteError::NotDone(error) => Outcome::NotDone { why: error.to_string() },
        WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => {
            Outcome::Unknown { why: error.to_string() }
        }
    }
}

/// A value that is stored and read as more bytes than are recorded of it.
pub(super) fn padded(value: &str) -> String {
    value.to_owned() + &"~".repeat(PADDED_BYTES - value.len())
}

/// A value as it is recorded: without its padding, if that is whole.
pub(crate) fn text(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    if text.len() == PADDED_BYTES { text.trim_end_matches('~').to_owned() } else { text.into_owned() }
}

fn wire(stamp: Stamp) -> Version {
    Version { era: stamp.0.era, hlc: stamp.0.hlc, node: stamp.0.node }
}
