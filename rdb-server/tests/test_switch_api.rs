//! The requests about a namespace's switch of mode, on real processes: what is refused changes nothing and says what to do;
//! and a switch that cannot go on waits, tells for what, and is called off, by whoever leads the catalog by then. A member
//! that is stopped right before the switch begins keeps it in its preparations.

use crate::support::raw::{Refused, timed};
use crate::support::{Cluster, Settings, assert_words, until};
use rdb_client::{Client, Code, Error, Mode, SwitchOptions, SwitchPhase, SwitchStatus, WriteError};
use rdb_proto::v1;
use std::time::Duration;

const NAMESPACE: &str = "things";
const TIMEOUT_MS: u64 = 5_000;

fn not_done<T: std::fmt::Debug>(answer: Result<T, WriteError>) -> Error {
    match answer.unwrap_err() {
        WriteError::NotDone(error) => error,
        WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => panic!("{error}"),
    }
}

#[track_caller]
fn assert_switch_refused(error: &Error, words: &[&str]) {
    assert_eq!(error.code(), Some(Code::SwitchRefused), "{error}");
    assert_words(&error.to_string(), words);
    assert!(!error.hint().is_empty(), "{error}");
}

/// A node that leads neither the catalog nor the namespace.
async fn bystander(cluster: &Cluster, client: &Client) -> u64 {
    let leader = cluster.leader(NAMESPACE).await;
    until("the catalog has a leader", async || {
        let meta = client.status().await.ok()?.meta_leader;
        let ids = cluster.ids();
        ids.into_iter().find(|id| *id != leader && *id != meta).filter(|_| meta != 0)
    })
    .await
}

