//! What the log writer promises: order, one sync for many, and silence after a failure.

use crate::support::{
    Event, Node, PATIENCE, REGION, Teller, copy, entries, entry, hard_state, message, open, private,
};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rdb_core::eventual::vector::Origin;
use rdb_core::ids::{Era, Incarnation, NodeId, RegionId};
use rdb_core::raft::disk::Terms;
use rdb_core::raft::{LogWrite, Message};
use rdb_storage::{AppendError, Error, LogSink, LogWriter, LogWriterOptions, OriginWrite};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A write with a message that waits for it.
fn with_message(number: u64) -> LogWrite {
    LogWrite {
        number,
        hard_state: Some(hard_state(number, 0, 0)),
        sync: true,
        then_send: vec![message(number)],
        ..LogWrite::default()
    }
}

/// Holds the log thread in the first report until released, so that a test can fill the queue behind it.
struct Gate {
    entered: Sender<()>,
    release: Receiver<()>,
    inner: Teller,
}

impl LogSink for Gate {
    fn persisted(&mut self, region: RegionId, number: u64) {
        let _ = self.entered.send(());
        let _ = self.release.recv();
        self.inner.persisted(region, number);
    }
    fn send(&mut self, region: RegionId, messages: Vec<Message>) {
        self.inner.send(region, messages);
    }
    fn failed(&mut self, error: Error) {
        self.inner.failed(error);
    }
}

/// A node whose log thread waits in the report of its first write.
fn gated(path: &std::path::Path) -> (rdb_storage::Engine, LogWriter, Sender<()>, Receiver<Event>) {
    let engine = open(path).unwrap();
    let (teller, events) = unbounded();
    let (entered_sender, entered) = unbounded();
    let (release, release_receiver) = bounded(0);
    let gate = Gate { entered: entered_sender, release: release_receiver, inner: Teller(teller) };
    let writer = LogWriter::spawn(&engine, &LogWriterOptions::default(), gate).unwrap();
    writer.handle().append(REGION, with_message(0)).unwrap();
    entered.recv_timeout(PATIENCE).unwrap();
    (engine, writer, release, events)
}

#[test]
fn a_write_is_reported_before_its_messages_and_regions_keep_their_order() {
    let directory = private();
    let node = Node::open(directory.path());
    std::thread::scope(|scope| {
        for region in 16..20 {
            let handle = node.handle.clone();
            scope.spawn(move || {
                (1..=100).for_each(|number| handle.append(RegionId(region), with_message(number)).unwrap());
            });
        }
    });
    node.writer.shutdown().unwrap();
    let events: Vec<_> = node.events.iter().collect();
    assert_eq!(events.len(), 800);
    let mut last = BTreeMap::new();
    for pair in events.chunks(2) {
        let [Event::Persisted(region, number), Event::Sent(to, sent)] = pair else { panic!("{pair:?}") };
        assert_eq!((to, &sent[..]), (region, &[*number][..]), "each report is followed by its own messages");
        assert_eq!(last.insert(*region, *number).unwrap_or(0) + 1, *number, "region {region}");
    }
}

#[test]
fn what_waits_during_a_sync_shares_the_next_one() {
    let directory = private();
    let (_engine, writer, release, events) = gated(directory.path());
    let handle = writer.handle();
    for region in 16..26 {
        (1..=10).for_each(|number| handle.append(RegionId(region), with_message(number)).unwrap());
    }
    assert_eq!(handle.queued(), 100);
    drop(release);
    writer.shutdown().unwrap();
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Persisted(..))).count(), 101);
    let metrics = handle.metrics();
    assert_eq!((metrics.commands(), metrics.batches(), metrics.sync().read().count), (101, 2, 2));
    assert!(1000 < metrics.bytes());
}

#[test]
fn a_write_without_content_costs_nothing_and_keeps_its_place() {
    let directory = private();
    let (_engine, writer, release, events) = gated(directory.path());
    let handle = writer.handle();
    let empty = |number| LogWrite { number, then_send: vec![message(number)], ..LogWrite::default() };
    (1..=5).for_each(|number| handle.append(REGION, empty(number)).unwrap());
    drop(release);
    writer.shutdown().unwrap();
    let numbers: Vec<_> = events.iter().collect();
    let expected: Vec<_> =
        (0..=5).flat_map(|n| [Event::Persisted(REGION, n), Event::Sent(REGION, vec![n])]).collect();
    assert_eq!(numbers, expected);
    assert_eq!((handle.metrics().batches(), handle.metrics().sync().read().count), (1, 1));
}

