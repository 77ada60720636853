//! What reads and acknowledgements of eventual namespaces promise, on real processes: a session is shown no less by another node
//! than it was by the first one, or told that it cannot be; a read of a majority sees what a majority has acknowledged; and a write
//! that is not known to be on as many nodes as was asked says where it is.

use crate::support;
use crate::support::proxy::Wire;
use crate::support::raw::Refused;
use crate::support::{Cluster, Settings, until};
use rdb_client::{
    Acks, Bytes, Client, Consistency, Error, Mode, Namespace, Options, Refusal, ScanOptions, ServedBy,
    Transport, WriteError,
};
use rdb_proto::session::Token;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as Answer;
use rdb_proto::v1::{self, Code};
use std::time::Duration;

const NAMESPACE: &str = "carts";
const TRANSPORTS: [Transport; 2] = [Transport::Pipe, Transport::Unary];
/// For what is to fail for want of an answer.
const SHORT: Duration = Duration::from_millis(800);

/// Handles of one client, each for one node: they share a session.
struct Nodes {
    client: Client,
    addresses: Vec<String>,
}

impl Nodes {
    async fn new(cluster: &Cluster, transport: Transport) -> Self {
        let client = cluster.client_with(Options { transport, ..Options::default() }).await;
        let addresses = cluster.ids().into_iter().map(|id| cluster.node(id).address()).collect();
        Self { client, addresses }
    }

    fn at(&self, node: usize) -> Namespace {
        self.client.namespace_at(NAMESPACE, &self.addresses[node - 1]).unwrap()
    }

    fn session_at(&self, node: usize) -> Namespace {
        self.at(node).with_consistency(Consistency::Session)
    }

    fn quorum_at(&self, node: usize) -> Namespace {
        self.at(node).with_consistency(Consistency::Quorum)
    }
}

async fn create(cluster: &Cluster) {
    cluster.client().await.create_namespace(NAMESPACE, Mode::Eventual).await.unwrap();
    let nodes = Nodes::new(cluster, Transport::Pipe).await;
    for node in 1..=nodes.addresses.len() {
        // A write: the node has then read its part of the namespace, and those before it know of it.
        until("every node takes writes", async || nodes.at(node).put(format!("ready-{node}"), "").await.ok())
            .await;
    }
    until("all nodes have each other's writes", async || {
        nodes.at(1).with_acks(Acks::All).with_timeout(SHORT).put("ready", "").await.ok()
    })
    .await;
}

async fn with_wires() -> Cluster {
    let cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    create(&cluster).await;
    cluster
}

/// A failed call's error.
fn error_of(status: &tonic::Status) -> v1::Error {
    Refused::from(status.clone()).error
}

/// A node's own word.
fn refusal(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => *refusal,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reads_its_writes_through_every_node() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    for transport in TRANSPORTS {
        let nodes = Nodes::new(&cluster, transport).await;
        for number in 0..100_usize {
            let (writer, reader) = (number % 3 + 1, (number + 1) % 3 + 1);
            let written = nodes.at(writer).put("key", format!("{number}")).await.unwrap();
            let (record, served) = nodes.session_at(reader).get_served("key").await.unwrap();
            let record = record.unwrap();
            assert_eq!((&record.value[..], record.version), (number.to_string().as_bytes(), written.version));
            assert_eq!(served.by, Some(ServedBy::Session));
        }
        let token = nodes.at(1).session_token();
        let seen = Token::decode(&token).unwrap().seen.len();
        assert!(seen <= 3 && token.len() < 100, "{} bytes of {seen} origins", token.len());
    }
}

