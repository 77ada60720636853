//! The switch of a namespace between strong and eventual, on real processes and under load: no acknowledged write is lost, whoever
//! is killed in between.

use crate::support::elements::{at, everywhere, keys, stop, writers};
use crate::support::proxy::Wire;
use crate::support::{Cluster, Settings, until};
use rdb_client::{Client, Error, Expect, Mode, Options, SwitchEnd, SwitchOptions, SwitchPhase, WriteError};
use std::collections::BTreeSet;
use std::time::Duration;

const NAMESPACE: &str = "carts";

async fn create(cluster: &Cluster, mode: Mode) -> Client {
    let client = cluster.client().await;
    client.create_namespace(NAMESPACE, mode).await.unwrap();
    for node in cluster.ids() {
        until("every node has the namespace", async || {
            at(cluster, node, NAMESPACE).await.get("nothing").await.ok()
        })
        .await;
    }
    client
}

async fn switch(client: &Client, to: Mode) -> SwitchEnd {
    let options = SwitchOptions::default();
    let begun =
        until("the switch may begin", async || match client.switch_mode(NAMESPACE, to, &options).await {
            Ok(begun) => Some(begun),
            Err(error) => {
                eprintln!("not yet: {error}");
                None
            }
        })
        .await;
    client
        .wait_for_switch(&begun, |status| eprintln!("{:?}: {:?}", status.phase, status.blockers))
        .await
        .unwrap()
}

