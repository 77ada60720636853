//! The end of a namespace, on real processes: what was acknowledged before a deletion stays so, nothing is acknowledged or
//! read after it, whichever node is asked and whoever was killed or cut off meanwhile; and the next namespace of the same
//! name has nothing of the one before.
//!
//! Every node has writers and readers of its own, which note when each operation began. An operation that began after the
//! deletion was acknowledged must not succeed. One that began before may: its answer may come later than the deletion's.

use crate::support::load::Load;
use crate::support::proxy::Wire;
use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, PATIENCE, Settings, assert_words, until};
use rdb_client::{Client, Code, Mode, Options, WriteError};
use rdb_proto::v1;
use rdb_proto::v1::Consistency;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

const NAMESPACE: &str = "goes";
/// Another namespace, which a deletion must not disturb.
const OTHER: &str = "stays";
/// For one operation of the load.
const OPERATION_MS: u64 = 500;
/// After a refusal, so that the load leaves the processors to the nodes.
const PAUSE: Duration = Duration::from_millis(3);
/// Operations of each kind that are acknowledged before a namespace is deleted.
const WARM_UP: u64 = 30;
/// Operations that each writer and reader begins after the deletion was acknowledged.
const AFTERWARDS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    Read(Consistency),
}

/// An operation that ended.
#[derive(Debug)]
#[allow(dead_code, reason = "a failure shows all of it")]
struct Ended {
    node: u64,
    kind: Kind,
    began: Instant,
    result: Result<Option<String>, Refused>,
}

async fn operate(raw: &Raw, kind: Kind, value: &str) -> Result<Option<String>, Refused> {
    match kind {
        Kind::Write => raw.put(NAMESPACE, "key", value, OPERATION_MS).await.map(|_| None),
        Kind::Read(consistency) => {
            let get = v1::GetRequest {
                namespace: NAMESPACE.to_owned(),
                get: Some(v1::Get { key: "key".into() }),
                consistency: consistency.into(),
                ..v1::GetRequest::default()
            };
            let answer = raw.kv.clone().get(timed(get, OPERATION_MS)).await?.into_inner();
            Ok(answer.value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        }
    }
}

/// What one writer or reader has begun so far, and how many of that succeeded.
#[derive(Default)]
struct Count {
    begun: AtomicU64,
    succeeded: AtomicU64,
}

/// Writers and readers at every node, under way.
struct Hammer {
    stop: Arc<AtomicBool>,
    counts: Vec<(Kind, Arc<Count>)>,
    tasks: Vec<JoinHandle<Vec<Ended>>>,
}

impl Hammer {
    /// Starts them. `value` is what the writers write.
    fn start(cluster: &Cluster, value: &str) -> Self {
        let kinds =
            [Kind::Write, Kind::Read(Consistency::Linearizable), Kind::Write, Kind::Read(Consistency::Lease)];
        let mut hammer = Self { stop: Arc::default(), counts: Vec::new(), tasks: Vec::new() };
        for id in cluster.ids() {
            for kind in kinds {
                let (raw, stop, count) =
                    (cluster.node(id).raw(), hammer.stop.clone(), Arc::<Count>::default());
                hammer.counts.push((kind, count.clone()));
                let value = value.to_owned();
                hammer.tasks.push(tokio::spawn(async move {
                    let mut ended = Vec::new();
                    while !stop.load(SeqCst) {
                        let began = Instant::now();
                        count.begun.fetch_add(1, SeqCst);
                        let result = operate(&raw, kind, &value).await;
                        match &result {
                            Ok(_) => drop(count.succeeded.fetch_add(1, SeqCst)),
                            Err(_) => tokio::time::sleep(PAUSE).await,
                        }
                        ended.push(Ended { node: id, kind, began, result });
                    }
                    ended
                }));
            }
        }
        hammer
    }

    async fn warm_up(&self) {
        for write in [true, false] {
            until("operations are acknowledged", async || {
                let of_kind = self.counts.iter().filter(|(kind, _)| (*kind == Kind::Write) == write);
                let succeeded: u64 = of_kind.map(|(_, count)| count.succeeded.load(SeqCst)).sum();
                (WARM_UP <= succeeded).then_some(())
            })
            .await;
        }
    }

    /// Lets each of them begin some more operations, then ends them.
    async fn stop(self) -> Vec<Ended> {
        for (_, count) in &self.counts {
            let enough = count.begun.load(SeqCst) + AFTERWARDS;
            until("operations go on", async || (enough <= count.begun.load(SeqCst)).then_some(())).await;
        }
        self.stop.store(true, SeqCst);
        let mut ended = Vec::new();
        for task in self.tasks {
            ended.append(&mut task.await.unwrap());
        }
        ended
    }
}

/// Nothing that began after the deletion was acknowledged has succeeded, and what failed is honest about it.
fn assert_over(ended: &[Ended], acknowledged: Instant) {
    let (mut done, mut in_doubt) = (0, 0);
    for one in ended {
        match &one.result {
            Ok(_) => {
                done += 1;
                assert!(one.began < acknowledged, "it began after the deletion was acknowledged: {one:?}");
            }
            Err(refused) => {
                in_doubt += usize::from(refused.outcome == v1::Outcome::InDoubt);
                if refused.code == Code::NamespaceNotFound {
                    assert_eq!(refused.outcome, v1::Outcome::NotDone, "{one:?}");
                    assert_words(&refused.text, &["namespace", "rdb ns"]);
                }
                let read = one.kind != Kind::Write;
                assert!(!read || refused.outcome != v1::Outcome::InDoubt, "a read in doubt: {one:?}");
            }
        }
    }
    println!("{done} operations were done, {in_doubt} left in doubt, of {}", ended.len());
    assert!(0 < done);
}

/// Deletes the namespace, as often as that needs to be asked. Returns when it was acknowledged.
async fn delete_at_last(client: Client) -> Instant {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match client.delete_namespace(NAMESPACE).await {
            Ok(()) => return Instant::now(),
            // An earlier attempt, which was left in doubt, has done it.
            Err(error) if error.error().code() == Some(Code::NamespaceNotFound) => return Instant::now(),
            Err(error) => assert!(Instant::now() < deadline, "the namespace is never deleted: {error}"),
        }
    }
}

