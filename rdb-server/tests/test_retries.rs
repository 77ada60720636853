//! Exactly once, tried on real processes: what is sent again and again under one name is applied once and answered the same
//! each time, over deaths of leaders, restarts and snapshots; and what is created or deleted in the catalog is so once.
//!
//! `FLAREDB_RETRIES` is the number of compare-and-swaps to try at least (3,000 where it is not set).

use crate::support;
use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, PATIENCE, Settings, until};
use rdb_client::{Client, Code, Mode, Options, WriteError};
use rdb_proto::v1;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const NAMESPACE: &str = "things";
/// Logs are kept for nobody, so that whoever was away needs a snapshot.
const SHORT_LOGS: &str = "log_keep_entries = 8\nlog_bytes_max = 0";
const RETRIES: u64 = 3_000;
/// Deaths of a follower, a snapshot for it, its leadership and its death as a leader: at least so many times.
const ROUNDS: u64 = 2;
const WORKERS: u64 = 8;
/// Answered writes that a worker says it still waits for, so that their records are kept.
const KEPT: usize = 8;
const ATTEMPT_MS: u64 = 1_000;

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Compare-and-swaps that were done.
    done: AtomicU64,
    /// Answers beyond the first to a compare-and-swap: from the record.
    repeated: AtomicU64,
    /// Repetitions that came after other writes to the same key.
    late: AtomicU64,
    /// Names whose record is gone, sent again and refused.
    refused: AtomicU64,
}

/// A compare-and-swap with its name and the answer that it had.
#[derive(Clone)]
struct Asked {
    cas: v1::CompareAndSwap,
    sequence: u64,
    version: v1::Version,
}

/// The only writer of its key.
struct Worker {
    shared: Arc<Shared>,
    nodes: Vec<Raw>,
    key: String,
    session: u64,
    /// Those whose records the region must have, the last one at the end.
    kept: VecDeque<Asked>,
    /// One whose record it must have dropped.
    dropped: Option<Asked>,
    sequence: u64,
}

/// A node to ask, one after the other, for as long as anything may take.
struct Turns {
    began: Instant,
    turn: usize,
}

impl Turns {
    fn new() -> Self {
        Self { began: Instant::now(), turn: 0 }
    }

    /// The next node; not as fast as the loop can, since all may be down.
    async fn next<'n, N>(&mut self, nodes: &'n [N]) -> (usize, &'n N) {
        assert!(self.began.elapsed() < PATIENCE, "no node answers");
        if 0 < self.turn && self.turn.is_multiple_of(nodes.len()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let place = self.turn % nodes.len();
        self.turn += 1;
        (place, &nodes[place])
    }
}

async fn open_session(nodes: &[Raw]) -> u64 {
    let mut turns = Turns::new();
    loop {
        let (_, raw) = turns.next(nodes).await;
        let open = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token: 0 };
        if let Ok(opened) = raw.kv.clone().open_session(timed(open, ATTEMPT_MS)).await {
            return opened.into_inner().client;
        }
    }
}

