//! The words for made-up clusters. Each world says who hears whom, and what each node would answer about it.

use super::in_words;
use super::problems::Kind;
use super::survey::{Survey, merge};
use super::verdict::{Health, judge};
use crate::output::Paint;
use rdb_client::{ClusterStatus, Mode, NamespaceStatus, NodeStatus, RegionStatus};

/// What node `by` answers of a cluster with one namespace, led by `leader` as it believes.
fn answer(by: u64, hears: &[bool], leader: u64) -> ClusterStatus {
    let region = RegionStatus {
        id: 7,
        leader,
        term: 1,
        commit_index: 5000,
        applied_index: 5000,
        members: (1..=hears.len() as u64).collect(),
        absent: false,
    };
    let node = |(id, hears): (u64, &bool)| NodeStatus {
        id,
        client_address: format!("host:{id}"),
        peer_address: String::new(),
        reachable: *hears,
        silence_ms: if *hears { 10 } else { 12_345 },
        regions_led: 0,
        clock_ahead_ms: None,
        slow_sync_ms: 0,
    };
    let catalog = RegionStatus { id: 1, commit_index: 40, applied_index: 40, ..region.clone() };
    ClusterStatus {
        catalog: Some(catalog),
        cluster_id: "c".into(),
        answered_by: by,
        version: "0".into(),
        meta_leader: leader,
        disk_full: false,
        clock_untrusted: false,
        disk_available_bytes: 1 << 30,
        nodes: (1..).zip(hears).map(node).collect(),
        namespaces: vec![NamespaceStatus {
            deleting: false,
            keep_lost_seconds: 0,
            durability: rdb_client::Durability::Sync,
            preferred_leader: 1,
            name: "fruit".into(),
            id: 1,
            mode: Mode::Strong,
            epoch: 1,
            era: 1,
            regions: vec![region],
        }],
    }
}

fn survey(answers: Vec<ClusterStatus>) -> Survey {
    let reason = "connection refused".to_owned();
    let silent: Vec<_> = (1..=5).map(|id| (format!("host:{id}"), reason.clone())).collect();
    merge(answers, &silent).unwrap()
}

fn words(answers: Vec<ClusterStatus>) -> String {
    in_words(&judge(&survey(answers)), Paint::for_stream(false))
}

fn in_demo(mut answers: Vec<ClusterStatus>) -> Vec<ClusterStatus> {
    for answer in &mut answers {
        answer.cluster_id = "demo".into();
    }
    answers
}

#[test]
fn healthy() {
    let all = |size: usize| (1..=size as u64).map(|by| answer(by, &vec![true; size], 1)).collect();
    assert_eq!(words(all(3)), "healthy: may lose 1 of 3 nodes\n");
    assert_eq!(words(all(5)), "healthy: may lose 2 of 5 nodes\n");
    assert_eq!(words(all(1)), "healthy: one node, which must not be lost\n");
}

#[test]
fn a_node_is_down() {
    let hears = [true, false, true];
    let answers = || vec![answer(1, &hears, 1), answer(3, &hears, 1)];
    let text = words(answers());
    let expected = "degraded: node 2 (host:2) has been unreachable for 12 s; serves, but may lose no more nodes\n\
                    next: start it again: its log says why it stopped\n";
    assert_eq!(text, expected);
    let expected = "next: start it again: ./x demo, or \\start 2 at its prompt\n";
    assert!(words(in_demo(answers())).ends_with(expected));
    let five = [true, true, false, true, true];
    let text = words([1, 2, 4, 5].map(|by| answer(by, &five, 1)).into());
    assert!(
        text.starts_with(
            "degraded: node 3 (host:3) has been unreachable for 12 s; serves, and may lose 1 more node\n"
        ),
        "{text}"
    );
}

#[test]
fn a_node_that_hangs_is_not_to_be_started() {
    let hears = [true, false, true];
    let silent = [("host:2".to_owned(), "timed out".to_owned())];
    let survey = merge(in_demo(vec![answer(1, &hears, 1), answer(3, &hears, 1)]), &silent).unwrap();
    let text = in_words(&judge(&survey), Paint::for_stream(false));
    assert!(text.starts_with("degraded: node 2 (host:2) has been unreachable for 12 s; "), "{text}");
    assert!(text.contains("\nnext: it does not even refuse to answer: see whether it hangs"), "{text}");
    assert!(text.ends_with("\\resume 2 at the demo's prompt, if it was paused there\n"), "{text}");
}

#[test]
fn a_node_that_was_never_heard_has_no_time() {
    let mut alone = answer(1, &[true, false, true], 1);
    alone.nodes[1].silence_ms = 0;
    let text = words(vec![alone]);
    assert!(text.contains("node 2 (host:2) has been unreachable since node 1 started; "), "{text}");
}