/// Begins a switch that cannot go on, since a member has just been stopped. Returns that member, and the switch.
async fn stuck(cluster: &mut Cluster, client: &Client, options: &SwitchOptions) -> (u64, SwitchStatus) {
    loop {
        let victim = bystander(cluster, client).await;
        until("all are heard", async || {
            let checked = client.check_switch(NAMESPACE, Mode::Eventual, options).await.ok()?;
            checked.hindrances.iter().all(|hindrance| !hindrance.refused).then_some(())
        })
        .await;
        cluster.pause(victim);
        match client.switch_mode(NAMESPACE, Mode::Eventual, options).await {
            Ok(begun) => return (victim, begun),
            // It took so long to ask that the silence was noticed.
            Err(error) => {
                assert_switch_refused(error.error(), &["not heard"]);
                cluster.resume(victim);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_waits_for_a_member_says_so_and_is_called_off() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    let region = cluster.create(&client, NAMESPACE).await;
    let (victim, begun) = stuck(&mut cluster, &client, &SwitchOptions::default()).await;
    assert_eq!((begun.phase, begun.to, begun.switch), (SwitchPhase::Preparing, Some(Mode::Eventual), 1));
    assert_eq!(
        (begun.mode, begun.epoch, begun.era),
        (Mode::Strong, 1, 1),
        "nobody may write by other rules yet"
    );
    let who = format!("node {victim} has not told");
    for node in cluster.others(&[victim]) {
        let address = cluster.node(node).address();
        until("every node tells what the switch waits for", async || {
            let status = client.switch_status_at(&address, NAMESPACE).await.ok()?;
            let waits = status.blockers.iter().any(|blocker| blocker.contains(&who));
            let silent = status.members.iter().any(|member| member.node == victim && !member.reachable);
            let told = status.phase == SwitchPhase::Preparing && waits && silent;
            (told && status.answered_by == node && status.remaining.is_some()).then_some(())
        })
        .await;
        until("its metrics do so, too", async || {
            (cluster.node(node).metric("flaredb_switch_phase", region).await? == 1).then_some(())
        })
        .await;
    }
    let one_more = not_done(client.switch_mode(NAMESPACE, Mode::Eventual, &SwitchOptions::default()).await);
    assert_switch_refused(&one_more, &["to eventual is under way", "nothing was changed"]);
    assert_words(&one_more.hint(), &["rdb ns abort things"]);
    let checked = client.check_switch(NAMESPACE, Mode::Strong, &SwitchOptions::default()).await.unwrap();
    assert!(checked.hindrances[0].refused && checked.hindrances[0].text.contains("is under way"));
    // Meanwhile clients notice nothing.
    client.namespace(NAMESPACE).put("key", "value").await.unwrap();
    let aborted = client.abort_switch(NAMESPACE).await.unwrap();
    assert_eq!((aborted.phase, aborted.mode, aborted.switch), (SwitchPhase::Settled, Mode::Strong, 1));
    assert_eq!((aborted.epoch, aborted.era), (2, 1), "what was promised in the old epoch is over");
    let end = client.wait_for_switch(&begun, |_| ()).await.unwrap();
    assert!(!end.completed, "{end:?}");
    assert_words(&end.reason, &["an operator called it off"]);
    let again = not_done(client.abort_switch(NAMESPACE).await);
    assert_switch_refused(&again, &["no switch is under way", "'things' is strong"]);
    // Whoever knew the old epoch asks anew; the namespace goes on.
    client.namespace(NAMESPACE).put("key", "later").await.unwrap();
    let called_off = "flaredb_switches_total{outcome=\"CalledOff\"}";
    for node in cluster.others(&[victim]) {
        until("the end is counted", async || {
            (cluster.node(node).gauge(called_off).await? == 1).then_some(())
        })
        .await;
    }
    cluster.resume(victim);
}

#[tokio::test(flavor = "multi_thread")]
async fn preparations_that_take_too_long_are_called_off_and_it_is_said_why() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let options = SwitchOptions { max_preparing: Some(Duration::from_secs(2)), ..SwitchOptions::default() };
    let (victim, begun) = stuck(&mut cluster, &client, &options).await;
    let mut phases = Vec::new();
    let end = client.wait_for_switch(&begun, |status| phases.push(status.phase)).await.unwrap();
    assert!(!end.completed && end.write_pause.is_zero(), "{end:?}");
    assert_words(&end.reason, &["preparations took longer", &format!("node {victim}")]);
    assert_eq!(phases.last(), Some(&SwitchPhase::Settled));
    let described = client.describe_namespace(NAMESPACE).await.unwrap();
    assert_eq!((described.mode, described.epoch, described.era), (Mode::Strong, 2, 1));
    cluster.resume(victim);
}

/// The controller remembers nothing: who leads the catalog next finds the switch and its deadline there.
#[tokio::test(flavor = "multi_thread")]
async fn the_next_leader_of_the_catalog_goes_on_with_a_switch() {
    let mut cluster = Cluster::start(Settings { size: 5, ..Settings::default() }).await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    let options = SwitchOptions { max_preparing: Some(Duration::from_secs(5)), ..SwitchOptions::default() };
    let (victim, begun) = stuck(&mut cluster, &client, &options).await;
    let controller = client.status().await.unwrap().meta_leader;
    cluster.kill(controller);
    let end =
        until("another node has called it off", async || client.wait_for_switch(&begun, |_| ()).await.ok());
    let end = end.await;
    assert!(!end.completed, "{end:?}");
    let status = client.switch_status(NAMESPACE).await.unwrap();
    assert_eq!((status.epoch, status.era, status.phase), (2, 1, SwitchPhase::Settled));
    cluster.resume(victim);
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, tonic::Status>,
    code: Code,
    words: &[&str],
) {
    let refused = Refused::from(answer.expect_err("it was to be refused"));
    assert_eq!((refused.code, refused.outcome), (code, v1::Outcome::NotDone), "{refused:?}");
    assert_words(&refused.text, words);
    assert!(!refused.error.hint.is_empty() && refused.text.contains(&refused.error.hint), "{refused:?}");
}

fn to(mode: v1::Mode) -> v1::SwitchModeRequest {
    v1::SwitchModeRequest { name: NAMESPACE.into(), to: mode.into(), ..v1::SwitchModeRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_and_change_nothing() {
    let mut cluster = Cluster::of_three().await;
    let client = cluster.client().await;
    cluster.create(&client, NAMESPACE).await;
    client.create_namespace("carts", Mode::Eventual).await.unwrap();
    let controller = until("the catalog has a leader", async || {
        let status = client.switch_status(NAMESPACE).await.ok()?;
        status.controls.then_some(status.answered_by)
    })
    .await;
    let mut namespaces = cluster.node(controller).raw().namespaces;
    let (strong, eventual) = (v1::Mode::Strong, v1::Mode::Eventual);
    let (invalid, refused) = (Code::InvalidArgument, Code::SwitchRefused);
    let carts = |excluded: &[u64]| v1::SwitchModeRequest {
        name: "carts".into(),
        excluded: excluded.to_vec(),
        ..to(strong)
    };
    let cases = [
        (v1::SwitchModeRequest { to: 7, ..to(strong) }, invalid, &["mode 7", "strong or eventual"][..]),
        (to(v1::Mode::Unspecified), invalid, &["does not say which mode"]),
        (to(strong), refused, &["it is strong already", "nothing was changed"]),
        (
            v1::SwitchModeRequest { name: "nowhere".into(), ..to(strong) },
            Code::NamespaceNotFound,
            &["nowhere"],
        ),
        (v1::SwitchModeRequest { id: 99, ..to(eventual) }, Code::NamespaceNotFound, &[NAMESPACE]),
        (v1::SwitchModeRequest { epoch: 9, ..to(eventual) }, Code::EpochMismatch, &["epoch 1", "not in 9"]),
        (
            v1::SwitchModeRequest { after_switch: Some(4), ..to(eventual) },
            refused,
            &["another switch has begun"],
        ),
        (v1::SwitchModeRequest { excluded: vec![3], ..to(eventual) }, invalid, &["only a switch to strong"]),
        (carts(&[8]), invalid, &["no node 8", "1, 2, 3"]),
        (carts(&[1, 2]), invalid, &["2 of 3 members", "no majority"]),
    ];
    for (request, code, words) in cases {
        assert_refused(namespaces.switch_mode(timed(request.clone(), TIMEOUT_MS)).await, code, words);
        if code != refused {
            let dry = v1::SwitchModeRequest { dry_run: true, ..request };
            assert_refused(namespaces.switch_mode(timed(dry, TIMEOUT_MS)).await, code, words);
        }
    }
    let abort = |switch| v1::AbortSwitchRequest { name: NAMESPACE.into(), switch, era: 1, id: 0 };
    for switch in [0, 7] {
        let answer = namespaces.abort_switch(timed(abort(switch), TIMEOUT_MS)).await;
        assert_refused(answer, refused, &["no switch is under way", "rdb ns switch things --to eventual"]);
    }
    let nowhere = v1::GetSwitchRequest { name: "nowhere".into() };
    let answer = namespaces.get_switch(timed(nowhere, TIMEOUT_MS)).await;
    assert_refused(answer, Code::NamespaceNotFound, &["nowhere"]);
    // Another node sends the caller to the one that drives switches.
    let other = cluster.others(&[controller])[0];
    let mut elsewhere = cluster.node(other).raw().namespaces;
    let answer = elsewhere.switch_mode(timed(to(eventual), TIMEOUT_MS)).await;
    assert_refused(answer, Code::NotLeader, &[&format!("node {controller}")]);
    // A member that is down: its writes may lie there alone, so nothing is begun.
    let down = cluster.others(&[controller])[0];
    cluster.kill(down);
    let who = format!("node {down} was not heard");
    let checked = until("the silence is noticed", async || {
        let dry = v1::SwitchModeRequest { dry_run: true, ..carts(&[]) };
        let answer = namespaces.switch_mode(timed(dry, TIMEOUT_MS)).await.ok()?.into_inner();
        answer.hindrances.into_iter().find(|hindrance| hindrance.text.contains(&who))
    })
    .await;
    assert!(checked.refused && checked.hint.contains("bring it back"), "{checked:?}");
    for request in [carts(&[]), to(eventual)] {
        let answer = namespaces.switch_mode(timed(request, TIMEOUT_MS)).await;
        assert_refused(answer, refused, &[&who, "bring it back", "nothing was changed"]);
    }
    for name in [NAMESPACE, "carts"] {
        let status = client.switch_status(name).await.unwrap();
        assert_eq!((status.switch, status.epoch, status.era), (0, 1, 1), "{status:?}");
        assert_eq!(status.phase, SwitchPhase::Settled);
    }
}
