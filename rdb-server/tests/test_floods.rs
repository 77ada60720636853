//! Floods of connections, and clients that mean harm: the node sends them away, stays within its memory and its open files, goes
//! on serving those that it serves already and keeps its lead; and when they are gone all of it is given back.
//!
//! Each flood is first shown to be one: there are more connections than may be, or more is sent than may be kept. How long
//! requests take meanwhile is printed and not judged.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy takes only functions marked as tests for tests"
)]

mod support;

use bytes::Bytes;
use rdb_proto::v1;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use support::cluster::Node;
use support::hostile::{self, Hostile, PREFACE};
use support::raw::{Raw, Refused};
use support::{Cluster, Settings, assert_words, until};
use tokio::task::JoinSet;
use tonic::codegen::Service as _;
use tonic::transport::{Channel, Endpoint};

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 30_000;
/// Files that a node may have more than before a flood: of the connections that its own work has opened meanwhile.
const FILES_MORE_MAX: usize = 40;
/// Memory that the allocator may keep when a flood is over.
const MEMORY_KEPT_MAX: u64 = 96 << 20;

async fn alone(options: &str) -> Cluster {
    let options = format!("cache_bytes = 8388608\nrequest_timeout_ms = 5000\n{options}");
    let cluster = Cluster::start(Settings { size: 1, options, ..Settings::default() }).await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    cluster
}

/// What a node counts of its clients' connections.
async fn counted(node: &Node, name: &str) -> Option<u64> {
    node.gauge(&format!("flaredb_{name}{{port=\"clients\"}}")).await
}