impl Worker {
    async fn run(mut self) -> Self {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.try_one().await;
            if self.sequence.is_multiple_of(5) {
                self.repeat_an_old_one().await;
            }
            if self.sequence.is_multiple_of(20) {
                self.repeat_a_forgotten_one().await;
            }
        }
        self
    }

    /// Every other one would succeed if it were executed again: it expects only that there is something.
    fn next(&mut self) -> v1::CompareAndSwap {
        use v1::compare_and_swap::Expect;
        self.sequence += 1;
        let expect = match self.kept.back() {
            None => Expect::Absent(v1::Absent {}),
            Some(_) if self.sequence.is_multiple_of(2) => Expect::Present(v1::Present {}),
            Some(last) => Expect::Value(last.cas.then_put.clone().unwrap()),
        };
        let value = format!("{}/{}", self.key, self.sequence);
        v1::CompareAndSwap {
            key: self.key.clone().into(),
            expect: Some(expect),
            then_put: Some(value.into()),
        }
    }

    /// Sends one to two nodes at once, again and again, until it was answered twice. All answers must be the same.
    async fn try_one(&mut self) {
        let cas = self.next();
        if KEPT < self.kept.len() {
            // This attempt says that it is no longer waited for.
            self.dropped = self.kept.pop_front();
        }
        let mut version = None;
        let (mut answers, mut attempt) = (0, 0);
        let began = Instant::now();
        while answers < 2 {
            assert!(began.elapsed() < PATIENCE, "{cas:?} is not answered");
            let first = usize::try_from(self.sequence + attempt).unwrap() % self.nodes.len();
            let second = (first + 1) % self.nodes.len();
            attempt += 1;
            let (one, other) =
                tokio::join!(self.send(first, &cas, self.sequence), self.send(second, &cas, self.sequence));
            for answered in [one, other].into_iter().flatten() {
                let first = *version.get_or_insert(answered);
                assert_eq!(first, answered, "{cas:?} was applied twice");
                answers += 1;
            }
        }
        self.shared.done.fetch_add(1, Ordering::Relaxed);
        self.shared.repeated.fetch_add(answers - 1, Ordering::Relaxed);
        let version = version.unwrap();
        let before = self.kept.back().map(|last| last.version.hlc);
        assert!(before < Some(version.hlc), "versions go back");
        self.kept.push_back(Asked { cas, sequence: self.sequence, version });
    }

    /// The version under which one node says that it was done; `None` if the node cannot say.
    async fn send(&self, node: usize, cas: &v1::CompareAndSwap, sequence: u64) -> Option<v1::Version> {
        match self.ask(node, cas, sequence).await {
            Ok(answer) => {
                assert!(answer.swapped, "{cas:?} was executed anew: it found {:?}", answer.found);
                answer.version
            }
            Err(refused) => {
                assert_ne!(refused.code, Code::SessionExpired, "of {cas:?}: {refused:?}");
                // It may be down: not as fast as the loop can.
                tokio::time::sleep(Duration::from_millis(5)).await;
                None
            }
        }
    }

    async fn ask(
        &self,
        node: usize,
        cas: &v1::CompareAndSwap,
        sequence: u64,
    ) -> Result<v1::CompareAndSwapResponse, Refused> {
        let lowest = self.kept.front().map_or(1, |oldest| oldest.sequence);
        let request = v1::CompareAndSwapRequest {
            namespace: NAMESPACE.to_owned(),
            epoch: 1,
            cas: Some(cas.clone()),
            request: Some(v1::RequestId { client: self.session, sequence, lowest }),
        };
        let answer = self.nodes[node].kv.clone().compare_and_swap(timed(request, ATTEMPT_MS)).await;
        Ok(answer?.into_inner())
    }

    /// Others have changed the key since. It is answered as it was then, and changes nothing.
    async fn repeat_an_old_one(&self) {
        let place = usize::try_from(self.sequence).unwrap() % self.kept.len();
        let Asked { cas, sequence, version } = self.kept[place].clone();
        let mut turns = Turns::new();
        let answer = loop {
            let (node, _) = turns.next(&self.nodes).await;
            if let Some(answer) = self.send(node, &cas, sequence).await {
                break answer;
            }
        };
        assert_eq!(answer, version, "{cas:?} was applied again");
        self.assert_newest().await;
        self.shared.late.fetch_add(1, Ordering::Relaxed);
    }

    async fn repeat_a_forgotten_one(&self) {
        let Some(Asked { cas, sequence, .. }) = &self.dropped else { return };
        let mut turns = Turns::new();
        let refused = loop {
            let (node, _) = turns.next(&self.nodes).await;
            match self.ask(node, cas, *sequence).await {
                Ok(answer) => panic!("{cas:?} is not forgotten: {answer:?}"),
                Err(refused) if refused.code == Code::SessionExpired => break refused,
                Err(_) => {}
            }
        };
        // It was done: who does not know that must not be told otherwise.
        assert_eq!(refused.outcome, v1::Outcome::InDoubt);
        self.assert_newest().await;
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// The key is as the last one has left it.
    async fn assert_newest(&self) {
        let mut turns = Turns::new();
        let found = loop {
            let (_, raw) = turns.next(&self.nodes).await;
            if let Ok(found) = raw.get(NAMESPACE, &self.key, ATTEMPT_MS).await {
                break found;
            }
        };
        let newest = self.kept.back().unwrap();
        assert_eq!((found.value, found.version), (newest.cas.then_put.clone(), Some(newest.version)));
    }
}