async fn switched(client: &Client, to: Mode) {
    let end = switch(client, to).await;
    assert!(end.completed, "{end:?}");
    until("every member is there", async || {
        let status = client.switch_status(NAMESPACE).await.ok()?;
        let all = status
            .members
            .iter()
            .all(|member| member.said.as_ref().is_none_or(|said| said.era == status.era));
        (status.mode == to && all).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_there_and_back_under_load_and_keeps_all_that_was_acknowledged() {
    let cluster = Cluster::of_three().await;
    let client = create(&cluster, Mode::Eventual).await;
    let writers = writers(&cluster, NAMESPACE, "n", &[1, 2, 3]).await;
    let strong = client.namespace(NAMESPACE);
    for round in 0..3 {
        switched(&client, Mode::Strong).await;
        let key = format!("swapped-{round}");
        strong.compare_and_swap(key.clone(), Expect::Absent, Some("1".into())).await.unwrap();
        switched(&client, Mode::Eventual).await;
        let refused = strong.compare_and_swap(key, Expect::Absent, Some("2".into())).await;
        assert!(matches!(refused, Err(WriteError::NotDone(Error::Refused(_)))), "{refused:?}");
    }
    let acknowledged = stop(writers).await;
    assert!(100 < acknowledged.len(), "{}", acknowledged.len());
    everywhere(&cluster, NAMESPACE, &acknowledged).await;
    let status = client.switch_status(NAMESPACE).await.unwrap();
    assert_eq!((status.era, status.epoch, status.switch), (7, 7, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_is_called_off_leaves_everything_as_it_was() {
    let mut cluster = Cluster::of_three().await;
    let client = create(&cluster, Mode::Eventual).await;
    let writers = writers(&cluster, NAMESPACE, "n", &[1, 2]).await;
    let limit = Some(Duration::from_secs(3));
    let options = SwitchOptions { max_write_pause: limit, max_preparing: limit, ..SwitchOptions::default() };
    let begun =
        until("it begins", async || client.switch_mode(NAMESPACE, Mode::Strong, &options).await.ok()).await;
    // A member dies: what it has acknowledged may be there alone, so nothing goes on without it.
    cluster.kill(3);
    let ended = client.wait_for_switch(&begun, |_| ()).await.unwrap();
    if !ended.completed {
        // Writes go on, in the epoch after it.
        let namespace = at(&cluster, 1, NAMESPACE).await;
        namespace.put("after", "x").await.unwrap();
        let status = client.switch_status(NAMESPACE).await.unwrap();
        assert_eq!((status.mode, status.era, status.phase), (Mode::Eventual, 1, SwitchPhase::Settled));
        assert!(1 < status.epoch);
    }
    cluster.restart(3).await;
    let acknowledged = stop(writers).await;
    everywhere(&cluster, NAMESPACE, &acknowledged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_outlives_a_kill_of_all_in_either_mode() {
    let mut cluster = Cluster::of_three().await;
    let client = create(&cluster, Mode::Eventual).await;
    let mut acknowledged = BTreeSet::new();
    for to in [Mode::Strong, Mode::Eventual, Mode::Strong, Mode::Eventual] {
        let before = writers(&cluster, NAMESPACE, "n", &[1, 2, 3]).await;
        switched(&client, to).await;
        acknowledged.extend(stop(before).await);
        for node in cluster.ids() {
            cluster.kill(node);
        }
        cluster.launch_all().await;
        everywhere(&cluster, NAMESPACE, &acknowledged).await;
        let status = client.switch_status(NAMESPACE).await.unwrap();
        assert_eq!(status.mode, to);
    }
}

/// A node that has answered in an eventual era is in that era again after a restart, though it hears nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_alone_finds_the_era_again_that_it_has_answered_in() {
    let mut cluster = Cluster::of_three().await;
    let client = create(&cluster, Mode::Strong).await;
    client.namespace(NAMESPACE).put("strong", "x").await.unwrap();
    switched(&client, Mode::Eventual).await;
    for node in cluster.ids() {
        at(&cluster, node, NAMESPACE).await.put(format!("n{node}"), "x").await.unwrap();
        cluster.kill(node);
    }
    cluster.launch(2);
    let alone = at(&cluster, 2, NAMESPACE).await;
    until("it takes writes", async || alone.put("alone", "x").await.ok()).await;
    let found = keys(&cluster, 2, NAMESPACE).await.unwrap();
    for key in ["strong", "n2", "alone"] {
        assert!(found.contains(key), "{key} is not in {found:?}");
    }
    cluster.launch(1);
    cluster.launch(3);
    everywhere(&cluster, NAMESPACE, &["strong", "n1", "n2", "n3", "alone"].map(str::to_owned).into()).await;
}

/// What the cluster went on without is set aside, and the node becomes one of them again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_left_out_sets_its_writes_aside() {
    let mut cluster = Cluster::start(Settings { wires: true, ..Settings::default() }).await;
    let client = create(&cluster, Mode::Eventual).await;
    at(&cluster, 3, NAMESPACE).await.put("before", "x").await.unwrap();
    everywhere(&cluster, NAMESPACE, &["before".to_owned()].into()).await;
    cluster.isolate(3, Wire::Silent);
    for number in 0..5 {
        at(&cluster, 3, NAMESPACE)
            .await
            .put(format!("apart-{number}"), format!("value-{number}"))
            .await
            .unwrap();
    }
    let others = Options::new([cluster.node(1).address(), cluster.node(2).address()]);
    let others = cluster.client_with(others).await;
    let options = SwitchOptions { excluded: vec![3], ..SwitchOptions::default() };
    let begun = until("the switch begins", async || {
        match others.switch_mode(NAMESPACE, Mode::Strong, &options).await {
            Ok(begun) => Some(begun),
            Err(error) => {
                eprintln!("not yet: {error}");
                None
            }
        }
    })
    .await;
    let ended = others.wait_for_switch(&begun, |_| ()).await.unwrap();
    assert!(ended.completed, "{ended:?}");
    others.namespace(NAMESPACE).put("strong", "x").await.unwrap();
    cluster.isolate(3, Wire::Whole);
    until("node 3 is one of them again", async || {
        keys(&cluster, 3, NAMESPACE)
            .await
            .filter(|keys| *keys == ["before", "strong"].map(str::to_owned).into())
    })
    .await;
    let status = until("what was set aside is told", async || {
        let status = client.switch_status(NAMESPACE).await.ok()?;
        let said = status.members.iter().find(|member| member.node == 3)?.said.clone()?;
        (said.quarantined == 5).then_some(status)
    })
    .await;
    assert_eq!(status.mode, Mode::Strong);
    assert_five_set_aside(&cluster, &client).await;
    switched(&client, Mode::Eventual).await;
    at(&cluster, 3, NAMESPACE).await.put("after", "x").await.unwrap();
    everywhere(&cluster, NAMESPACE, &["before", "strong", "after"].map(str::to_owned).into()).await;
    // The era that they were written in is long over, also for a node that starts anew.
    cluster.kill(3);
    cluster.restart(3).await;
    until("node 3 has the namespace again", async || {
        client.quarantine_at(&cluster.node(3).address(), NAMESPACE, None, 0).await.ok()
    })
    .await;
    assert_five_set_aside(&cluster, &client).await;
}

/// What node 3 wrote while it was apart is listed there, page by page, with its keys, values and versions; and nowhere else.
async fn assert_five_set_aside(cluster: &Cluster, client: &Client) {
    for node in [1, 2] {
        let page = client.quarantine_at(&cluster.node(node).address(), NAMESPACE, None, 0).await.unwrap();
        assert_eq!((page.node, page.total, page.writes.len(), page.next), (node, 0, 0, None));
    }
    let address = cluster.node(3).address();
    let (mut listed, mut after) = (Vec::new(), None);
    loop {
        let page = client.quarantine_at(&address, NAMESPACE, after.as_ref(), 2).await.unwrap();
        assert!(page.total == 5 && page.writes.len() <= 2, "{page:?}");
        listed.extend(page.writes);
        let Some(next) = page.next else { break };
        after = Some(next);
    }
    assert!(listed.iter().all(|write| (write.version.era, write.version.node) == (1, 3)), "{listed:?}");
    assert!(listed.is_sorted_by_key(|write| (write.seq, write.version.hlc)), "{listed:?}");
    let listed = listed.into_iter().map(|write| (write.key, write.value.unwrap()));
    let expected = (0..5).map(|number| (format!("apart-{number}").into(), format!("value-{number}").into()));
    assert_eq!(listed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let wrong = client.quarantine_at(&address, NAMESPACE, Some(&"token".into()), 2).await;
    assert!(matches!(wrong, Err(Error::Refused(_))), "{wrong:?}");
}