/// Writes one after the other over one connection. All are to be done; how long the slowest of a hundred took is returned.
async fn go_on(raw: &Raw, writes: usize) -> Duration {
    let mut took = Vec::new();
    for number in 0..writes {
        let begun = Instant::now();
        raw.put(NAMESPACE, &format!("key/{number}"), "value", TIMEOUT_MS).await.unwrap();
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[writes * 99 / 100]
}

/// What a node had before a flood.
struct Before {
    files: usize,
    memory_bytes: u64,
}

impl Before {
    fn of(cluster: &mut Cluster, id: u64) -> Self {
        let process = cluster.process(id);
        Self { files: process.open_files(), memory_bytes: process.memory_bytes() }
    }

    /// Waits until it has no more than that again, and has a new client served.
    async fn is_back(&self, cluster: &mut Cluster, id: u64) {
        until("what the flood took is given back", async || {
            let process = cluster.process(id);
            let files = process.open_files() <= self.files + FILES_MORE_MAX;
            (files && process.memory_bytes() <= self.memory_bytes + MEMORY_KEPT_MAX).then_some(())
        })
        .await;
        go_on(&cluster.node(id).raw(), 5).await;
    }
}

/// Connections that begin as they should and then do nothing.
async fn idle(port: u16, count: usize) -> Vec<Hostile> {
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        tasks.spawn(async move {
            let mut opened = Vec::new();
            for _ in 0..count / 50 {
                opened.push(Hostile::begin(port).await);
            }
            opened
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

fn closed(flood: &[Hostile]) -> usize {
    flood.iter().filter(|hostile| hostile.is_closed()).count()
}

/// So many connections may this process open.
fn connections_max() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    maximum.map_or(usize::MAX, |files| usize::try_from(files).unwrap()).saturating_sub(1_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_is_sent_away_and_the_leader_keeps_its_lead() {
    const CLIENTS_MAX: usize = 500;
    let opened = connections_max().min(5_000) / 50 * 50;
    assert!(3 * CLIENTS_MAX < opened, "this process may open too few connections to flood anyone: {opened}");
    let options = format!("client_connections_max = {CLIENTS_MAX}");
    let mut cluster = Cluster::start(Settings { options, ..Settings::default() }).await;
    let client = cluster.client().await;
    let region = cluster.create(&client, NAMESPACE).await;
    // Elsewhere it would be taken back sooner or later by the one that should lead.
    client.move_leader(NAMESPACE, 1).await.unwrap();
    let leader = cluster.leader(NAMESPACE).await;
    let (raw, port) = (cluster.node(leader).raw(), cluster.node(leader).client_port);
    let calm = go_on(&raw, 300).await;
    let term = cluster.node(leader).metric("flaredb_region_term", region).await.unwrap();
    let before = Before::of(&mut cluster, leader);
    let flood = idle(port, opened).await;
    let node = cluster.node(leader);
    until("as many are connected as may be", async || {
        (counted(node, "connections").await? == CLIENTS_MAX as u64).then_some(())
    })
    .await;
    let flooded = go_on(&raw, 300).await;
    println!("of {opened} connections: p99 of a write {calm:?} without, {flooded:?} with");
    // Health and metrics are served, the others are heard, and clients that come now learn at once that there is no place.
    assert_eq!(node.page("/readyz").await.unwrap().0, 200);
    assert_eq!(node.metric("flaredb_region_term", region).await, Some(term));
    assert_eq!(node.metric("flaredb_region_leader", region).await, Some(1));
    assert!(Hostile::begin(port).await.hear().await.is_none(), "one more was let in");
    let refused = counted(node, "connections_refused").await.unwrap();
    assert!((opened - CLIENTS_MAX) as u64 <= refused, "{refused} of {opened} were refused");
    assert!(opened - CLIENTS_MAX <= closed(&flood), "{} of {opened} are closed", closed(&flood));
    assert_eq!(counted(node, "connections").await, Some(CLIENTS_MAX as u64), "the flood was over too soon");
    let lines = node.said_now().lines().filter(|line| line.contains("closed at once")).count();
    assert!((1..20).contains(&lines), "{lines} lines in the log about {refused} connections");
    assert!(cluster.process(leader).open_files() <= before.files + CLIENTS_MAX + FILES_MORE_MAX);
    drop(flood);
    before.is_back(&mut cluster, leader).await;
}

/// Nothing, half of what comes first, or so slowly that it never comes to an end.
#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_does_not_begin_to_speak_is_sent_away() {
    let mut cluster = alone("").await;
    let (raw, port) = (cluster.node(1).raw(), cluster.node(1).client_port);
    go_on(&raw, 1).await;
    let before = Before::of(&mut cluster, 1);
    let proper = idle(port, 50).await;
    let (mut flood, mut slow) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let mut hostile = Hostile::connect(port).await;
        assert!(number % 2 == 0 || hostile.say(&PREFACE[..12]).await);
        flood.push(hostile);
    }
    for _ in 0..10 {
        let mut hostile = Hostile::connect(port).await;
        slow.push(tokio::spawn(async move {
            for byte in PREFACE {
                if !hostile.say(&[*byte]).await || hostile.is_closed() {
                    return true;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            false
        }));
    }
    let node = cluster.node(1);
    until("they are connected", async || (260 < counted(node, "connections").await?).then_some(())).await;
    until("the silent ones are sent away", async || {
        (210 == counted(node, "connections_silent").await?).then_some(())
    })
    .await;
    assert_eq!(closed(&flood), flood.len());
    for slow in slow {
        assert!(slow.await.unwrap(), "one that speaks slowly got to the end");
    }
    // It was not for idling: who has begun as it should is there yet, also one that has been for long.
    assert_eq!(closed(&proper), 0);
    assert!(50 <= counted(node, "connections").await.unwrap());
    go_on(&raw, 10).await;
    drop(proper);
    before.is_back(&mut cluster, 1).await;
}

/// However many clients may connect by the configuration, the log and the data have files enough.
#[tokio::test(flavor = "multi_thread")]
async fn clients_leave_the_node_the_files_that_it_needs() {
    const FILES_MAX: usize = 400;
    let options = "cache_bytes = 8388608".to_owned();
    let settings = Settings { size: 1, options, files_max: Some(FILES_MAX), ..Settings::default() };
    let mut cluster = Cluster::start(settings).await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    assert_words(&cluster.node(1).said_now(), &["fewer clients may connect than configured", "ulimit -n"]);
    let (raw, port) = (cluster.node(1).raw(), cluster.node(1).client_port);
    go_on(&raw, 1).await;
    let before = Before::of(&mut cluster, 1);
    let flood = idle(port, 2 * FILES_MAX).await;
    // More than fits into memory, so that files are opened.
    let value = "x".repeat(1 << 20);
    for number in 0..120 {
        raw.put(NAMESPACE, &format!("long/{}", number % 20), &value, TIMEOUT_MS).await.unwrap();
    }
    let node = cluster.node(1);
    assert_eq!(node.page("/readyz").await.unwrap().0, 200);
    assert_eq!(counted(node, "connections").await, Some(FILES_MAX as u64 / 2));
    assert!(FILES_MAX as u64 <= counted(node, "connections_refused").await.unwrap());
    drop(flood);
    until("their files are given back", async || {
        (cluster.process(1).open_files() <= before.files + FILES_MORE_MAX).then_some(())
    })
    .await;
    go_on(&cluster.node(1).raw(), 5).await;
}

/// Waits until the catalog has nothing to do any more. When a node is registered, soon after the start, the data is flushed.
async fn catalog_rests(node: &Node) {
    let applied = async || node.metric("flaredb_region_applied_index", 1).await;
    until("the catalog rests", async || {
        let before = applied().await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        (before == applied().await?).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_may_open_no_more_files_waits_and_goes_on() {
    let mut cluster = alone("").await;
    let (raw, port) = (cluster.node(1).raw(), cluster.node(1).client_port);
    go_on(&raw, 1).await;
    // A node that finds no file for its data stops. This is about connections alone.
    catalog_rests(cluster.node(1)).await;
    let before = Before::of(&mut cluster, 1);
    cluster.process(1).limit_open_files(10);
    // The system accepts them for the node.
    let mut flood = Vec::new();
    for _ in 0..60 {
        flood.push(Hostile::begin(port).await);
    }
    until("they cannot be accepted", async || {
        cluster.node(1).said_now().contains("cannot be accepted now").then_some(())
    })
    .await;
    // It goes on, and waits without wasting the processor.
    go_on(&raw, 20).await;
    let used = cluster.process(1).processor_time();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let used = cluster.process(1).processor_time() - used;
    println!("waiting for files, 3 s took {used:?} of processor time");
    assert!(used < Duration::from_millis(1_500), "it does not wait, it spins: {used:?}");
    let lines = cluster.node(1).said_now().matches("cannot be accepted now").count();
    assert!(lines < 20, "{lines} lines in the log");
    drop(flood);
    before.is_back(&mut cluster, 1).await;
}

/// Opens calls and takes them back as fast as it can, over and over.
#[tokio::test(flavor = "multi_thread")]
async fn who_opens_and_resets_calls_without_end_is_told_to_calm_down() {
    const PAIRS: u32 = 50_000;
    const PATH: &str = "/flaredb.v1.Kv/Get";
    let mut cluster = alone("").await;
    let (raw, port) = (cluster.node(1).raw(), cluster.node(1).client_port);
    let calm = go_on(&raw, 100).await;
    let before = Before::of(&mut cluster, 1);
    let pair = |number: u32| {
        let stream = 2 * number + 1;
        [hostile::call(stream, PATH).bytes(), hostile::reset(stream).bytes()].concat()
    };
    // It is not for taking one back: who lets the node keep up may do so as often as it likes.
    let mut patient = Hostile::begin(port).await;
    for number in 0..500 {
        assert!(patient.say(&pair(number)).await && patient.is_heard().await, "sent away after {number}");
    }
    let flood: Bytes = (0..PAIRS).flat_map(pair).collect::<Vec<u8>>().into();
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        let flood = flood.clone();
        tasks.spawn(async move {
            let hostile = Hostile::begin(port).await;
            let (mut read, mut written) = hostile.stream.into_split();
            let sends = tokio::spawn(async move {
                tokio::io::AsyncWriteExt::write_all(&mut written, &flood).await.is_ok()
            });
            let mut said = Vec::new();
            // What comes may end with an error: the node does not read the rest.
            let _ = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut said).await;
            (sends.await.unwrap(), said)
        });
    }
    let flooded = go_on(&raw, 100).await;
    println!("of 8 that reset calls: p99 of a write {calm:?} without, {flooded:?} with");
    for (sent, said) in tasks.join_all().await {
        assert!(!sent, "all {PAIRS} were taken");
        let told = frames(&said).into_iter().find(|frame| frame.kind == hostile::GO_AWAY);
        // The words are lost where the connection is closed with more on its way.
        assert!(told.is_none_or(|told| told.error() == hostile::ENHANCE_YOUR_CALM));
    }
    assert!(patient.is_heard().await, "one connection's flood has ended another one");
    drop(patient);
    before.is_back(&mut cluster, 1).await;
}

fn frames(mut bytes: &[u8]) -> Vec<hostile::Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap();
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        frames.push(hostile::Frame { kind: head[3], flags: head[4], stream, payload: payload.to_vec() });
        bytes = rest;
    }
    frames
}

/// Asks for long values on all streams that it may open, and never reads, not even a ping.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_much_and_never_reads_is_given_up() {
    const CONNECTIONS: usize = 20;
    const STREAMS: u32 = 200;
    const VALUE_BYTES: usize = 1 << 20;
    const REQUEST_BYTES_MAX: u64 = 32 << 20;
    /// Memory beside that for requests: what is on its way in each connection, and what the allocator keeps.
    const MEMORY_BYTES_MAX: u64 = REQUEST_BYTES_MAX + (256 << 20);
    let mut cluster = alone(&format!("request_bytes_max = {REQUEST_BYTES_MAX}")).await;
    let (raw, port) = (cluster.node(1).raw(), cluster.node(1).client_port);
    raw.put(NAMESPACE, "long", &"x".repeat(VALUE_BYTES), TIMEOUT_MS).await.unwrap();
    let calm = go_on(&raw, 100).await;
    let (before, peak) = (Before::of(&mut cluster, 1), cluster.peak_memory_bytes(1));
    let get = v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        get: Some(v1::Get { key: "long".into() }),
        ..v1::GetRequest::default()
    };
    let mut flood = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut hostile = Hostile::begin(port).await;
        for number in 0..STREAMS {
            let stream = 2 * number + 1;
            let call = hostile::call(stream, "/flaredb.v1.Kv/Get").bytes();
            hostile.say(&[call, hostile::message(stream, &get).bytes()].concat()).await;
        }
        flood.push(hostile);
    }
    let flooded = go_on(&raw, 100).await;
    println!("of {CONNECTIONS} that do not read: p99 of a write {calm:?} without, {flooded:?} with");
    let node = cluster.node(1);
    let asked = (CONNECTIONS as u64) * u64::from(STREAMS) * VALUE_BYTES as u64;
    let answered = async || node.gauge("flaredb_requests_total{operation=\"Read\",result=\"Done\"}").await;
    until("more was read for them than may be kept, or refused", async || {
        let refused = node.gauge("flaredb_requests_refused").await?;
        let found = answered().await.unwrap_or(0) + refused;
        (REQUEST_BYTES_MAX < found * VALUE_BYTES as u64).then_some(())
    })
    .await;
    until("they are given up, though they do not close", async || {
        let left = counted(node, "connections").await?;
        (left < CONNECTIONS as u64 && node.gauge("flaredb_request_bytes").await? == 0).then_some(())
    })
    .await;
    drop(flood);
    before.is_back(&mut cluster, 1).await;
    let grown = cluster.peak_memory_bytes(1) - peak;
    println!("{} MiB more at the most, of {} MiB asked", grown >> 20, asked >> 20);
    assert!(MEMORY_BYTES_MAX < asked && grown < MEMORY_BYTES_MAX);
}

/// A body of which the rest does not come before it is let.
struct Halting {
    pieces: VecDeque<Bytes>,
    rest: Option<(Pin<Box<tokio::time::Sleep>>, Bytes)>,
}

impl http_body::Body for Halting {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, tonic::Status>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(piece))));
        }
        let Some((until, _)) = &mut self.rest else { return Poll::Ready(None) };
        std::task::ready!(until.as_mut().poll(context));
        let (_, rest) = self.rest.take().unwrap();
        Poll::Ready(Some(Ok(http_body::Frame::data(rest))))
    }
}