/// Copies the directory at the moment of each report: what a process that is killed right then leaves.
struct Copier {
    from: PathBuf,
    to: PathBuf,
    copied: Sender<u64>,
}

impl LogSink for Copier {
    fn persisted(&mut self, _: RegionId, number: u64) {
        copy(&self.from, &self.to.join(number.to_string()));
        let _ = self.copied.send(number);
    }
    fn send(&mut self, _: RegionId, _: Vec<Message>) {}
    fn failed(&mut self, error: Error) {
        panic!("{error}");
    }
}

#[test]
#[cfg_attr(feature = "bug-persisted-before-sync", should_panic(expected = "was reported"))]
fn what_is_reported_is_there_after_a_crash() {
    let parent = private();
    let path = parent.path().join("node");
    Node::with_region(&path).close();
    let engine = open(&path).unwrap();
    let (copied_sender, copied) = unbounded();
    let copier = Copier { from: path, to: parent.path().to_path_buf(), copied: copied_sender };
    let writer = LogWriter::spawn(&engine, &LogWriterOptions::default(), copier).unwrap();
    for number in 1..=3 {
        writer.handle().append(REGION, entries(number, number..=number, 1)).unwrap();
        assert_eq!(copied.recv_timeout(PATIENCE), Ok(number));
        let crashed = open(&parent.path().join(number.to_string())).unwrap();
        let last = crashed.log().regions().unwrap()[0].last();
        assert!(number <= last, "entry {number} was reported, but a restart finds {last}");
    }
    writer.shutdown().unwrap();
}

/// A vote that was told to others is noted outside the log, too: losing all of the log is noticed at once.
#[test]
#[cfg(not(feature = "bug-persisted-before-sync"))]
fn a_vote_is_noted_before_its_message_leaves() {
    struct OnSend(PathBuf, PathBuf, Sender<()>);
    impl LogSink for OnSend {
        fn persisted(&mut self, _: RegionId, _: u64) {}
        fn send(&mut self, _: RegionId, _: Vec<Message>) {
            copy(&self.0, &self.1);
            let _ = self.2.send(());
        }
        fn failed(&mut self, error: Error) {
            panic!("{error}");
        }
    }
    let parent = private();
    let (path, killed) = (parent.path().join("node"), parent.path().join("killed"));
    Node::with_region(&path).close();
    copy(&path.join("log"), &parent.path().join("old"));
    let engine = open(&path).unwrap();
    let (copied_sender, copied) = unbounded();
    let sink = OnSend(path.clone(), killed.clone(), copied_sender);
    let writer = LogWriter::spawn(&engine, &LogWriterOptions::default(), sink).unwrap();
    let begun = crate::support::wal(&path).metadata().unwrap().len();
    writer.handle().append(REGION, LogWrite { vote_changed: true, ..with_message(1) }).unwrap();
    copied.recv_timeout(PATIENCE).unwrap();
    let wal = std::fs::OpenOptions::new().write(true).open(crate::support::wal(&killed)).unwrap();
    wal.set_len(begun).unwrap();
    let error = crate::support::refused(&killed);
    assert!(matches!(error, Error::LogBehind { .. }), "{error}");
}

#[test]
fn a_failure_is_told_once_and_ends_the_writer() {
    let directory = private();
    let (_engine, writer, release, events) = gated(directory.path());
    let handle = writer.handle();
    handle.append(REGION, with_message(1)).unwrap();
    // A table of terms that does not fit the truncation: the one failure that can be had without a broken disk.
    handle.truncate(REGION, 7, Terms::default().encode()).unwrap();
    drop(release);
    assert!(matches!(writer.shutdown(), Err(Error::LogWriterStopped)));
    let events: Vec<_> = events.iter().collect();
    let [Event::Persisted(_, 0), Event::Sent(..), Event::Failed(error)] = &events[..] else {
        panic!("nothing is reported after a failure: {events:?}")
    };
    assert!(error.contains("truncation to 7"), "{error}");
    let refused = handle.append(REGION, with_message(2)).err().unwrap();
    assert!(matches!(refused, AppendError::Stopped(write) if write.number == 2));
    let refused = handle.truncate(REGION, 7, Vec::new()).err().unwrap();
    assert!(matches!(refused, Error::LogWriterStopped));
}