/// What was read goes along, and not only what was written.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_has_read_does_not_go_away_at_another_node() {
    let cluster = with_wires().await;
    let writer = Nodes::new(&cluster, Transport::Pipe).await;
    writer.at(1).put("key", "before").await.unwrap();
    writer.at(1).with_acks(Acks::All).put("other", "1").await.unwrap();
    cluster.isolate(3, Wire::Silent);
    writer.at(1).put("key", "after").await.unwrap();
    for transport in TRANSPORTS {
        let nodes = Nodes::new(&cluster, transport).await;
        assert_eq!(nodes.at(1).get("key").await.unwrap().unwrap().value, "after");
        assert_eq!(nodes.at(3).get("key").await.unwrap().unwrap().value, "before", "local");
        let behind = nodes.session_at(3).with_timeout(SHORT).get("key").await.unwrap_err();
        assert!(behind.to_string().contains("behind"), "{behind}");
        // A session that has only seen what is there is served, though the node lacks writes of others.
        let (there, fresh) = (nodes.at(1).new_session(), nodes.session_at(3).new_session());
        assert_eq!(there.get("other").await.unwrap().unwrap().value, "1");
        fresh.resume(&there.session_token()).unwrap();
        assert_eq!(fresh.get("other").await.unwrap().unwrap().value, "1");
        let mut scan = nodes.session_at(3).with_timeout(SHORT).scan(ScanOptions::default());
        assert!(scan.next().await.is_err(), "scans too");
    }
    cluster.isolate(3, Wire::Whole);
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    nodes.at(1).get("key").await.unwrap();
    let record = until("the node has it", async || nodes.session_at(3).get("key").await.ok()).await;
    assert_eq!(record.unwrap().value, "after");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_behind_waits_and_then_says_how_far() {
    let cluster = with_wires().await;
    cluster.isolate(3, Wire::Silent);
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    for number in 0..5 {
        nodes.at(1).put(format!("{number}"), "").await.unwrap();
    }
    let token = nodes.at(1).session_token();
    let get = v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        get: Some(v1::Get { key: "0".into() }),
        session: token.clone(),
        ..v1::GetRequest::default()
    };
    let mut request = tonic::Request::new(get);
    request.set_timeout(SHORT);
    let raw = cluster.node(3).raw();
    let error = error_of(&raw.kv.clone().get(request).await.unwrap_err());
    assert_eq!((error.code(), error.outcome()), (Code::Behind, v1::Outcome::NotDone), "{error:?}");
    assert!(error.message.contains("lacks 5 of node 1"), "{}", error.message);
    // It waits for as long as there is time, and not longer than need be.
    let waiting = nodes.session_at(3).with_timeout(support::PATIENCE);
    let waiting = tokio::spawn(async move { waiting.get("4").await });
    cluster.isolate(3, Wire::Whole);
    assert!(waiting.await.unwrap().unwrap().is_some());
}