async fn create_anew(client: &Client) {
    until("the namespace is created", async || {
        match client.create_namespace(NAMESPACE, Mode::Strong).await {
            Ok(_) => Some(()),
            // By an attempt that was left in doubt.
            Err(error) if error.error().code() == Some(Code::NamespaceExists) => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

async fn put_until_done(client: &Client, value: &str) {
    let namespace = client.namespace(NAMESPACE);
    until("a write is confirmed", async || namespace.put("key", value.to_owned()).await.ok()).await;
}

/// With leases, which must end before the region is closed.
fn with_leases(wires: bool) -> Settings {
    Settings { wires, options: "leader_lease = true".to_owned(), ..Settings::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_read_after_a_deletion_under_load() {
    const ROUNDS: usize = 12;
    let cluster = Cluster::start(with_leases(false)).await;
    let client = cluster.client().await;
    cluster.create(&client, OTHER).await;
    let other = Load::start(&client, OTHER, "other", 4);
    for round in 0..ROUNDS {
        cluster.create(&client, NAMESPACE).await;
        assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap(), None, "round {round}");
        let hammer = Hammer::start(&cluster, &format!("round {round}"));
        hammer.warm_up().await;
        client.delete_namespace(NAMESPACE).await.unwrap();
        let acknowledged = Instant::now();
        assert_over(&hammer.stop().await, acknowledged);
    }
    // Pipes and leaders of another namespace went on meanwhile.
    let written = other.stop().await;
    assert_eq!(written.failures(), [""; 0]);
    assert!(0 < written.verify().await);
    assert_eq!(client.list_namespaces().await.unwrap().len(), 1);
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The leader of the catalog is killed.
    CatalogLeaderKilled,
    /// The leader of the region is killed.
    RegionLeaderKilled,
    /// Nobody hears the leader of the catalog, and it hears nobody.
    CatalogLeaderCutOff,
    /// The same for the leader of the region.
    RegionLeaderCutOff,
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_or_read_after_a_deletion_whose_leaders_are_lost() {
    const ROUNDS: u64 = 12;
    let mut cluster = Cluster::start(with_leases(true)).await;
    let client = cluster.client().await;
    cluster.create(&client, OTHER).await;
    for round in 0..ROUNDS {
        create_anew(&client).await;
        cluster.leader(NAMESPACE).await;
        let before = until("it is read", async || client.namespace(NAMESPACE).get("key").await.ok()).await;
        assert_eq!(before, None, "round {round}");
        let catalog_leader = client.status().await.unwrap().meta_leader;
        let region_leader = cluster.leader(NAMESPACE).await;
        let hammer = Hammer::start(&cluster, &format!("round {round}"));
        hammer.warm_up().await;
        let fault = match round % 4 {
            0 => Fault::CatalogLeaderKilled,
            1 => Fault::RegionLeaderKilled,
            2 => Fault::CatalogLeaderCutOff,
            _ => Fault::RegionLeaderCutOff,
        };
        let deletion = tokio::spawn(delete_at_last(client.clone()));
        // Before, during and after the deletion.
        tokio::time::sleep(Duration::from_millis(round * 20)).await;
        match fault {
            Fault::CatalogLeaderKilled => cluster.kill(catalog_leader),
            Fault::RegionLeaderKilled => cluster.kill(region_leader),
            Fault::CatalogLeaderCutOff => cluster.isolate(catalog_leader, Wire::Silent),
            Fault::RegionLeaderCutOff => cluster.isolate(region_leader, Wire::Silent),
        }
        let acknowledged = deletion.await.unwrap();
        println!("round {round}: {fault:?}");
        assert_over(&hammer.stop().await, acknowledged);
        match fault {
            Fault::CatalogLeaderKilled => cluster.restart(catalog_leader).await,
            Fault::RegionLeaderKilled => cluster.restart(region_leader).await,
            Fault::CatalogLeaderCutOff => cluster.isolate(catalog_leader, Wire::Whole),
            Fault::RegionLeaderCutOff => cluster.isolate(region_leader, Wire::Whole),
        }
        cluster.leader(OTHER).await;
    }
    assert_nothing_is_left(&mut cluster, &client).await;
}

/// Stops all nodes and looks on their disks: of all regions ever made, only that of the other namespace is there.
async fn assert_nothing_is_left(cluster: &mut Cluster, client: &Client) {
    let namespaces = client.list_namespaces().await.unwrap();
    let [only] = &namespaces[..] else { panic!("{namespaces:?}") };
    let kept = (rdb_core::ids::RegionId(only.regions[0].id), rdb_core::ids::NamespaceId(only.id));
    for id in cluster.ids() {
        until("the node has heard of the last deletion", async || {
            let gone = cluster.region(id, NAMESPACE).await.is_none();
            gone.then_some(())
        })
        .await;
    }
    for id in cluster.ids() {
        cluster.stop(id);
        let expected =
            rdb_storage::Expected { cluster_id: "test".to_owned(), node_id: rdb_core::ids::NodeId(id) };
        let engine =
            rdb_storage::Engine::open(cluster.data(id), &expected, &rdb_storage::EngineOptions::default());
        let engine = engine.unwrap();
        let (regions, records) = engine.data().present().unwrap();
        let logs: Vec<_> =
            engine.log().regions().unwrap().iter().map(rdb_storage::StoredLog::region).collect();
        let (meta, catalog) = (rdb_core::ids::RegionId::META, rdb_core::ids::NamespaceId::META);
        assert_eq!(regions, [meta, kept.0], "node {id}: the data has regions");
        assert_eq!(logs, [meta, kept.0], "node {id}: the log has regions");
        assert!(records.iter().all(|id| [catalog, kept.1].contains(id)), "node {id}: {records:?}");
    }
}

/// The leader of the region does not hear the leader of the catalog, and all else works: so the deletion begins and cannot
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_waits_for_the_region_and_goes_on_by_itself() {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put_until_done(&client, "before").await;
    let catalog_leader = client.status().await.unwrap().meta_leader;
    let region_leader = cluster.others(&[catalog_leader])[0];
    client.move_leader(NAMESPACE, region_leader).await.unwrap();
    cluster.wire(catalog_leader, region_leader, Wire::Silent);
    let raw = cluster.node(catalog_leader).raw();
    let delete = v1::DeleteNamespaceRequest { name: NAMESPACE.to_owned(), id: 0 };
    // A node that is late has its answer overtaken by its caller's own deadline: then it is asked again.
    let refused = until("the node answers in time", async || {
        let deleted = raw.namespaces.clone().delete(timed(delete.clone(), 1500)).await;
        Some(deleted.map_err(Refused::from).unwrap_err()).filter(|refused| refused.code != Code::Unspecified)
    })
    .await;
    assert_eq!((refused.code, refused.outcome), (Code::DeadlineExceeded, v1::Outcome::InDoubt));
    assert_words(&refused.text, &["deletion of 'goes'", "goes on by itself", "rdb ns list"]);
    // Who knows of it refuses; the name is taken; and everybody can see why.
    let refused = raw.get(NAMESPACE, "key", 1500).await.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (Code::NamespaceNotFound, v1::Outcome::NotDone));
    let refused = raw.put(NAMESPACE, "key", "late", 1500).await.unwrap_err();
    assert_eq!((refused.code, refused.outcome), (Code::NamespaceNotFound, v1::Outcome::NotDone));
    let create = v1::CreateNamespaceRequest {
        name: NAMESPACE.to_owned(),
        mode: v1::Mode::Strong.into(),
        ..Default::default()
    };
    let refused =
        raw.namespaces.clone().create(timed(create, 1500)).await.map_err(Refused::from).unwrap_err();
    assert_eq!((refused.code, refused.outcome), (Code::NamespaceExists, v1::Outcome::NotDone));
    assert_words(&refused.text, &["'goes' is being deleted", "try again"]);
    assert_ne!(refused.error.retry_after_ms, 0);
    let listed = client.list_namespaces().await.unwrap();
    assert!(listed.iter().any(|namespace| namespace.name == NAMESPACE && namespace.deleting), "{listed:?}");
    // Nobody asks again.
    cluster.wire(catalog_leader, region_leader, Wire::Whole);
    until("the deletion ends", async || client.list_namespaces().await.ok()?.is_empty().then_some(())).await;
}

/// What is asked for once and for a short time only is done in the end, or was never begun.
#[tokio::test(flavor = "multi_thread")]
async fn deletions_that_nobody_waits_for_end_and_free_their_names() {
    const NAMESPACES: usize = 20;
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    let leader = client.status().await.unwrap().meta_leader;
    for number in 0..NAMESPACES {
        let name = format!("short-{number}");
        client.create_namespace(&name, Mode::Strong).await.unwrap();
        let delete = v1::DeleteNamespaceRequest { name: name.clone(), id: 0 };
        // However little time there is, the next one to ask is told the truth.
        let asked = cluster.node(leader).raw().namespaces.clone();
        let asked = asked.clone().delete(timed(delete, u64::try_from(number).unwrap() + 1)).await;
        drop(asked);
        match client.delete_namespace(&name).await {
            Ok(()) => {}
            Err(WriteError::NotDone(error)) if error.code() == Some(Code::NamespaceNotFound) => {}
            Err(error) => panic!("{error}"),
        }
        // The name is free.
        client.create_namespace(&name, Mode::Strong).await.unwrap();
    }
    for number in 0..NAMESPACES {
        client.delete_namespace(&format!("short-{number}")).await.unwrap();
    }
    assert_eq!(client.list_namespaces().await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleeping_region_is_woken_to_be_closed() {
    let settings = Settings { options: "sleep_after_ms = 500".to_owned(), ..Settings::default() };
    let cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    put_until_done(&client, "before").await;
    for id in cluster.ids() {
        until("the region sleeps", async || {
            let (_, text) = cluster.node(id).page("/metrics").await?;
            let asleep = text.lines().find_map(|line| line.strip_prefix("flaredb_regions_asleep "))?;
            (asleep.trim() == "1").then_some(())
        })
        .await;
    }
    client.delete_namespace(NAMESPACE).await.unwrap();
    let refused = client.namespace(NAMESPACE).get("key").await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::NamespaceNotFound));
}

/// At once, and again and again: a session, a record and a read belong to one of them and never to the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_of_the_same_name_has_nothing_of_the_one_before() {
    const ROUNDS: u64 = 6;
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    let mut sessions: Vec<u64> = Vec::new();
    for round in 0..ROUNDS {
        create_anew(&client).await;
        assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap(), None, "round {round}");
        let leader = cluster.leader(NAMESPACE).await;
        let raw = cluster.node(leader).raw();
        for session in &sessions {
            let name = Some(v1::RequestId { client: *session, sequence: 1, lowest: 1 });
            let refused = raw.put_as(NAMESPACE, "key", "old", name, 3000).await.unwrap_err();
            assert_eq!(refused.code, Code::SessionExpired, "{refused:?}");
        }
        let open = v1::OpenSessionRequest { namespace: NAMESPACE.to_owned(), epoch: 0, token: 0 };
        let session = raw.kv.clone().open_session(timed(open, 3000)).await.unwrap().into_inner().client;
        let name = Some(v1::RequestId { client: session, sequence: 1, lowest: 1 });
        raw.put_as(NAMESPACE, "key", &format!("round {round}"), name, 3000).await.unwrap();
        sessions.push(session);
        client.delete_namespace(NAMESPACE).await.unwrap();
    }
}

/// A client's sessions end with the namespace that they were opened in, and it opens new ones by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_sessions_goes_on_in_the_next_namespace_of_the_name() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client_with(Options { sessions: true, ..Options::default() }).await;
    for round in 0..3 {
        create_anew(&client).await;
        client.namespace(NAMESPACE).put("key", format!("round {round}")).await.unwrap();
        let found = client.namespace(NAMESPACE).get("key").await.unwrap().unwrap();
        assert_eq!(found.value, format!("round {round}"));
        client.delete_namespace(NAMESPACE).await.unwrap();
        let refused = client.namespace(NAMESPACE).put("key", "late").await.unwrap_err();
        assert!(matches!(refused, WriteError::NotDone(_)), "{refused}");
        assert_eq!(refused.error().code(), Some(Code::NamespaceNotFound));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_serves_nothing_of_the_namespace_before() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, OTHER).await;
    for round in 0..3 {
        create_anew(&client).await;
        cluster.leader(NAMESPACE).await;
        put_until_done(&client, "old").await;
        // In turn: one that follows, and one that leads.
        let leader = cluster.leader(NAMESPACE).await;
        let away = if round % 2 == 0 { cluster.others(&[leader])[0] } else { leader };
        cluster.kill(away);
        delete_at_last(client.clone()).await;
        create_anew(&client).await;
        put_until_done(&client, "new").await;
        cluster.launch(away);
        let raw = cluster.node(away).raw();
        let found = until("the node reads", async || {
            let answer = raw.get(NAMESPACE, "key", OPERATION_MS).await.ok()?;
            assert_eq!(answer.value.as_deref(), Some(&b"new"[..]), "round {round}");
            Some(answer)
        });
        found.await;
        cluster.ready(away).await;
        delete_at_last(client.clone()).await;
    }
    assert_nothing_is_left(&mut cluster, &client).await;
}

/// The node that should lead a new namespace is down, and the others stand for election later than the caller has time: that
/// the namespace is created is told in time nevertheless.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_acknowledged_in_time_though_nobody_leads_it_yet() {
    const CALL: Duration = Duration::from_millis(1_900);
    let settings = Settings { options: "election_ticks = 60".to_owned(), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client_with(Options { request_timeout: CALL, ..Options::default() }).await;
    let status = until("the catalog has a leader", async || {
        client.status().await.ok().filter(|status| status.meta_leader != 0)
    });
    let down = cluster.others(&[status.await.meta_leader])[0];
    cluster.kill(down);
    // Each is to be led by another node.
    for name in ["one", "two", "three"] {
        let created = client.create_namespace(name, Mode::Strong).await;
        assert!(created.is_ok(), "{name}: {created:?}");
    }
    let listed = client.list_namespaces().await.unwrap();
    assert!(listed.iter().any(|namespace| namespace.preferred_leader == down), "{listed:?}");
}