#[test]
fn a_node_that_has_not_heard_of_the_leader_does_not_hide_it() {
    let hears = [true; 3];
    // Node 3 has just started: of the same term, and without a leader. It answers last.
    let text = words(vec![answer(1, &hears, 1), answer(2, &hears, 1), answer(3, &hears, 0)]);
    assert_eq!(text, "healthy: may lose 1 of 3 nodes\n");
}

#[test]
fn no_quorum() {
    let text = words(in_demo(vec![answer(1, &[true, false, false], 0)]));
    let expected = "no quorum: no more than 1 of 3 nodes hear each other, and it takes 2; nothing can be written, and only \
                    stale reads are served\n\
                    next: start 1 of them again: ./x demo, or \\start N at its prompt\n\
                    also: node 2 (host:2) has been unreachable for 12 s\n\
                    also: node 3 (host:3) has been unreachable for 12 s\n";
    assert_eq!(text, expected);
    let alone = |by: u64| answer(by, &[by == 1, by == 2, by == 3], 0);
    let text = words(in_demo(vec![alone(1), alone(2), alone(3)]));
    assert!(text.contains("\nnext: look at the network between the nodes' peer addresses; \\heal"), "{text}");
    assert!(
        text.contains("also: node 2 (host:2) runs, but the others have not heard it for 12 s\n"),
        "{text}"
    );
}

#[test]
fn the_majority_is_believed_and_not_a_node_that_is_cut_off() {
    // Node 1 led, and does not know yet that the others have elected node 2.
    let mut old = answer(1, &[true, false, false], 1);
    let hears = [false, true, true];
    let mut new = answer(2, &hears, 2);
    new.namespaces[0].regions[0].term = 2;
    old.namespaces[0].regions[0].term = 1;
    let survey = survey(vec![old, answer(3, &hears, 1), new]);
    assert_eq!(survey.cluster.namespaces[0].regions[0].leader, 2, "the newest term is believed");
    let verdict = judge(&survey);
    assert_eq!(verdict.health, Health::Degraded);
    let expected = "degraded: node 1 (host:1) runs, but the others have not heard it for 12 s; serves, but may lose no more \
                    nodes\n\
                    next: look at the network between the nodes' peer addresses\n";
    assert_eq!(in_words(&verdict, Paint::for_stream(false)), expected);
}

/// All of three nodes answer; nodes 1 and 2 do not hear each other, and `leader` leads.
fn two_apart(leader: u64) -> Vec<ClusterStatus> {
    let mut answers = vec![
        answer(1, &[true, false, true], leader),
        answer(2, &[false, true, true], leader),
        answer(3, &[true; 3], leader),
    ];
    for node in answers.iter_mut().flat_map(|answer| &mut answer.nodes) {
        node.peer_address = format!("peer:{}", node.id);
    }
    answers
}

#[test]
fn two_nodes_that_do_not_hear_each_other() {
    let verdict = judge(&survey(two_apart(1)));
    assert_eq!((verdict.health, verdict.may_lose), (Health::Degraded, 0));
    assert_eq!(verdict.must_not_lose, [3].into());
    assert_eq!((verdict.problems[0].kind, &verdict.problems[0].nodes[..]), (Kind::NodesApart, &[1, 2][..]));
    let expected = "degraded: node 1 (host:1) and node 2 (host:2) have not heard each other for 12 s, and what one of them \
                    leads is not copied to the other: the catalog and 'fruit'; serves, but must not lose node 3\n\
                    next: look at the network between peer:1 and peer:2\n";
    assert_eq!(in_words(&verdict, Paint::for_stream(false)), expected);
    let text = words(in_demo(two_apart(3)));
    assert!(
        text.contains("and what one of them comes to lead will not be copied to the other; serves"),
        "{text}"
    );
    assert!(text.ends_with(" peer:1 and peer:2; \\heal at the demo's prompt mends its cuts\n"), "{text}");
}

#[test]
fn one_node_hears_and_is_not_heard() {
    let mut answers = two_apart(3);
    answers[0].nodes[1].reachable = true;
    let text = words(answers.clone());
    let starts = "degraded: node 2 (host:2) has not heard node 1 (host:1) for 12 s, and what ";
    assert!(text.starts_with(starts), "{text}");
    answers[1].nodes[0].silence_ms = 0;
    let text = words(answers);
    assert!(
        text.contains("node 2 (host:2) has not heard node 1 (host:1) since one of them started"),
        "{text}"
    );
    // Node 1 hears all, and nobody hears it: it is not the one whose word counts.
    let unheard = [false, true, true];
    let answers = vec![answer(1, &[true; 3], 2), answer(2, &unheard, 2), answer(3, &unheard, 2)];
    let text = words(answers);
    let expected = "degraded: node 1 (host:1) runs, but the others have not heard it for 12 s; serves, but may lose no more \
                    nodes\n";
    assert!(text.starts_with(expected), "{text}");
    // Node 1 is heard by all, and hears nobody.
    let answers =
        vec![answer(1, &[true, false, false], 2), answer(2, &[true; 3], 2), answer(3, &[true; 3], 2)];
    let text = words(answers);
    assert!(
        text.starts_with("degraded: node 1 (host:1) runs, but does not hear the others, though they"),
        "{text}"
    );
}