/// The client goes to another node by itself, and takes along what it has seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_outlives_the_node_that_it_wrote_to() {
    let mut cluster = Cluster::of_three().await;
    create(&cluster).await;
    let client = cluster.client().await;
    let namespace = client.namespace(NAMESPACE).with_consistency(Consistency::Session);
    let written = namespace.clone().with_acks(Acks::Quorum).put("key", "value").await.unwrap();
    cluster.kill(written.version.node);
    let patient = namespace.clone().with_timeout(support::PATIENCE);
    let (record, served) = patient.get_served("key").await.unwrap();
    assert_eq!(record.unwrap().version, written.version);
    assert_ne!(served.node, written.version.node);
    // What it writes now is above what it has seen.
    let again = until("another node takes writes", async || patient.put("key", "again").await.ok()).await;
    assert!(written.version < again.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_has_what_was_acknowledged_by_one() {
    let cluster = with_wires().await;
    for transport in TRANSPORTS {
        let nodes = Nodes::new(&cluster, transport).await;
        // Node 3 gets nothing, and is heard by nobody.
        cluster.isolate(3, Wire::Silent);
        let written = nodes.at(1).with_acks(Acks::Quorum).put("key", format!("{transport:?}")).await.unwrap();
        cluster.isolate(3, Wire::Whole);
        // Whoever asks now, with any one of the others.
        for node in [1, 2, 3] {
            let served = until("a majority is heard", async || {
                nodes.quorum_at(node).new_session().get_served("key").await.ok()
            });
            let (record, served) = served.await;
            assert_eq!(record.unwrap().version, written.version, "through node {node}");
            assert_eq!(served.by, Some(ServedBy::Quorum));
        }
        let keys = ["nothing", "key", "ready"].map(Bytes::from).to_vec();
        let records = nodes.quorum_at(3).batch_get(keys).await.unwrap();
        assert_eq!(records.iter().map(|record| &record.key[..]).collect::<Vec<_>>(), [&b"key"[..], b"ready"]);
        let mut scan = nodes.quorum_at(1).scan(ScanOptions::default());
        assert_eq!(refusal(scan.next().await.unwrap_err()).code, Code::Unsupported);
    }
}

/// What one node alone has is found by the majority that it is part of, and by no other.
#[tokio::test(flavor = "multi_thread")]
async fn the_newest_of_a_majority_is_shown_and_without_one_nothing() {
    let cluster = with_wires().await;
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    nodes.at(1).with_acks(Acks::All).put("key", "old").await.unwrap();
    // What node 1 writes reaches nobody, but it can be asked: its answers do not come on the streams that are cut.
    for transport in TRANSPORTS {
        let nodes = Nodes::new(&cluster, transport).await;
        cluster.isolate(1, Wire::Silent);
        let alone = nodes.quorum_at(1).with_timeout(SHORT).get("key").await.unwrap_err();
        assert!(alone.to_string().contains("majority") || alone.to_string().contains("no answer"), "{alone}");
        let alone = until("node 1 hears nobody", async || {
            let error = nodes.quorum_at(1).with_timeout(SHORT).get("key").await.unwrap_err();
            error.to_string().contains("was not heard").then_some(error)
        });
        assert!(alone.await.to_string().contains("node 2"));
        let there = until("the others have a majority", async || nodes.quorum_at(2).get("key").await.ok());
        assert_eq!(there.await.unwrap().value, "old");
        cluster.isolate(1, Wire::Whole);
        let healed = until("it is back", async || nodes.quorum_at(1).get("key").await.ok()).await;
        assert_eq!(healed.unwrap().value, "old");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_not_all_have_says_where_it_is() {
    let mut cluster = Cluster::of_three().await;
    create(&cluster).await;
    cluster.kill(3);
    for transport in TRANSPORTS {
        let nodes = Nodes::new(&cluster, transport).await;
        let (value, all) = (format!("{transport:?}"), nodes.at(1).with_acks(Acks::All).with_timeout(SHORT));
        let error = all.put("key", value.clone()).await.unwrap_err();
        let WriteError::DoneHere(version, error) = error else { panic!("{error:?}") };
        let refusal = refusal(error);
        assert_eq!(refusal.code, Code::TooFewAcks);
        assert!(
            refusal.message.contains("on 2 of the 3") && refusal.message.contains("node 3"),
            "{}",
            refusal.message
        );
        // It is there, and the session knows of it.
        let record = nodes.session_at(2).get("key").await.unwrap().unwrap();
        assert_eq!((record.version, &record.value[..]), (version, value.as_bytes()));
        nodes.at(2).with_acks(Acks::Quorum).put("other", "").await.unwrap();
    }
    cluster.restart(3).await;
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    until("all have it again", async || {
        nodes.at(1).with_acks(Acks::All).with_timeout(SHORT).put("key", "").await.ok()
    })
    .await;
    assert_eq!(nodes.session_at(3).get("key").await.unwrap().unwrap().value, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_do_not_fit_are_refused() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    let written = nodes.at(1).put("key", "value").await.unwrap();
    let token = Token::decode(&nodes.at(1).session_token()).unwrap();
    let raw = cluster.node(1).raw();
    let get = async |session: Bytes| {
        let get = Some(v1::Get { key: "key".into() });
        let request =
            v1::GetRequest { namespace: NAMESPACE.into(), get, session, ..v1::GetRequest::default() };
        let mut request = tonic::Request::new(request);
        request.set_timeout(SHORT);
        raw.kv.clone().get(request).await.map_err(|status| error_of(&status))
    };
    let answer = get(token.encode()).await.unwrap().into_inner();
    let shown = Token::decode(&answer.header.unwrap().session).unwrap();
    assert_eq!((shown.namespace, shown.seen.len()), (token.namespace, 1), "{written:?}");
    let other = Token { namespace: token.namespace + 1, ..token.clone() };
    assert_eq!(get(other.encode()).await.unwrap_err().code(), Code::OtherNamespace);
    let mut damaged = token.encode().to_vec();
    damaged[0] ^= 1;
    assert_eq!(get(damaged.into()).await.unwrap_err().code(), Code::InvalidArgument);
    let later = Token { era: token.era + 1, ..token.clone() };
    let error = get(later.encode()).await.unwrap_err();
    assert!(error.code() == Code::Behind && error.message.contains("era"), "{error:?}");
    // A namespace that is made again is another one: the client says so once, and then goes on.
    let client = &nodes.client;
    let session = client.namespace(NAMESPACE).with_consistency(Consistency::Session);
    client.delete_namespace(NAMESPACE).await.unwrap();
    create(&cluster).await;
    assert_eq!(refusal(session.get("key").await.unwrap_err()).code, Code::OtherNamespace);
    assert_eq!(session.get("key").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_wins_over_what_it_has_seen_unless_that_is_from_the_future() {
    let cluster = Cluster::of_three().await;
    create(&cluster).await;
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    let before = nodes.at(1).put("key", "before").await.unwrap().version;
    let put = async |node: u64, ahead_ms: u64| {
        let request = v1::PutRequest {
            namespace: NAMESPACE.into(),
            put: Some(v1::Put { key: "key".into(), value: "after".into() }),
            acks: v1::Acks::All.into(),
            seen: Some(v1::Version { era: before.era, hlc: before.hlc + (ahead_ms << 16), node: 9 }),
            ..v1::PutRequest::default()
        };
        let answer = cluster.node(node).raw().kv.clone().put(request).await;
        answer.map(|answer| answer.into_inner().version.unwrap()).map_err(|status| error_of(&status))
    };
    let after = put(2, 300).await.unwrap();
    assert!(before.hlc + (300 << 16) < after.hlc, "{before:?} {after:?}");
    let error = put(3, 3_600_000).await.unwrap_err();
    assert_eq!((error.code(), error.outcome()), (Code::ClockAhead, v1::Outcome::NotDone), "{error:?}");
    assert!(error.message.contains("ahead") && error.retry_after_ms == 0, "{error:?}");
    let record = nodes.quorum_at(3).get("key").await.unwrap().unwrap();
    assert_eq!(record.version.hlc, after.hlc, "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn strong_namespaces_read_so_by_a_round_and_refuse_acks_of_all() {
    let cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, "strong").await;
    for transport in TRANSPORTS {
        let client = cluster.client_with(Options { transport, ..Options::default() }).await;
        let strong = client.namespace("strong");
        strong.clone().with_acks(Acks::Quorum).put("key", "value").await.unwrap();
        for consistency in [Consistency::Session, Consistency::Quorum] {
            let (record, served) =
                strong.clone().with_consistency(consistency).get_served("key").await.unwrap();
            assert_eq!((record.unwrap().value, served.by), ("value".into(), Some(ServedBy::Linearizable)));
        }
        let of_all = strong.clone().with_acks(Acks::All);
        for refused in [of_all.put("key", "never").await, of_all.delete("key").await] {
            let WriteError::NotDone(error) = refused.unwrap_err() else { panic!("it is in doubt") };
            assert_eq!(refusal(error).code, Code::Unsupported);
        }
        assert_eq!(strong.get("key").await.unwrap().unwrap().value, "value");
        assert!(strong.session_token().is_empty());
    }
}

/// What lies on the disk is looked up in parts, and large values fill several answers: whatever comes in one of them, its token names.
#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_many_large_values_says_what_it_shows() {
    const VALUES: u64 = 24;
    let mut cluster = Cluster::start(Settings { size: 1, ..Settings::default() }).await;
    create(&cluster).await;
    let nodes = Nodes::new(&cluster, Transport::Pipe).await;
    let key = |number: u64| Bytes::from(format!("large-{number}"));
    for number in 0..VALUES {
        nodes.at(1).put(key(number), vec![7; 400 << 10]).await.unwrap();
    }
    cluster.stop(1);
    cluster.launch(1);
    cluster.ready(1).await;
    let get = |id| {
        let operation = Some(Operation::Get(v1::Get { key: key(id) }));
        v1::PipeOperation { id, operation, ..v1::PipeOperation::default() }
    };
    let request = v1::PipeRequest {
        namespace: NAMESPACE.to_owned(),
        consistency: v1::Consistency::Session.into(),
        operations: (0..VALUES).map(get).collect(),
        ..v1::PipeRequest::default()
    };
    let requests = tokio_stream::once(request);
    let mut kv = cluster.node(1).raw().kv.max_decoding_message_size(64 << 20);
    let mut responses = kv.pipe(requests).await.unwrap().into_inner();
    let (mut found, mut answers) = (0, 0);
    while let Some(response) = responses.message().await.unwrap() {
        for result in &response.results {
            let Some(Answer::Found(read)) = &result.result else { panic!("{result:?}") };
            assert_eq!(read.value.as_ref().map(Bytes::len), Some(400 << 10), "{}", result.id);
            found += 1;
        }
        answers += 1;
        let token = Token::decode(&response.header.unwrap().session).unwrap();
        assert!(!token.seen.is_empty(), "answer {answers} shows writes and names none");
    }
    assert_eq!(found, VALUES);
    assert!(1 < answers, "all in one answer shows nothing here");
}