/// A write of an origin's log, and what says that it is done.
fn run(seq: u64, done: &Sender<u64>) -> (OriginWrite, impl FnOnce() + Send + 'static) {
    let runs = vec![(Origin { node: NodeId(1), incarnation: Incarnation(1) }, seq, vec![7].into())];
    let done = done.clone();
    let write = OriginWrite { era: Era(1), runs, sync: true, ..OriginWrite::default() };
    let then = move || {
        let _ = done.send(seq);
    };
    (write, then)
}

#[test]
fn where_the_log_is_idle_a_write_is_synced_and_told_by_whoever_asks() {
    let directory = private();
    let node = Node::open(directory.path());
    let (done, told) = unbounded();
    let began = node.handle.synced_position();
    for seq in 1..=3 {
        let (write, then) = run(seq, &done);
        node.handle.write_origins_here(REGION, write, then).unwrap();
        assert_eq!(told.try_recv(), Ok(seq), "before the call returns");
        assert_eq!(node.handle.metrics().sync().read().count, seq);
    }
    // The thread goes on from the same position.
    node.handle.append(REGION, with_message(1)).unwrap();
    node.writer.shutdown().unwrap();
    assert_eq!(node.handle.synced_position() - began, node.handle.metrics().batches());
    let (write, then) = run(4, &done);
    let refused = node.handle.write_origins_here(REGION, write, then).unwrap_err();
    assert!(matches!(refused, Error::LogWriterStopped));
    assert!(told.is_empty());
}

#[test]
fn where_the_log_is_busy_a_write_waits_behind_what_came_before() {
    let directory = private();
    let (_engine, writer, release, _events) = gated(directory.path());
    let handle = writer.handle();
    let (done, told) = unbounded();
    for seq in 1..=4 {
        let (write, then) = run(seq, &done);
        if seq % 2 == 0 {
            handle.write_origins_here(REGION, write, then).unwrap();
        } else {
            handle.write_origins(REGION, write, then).unwrap();
        }
    }
    assert!(told.is_empty());
    drop(release);
    writer.shutdown().unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(handle.metrics().batches(), 2);
}

#[test]
fn a_full_queue_gives_the_write_back() {
    let directory = private();
    let engine = open(directory.path()).unwrap();
    let (entered_sender, entered) = unbounded();
    let (release, release_receiver) = bounded(0);
    let gate = Gate { entered: entered_sender, release: release_receiver, inner: Teller(unbounded().0) };
    let options = LogWriterOptions { queue_changes_max: 2, ..LogWriterOptions::default() };
    let writer = LogWriter::spawn(&engine, &options, gate).unwrap();
    let handle = writer.handle();
    handle.append(REGION, with_message(0)).unwrap();
    entered.recv_timeout(PATIENCE).unwrap();
    assert!(!handle.is_crowded());
    (1..=2).for_each(|number| {
        handle.append(REGION, with_message(number)).unwrap();
        assert!(handle.is_crowded());
    });
    let refused = handle.append(REGION, with_message(3)).err().unwrap();
    assert!(matches!(refused, AppendError::Full(write) if write.number == 3));
    assert!(matches!(handle.truncate(REGION, 1, Vec::new()), Err(Error::LogQueueFull)));
    drop(release);
}

/// Within one batch, what came later counts.
#[test]
fn overruled_entries_are_replaced() {
    let directory = private();
    let node = Node::with_region(directory.path());
    let mut terms = Terms::default();
    terms.push(1, 1);
    terms.push(4, 2);
    let overrule = LogWrite {
        number: 2,
        entries: vec![(4, entry(4, 2))],
        remove_stale: Some((5, 10)),
        hard_state: Some(hard_state(2, 0, 3)),
        terms: Some(terms.encode()),
        sync: true,
        ..LogWrite::default()
    };
    node.handle.append(REGION, entries(1, 1..=9, 1)).unwrap();
    node.write(overrule);
    let stored = &node.engine.log().regions().unwrap()[0];
    assert_eq!((stored.last(), stored.terms()), (4, &terms));
    let found = node.engine.log().region(REGION).entries(1, 5, u64::MAX).unwrap();
    assert_eq!(found.iter().map(|entry| entry.term).collect::<Vec<_>>(), [1, 1, 1, 2]);
    node.close();
}