#[test]
fn what_five_nodes_may_lose_depends_on_who_hears_whom() {
    // Node 5 hears node 4 alone, which hears all.
    let hears = |by: u64| match by {
        4 => [true; 5],
        5 => [false, false, false, true, true],
        _ => [true, true, true, true, false],
    };
    let verdict = judge(&survey((1..=5).map(|by| answer(by, &hears(by), 4)).collect()));
    let pairs: Vec<_> = verdict.problems.iter().map(|problem| problem.nodes.clone()).collect();
    assert_eq!(pairs, [[1, 5], [2, 5], [3, 5]]);
    assert_eq!(verdict.may_lose, 1, "without 4 and one more, two nodes would be left that hear each other");
    assert!(verdict.summary.ends_with("; serves, and may lose 1 of 5 nodes"), "{}", verdict.summary);
}

#[test]
fn a_node_that_only_we_do_not_reach() {
    let text = words(vec![answer(1, &[true; 3], 1), answer(3, &[true; 3], 1)]);
    let expected = "degraded: node 2 (host:2) cannot be reached from here (connection refused), though the others have heard it \
                    within the last second; serves, but may lose no more nodes\n\
                    next: ask again in a second, if it may have stopped just now; else look at what lies between this \
                    machine and host:2\n";
    assert_eq!(text, expected);
}

#[test]
fn namespaces_without_a_leader() {
    let mut answers = vec![answer(1, &[true; 3], 1), answer(2, &[true; 3], 1), answer(3, &[true; 3], 1)];
    for answer in &mut answers {
        answer.namespaces[0].regions[0].leader = 0;
    }
    let verdict = judge(&survey(answers.clone()));
    assert_eq!((verdict.health, verdict.problems[0].kind), (Health::Unavailable, Kind::NoLeader));
    assert_eq!(verdict.problems[0].namespaces, ["fruit"]);
    let expected = "no leader: 'fruit' has no leader, and takes no writes until one is elected\n\
                    next: an election takes about a second: ask again; if this lasts, look at the nodes' logs\n";
    assert_eq!(in_words(&verdict, Paint::for_stream(false)), expected);
    for answer in &mut answers {
        answer.meta_leader = 0;
        answer.catalog = None;
    }
    assert!(words(answers).starts_with("no leader: the catalog and 'fruit' have no leader"));
}

#[test]
fn a_full_disk_and_a_node_that_lags() {
    let mut answers = vec![answer(1, &[true; 3], 1), answer(2, &[true; 3], 1), answer(3, &[true; 3], 1)];
    answers[2].namespaces[0].regions[0].applied_index = 4001;
    assert!(words(answers.clone()).starts_with("healthy"), "not worth a word");
    answers[2].namespaces[0].regions[0].applied_index = 3999;
    answers[1].disk_full = true;
    answers[1].disk_available_bytes = 200 << 20;
    let expected = "degraded: the disk of node 2 (host:2) is full: 200 MiB are left, less than its reserve, and it takes no \
                    writes; serves, and may lose 1 of 3 nodes\n\
                    next: make room on that disk; it takes writes again by itself\n\
                    also: node 3 (host:3) is 1001 entries behind in 'fruit'\n\
                    next: it catches up by itself: ask again; if the number does not shrink, look at its log and disk\n";
    assert_eq!(words(answers.clone()), expected);
    answers[0].namespaces[0].regions[0].applied_index = 0;
    for answer in &mut answers {
        answer.nodes[2].reachable = false;
    }
    assert!(
        words(vec![answers[0].clone(), answers[1].clone()]).starts_with("degraded: node 3"),
        "the worst comes first"
    );
}

#[test]
fn a_slow_disk() {
    let mut answers = three();
    answers[0].nodes[1].slow_sync_ms = 320;
    assert!(words(answers.clone()).starts_with("healthy"), "its own word counts, which is newer");
    answers[1].nodes[1].slow_sync_ms = 320;
    let expected = "degraded: the disk of node 2 (host:2) is slow: a sync of its log takes 320 ms; it hands over what others could lead; serves, and may lose 1 of 3 nodes\n\
                    next: look at what else uses that disk, and at the disk itself; leaderships return by themselves\n";
    assert_eq!(words(answers), expected);
}

