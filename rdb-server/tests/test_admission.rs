//! Memory for requests: what does not fit is refused at once and definitely, with the bound that was hit and a time to come
//! back; one namespace cannot take what the others need; and all of it is given back.

use crate::support::raw::Raw;
use crate::support::{Cluster, Settings, assert_words, until};
use rdb_client::Consistency;
use rdb_proto::v1;
use rdb_proto::v1::pipe_operation::Operation;
use rdb_proto::v1::pipe_result::Result as Answer;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::JoinHandle;

const FLOODED: &str = "flooded";
const CALM: &str = "calm";
const TIMEOUT_MS: u64 = 30_000;
const VALUE_BYTES: usize = 1 << 20;
const NODE_BYTES_MAX: u64 = 64 << 20;
const NAMESPACE_BYTES_MAX: u64 = 8 << 20;
/// What a node may take beyond its budget for requests: memtables, two of the log (one fills while another is flushed) and
/// those of the data, which are 384 MiB; and entries, messages, and pages that the allocator keeps. Less than what the floods
/// send.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

fn options(more: &str) -> String {
    format!(
        "request_bytes_max = {NODE_BYTES_MAX}\nnamespace_request_bytes_max = {NAMESPACE_BYTES_MAX}\n\
         cache_bytes = 8388608\nrequest_timeout_ms = {TIMEOUT_MS}\n{more}"
    )
}

/// What came of a flood.
#[derive(Debug, Default)]
struct Flooded {
    done: usize,
    /// For want of memory.
    refused: Vec<v1::Error>,
    /// Otherwise: the leader was lost, or not found.
    failed: usize,
}

impl Flooded {
    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Done(_) => self.done += 1,
            Answer::NotDone(error) if error.code() == v1::Code::ResourceExhausted => self.refused.push(error),
            _ => self.failed += 1,
        }
    }

    fn sent_bytes(&self) -> usize {
        (self.done + self.refused.len() + self.failed) * VALUE_BYTES
    }

    fn assert_refusals_name_the_namespaces_bound(&self) {
        assert!(!self.refused.is_empty(), "{self:?}");
        for error in &self.refused {
            assert_eq!(error.outcome(), v1::Outcome::NotDone);
            assert!(0 < error.retry_after_ms, "{error:?}");
            assert_words(&error.message, &["namespace", &NAMESPACE_BYTES_MAX.to_string()]);
            assert_words(&error.hint, &["try again after"]);
        }
    }
}

/// Sends long values down a pipe as fast as the node reads them, whatever it answers, until told to stop or `messages` are
/// sent.
fn flood(raw: &Raw, name: usize, messages: usize, stop: Arc<AtomicBool>) -> JoinHandle<Flooded> {
    let value = bytes::Bytes::from(vec![b'x'; VALUE_BYTES]);
    let sent = (0..messages).take_while(move |_| !stop.load(Ordering::Relaxed)).map(move |message| {
        let put = v1::Put { key: format!("{name}/{message}").into(), value: value.clone() };
        let operation =
            v1::PipeOperation { id: message as u64, sequence: 0, operation: Some(Operation::Put(put)) };
        v1::PipeRequest {
            namespace: FLOODED.into(),
            operations: vec![operation],
            ..v1::PipeRequest::default()
        }
    });
    let mut kv = raw.kv.clone();
    tokio::spawn(async move {
        let mut answers = kv.pipe(tokio_stream::iter(sent)).await.unwrap().into_inner();
        let mut flooded = Flooded::default();
        while let Some(answer) = answers.message().await.unwrap() {
            answer.results.into_iter().for_each(|result| flooded.take(result.result.unwrap()));
        }
        flooded
    })
}

async fn joined(floods: Vec<JoinHandle<Flooded>>) -> Flooded {
    let mut all = Flooded::default();
    for flood in floods {
        let Flooded { done, refused, failed } = flood.await.unwrap();
        all.done += done;
        all.refused.extend(refused);
        all.failed += failed;
    }
    all
}

fn assert_bounded(grown_bytes: u64, flooded: &Flooded) {
    let sent = flooded.sent_bytes() as u64;
    assert!(MEMORY_BYTES_MAX < sent, "too little was sent to tell: {} MiB", sent >> 20);
    assert!(grown_bytes < MEMORY_BYTES_MAX, "{} of {} MiB sent", grown_bytes >> 20, sent >> 20);
}

