//! What people and programs get wrong: requests, configurations, directories. Each gets an error that names what
//! is wrong and what to do, and changes nothing.

use crate::support::raw::{Raw, Refused, timed};
use crate::support::{Cluster, Settings, assert_words, until};
use rdb_proto::v1;
use rdb_proto::v1::compare_and_swap::Expect;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;
/// Long enough that a cluster that could answer would.
const HOPELESS_MS: u64 = 3_000;
/// The exit code of a node that refuses to start.
const REFUSED: Option<i32> = Some(2);

async fn alone(options: &str) -> Cluster {
    Cluster::start(Settings { size: 1, options: options.to_owned(), ..Settings::default() }).await
}

/// One node that was never started.
async fn prepared() -> Cluster {
    Cluster::prepare(Settings { size: 1, ..Settings::default() }).await
}

fn put(key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> v1::Put {
    v1::Put { key: key.into().into(), value: value.into().into() }
}

fn put_request(put: v1::Put) -> v1::PutRequest {
    v1::PutRequest { namespace: NAMESPACE.to_owned(), put: Some(put), ..v1::PutRequest::default() }
}

fn batch_request(puts: Vec<v1::Put>) -> v1::BatchWriteRequest {
    let writes = puts.into_iter().map(|put| v1::Write { write: Some(v1::write::Write::Put(put)) }).collect();
    v1::BatchWriteRequest {
        namespace: NAMESPACE.to_owned(),
        batch: Some(v1::BatchWrite { writes }),
        ..v1::BatchWriteRequest::default()
    }
}

/// A refusal that is sure that nothing was done, names what is wrong, and says what to do.
#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, tonic::Status>,
    code: v1::Code,
    words: &[&str],
) {
    let refused = Refused::from(answer.expect_err("it was to be refused"));
    assert_eq!((refused.code, refused.outcome), (code, v1::Outcome::NotDone), "{refused:?}");
    assert_words(&refused.text, words);
    assert!(!refused.error.hint.is_empty() && refused.text.contains(&refused.error.hint), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_a_limit_are_refused_and_it_is_named() {
    let cluster = alone("").await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    let mut kv = raw.kv.clone();
    let invalid = v1::Code::InvalidArgument;
    let mib = 1 << 20;
    // At the limits.
    kv.put(timed(put_request(put([b'k'; 4096], vec![1; mib])), TIMEOUT_MS)).await.unwrap();
    let full = (0..1024).map(|key: u32| put(format!("full/{key:04}"), vec![2; 4096 - 9])).collect();
    kv.batch_write(timed(batch_request(full), TIMEOUT_MS)).await.unwrap();
    // Over them.
    let over = [
        (put("", "value"), &["empty", "1 to 4096"][..]),
        (put([b'k'; 4097], "value"), &["key", "4097", "limit is 4096"]),
        (put("wrong", vec![0; mib + 1]), &["value", "1048577", "limit is 1048576"]),
    ];
    for (put, words) in over {
        assert_refused(kv.put(timed(put_request(put.clone()), TIMEOUT_MS)).await, invalid, words);
        let alone = batch_request(vec![self::put("wrong", ""), put]);
        assert_refused(kv.batch_write(timed(alone, TIMEOUT_MS)).await, invalid, words);
    }
    let many = (0..1025).map(|key: u32| put(format!("wrong/{key}"), "")).collect();
    let words = ["1025 operations", "limit is 1024"];
    assert_refused(kv.batch_write(timed(batch_request(many), TIMEOUT_MS)).await, invalid, &words);
    let large = (0..5).map(|key: u32| put(format!("wrong/{key}"), vec![0; mib])).collect();
    let words = ["bytes of keys and values", "limit is 4194304"];
    assert_refused(kv.batch_write(timed(batch_request(large), TIMEOUT_MS)).await, invalid, &words);
    assert_refused(
        kv.batch_write(timed(batch_request(vec![]), TIMEOUT_MS)).await,
        invalid,
        &["batch is empty"],
    );
    let keys = vec!["key".into(); 1025];
    let get = v1::BatchGetRequest {
        namespace: NAMESPACE.to_owned(),
        get: Some(v1::BatchGet { keys }),
        ..v1::BatchGetRequest::default()
    };
    assert_refused(
        kv.batch_get(timed(get, TIMEOUT_MS)).await,
        invalid,
        &["1025 operations", "limit is 1024"],
    );
    let cas = v1::CompareAndSwapRequest {
        namespace: NAMESPACE.to_owned(),
        cas: Some(v1::CompareAndSwap { key: "wrong".into(), then_put: Some("v".into()), expect: None }),
        ..v1::CompareAndSwapRequest::default()
    };
    let words = ["does not say what it expects"];
    assert_refused(kv.compare_and_swap(timed(cas.clone(), TIMEOUT_MS)).await, invalid, &words);
    let cas = v1::CompareAndSwapRequest {
        cas: Some(v1::CompareAndSwap {
            key: "wrong".into(),
            expect: Some(Expect::Absent(v1::Absent {})),
            then_put: Some(vec![0; mib + 1].into()),
        }),
        ..cas
    };
    assert_refused(kv.compare_and_swap(timed(cas, TIMEOUT_MS)).await, invalid, &["limit is 1048576"]);
    // A message that is larger than any request may be is not even read.
    let huge = kv.put(timed(put_request(put("wrong", vec![0; 17 * mib])), TIMEOUT_MS)).await;
    assert_refused(huge, invalid, &["message has", "limit is 16777216"]);
    assert_nothing_was_written(&raw).await;
}

async fn assert_nothing_was_written(raw: &Raw) {
    for key in ["wrong", "wrong/0", "wrong/1", "wrong/1024"] {
        assert_eq!(raw.get(NAMESPACE, key, TIMEOUT_MS).await.unwrap().value, None, "{key}");
    }
}

/// A pipe with far more gets of long values than anyone could take in at once; its answers are not read.
async fn greedy_pipe(raw: &Raw) -> tonic::Streaming<v1::PipeResponse> {
    let (requests, sent) = tokio::sync::mpsc::channel(1000);
    for message in 0..20 {
        let get = |id| v1::PipeOperation {
            id,
            sequence: 0,
            operation: Some(v1::pipe_operation::Operation::Get(v1::Get { key: "long".into() })),
        };
        let operations = (20 * message..20 * (message + 1)).map(get).collect();
        let request =
            v1::PipeRequest { namespace: NAMESPACE.into(), operations, ..v1::PipeRequest::default() };
        requests.send(request).await.unwrap();
    }
    let sent = tokio_stream::wrappers::ReceiverStream::new(sent);
    let answers = raw.kv.clone().pipe(sent).await.unwrap().into_inner();
    // The pipe stays open.
    std::mem::forget(requests);
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_their_answers_do_not_keep_the_nodes_memory() {
    const REQUEST_BYTES_MAX: u64 = 12 << 20;
    let options = format!("request_timeout_ms = 1500\nrequest_bytes_max = {REQUEST_BYTES_MAX}");
    let cluster = alone(&options).await;
    let region = cluster.create(&cluster.client().await, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    raw.put(NAMESPACE, "long", &"x".repeat(1 << 20), 1000).await.unwrap();
    let mut pipes = Vec::new();
    for _ in 0..8 {
        // Each on a connection of its own.
        pipes.push(greedy_pipe(&cluster.node(1).raw()).await);
    }
    let refused = async || cluster.node(1).metric("flaredb_region_requests_refused", region).await;
    let used = async || cluster.node(1).gauge("flaredb_request_bytes").await;
    // Counted, and not seen as it happens: a slow test may come to look when it is over.
    until("the pipes have taken all of their memory", async || (0 < refused().await?).then_some(())).await;
    until("the pipes have given it back", async || (used().await? < 1 << 20).then_some(())).await;
    raw.put(NAMESPACE, "others", "are served", 1000).await.unwrap();
    let mut given_up = 0;
    for mut pipe in pipes {
        // A pipe whose gets were all refused for lack of memory has nothing that waits, and goes on.
        while let Ok(read) = tokio::time::timeout(Duration::from_secs(2), pipe.message()).await {
            match read {
                Ok(Some(_)) => {}
                Ok(None) => panic!("a pipe has ended without a word"),
                Err(status) => {
                    assert!(status.message().contains("not read"), "{status:?}");
                    given_up += 1;
                    break;
                }
            }
        }
    }
    assert!(0 < given_up);
}

/// tonic hands a malformed timeout on as it came.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_timeout_is_no_timeout() {
    let cluster = alone("").await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    for timeout in ["18446744073709551615H", "99999999H", "H", "-1S", "1x"] {
        let mut request = tonic::Request::new(put_request(put("key", "value")));
        request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        raw.kv.clone().put(request).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_namespaces_names_epochs_and_modes_are_refused() {
    let cluster = alone("").await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    let raw = cluster.node(1).raw();
    let (mut kv, mut namespaces) = (raw.kv.clone(), raw.namespaces.clone());
    let nowhere = v1::PutRequest { namespace: "nowhere".to_owned(), ..put_request(put("wrong", "")) };
    let words = ["no namespace 'nowhere'", "rdb ns create"];
    assert_refused(kv.put(timed(nowhere, TIMEOUT_MS)).await, v1::Code::NamespaceNotFound, &words);
    let other_epoch = v1::PutRequest { epoch: 99, ..put_request(put("wrong", "")) };
    let words = [NAMESPACE, "epoch 1", "not in 99"];
    assert_refused(kv.put(timed(other_epoch, TIMEOUT_MS)).await, v1::Code::EpochMismatch, &words);
    let strange = v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        get: Some(v1::Get { key: "wrong".into() }),
        consistency: 7,
        ..v1::GetRequest::default()
    };
    let words = ["consistency 7", "CONSISTENCY_LINEARIZABLE"];
    assert_refused(kv.get(timed(strange, TIMEOUT_MS)).await, v1::Code::Unsupported, &words);
    let create = |name: &str, mode: v1::Mode| {
        timed(
            v1::CreateNamespaceRequest { name: name.to_owned(), mode: mode.into(), ..Default::default() },
            TIMEOUT_MS,
        )
    };
    let long = "a".repeat(65);
    for (name, words) in [
        ("", &["1 to 64 bytes", "has 0"][..]),
        (&long, &["1 to 64 bytes", "has 65"]),
        ("Things", &["a-z, 0-9"]),
        ("a/b", &["a-z, 0-9"]),
        ("-a", &["starts with a letter or digit"]),
        ("größe", &["a-z, 0-9"]),
    ] {
        assert_refused(
            namespaces.create(create(name, v1::Mode::Strong)).await,
            v1::Code::InvalidArgument,
            words,
        );
    }
    let unknown = v1::CreateNamespaceRequest { name: "other".to_owned(), mode: 7, ..Default::default() };
    let answer = namespaces.create(timed(unknown, TIMEOUT_MS)).await;
    assert_refused(answer, v1::Code::Unsupported, &["mode 7"]);
    let answer = namespaces.create(create(NAMESPACE, v1::Mode::Strong)).await;
    assert_refused(answer, v1::Code::NamespaceExists, &[NAMESPACE, "already"]);
    let delete = v1::DeleteNamespaceRequest { name: "nowhere".to_owned(), id: 0 };
    let answer = namespaces.delete(timed(delete, TIMEOUT_MS)).await;
    assert_refused(answer, v1::Code::NamespaceNotFound, &["no namespace 'nowhere'"]);
    let listed = namespaces.list(timed(v1::ListNamespacesRequest {}, TIMEOUT_MS)).await.unwrap().into_inner();
    let names: Vec<_> = listed.namespaces.into_iter().map(|namespace| namespace.name).collect();
    assert_eq!(names, [NAMESPACE]);
    assert_nothing_was_written(&raw).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_and_the_place_is_named() {
    let mut cluster = prepared().await;
    let config = cluster.node(1).config.clone();
    let good = std::fs::read_to_string(&config).unwrap();
    let cases = [
        (format!("election_tick = 5\n{good}"), &["election_tick", "line 1", "election_ticks"][..]),
        (good.replace("node_id = 1", "node_id = \"one\""), &["line 2", "node_id"]),
        (good.replace("node_id = 1", "node_id = 7"), &["nodes does not list this node, 7"]),
        (good.replace("cluster_id = \"test\"", ""), &["cluster_id", "the same on every node"]),
        (good.replace("cluster_id = \"test\"", "cluster_id = \"a b\""), &["cluster id", "letters, digits"]),
        (format!("heartbeat_ticks = 9\n{good}"), &["election_ticks (16)", "heartbeat_ticks (9)"]),
        (format!("log = \"no=such=thing\"\n{good}"), &["log directives", "no=such=thing"]),
    ];
    for (text, words) in cases {
        std::fs::write(&config, text).unwrap();
        let (code, said) = cluster.refused(1);
        assert_eq!(code, REFUSED, "{said}");
        assert_words(&said, words);
    }
    std::fs::remove_file(&config).unwrap();
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["cannot read the configuration", "node-1.toml"]);
    assert!(!cluster.data(1).exists(), "a refused start has made a data directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_and_the_directory_is_left_alone() {
    let mut cluster = prepared().await;
    let ports = [
        (cluster.node(1).client_port, "listen_client"),
        (cluster.node(1).peer_port, "listen_peer"),
        (cluster.node(1).http_port, "listen_http"),
    ];
    for (port, option) in ports {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let (code, said) = cluster.refused(1);
        assert_eq!(code, REFUSED);
        assert_words(&said, &["cannot listen on", &format!("127.0.0.1:{port}"), option, "another process"]);
        assert!(!cluster.data(1).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_this_nodes_is_refused() {
    let mut cluster = alone("").await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    // A second process, elsewhere on the network and in the same directory.
    let mut second = prepared().await;
    let data = cluster.data(1).to_owned();
    let data_of = |path: PathBuf| {
        move |text: String| text.replace(&path.display().to_string(), &data.display().to_string())
    };
    second.write_config(1, "", data_of(second.data(1).to_owned()));
    let (code, said) = second.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["in use by another process", "node-1"]);
    cluster.kill(1);
    // Another cluster's, and another node's.
    cluster.write_config(1, "", |text| text.replace("\"test\"", "\"other\""));
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["belongs to cluster 'test'", "configured for 'other'"]);
    cluster.write_config(1, "", |text| {
        text.replace("node_id = 1", "node_id = 2").replace("\nid = 1", "\nid = 2")
    });
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["belongs to node 1", "configured as 2"]);
    cluster.write_config(1, "", |text| text);
    // Open to others.
    let data = cluster.data(1).to_owned();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["open to other users", "755", "chmod 700"]);
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    // Without its log, without its data, without its name.
    for (part, words) in [
        ("log", &["votes", "never used"][..]),
        ("data", &["missing", "never used"]),
        ("IDENTITY", &["no IDENTITY file"]),
        ("WATERMARK", &["WATERMARK", "missing"]),
    ] {
        let aside = cluster.folder.path().join("aside");
        std::fs::rename(data.join(part), &aside).unwrap();
        let (code, said) = cluster.refused(1);
        assert_eq!(code, REFUSED, "without {part}: {said}");
        assert_words(&said, words);
        assert!(!data.join(part).exists(), "{part} was made anew");
        std::fs::rename(&aside, data.join(part)).unwrap();
    }
    // None of it has harmed the directory.
    cluster.restart(1).await;
    assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap().unwrap().value, "value");
}

/// Something else's folder is not taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_other_things_in_it_is_refused() {
    let mut cluster = prepared().await;
    let data = cluster.data(1).to_owned();
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(data.join("letter.txt"), "dear").unwrap();
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED);
    assert_words(&said, &["not a FlareDB data directory", "letter.txt"]);
}

/// Waits until one of `nodes` has said all of `words` in one line.
async fn until_said(cluster: &Cluster, nodes: &[u64], words: &[&str]) {
    until(&format!("a node says {words:?}"), async || {
        let said = nodes.iter().map(|id| cluster.node(*id).said()).collect::<String>();
        said.lines().any(|line| words.iter().all(|word| line.contains(word))).then_some(())
    })
    .await;
}

/// The node runs, but the others do not let it take part: with one of them gone there is no majority.
async fn assert_does_not_count(cluster: &mut Cluster, outcast: u64) {
    let rest = cluster.others(&[outcast]);
    let leader = cluster.leader_of(NAMESPACE, &rest).await;
    let other = cluster.others(&[outcast, leader])[0];
    cluster.kill(other);
    let raw = cluster.node(leader).raw();
    for _ in 0..3 {
        let answer = raw.put(NAMESPACE, "in-doubt", "", HOPELESS_MS).await;
        assert!(answer.is_err(), "node {outcast} was counted");
    }
    assert!(raw.get(NAMESPACE, "key", HOPELESS_MS).await.is_err(), "node {outcast} was counted");
    let (code, _) = cluster.node(outcast).page("/readyz").await.unwrap();
    assert_eq!(code, 503, "node {outcast} says that it is ready");
    cluster.restart(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_cluster_is_refused_by_the_others() {
    let mut cluster = Cluster::prepare(Settings::default()).await;
    cluster.write_config(3, "", |text| text.replace("\"test\"", "\"other\""));
    for id in cluster.ids() {
        cluster.launch(id);
    }
    cluster.ready(1).await;
    cluster.ready(2).await;
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, rdb_client::Mode::Strong).await.unwrap();
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    let words = ["node 3 belongs to the cluster 'other'", "cluster_id", "[[nodes]]"];
    until_said(&cluster, &[1, 2], &words).await;
    until_said(&cluster, &[3], &["belongs to the cluster", "cluster_id"]).await;
    let status = cluster.node(1).raw().status().await.unwrap();
    assert!(!status.nodes.iter().any(|node| node.id == 3 && node.reachable));
    assert_does_not_count(&mut cluster, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_at_a_nodes_address_is_noticed() {
    let mut cluster = Cluster::prepare(Settings::default()).await;
    let (second, third) = (cluster.node(2).peer_port.to_string(), cluster.node(3).peer_port.to_string());
    cluster.write_config(1, "", |text| {
        text.replace(&second, "SECOND").replace(&third, &second).replace("SECOND", &third)
    });
    for id in cluster.ids() {
        cluster.launch(id);
    }
    until_said(&cluster, &[2, 3], &["node 1 wants to speak to node", "but this is node", "[[nodes]]"]).await;
    until_said(&cluster, &[1], &["not connected", "wants to speak to node", "[[nodes]]"]).await;
    // The other two are a majority.
    cluster.ready(2).await;
    cluster.ready(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_with_its_old_id_is_refused_by_the_others() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    let wiped = cluster.others(&[cluster.leader(NAMESPACE).await])[0];
    until_registered(&cluster).await;
    cluster.kill(wiped);
    std::fs::remove_dir_all(cluster.data(wiped)).unwrap();
    cluster.launch(wiped);
    let rest = cluster.others(&[wiped]);
    until_said(&cluster, &rest, &["its directory was replaced", "must not come back under its old id"]).await;
    until_said(&cluster, &[wiped], &["its directory was replaced"]).await;
    assert_does_not_count(&mut cluster, wiped).await;
    // The others know it after a restart, too, however early it calls.
    for id in &rest {
        cluster.kill(*id);
    }
    for id in &rest {
        cluster.launch(*id);
    }
    for id in &rest {
        cluster.ready(*id).await;
    }
    assert_does_not_count(&mut cluster, wiped).await;
    assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap().unwrap().value, "value");
}

/// The catalog takes note of each node's directory a moment after the node has joined.
async fn until_registered(cluster: &Cluster) {
    let commit = async |id: u64| {
        let (_, text) = cluster.node(id).page("/metrics").await?;
        let line =
            text.lines().find_map(|line| line.strip_prefix("flaredb_region_applied_index{region=\"1\"} "))?;
        line.parse::<u64>().ok()
    };
    // The first leader's empty entry, the namespace, and one entry for each node.
    let entries = 2 + cluster.ids().len() as u64;
    for id in cluster.ids() {
        until("all nodes are registered", async || (entries <= commit(id).await?).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_directories_are_refused() {
    let mut cluster = Cluster::of_three().await;
    cluster.create(&cluster.client().await, NAMESPACE).await;
    cluster.kill(1);
    cluster.kill(2);
    let swap = |cluster: &Cluster| {
        let aside = cluster.folder.path().join("aside");
        std::fs::rename(cluster.data(1), &aside).unwrap();
        std::fs::rename(cluster.data(2), cluster.data(1)).unwrap();
        std::fs::rename(&aside, cluster.data(2)).unwrap();
    };
    swap(&cluster);
    for (id, other) in [(1, 2), (2, 1)] {
        let (code, said) = cluster.refused(id);
        assert_eq!(code, REFUSED);
        assert_words(
            &said,
            &[&format!("belongs to node {other}"), &format!("configured as {id}"), "node id"],
        );
    }
    swap(&cluster);
    // Only the logs are swapped: the rest of the directory does not fit.
    let logs = |cluster: &Cluster| {
        let aside = cluster.folder.path().join("aside");
        std::fs::rename(cluster.data(1).join("log"), &aside).unwrap();
        std::fs::rename(cluster.data(2).join("log"), cluster.data(1).join("log")).unwrap();
        std::fs::rename(&aside, cluster.data(2).join("log")).unwrap();
    };
    logs(&cluster);
    let (code, said) = cluster.refused(1);
    assert_eq!(code, REFUSED, "{said}");
    logs(&cluster);
    cluster.restart(1).await;
    cluster.restart(2).await;
    cluster.leader(NAMESPACE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_of_a_node_is_refused_by_the_others() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "before").await.unwrap();
    let leader = cluster.leader(NAMESPACE).await;
    let restored = cluster.others(&[leader])[0];
    cluster.kill(restored);
    let backup = cluster.folder.path().join("backup");
    copy(cluster.data(restored), &backup);
    cluster.restart(restored).await;
    for number in 0..100 {
        client.namespace(NAMESPACE).put("key", format!("{number}")).await.unwrap();
    }
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    cluster.kill(restored);
    std::fs::remove_dir_all(cluster.data(restored)).unwrap();
    copy(&backup, cluster.data(restored));
    cluster.launch(restored);
    let rest = cluster.others(&[restored]);
    until_said(&cluster, &rest, &["older state of its data directory", "backup was put back"]).await;
    assert_never_comes_back(&mut cluster, restored).await;
    assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap().unwrap().value, "99");
}

/// A node that was told that its directory is outdated has ended, and no start takes the directory further, until it would pass for
/// the one that it was.
async fn assert_never_comes_back(cluster: &mut Cluster, outcast: u64) {
    cluster.expect_in_log("it cannot keep its promises");
    assert!(!cluster.wait(outcast).success());
    for _ in 0..3 {
        let (code, said) = cluster.refused(outcast);
        assert_eq!(code, REFUSED, "{said}");
        assert_words(&said, &["OUTDATED", "older state of its data directory", "newest directory"]);
    }
    let rest = cluster.others(&[outcast]);
    cluster.leader_of(NAMESPACE, &rest).await;
    let identity = std::fs::read_to_string(cluster.data(outcast).join("IDENTITY")).unwrap();
    assert!(identity.contains("incarnation = 2\n"), "{identity}");
}

/// Then nobody has it in memory what the node was.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_backup_of_a_node_is_refused_after_all_were_started_again() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.namespace(NAMESPACE).put("key", "before").await.unwrap();
    let restored = cluster.others(&[cluster.leader(NAMESPACE).await])[0];
    cluster.kill(restored);
    let backup = cluster.folder.path().join("backup");
    copy(cluster.data(restored), &backup);
    cluster.restart(restored).await;
    client.namespace(NAMESPACE).put("key", "after").await.unwrap();
    cluster.catch_up(NAMESPACE, &cluster.ids()).await;
    let rest = cluster.others(&[restored]);
    for node in &rest {
        let notes = cluster.data(*node).join("PEERS");
        // The node's second start, which the backup knows nothing of.
        let noted = async || {
            let text = std::fs::read_to_string(&notes).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{restored} ")))?.to_owned();
            (line.split(' ').nth(1) == Some("2")).then_some(())
        };
        until("the others have noted it", noted).await;
    }
    for node in cluster.ids() {
        cluster.kill(node);
    }
    std::fs::remove_dir_all(cluster.data(restored)).unwrap();
    copy(&backup, cluster.data(restored));
    for node in cluster.ids() {
        cluster.launch(node);
    }
    until_said(&cluster, &rest, &["older state of its data directory", "backup was put back"]).await;
    assert_never_comes_back(&mut cluster, restored).await;
    assert_eq!(client.namespace(NAMESPACE).get("key").await.unwrap().unwrap().value, "after");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}