fn three() -> Vec<ClusterStatus> {
    (1..=3).map(|by| answer(by, &[true; 3], 1)).collect()
}

#[test]
fn a_replica_that_is_not_there_or_empty() {
    let mut answers = three();
    let region = &mut answers[2].namespaces[0].regions[0];
    (region.absent, region.commit_index, region.applied_index) = (true, 0, 0);
    let verdict = judge(&survey(answers.clone()));
    assert_eq!(verdict.must_not_lose, [1, 2].into(), "node 3 could not stand in for them");
    assert!(verdict.may_pass(), "it may be on its way");
    let expected = "degraded: node 3 (host:3) has no replica of 'fruit'; serves, but must not lose node 1 or node 2\n\
                    next: it makes one by itself, as its catalog says: ask again; if this lasts, its log says what is in the \
                    way\n";
    assert_eq!(in_words(&verdict, Paint::for_stream(false)), expected);
    answers[2].namespaces[0].regions[0].absent = false;
    let text = words(answers.clone());
    let starts = "degraded: node 3 (host:3) has an empty replica of 'fruit'; serves, but must not lose node 1 or node 2\n\
                  next: the leader fills it, with its log or a snapshot: ask again; ";
    assert!(text.starts_with(starts), "{text}");
    assert!(!text.contains("behind"), "said twice: {text}");
    // In one that is new there is nothing to be had yet, and what is deleted goes at each node when it comes to it.
    for answer in &mut answers {
        answer.namespaces[0].regions[0].commit_index = 0;
    }
    assert!(words(answers.clone()).starts_with("healthy"));
    answers[2].namespaces[0].regions[0].absent = true;
    answers[0].namespaces[0].deleting = true;
    answers[2].namespaces[0].deleting = true;
    assert!(words(answers).starts_with("healthy"));
}

#[test]
fn a_node_whose_catalog_is_old() {
    let mut answers = three();
    let applied = |answers: &mut Vec<ClusterStatus>, index| {
        answers[0].catalog.as_mut().unwrap().applied_index = index;
    };
    applied(&mut answers, 38);
    assert!(words(answers.clone()).starts_with("healthy"), "not worth a word");
    answers[0].namespaces.clear();
    let expected = "degraded: node 1 (host:1) is 2 entries behind in the catalog, and does not know of 'fruit'; serves, but must \
                    not lose node 2 or node 3\n\
                    next: it catches up by itself: ask again; if the number does not shrink, look at its log and disk\n";
    assert_eq!(words(answers.clone()), expected, "though node 1's word counts");
    let verdict = judge(&survey(answers.clone()));
    assert_eq!(verdict.problems[0].namespaces, ["fruit"]);
    // One that knows no less has seen that the namespace is gone.
    applied(&mut answers, 40);
    assert!(words(answers.clone()).starts_with("healthy"));
    let mut answers = three();
    applied(&mut answers, 20);
    let starts =
        "degraded: node 1 (host:1) is 20 entries behind in the catalog; serves, and may lose 1 of 3 nodes\n";
    let text = words(answers);
    assert!(text.starts_with(starts), "{text}");
}

#[test]
fn the_table_says_how_far_each_node_is_behind() {
    let behind = |answers: &[ClusterStatus], node| {
        let survey = survey(answers.to_vec());
        survey.behind(node).map(|(entries, place)| (entries, place.map(str::to_owned)))
    };
    let mut answers = three();
    assert_eq!(behind(&answers, 3), Some((0, Some("fruit".into()))));
    answers[2].catalog.as_mut().unwrap().applied_index = 33;
    assert_eq!(behind(&answers, 3), Some((7, None)), "in the catalog");
    answers[2].namespaces[0].regions[0].absent = true;
    assert_eq!(behind(&answers, 3), Some((5000, Some("fruit".into()))), "it has all of it yet to come");
    assert_eq!(behind(&answers[..2], 3), None, "it did not answer");
}

#[test]
fn a_clock_is_off() {
    let hears = [true; 3];
    let mut answers = vec![answer(1, &hears, 1), answer(2, &hears, 1), answer(3, &hears, 1)];
    answers[2].clock_untrusted = true;
    answers[2].nodes[0].clock_ahead_ms = Some(-3_600_100);
    answers[2].nodes[1].clock_ahead_ms = Some(-3_599_900);
    let text = words(answers);
    let expected = "the clock of node 3 (host:3) is 59 min ahead of the others', and it takes no writes of eventual \
                    namespaces";
    assert!(text.starts_with("degraded: ") && text.contains(expected), "{text}");
    assert!(text.contains("\nnext: set the clock of that machine, then start the node again: "), "{text}");
}