async fn until_all_is_given_back(cluster: &Cluster, id: u64, region: u64) {
    until("the memory is given back", async || {
        let node = cluster.node(id);
        let used = node.gauge("flaredb_request_bytes").await?
            + node.metric("flaredb_region_request_bytes", region).await?;
        (used == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_into_one_namespace_does_not_keep_the_others_out() {
    let settings = Settings { size: 1, options: options(""), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    let region = cluster.create(&client, FLOODED).await;
    let calm = cluster.create(&client, CALM).await;
    let before = cluster.peak_memory_bytes(1);
    let stop = Arc::<AtomicBool>::default();
    // Each on a connection of its own.
    let floods = (0..8).map(|name| flood(&cluster.node(1).raw(), name, usize::MAX, stop.clone())).collect();
    let node = cluster.node(1);
    until("writes are refused", async || {
        (100 < node.metric("flaredb_region_requests_refused", region).await?).then_some(())
    })
    .await;
    let raw = node.raw();
    for number in 0..50 {
        let key = format!("key/{number}");
        raw.put(CALM, &key, "value", TIMEOUT_MS).await.unwrap();
        assert_eq!(raw.get(CALM, &key, TIMEOUT_MS).await.unwrap().value.unwrap(), "value");
    }
    let used = node.metric("flaredb_region_request_bytes", region).await.unwrap();
    // While one is refused its bytes are counted for a moment, of each pipe.
    assert!(used <= NAMESPACE_BYTES_MAX + 8 * VALUE_BYTES as u64, "{used}");
    assert_eq!(node.metric("flaredb_region_requests_refused", calm).await, Some(0));
    assert_eq!(node.gauge("flaredb_requests_refused").await, Some(0));
    until("more was sent than may be kept", async || {
        let refused = node.metric("flaredb_region_requests_refused", region).await?;
        (MEMORY_BYTES_MAX < refused * VALUE_BYTES as u64).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let flooded = joined(floods).await;
    flooded.assert_refusals_name_the_namespaces_bound();
    assert!(0 < flooded.done && flooded.failed == 0, "{} {}", flooded.done, flooded.failed);
    until_all_is_given_back(&cluster, 1, region).await;
    assert_bounded(cluster.peak_memory_bytes(1) - before, &flooded);
}

/// Nothing can be committed for a while: what is proposed piles up, to the bound and no further.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_for_paused_followers_pile_up_to_the_bound() {
    // The leader waits a little longer than usual before it gives up on its followers.
    let settings = Settings { options: options("election_ticks = 60"), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    let client = cluster.client().await;
    let region = cluster.create(&client, FLOODED).await;
    cluster.create(&client, CALM).await;
    for namespace in [FLOODED, CALM] {
        client.move_leader(namespace, 1).await.unwrap();
    }
    let raw = cluster.node(1).raw();
    raw.put(CALM, "key", "value", TIMEOUT_MS).await.unwrap();
    let before = cluster.peak_memory_bytes(1);
    cluster.pause(2);
    cluster.pause(3);
    let go_on = Arc::<AtomicBool>::default();
    let floods: Vec<_> = (0..8).map(|name| flood(&cluster.node(1).raw(), name, 100, go_on.clone())).collect();
    until("the namespace's part is used up", async || {
        (100 < cluster.node(1).metric("flaredb_region_requests_refused", region).await?).then_some(())
    })
    .await;
    // The other namespace is served as far as a node without the others can: its write is taken in, its data is read.
    let writes = {
        let raw = raw.clone();
        tokio::spawn(async move { raw.put(CALM, "key", "newer", TIMEOUT_MS).await })
    };
    let stale = client.namespace_at(CALM, &cluster.node(1).address()).unwrap();
    let stale = stale.with_consistency(Consistency::Stale { max_age: None });
    assert_eq!(stale.get("key").await.unwrap().unwrap().value, "value");
    let used = cluster.node(1).gauge("flaredb_request_bytes").await.unwrap();
    assert!(used <= NAMESPACE_BYTES_MAX + 8 * VALUE_BYTES as u64, "{used}");
    let flooded = {
        cluster.resume(2);
        cluster.resume(3);
        joined(floods).await
    };
    flooded.assert_refusals_name_the_namespaces_bound();
    // Done, or the leadership was lost over it; but there was room.
    let written = writes.await.unwrap();
    assert!(
        written.as_ref().err().is_none_or(|refused| refused.code != v1::Code::ResourceExhausted),
        "{written:?}"
    );
    assert_eq!(cluster.node(1).gauge("flaredb_requests_refused").await, Some(0));
    until_all_is_given_back(&cluster, 1, region).await;
    client.namespace(FLOODED).put("key", "value").await.unwrap();
    assert_bounded(cluster.peak_memory_bytes(1) - before, &flooded);
}

const WINDOW_BYTES: u32 = 64 << 10;

/// A call whose answer is not read: as a stream, whose first message nobody asks for.
async fn unread(address: &str) -> tonic::Streaming<v1::GetResponse> {
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    // So that the connection does not take all of it in by itself.
    let channel =
        channel.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let get = Some(v1::Get { key: "long".into() });
    let request = v1::GetRequest { namespace: CALM.into(), get, ..v1::GetRequest::default() };
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/flaredb.v1.Kv/Get");
    let codec = tonic_prost::ProstCodec::<v1::GetRequest, v1::GetResponse>::default();
    grpc.server_streaming(tonic::Request::new(request), path, codec).await.unwrap().into_inner()
}

/// What one call has found counts until it is sent, as in the pipe; a client that does not read does not keep it for ever.
#[tokio::test(flavor = "multi_thread")]
async fn answers_of_calls_of_their_own_count_until_they_are_read_or_given_up() {
    let options = format!("request_bytes_max = {NAMESPACE_BYTES_MAX}\nrequest_timeout_ms = 3000");
    let cluster = Cluster::start(Settings { size: 1, options, ..Settings::default() }).await;
    cluster.create(&cluster.client().await, CALM).await;
    let node = cluster.node(1);
    node.raw().put(CALM, "long", &"x".repeat(VALUE_BYTES), TIMEOUT_MS).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(unread(&node.address()).await);
    }
    let used = async || node.gauge("flaredb_request_bytes").await;
    until("they have taken much of the memory", async || {
        (4 * VALUE_BYTES as u64 <= used().await?).then_some(())
    })
    .await;
    // One that is read comes as a whole.
    let read = answers.pop().unwrap().message().await.unwrap().unwrap();
    assert_eq!(read.value.unwrap().len(), VALUE_BYTES);
    until("the others are given up", async || (used().await? == 0).then_some(())).await;
    for mut answer in answers {
        // It ends in the midst of a message.
        assert!(answer.message().await.is_err());
    }
}