/// A put whose last byte comes when it has waited.
async fn halting_put(
    channel: &Channel,
    key: &str,
    value_bytes: usize,
    wait: Duration,
) -> Result<(), Refused> {
    let put = v1::Put { key: key.to_owned().into(), value: vec![b'x'; value_bytes].into() };
    let put = v1::PutRequest { namespace: NAMESPACE.to_owned(), put: Some(put), ..v1::PutRequest::default() };
    let message = prost::Message::encode_to_vec(&put);
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let mut all = Bytes::from([&[0][..], &length, &message].concat());
    let rest = all.split_off(all.len() - 1);
    let rest = Some((Box::pin(tokio::time::sleep(wait)), rest));
    let body = tonic::body::Body::new(Halting { pieces: [all].into(), rest });
    let request = tonic::codegen::http::Request::post("/flaredb.v1.Kv/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let mut channel = channel.clone();
    std::future::poll_fn(|context| channel.poll_ready(context)).await.unwrap();
    let response = channel.call(request).await.unwrap();
    // A refusal has its status in the headers; an answer has it behind the answer.
    match tonic::Status::from_header_map(response.headers()) {
        Some(status) => Err(Refused::from(status)),
        None => Ok(()),
    }
}

/// Messages that come but for their last byte, on many streams. A request counts before it is one.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_never_become_whole_are_thrown_away() {
    const ARRIVING_BYTES_MAX: u64 = 16 << 20;
    const VALUE_BYTES: usize = 1 << 20;
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 16;
    let mut cluster = alone("request_bytes_max = 16777216").await;
    let raw = cluster.node(1).raw();
    let calm = go_on(&raw, 100).await;
    let before = Before::of(&mut cluster, 1);
    let node = cluster.node(1);
    let connect = || Endpoint::from_shared(format!("http://{}", node.address())).unwrap().connect_lazy();
    // One that halts and goes on is as good as any.
    halting_put(&connect(), "halted", VALUE_BYTES - 1, Duration::from_secs(2)).await.unwrap();
    let halted = raw.get(NAMESPACE, "halted", TIMEOUT_MS).await.unwrap().value.unwrap();
    assert_eq!(halted.len(), VALUE_BYTES - 1);
    let mut tasks = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let channel = connect();
        for stream in 0..STREAMS {
            let channel = channel.clone();
            tasks.spawn(async move {
                let key = format!("wrong/{connection}/{stream}");
                halting_put(&channel, &key, VALUE_BYTES, support::PATIENCE).await.map(|()| key).unwrap_err()
            });
        }
    }
    until("all that may be kept is taken, and more is refused", async || {
        let (taken, refused) =
            (node.gauge("flaredb_arriving_bytes").await?, node.gauge("flaredb_arriving_refused").await?);
        assert!(taken <= ARRIVING_BYTES_MAX, "{taken} bytes are kept of messages that are not whole");
        (ARRIVING_BYTES_MAX / 2 < taken && 0 < refused).then_some(())
    })
    .await;
    // Others, whose messages come in one piece, are served.
    let flooded = go_on(&raw, 100).await;
    println!("of messages that are not whole: p99 of a write {calm:?} without, {flooded:?} with");
    let (mut late, mut crowded) = (0, 0);
    for refused in tasks.join_all().await {
        assert_eq!(refused.outcome, v1::Outcome::NotDone, "{refused:?}");
        match refused.code {
            v1::Code::ResourceExhausted => {
                crowded += 1;
                assert_words(
                    &refused.text,
                    &["messages that are not whole", &ARRIVING_BYTES_MAX.to_string()],
                );
            }
            v1::Code::DeadlineExceeded => {
                late += 1;
                assert_words(&refused.text, &["not whole", "thrown away", "smaller messages"]);
            }
            _ => panic!("{refused:?}"),
        }
    }
    println!("{late} were late, {crowded} found no room");
    assert!(0 < late && 0 < crowded && ARRIVING_BYTES_MAX < (crowded * VALUE_BYTES) as u64);
    let left = until("all is given back", async || {
        let left = node.gauge("flaredb_arriving_bytes").await?;
        (left == 0).then_some(left)
    });
    assert_eq!(left.await, 0);
    for connection in 0..CONNECTIONS {
        let key = format!("wrong/{connection}/0");
        assert_eq!(raw.get(NAMESPACE, &key, TIMEOUT_MS).await.unwrap().value, None, "{key}");
    }
    before.is_back(&mut cluster, 1).await;
}