fn retries() -> u64 {
    std::env::var("FLAREDB_RETRIES").map_or(RETRIES, |number| number.parse().expect("a number of retries"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_compare_and_swap_is_applied_once() {
    let settings = Settings { options: SHORT_LOGS.to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client_with(Options { request_timeout: PATIENCE, ..Options::default() }).await;
    cluster.create(&client, NAMESPACE).await;
    let shared = Arc::<Shared>::default();
    let workers = start(&cluster, &shared).await;
    let (mut rounds, wanted, began) = (0, retries(), Instant::now());
    while rounds < ROUNDS || shared.done.load(Ordering::Relaxed) < wanted {
        snapshot_and_deaths(&mut cluster, &client).await;
        rounds += 1;
        assert!(workers.iter().all(|worker| !worker.is_finished()), "a worker has found something wrong");
    }
    shared.stop.store(true, Ordering::Relaxed);
    for worker in workers {
        let worker = worker.await.unwrap();
        worker.repeat_an_old_one().await;
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} compare-and-swaps applied once each, {} answers from the record, {} of them late, {} forgotten names refused; \
         {rounds} snapshots and {} deaths in {:.0} s",
        count(&shared.done),
        count(&shared.repeated) + count(&shared.late),
        count(&shared.late),
        count(&shared.refused),
        2 * rounds,
        began.elapsed().as_secs_f64(),
    );
}

async fn start(cluster: &Cluster, shared: &Arc<Shared>) -> Vec<JoinHandle<Worker>> {
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        let nodes: Vec<Raw> = cluster.ids().into_iter().map(|id| cluster.node(id).raw()).collect();
        let worker = Worker {
            shared: shared.clone(),
            session: open_session(&nodes).await,
            nodes,
            key: format!("key-{number}"),
            kept: VecDeque::new(),
            dropped: None,
            sequence: 0,
        };
        workers.push(tokio::spawn(worker.run()));
    }
    workers
}

/// A follower dies and misses so much that it comes back by a snapshot; it then leads, with sessions that it has from the
/// snapshot, and dies as a leader.
async fn snapshot_and_deaths(cluster: &mut Cluster, client: &Client) {
    let leader = cluster.leader(NAMESPACE).await;
    let away = cluster.others(&[leader])[0];
    let missed = cluster.region(away, NAMESPACE).await.unwrap().applied_index;
    cluster.kill(away);
    fill(client).await;
    for id in cluster.others(&[away]) {
        until("a node has dropped what the one away needs", async || {
            let region = cluster.region(id, NAMESPACE).await?;
            let entries = cluster.node(id).metric("flaredb_region_log_entries", region.id).await?;
            (missed < region.applied_index.saturating_sub(entries)).then_some(())
        })
        .await;
    }
    let region = cluster.region(leader, NAMESPACE).await.unwrap().id;
    let before = snapshots(cluster, away, region);
    cluster.restart(away).await;
    until("a snapshot was taken in", async || (before < snapshots(cluster, away, region)).then_some(()))
        .await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    until("it leads", async || client.move_leader(NAMESPACE, away).await.ok()).await;
    cluster.kill(away);
    let rest = cluster.others(&[away]);
    cluster.leader_of(NAMESPACE, &rest).await;
    cluster.restart(away).await;
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
}

/// Enough to be flushed, and then removed, so that snapshots are small.
async fn fill(client: &Client) {
    const WRITES: usize = 60;
    let namespace = client.namespace(NAMESPACE);
    let puts: Vec<_> = (0..WRITES)
        .map(|key| {
            let namespace = namespace.clone();
            tokio::spawn(async move { namespace.put(format!("big/{key}"), vec![5; 1 << 20]).await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    namespace.delete_prefix("big/").await.unwrap();
}

/// How many snapshots of a region a node has taken in.
fn snapshots(cluster: &Cluster, id: u64, region: u64) -> usize {
    let of_region = |line: &&str| {
        line.contains("a snapshot has replaced the region's data") && line.contains(&region.to_string())
    };
    cluster.node(id).said().lines().filter(of_region).count()
}

/// A region remembers so many sessions, and forgets the one that wrote longest ago: whoever comes back to it is told so, and
/// the client library needs no telling.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_forgotten_for_those_that_come_after_it() {
    const AT_ONCE: usize = 256;
    let cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let things = client.namespace(NAMESPACE);
    let idle = things.put("key", "by the library").await.unwrap();
    let raw = cluster.node(1).raw();
    let name = Some(v1::RequestId {
        client: open_session(std::slice::from_ref(&raw)).await,
        sequence: 1,
        lowest: 1,
    });
    let written = raw.put_as(NAMESPACE, "key", "by name", name, ATTEMPT_MS).await.unwrap();
    assert_eq!(raw.put_as(NAMESPACE, "key", "by name", name, ATTEMPT_MS).await.unwrap(), written);
    let mut opened = 0;
    while opened < rdb_core::sessions::SESSIONS_MAX {
        let count = AT_ONCE.min(rdb_core::sessions::SESSIONS_MAX - opened);
        let opens: Vec<_> = (0..count)
            .map(|_| {
                let raw = raw.clone();
                tokio::spawn(async move { open_session(&[raw]).await })
            })
            .collect();
        for open in opens {
            open.await.unwrap();
        }
        opened += count;
    }
    things.put("other", "the library opens another session").await.unwrap();
    let refused = raw.put_as(NAMESPACE, "key", "again", name, ATTEMPT_MS).await.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (Code::SessionExpired, v1::Outcome::InDoubt));
    support::assert_words(&refused.text, &["not executed now", "read the key"]);
    let found = raw.get(NAMESPACE, "key", ATTEMPT_MS).await.unwrap();
    assert_eq!((found.version, found.value), (Some(written), Some("by name".into())));
    assert!(idle.version.hlc < written.hlc);
}

/// The session is one of the region that is gone.
/// An opening whose answer was lost is asked for again, of whichever node leads by then. Each token has one session, and no
/// opening has one that was not asked for by its own token.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_comes_again_is_told_the_session_that_it_has_opened() {
    async fn open(cluster: &Cluster, leader: u64, token: u64) -> u64 {
        let raw = cluster.node(leader).raw();
        until("the leader opens a session", async || {
            let open = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token };
            Some(raw.kv.clone().open_session(timed(open, ATTEMPT_MS)).await.ok()?.into_inner().client)
        })
        .await
    }
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let leader = cluster.leader(NAMESPACE).await;
    let first = open(&cluster, leader, u64::MAX).await;
    assert_eq!(open(&cluster, leader, u64::MAX).await, first);
    let others =
        [open(&cluster, leader, 1).await, open(&cluster, leader, 0).await, open(&cluster, leader, 0).await];
    let different: std::collections::BTreeSet<_> = others.into_iter().chain([first]).collect();
    assert_eq!(different.len(), 4);
    cluster.kill(leader);
    let rest = cluster.others(&[leader]);
    let next = cluster.leader_of(NAMESPACE, &rest).await;
    assert_eq!(open(&cluster, next, u64::MAX).await, first);
    for id in rest {
        cluster.kill(id);
    }
    for id in cluster.ids() {
        cluster.launch(id);
    }
    let leader = cluster.leader(NAMESPACE).await;
    assert_eq!((open(&cluster, leader, u64::MAX).await, open(&cluster, leader, 1).await), (first, others[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_the_same_name_is_written_to_in_a_new_session() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client_with(Options { request_timeout: PATIENCE, ..Options::default() }).await;
    for round in 0..3 {
        cluster.create(&client, NAMESPACE).await;
        client.namespace(NAMESPACE).put(format!("{round}"), "value").await.unwrap();
        client.delete_namespace(NAMESPACE).await.unwrap();
    }
}

/// Namespaces come and go without a pause while whoever leads the catalog is killed: every create and every delete is done,
/// each once, and nothing is left in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn creates_and_deletes_are_done_once_while_the_catalogs_leader_dies() {
    const KILLS: usize = 5;
    const WORKERS: u64 = 3;
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client_with(Options { request_timeout: PATIENCE, ..Options::default() }).await;
    let (stop, rounds) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let (client, stop, rounds) = (client.clone(), stop.clone(), rounds.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    come_and_go(&client, &format!("ns-{worker}")).await;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..KILLS {
        let wanted = rounds.load(Ordering::Relaxed) + WORKERS;
        until("namespaces come and go", async || {
            assert!(workers.iter().all(|worker| !worker.is_finished()), "one has failed");
            (wanted <= rounds.load(Ordering::Relaxed)).then_some(())
        })
        .await;
        let leader = catalog_leader(&cluster, &cluster.ids()).await;
        cluster.kill(leader);
        let rest = cluster.others(&[leader]);
        catalog_leader(&cluster, &rest).await;
        cluster.restart(leader).await;
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert!(client.list_namespaces().await.unwrap().is_empty());
    println!("{} namespaces came and went, {KILLS} kills", rounds.load(Ordering::Relaxed));
}

async fn catalog_leader(cluster: &Cluster, ids: &[u64]) -> u64 {
    until("the catalog has a leader", async || {
        let mut leader = None;
        for id in ids {
            let known = cluster.node(*id).raw().status().await.ok()?.meta_leader;
            if !ids.contains(&known) || leader.is_some_and(|leader| leader != known) {
                return None;
            }
            leader = Some(known);
        }
        leader
    })
    .await
}

async fn come_and_go(client: &Client, name: &str) {
    let created = client.create_namespace(name, Mode::Strong).await.unwrap();
    assert_eq!(created.name, name);
    let exists = code(client.create_namespace(name, Mode::Strong).await.map(drop));
    assert_eq!(exists, Code::NamespaceExists, "another request is another request");
    client.delete_namespace(name).await.unwrap();
    assert_eq!(code(client.delete_namespace(name).await), Code::NamespaceNotFound);
}

fn code(answer: Result<(), WriteError>) -> Code {
    let error = answer.expect_err("it should be refused");
    error.error().code().unwrap_or_else(|| panic!("not the cluster's word: {error:?}"))
}
