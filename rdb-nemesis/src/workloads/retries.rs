//! Compare-and-swaps under a session, each answered at least twice under one name: sent at once to one or two nodes, after
//! the answer, or when another leader has come. A copy that reaches nobody, or nobody who can answer it, is none: copies are
//! sent until two are answered.
//!
//! Each client has a wheel: a key that only it writes, whose value goes from 0 to 7 and round again. A copy that is
//! applied a second time turns the wheel when its value comes round, and a swap that is lost leaves it behind; both make
//! the next swap fail, which on a wheel of one's own cannot happen otherwise. Besides there is a number that all count up.

use super::caller::{Scene, text};
use crate::cluster::{NAMESPACE, Raw, error_in, timed};
use crate::dice::Dice;
use crate::history::{Call, Entry, Expect, Name, Outcome, Request, Stamp, Swap};
use anyhow::{Context as _, Result, bail};
use rdb_proto::v1;
use rdb_proto::v1::compare_and_swap::Expect as WireExpect;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const NAME: &str = "retries";
const CLIENTS: u64 = 4;
/// Where so many tries are wanted that time matters.
const CLIENTS_IN_A_HURRY: u64 = 24;
/// Values of a wheel.
const WHEEL: u64 = 8;
const CALL_LIMIT: Duration = Duration::from_millis(500);
/// How long a write may stay in doubt; more than any fault lasts.
const RESOLVE_LIMIT: Duration = Duration::from_secs(90);
/// Copies that wait for another leader; past it the oldest is sent without one.
const LATER_MAX: usize = 24;
/// Answered copies that make a try.
pub(crate) const ANSWERS_MIN: u64 = 2;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    let leader = Arc::<AtomicU64>::default();
    let count = if scene.tries == 0 { CLIENTS } else { CLIENTS_IN_A_HURRY };
    for number in 0..count {
        clients.spawn(work(scene.clone(), leader.clone(), number));
    }
}

/// The key that all count up.
pub(crate) const SHARED: &str = "retries/shared";
/// What the keys of wheels begin with.
pub(crate) const WHEELS: &str = "retries/wheel/";

/// The value of a wheel that was turned so many times.
pub(crate) fn wheel_value(turns: u64) -> Option<String> {
    (0 < turns).then(|| ((turns - 1) % WHEEL).to_string())
}

/// One named swap.
#[derive(Debug, Clone)]
struct Try {
    key: String,
    swap: Swap,
    sequence: u64,
}

struct Client {
    scene: Arc<Scene>,
    id: u64,
    nodes: BTreeMap<u64, Raw>,
    addresses: BTreeMap<String, u64>,
    /// Shared by all clients: who is believed to lead.
    leader: Arc<AtomicU64>,
    session: u64,
    sequence: u64,
    /// Answered, and to be sent once more.
    later: VecDeque<Try>,
    changes_seen: u64,
    wheel: String,
    turns: u64,
    /// The shared number as last seen.
    shared: Option<u64>,
}

async fn work(scene: Arc<Scene>, leader: Arc<AtomicU64>, number: u64) -> Result<()> {
    let mut dice = scene.dice(NAME, number);
    let mut client = Client::new(&scene, leader, number)?;
    client.open_session().await?;
    while !scene.is_over() {
        let next = client.next(&mut dice);
        client.make(next, &mut dice).await?;
        client.send_later_ones().await?;
        if scene.tries == 0 {
            sleep(dice.millis(0..30)).await;
        }
    }
    while let Some(old) = client.later.front().cloned() {
        client.repeat(&old).await?;
        client.later.pop_front();
    }
    Ok(())
}

impl Client {
    fn new(scene: &Arc<Scene>, leader: Arc<AtomicU64>, number: u64) -> Result<Self> {
        let mut nodes = BTreeMap::new();
        for (node, address) in &scene.addresses {
            nodes.insert(*node, Raw::new(address)?);
        }
        Ok(Self {
            scene: scene.clone(),
            id: scene.history.new_client(),
            nodes,
            addresses: scene.addresses.iter().map(|(node, address)| (address.clone(), *node)).collect(),
            leader,
            session: 0,
            sequence: 0,
            later: VecDeque::new(),
            changes_seen: 0,
            wheel: format!("{WHEELS}{number}"),
            turns: 0,
            shared: None,
        })
    }

    /// The node believed to lead.
    fn led_by(&self) -> u64 {
        let believed = self.leader.load(Ordering::Relaxed);
        if self.nodes.contains_key(&believed) {
            believed
        } else {
            self.nodes.keys().next().copied().unwrap_or(1)
        }
    }

