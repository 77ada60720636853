//! Clients that go by what was true: an epoch that is over, a leader that has handed over. They are refused, nothing is done, and
//! the answer says what is true now; none of them is ever served in another epoch than the one it has asked for.

use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, Settings, until};
use rdb_client::{Client, Mode, SwitchOptions};
use rdb_proto::v1;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;

/// The epoch in which a call was served, or why it was not.
type Served = Result<u64, Refused>;

fn epoch_of(header: Option<v1::Header>) -> u64 {
    header.expect("an answer has a header").epoch
}

fn put_of(key: &str) -> v1::Put {
    v1::Put { key: key.to_owned().into(), value: "stale".into() }
}

async fn put(raw: &Raw, key: &str, epoch: u64) -> Served {
    let (namespace, put) = (NAMESPACE.to_owned(), Some(put_of(key)));
    let request = v1::PutRequest { namespace, epoch, put, ..Default::default() };
    Ok(epoch_of(raw.kv.clone().put(timed(request, TIMEOUT_MS)).await?.into_inner().header))
}

/// One call of each kind, all about this key.
async fn each_kind(raw: &Raw, key: &str, epoch: u64) -> BTreeMap<&'static str, Served> {
    let (mut kv, namespace, key_bytes) = (raw.kv.clone(), || NAMESPACE.to_owned(), || key.to_owned().into());
    let mut served: BTreeMap<&'static str, Served> = BTreeMap::new();
    served.insert("put", put(raw, key, epoch).await);
    let delete = Some(v1::Delete { key: key_bytes() });
    let request = v1::DeleteRequest { namespace: namespace(), epoch, delete, ..Default::default() };
    let answer = kv.delete(timed(request, TIMEOUT_MS)).await;
    served.insert("delete", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    let expect = Some(v1::compare_and_swap::Expect::Absent(v1::Absent {}));
    let cas = Some(v1::CompareAndSwap { key: key_bytes(), expect, then_put: Some("stale".into()) });
    let request = v1::CompareAndSwapRequest { namespace: namespace(), epoch, cas, request: None };
    let answer = kv.compare_and_swap(timed(request, TIMEOUT_MS)).await;
    served.insert("cas", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    let write = v1::Write { write: Some(v1::write::Write::Put(put_of(key))) };
    let batch = Some(v1::BatchWrite { writes: vec![write] });
    let request = v1::BatchWriteRequest { namespace: namespace(), epoch, batch, ..Default::default() };
    let answer = kv.batch_write(timed(request, TIMEOUT_MS)).await;
    served.insert("batch write", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    let range = Some(v1::DeleteRange { from: key_bytes(), to: format!("{key}~").into() });
    let request = v1::DeleteRangeRequest { namespace: namespace(), epoch, range, request: None };
    let answer = kv.delete_range(timed(request, TIMEOUT_MS)).await;
    served.insert("delete range", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    let get = Some(v1::Get { key: key_bytes() });
    let request = v1::GetRequest { namespace: namespace(), epoch, get, ..Default::default() };
    let answer = kv.get(timed(request, TIMEOUT_MS)).await;
    served.insert("get", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    let get = Some(v1::BatchGet { keys: vec![key_bytes()] });
    let request = v1::BatchGetRequest { namespace: namespace(), epoch, get, ..Default::default() };
    let answer = kv.batch_get(timed(request, TIMEOUT_MS)).await;
    served.insert("batch get", answer.map(|it| epoch_of(it.into_inner().header)).map_err(Refused::from));
    served.insert("scan", scan(raw, key, epoch).await);
    served
}

async fn scan(raw: &Raw, key: &str, epoch: u64) -> Served {
    let keys = Some(v1::scan::Keys::Prefix(key.to_owned().into()));
    let scan = Some(v1::Scan { keys, ..Default::default() });
    let request = v1::ScanRequest { namespace: NAMESPACE.to_owned(), epoch, scan, ..Default::default() };
    let mut pages = raw.kv.clone().scan(timed(request, TIMEOUT_MS)).await?.into_inner();
    let page = pages.message().await?.expect("a scan has a page");
    Ok(epoch_of(page.header))
}

async fn switched(client: &Client, to: Mode) -> u64 {
    let begun = client.switch_mode(NAMESPACE, to, &SwitchOptions::default()).await.unwrap();
    assert!(client.wait_for_switch(&begun, |_| ()).await.unwrap().completed);
    client.switch_status(NAMESPACE).await.unwrap().epoch
}

/// Waits until each node knows of this epoch.
async fn all_in(cluster: &Cluster, epoch: u64) {
    for node in cluster.ids() {
        let raw = cluster.node(node).raw();
        until("a node serves the epoch", async || {
            scan(&raw, "any", epoch).await.ok().filter(|served| *served == epoch)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_that_is_over_is_refused_by_every_node_in_every_kind_of_call() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, Mode::Strong).await.unwrap();
    client.namespace(NAMESPACE).put("kept", "as it was").await.unwrap();
    let (mut epoch, mut refused) = (1, 0);
    for (to, kinds) in [(Mode::Eventual, 6), (Mode::Strong, 8)] {
        let (over, mut served) = (epoch, BTreeSet::new());
        epoch = switched(&client, to).await;
        assert!(over < epoch);
        all_in(&cluster, epoch).await;
        for node in cluster.ids() {
            let raw = cluster.node(node).raw();
            for (kind, served) in each_kind(&raw, "kept", over).await {
                let error = served.expect_err(kind);
                assert_eq!(error.code, v1::Code::EpochMismatch, "{kind}: {error:?}");
                assert_eq!(error.outcome, v1::Outcome::NotDone, "{kind}: {error:?}");
                assert!(
                    error.text.contains(&format!("epoch {epoch}, not in {over}")),
                    "{kind}: {}",
                    error.text
                );
                refused += 1;
            }
            // The same calls are served in the epoch that is: what was refused above was refused for its epoch.
            for (kind, answer) in each_kind(&raw, &format!("other-{node}"), epoch).await {
                let is_refused = answer.as_ref().err().map(|error| error.code);
                match (is_refused, to) {
                    (None, _) => {
                        assert_eq!(answer.unwrap(), epoch, "{kind}");
                        served.insert(kind);
                    }
                    (Some(v1::Code::RequiresStrong), Mode::Eventual)
                    | (Some(v1::Code::NotLeader), Mode::Strong) => {}
                    _ => panic!("{kind}: {answer:?}"),
                }
            }
        }
        assert_eq!(served.len(), kinds, "each kind that the mode has was served by some node: {served:?}");
        let kept = client.namespace(NAMESPACE).get("kept").await.unwrap().unwrap();
        assert_eq!(kept.value, "as it was");
    }
    assert_eq!(refused, 2 * 3 * 8);
}

/// Writes elements at a node in whatever epoch it was last told, which is often over. Gives those that were acknowledged, and how
/// many were refused.
async fn stale_writer(raw: Raw, node: u64, stop: Arc<AtomicBool>) -> (Vec<String>, u64) {
    let (mut epoch, mut acknowledged, mut refused) = (1, Vec::new(), 0);
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("element-{node}-{number}");
        match put(&raw, &key, epoch).await {
            Ok(served) => {
                assert_eq!(served, epoch, "served in another epoch than it asked for");
                acknowledged.push(key);
            }
            Err(error) if error.code == v1::Code::EpochMismatch => {
                assert_eq!(error.outcome, v1::Outcome::NotDone);
                refused += 1;
                // Only now does it ask.
                let status = raw.status().await.unwrap();
                epoch = status.namespaces.iter().find(|it| it.name == NAMESPACE).map_or(epoch, |it| it.epoch);
            }
            Err(_) => {}
        }
    }
    (acknowledged, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_keep_an_epoch_until_they_are_refused_lose_nothing_and_are_never_served_in_another() {
    const SWITCHES: usize = 6;
    let cluster = Cluster::start(Settings::default()).await;
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, Mode::Strong).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = cluster
        .ids()
        .into_iter()
        .map(|node| tokio::spawn(stale_writer(cluster.node(node).raw(), node, stop.clone())))
        .collect();
    for number in 0..SWITCHES {
        switched(&client, if number % 2 == 0 { Mode::Eventual } else { Mode::Strong }).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut refused_in_all = 0;
    for writer in writers {
        let (acknowledged, refused) = writer.await.unwrap();
        refused_in_all += refused;
        for keys in acknowledged.chunks(500) {
            let asked = keys.iter().map(|key| key.clone().into()).collect();
            let found = client.namespace(NAMESPACE).batch_get(asked).await.unwrap();
            assert_eq!(found.len(), keys.len(), "an acknowledged element is gone");
        }
        println!("{} acknowledged, {refused} refused for their epoch", acknowledged.len());
    }
    assert!(SWITCHES as u64 <= refused_in_all, "too few came late: {refused_in_all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_has_handed_over_refuses_or_serves_nothing_older() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let mut met = 0;
    for round in 0..6 {
        let before = cluster.leader(NAMESPACE).await;
        let raw = cluster.node(before).raw();
        raw.put(NAMESPACE, "key", &format!("{round} by its leader"), TIMEOUT_MS).await.unwrap();
        let after = cluster.others(&[before])[round % 2];
        until("another node leads", async || client.move_leader(NAMESPACE, after).await.ok()).await;
        let newest = format!("{round} by the next one");
        cluster.node(after).raw().put(NAMESPACE, "key", &newest, TIMEOUT_MS).await.unwrap();
        // A linearizable read at the old leader, right after the new one has answered a write.
        match raw.get(NAMESPACE, "key", TIMEOUT_MS).await {
            Ok(answer) => assert_eq!(answer.value.unwrap(), newest),
            Err(error) => assert_eq!(error.code, v1::Code::NotLeader, "{error:?}"),
        }
        match raw.put(NAMESPACE, "stale", &newest, TIMEOUT_MS).await {
            Ok(_) => {
                assert_eq!(raw.get(NAMESPACE, "stale", TIMEOUT_MS).await.unwrap().value.unwrap(), newest);
            }
            Err(error) => {
                met += 1;
                assert_eq!(
                    (error.code, error.outcome),
                    (v1::Code::NotLeader, v1::Outcome::NotDone),
                    "{error:?}"
                );
            }
        }
    }
    println!("{met} writes were sent to a leader that was none any more");
    assert!(0 < met);
}