    fn follow(&self, leader: u64) {
        if self.leader.swap(leader, Ordering::Relaxed) != leader {
            self.scene.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn open_session(&mut self) -> Result<()> {
        let deadline = Instant::now() + RESOLVE_LIMIT;
        while Instant::now() < deadline {
            let node = self.led_by();
            let request = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token: 0 };
            let mut kv = self.nodes[&node].kv();
            match timeout(CALL_LIMIT, kv.open_session(timed(request, CALL_LIMIT))).await {
                Ok(Ok(answer)) => {
                    self.session = answer.into_inner().client;
                    return Ok(());
                }
                Ok(Err(status)) => self.elsewhere(node, error_in(&status).as_ref()),
                Err(_) => self.elsewhere(node, None),
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("no session could be opened in {} s", RESOLVE_LIMIT.as_secs())
    }

    /// After a failure at `node`: where to go next.
    fn elsewhere(&self, node: u64, error: Option<&v1::Error>) {
        let named = error.and_then(|error| self.addresses.get(&error.leader_address)).copied();
        let after = self.nodes.keys().copied().find(|id| node < *id);
        let next = named.or(after).or_else(|| self.nodes.keys().next().copied());
        self.follow(next.unwrap_or(node));
    }

    /// Draws the next swap.
    fn next(&mut self, dice: &mut Dice) -> Try {
        self.sequence += 1;
        let sequence = self.sequence;
        if dice.percent(20) {
            let expect = self.shared.map_or(Expect::Absent, |count| Expect::Value(count.to_string()));
            let then = (self.shared.unwrap_or(0) + 1).to_string();
            return Try { key: SHARED.to_owned(), swap: Swap { expect, then }, sequence };
        }
        let expect = wheel_value(self.turns).map_or(Expect::Absent, Expect::Value);
        let then = wheel_value(self.turns + 1).unwrap_or_default();
        Try { key: self.wheel.clone(), swap: Swap { expect, then }, sequence }
    }

    /// Makes a swap, by so many answered copies as make a try, or by one, if the others are to come later.
    async fn make(&mut self, next: Try, dice: &mut Dice) -> Result<()> {
        let (leader, nodes) = (self.led_by(), self.nodes.keys().copied().collect::<Vec<_>>());
        let mut answers = 0;
        match dice.below(4) {
            // At once, to the same node or to any.
            way @ 0..2 => {
                let second = if way == 0 { leader } else { dice.pick(&nodes) };
                let (one, other) = tokio::join!(self.send(&next, leader), self.send(&next, second));
                answers += u64::from(is_answer(&one)) + u64::from(is_answer(&other));
            }
            // After the answer.
            2 => {}
            // When another leader has come.
            _ => {
                self.later.push_back(next.clone());
                answers += ANSWERS_MIN - 1;
            }
        }
        // What was answered is answered again, which is one more copy.
        let mut outcome = self.resolve(&next).await?;
        answers += 1;
        while answers < ANSWERS_MIN {
            outcome = self.resolve(&next).await?;
            answers += 1;
        }
        if self.later.back().is_none_or(|old| old.sequence != next.sequence) {
            self.scene.tried.fetch_add(1, Ordering::Relaxed);
        }
        match outcome {
            Outcome::Done { .. } if next.key == self.wheel => self.turns += 1,
            Outcome::Done { .. } => self.shared = next.swap.then.parse().ok(),
            _ if next.key == self.wheel => bail!("a swap of {} failed, which nobody else writes", self.wheel),
            _ => self.shared = self.read_shared().await?,
        }
        Ok(())
    }

    /// Makes a try of a swap that was answered once.
    async fn repeat(&self, old: &Try) -> Result<()> {
        self.resolve(old).await?;
        self.scene.tried.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Sends copies until one is answered.
    async fn resolve(&self, named: &Try) -> Result<Outcome> {
        let deadline = Instant::now() + RESOLVE_LIMIT;
        while Instant::now() < deadline {
            let outcome = self.send(named, self.led_by()).await;
            if is_answer(&outcome) {
                return Ok(outcome);
            }
            if let Outcome::Expired { why } = outcome {
                bail!("write {} of session {}, which is in use: {why}", named.sequence, self.session);
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!(
            "write {} of session {} is in doubt for {} s",
            named.sequence,
            self.session,
            RESOLVE_LIMIT.as_secs()
        )
    }

    /// The copies that have waited for another leader, and the oldest where there are many.
    async fn send_later_ones(&mut self) -> Result<()> {
        let changes = self.scene.leader_changes.load(Ordering::Relaxed);
        let all = changes != self.changes_seen;
        self.changes_seen = changes;
        while (all && !self.later.is_empty()) || LATER_MAX < self.later.len() {
            let Some(old) = self.later.front().cloned() else { break };
            self.repeat(&old).await?;
            self.later.pop_front();
        }
        Ok(())
    }

    /// Sends one copy to one node and records what comes of it.
    async fn send(&self, named: &Try, node: u64) -> Outcome {
        let call_ns = self.scene.history.now_ns();
        let mut kv = self.nodes[&node].kv();
        let call = kv.compare_and_swap(timed(self.request(named), CALL_LIMIT));
        let outcome = match timeout(CALL_LIMIT, call).await {
            Ok(Ok(answer)) => answered(&answer.into_inner()),
            Ok(Err(status)) => {
                let error = error_in(&status);
                self.elsewhere(node, error.as_ref());
                refused(error.as_ref(), status.message())
            }
            Err(_) => {
                self.elsewhere(node, None);
                Outcome::Unknown { why: "no answer".to_owned() }
            }
        };
        let known = !matches!(outcome, Outcome::Unknown { .. });
        self.scene.history.record(Entry {
            client: self.id,
            workload: NAME.to_owned(),
            key: named.key.clone(),
            request: Some(Request::CompareAndSwap),
            call: Call::Cas(named.swap.clone()),
            call_ns,
            return_ns: known.then(|| self.scene.history.now_ns()),
            outcome: outcome.clone(),
            epoch: None,
            node: Some(node),
            served: None,
            name: Some(Name { session: self.session, sequence: named.sequence }),
        });
        outcome
    }

    fn request(&self, named: &Try) -> v1::CompareAndSwapRequest {
        let expect = match &named.swap.expect {
            Expect::Absent => WireExpect::Absent(v1::Absent {}),
            Expect::Value(value) => WireExpect::Value(value.clone().into()),
            Expect::Version(Stamp(version)) => {
                WireExpect::Version(v1::Version { era: version.era, hlc: version.hlc, node: version.node })
            }
        };
        let cas = v1::CompareAndSwap {
            key: named.key.clone().into(),
            expect: Some(expect),
            then_put: Some(named.swap.then.clone().into()),
        };
        // Answers that are still to be asked for must not be forgotten.
        let lowest = self.later.front().map_or(named.sequence, |old| old.sequence.min(named.sequence));
        let request = v1::RequestId { client: self.session, sequence: named.sequence, lowest };
        v1::CompareAndSwapRequest {
            namespace: NAMESPACE.to_owned(),
            epoch: 0,
            cas: Some(cas),
            request: Some(request),
        }
    }

    /// The shared number, by a linearizable read.
    async fn read_shared(&self) -> Result<Option<u64>> {
        let deadline = Instant::now() + RESOLVE_LIMIT;
        while Instant::now() < deadline {
            let node = self.led_by();
            let request = v1::GetRequest {
                namespace: NAMESPACE.to_owned(),
                get: Some(v1::Get { key: SHARED.into() }),
                ..v1::GetRequest::default()
            };
            let mut kv = self.nodes[&node].kv();
            match timeout(CALL_LIMIT, kv.get(timed(request, CALL_LIMIT))).await {
                Ok(Ok(answer)) => {
                    let value = answer.into_inner().value.map(|value| text(&value));
                    return value
                        .map(|value| value.parse().context("the shared key holds no number"))
                        .transpose();
                }
                Ok(Err(status)) => self.elsewhere(node, error_in(&status).as_ref()),
                Err(_) => self.elsewhere(node, None),
            }
            sleep(Duration::from_millis(20)).await;
        }
        bail!("{SHARED} could not be read for {} s", RESOLVE_LIMIT.as_secs())
    }
}

fn answered(answer: &v1::CompareAndSwapResponse) -> Outcome {
    let version = answer.version.map(Stamp::from);
    match version {
        Some(version) if answer.swapped => Outcome::Done { version },
        _ => {
            let value = answer.found.as_ref().map(|value| text(value));
            Outcome::Mismatch { version, value }
        }
    }
}

fn is_answer(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { .. } | Outcome::Mismatch { .. })
}

fn refused(error: Option<&v1::Error>, message: &str) -> Outcome {
    let why = error.map_or(message, |error| &error.message).to_owned();
    match error {
        Some(error) if error.code() == v1::Code::SessionExpired => Outcome::Expired { why },
        Some(error) if error.outcome() == v1::Outcome::NotDone => Outcome::NotDone { why },
        _ => Outcome::Unknown { why },
    }
}
