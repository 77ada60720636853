//! The worlds that are explored. The small ones together take seconds and run with the tests; the large ones run with
//! `./x model`.

use crate::configuration::{Configuration, Pace};
use crate::goals::Goal;
use rdb_core::switch::Mode;

const NOTHING: Configuration = Configuration::NOTHING;
const TO_STRONG: (Mode, &[usize]) = (Mode::Strong, &[]);
const TO_EVENTUAL: (Mode, &[usize]) = (Mode::Eventual, &[]);
const WITHOUT_2: (Mode, &[usize]) = (Mode::Strong, &[2]);

/// The worlds that run with the tests.
pub fn small() -> Vec<Configuration> {
    vec![
        Configuration {
            name: "strong-abort",
            about: "to strong, called off once and begun again",
            switches: &[TO_STRONG, TO_STRONG],
            eventual_writes: 1,
            strong_writes: 1,
            prepares: true,
            aborts: 1,
            goals: &[Goal::StrongAfterSwitch, Goal::EventualAfterAbort],
            ..NOTHING
        },
        Configuration {
            name: "strong-crash",
            about: "to strong, with a crash between any two steps of a node",
            switches: &[TO_STRONG],
            eventual_writes: 1,
            strong_writes: 1,
            strong_writers: &[1],
            crashes: 1,
            pace: Pace::Fine,
            goals: &[Goal::StrongAfterSwitch, Goal::SealedAfterCrash],
            ..NOTHING
        },
        Configuration {
            name: "strong-read",
            about: "to strong, after clients have read what a crash may take away",
            switches: &[TO_STRONG],
            eventual_writes: 1,
            crashes: 1,
            crashing: &[0],
            local_reads: 1,
            pace: Pace::Fine,
            goals: &[Goal::ReadThenStrong],
            ..NOTHING
        },
        Configuration {
            name: "strong-abort-crash",
            about: "to strong, called off, with a crash between any two steps of a node",
            switches: &[TO_STRONG],
            eventual_writes: 1,
            aborts: 1,
            crashes: 1,
            crashing: &[0],
            pace: Pace::Fine,
            goals: &[Goal::EventualAfterAbort, Goal::SealedAfterCrash],
            ..NOTHING
        },
        Configuration {
            name: "strong-late-step",
            about: "two switches to strong, the first called off, and a controller's step that comes late",
            switches: &[TO_STRONG, TO_STRONG],
            eventual_writes: 1,
            aborts: 1,
            late_changes: 1,
            goals: &[Goal::LateChangeMovedOn, Goal::EventualAfterAbort],
            ..NOTHING
        },
        Configuration {
            name: "strong-partition",
            about: "to strong, while a node is cut off that takes writes",
            switches: &[TO_STRONG],
            eventual_writes: 2,
            eventual_writers: &[0, 2],
            partitions: 1,
            isolated: &[2],
            goals: &[Goal::BothSidesWrite, Goal::BlockedByPartition, Goal::DoneAfterPartition],
            ..NOTHING
        },
        Configuration {
            name: "exclude",
            about: "to strong without a node that goes on writing, one of its writes comes late",
            switches: &[WITHOUT_2],
            eventual_writes: 2,
            eventual_writers: &[2],
            strong_writes: 1,
            snapshots: true,
            late_deliveries: 1,
            goals: &[
                Goal::Quarantined,
                Goal::ExcludedWithinCut,
                Goal::LateFromOlderEra,
                Goal::StrongAfterSwitch,
            ],
            ..NOTHING
        },
        Configuration {
            name: "exclude-abort",
            about: "a switch with everybody is called off, the next one goes on without a node",
            switches: &[TO_STRONG, WITHOUT_2],
            eventual_writes: 1,
            eventual_writers: &[2],
            snapshots: true,
            aborts: 1,
            slow_news: true,
            goals: &[Goal::Quarantined, Goal::EventualAfterAbort],
            ..NOTHING
        },
        Configuration {
            name: "exclude-crash",
            about: "to strong without a node, and a crash between any two steps",
            switches: &[WITHOUT_2],
            eventual_writes: 1,
            eventual_writers: &[2],
            crashes: 1,
            snapshots: true,
            pace: Pace::Fine,
            goals: &[Goal::Quarantined, Goal::SealedAfterCrash],
            ..NOTHING
        },
        Configuration {
            name: "back",
            about: "to eventual, with strong writes under way",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            eventual_writes: 1,
            eventual_writers: &[1],
            strong_writes: 1,
            strong_writers: &[1],
            marker_copies: 2,
            leaders: &[0, 1],
            goals: &[Goal::EventualAfterSwitch, Goal::PutTooLate, Goal::MarkerTwice],
            ..NOTHING
        },
        Configuration {
            name: "back-abort",
            about: "to eventual, called off once and begun again",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL, TO_EVENTUAL],
            eventual_writes: 1,
            strong_writes: 1,
            strong_writers: &[1],
            prepares: true,
            aborts: 1,
            slow_news: true,
            goals: &[Goal::StrongAfterAbort, Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "back-crash",
            about: "to eventual, with a crash between any two steps",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            eventual_writes: 1,
            strong_writes: 1,
            crashes: 1,
            snapshots: true,
            pace: Pace::Fine,
            goals: &[Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "back-lease",
            about: "to eventual, while the leader reads by its lease",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            eventual_writes: 1,
            eventual_writers: &[1],
            strong_writes: 1,
            lease: true,
            goals: &[Goal::LeaseEnded],
            ..NOTHING
        },
        Configuration {
            name: "round",
            about: "to strong and back, with a write that comes late",
            switches: &[TO_STRONG, TO_EVENTUAL],
            eventual_writes: 2,
            late_deliveries: 1,
            goals: &[Goal::ThereAndBack, Goal::LateFromOlderEra, Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "round-back",
            about: "to eventual and back to strong",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL, TO_STRONG],
            eventual_writes: 1,
            eventual_writers: &[1],
            strong_writes: 1,
            goals: &[Goal::ThereAndBack, Goal::StrongAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "round-back-crash",
            about: "to eventual and back to strong, with a snapshot in between and a crash of its sender",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL, TO_STRONG],
            eventual_writes: 1,
            crashes: 1,
            crashing: &[0],
            snapshots: true,
            pace: Pace::Fine,
            goals: &[Goal::ThereAndBack, Goal::SealedAfterCrash],
            ..NOTHING
        },
        Configuration {
            name: "round-unflushed",
            about: "to strong, back, and to strong, with a crash after which a node has only its logs",
            switches: &[TO_STRONG, TO_EVENTUAL, TO_STRONG],
            eventual_writes: 1,
            crashes: 1,
            crashing: &[0],
            unflushed: true,
            goals: &[Goal::ThereAndBack, Goal::SealedAfterCrash, Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "round-exclude",
            about: "to strong without a node and back, before the node returns",
            switches: &[WITHOUT_2, TO_EVENTUAL],
            eventual_writes: 1,
            eventual_writers: &[2],
            strong_writes: 1,
            snapshots: true,
            goals: &[Goal::ThereAndBack, Goal::Quarantined],
            ..NOTHING
        },
        Configuration {
            name: "clocks",
            about: "to strong on one key, by nodes whose clocks are far apart",
            switches: &[TO_STRONG],
            keys: &[0],
            eventual_writes: 1,
            eventual_writers: &[0],
            strong_writes: 2,
            strong_writers: &[1, 2],
            walls_ms: [9, 0, 4],
            goals: &[Goal::StrongAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "clocks-back",
            about: "to eventual on one key, by nodes whose clocks are far apart",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            keys: &[0],
            eventual_writes: 2,
            eventual_writers: &[1, 2],
            strong_writes: 1,
            walls_ms: [9, 0, 4],
            goals: &[Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "never-weaker",
            about: "to eventual, while clients ask for what only strong namespaces do",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            eventual_writes: 1,
            eventual_writers: &[1],
            strong_reads: 1,
            strong_only: 1,
            goals: &[Goal::StrongRefused, Goal::ReadOvertaken],
            ..NOTHING
        },
        Configuration {
            name: "never-weaker-yet",
            about: "to strong, while clients ask for what only strong namespaces do",
            switches: &[TO_STRONG],
            eventual_writes: 1,
            strong_reads: 1,
            strong_only: 1,
            goals: &[Goal::StrongRefused, Goal::StrongAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "patience",
            about: "to strong, while sealed nodes hear nothing for long",
            switches: &[TO_STRONG],
            eventual_writes: 1,
            strong_writes: 1,
            timers: 1,
            goals: &[Goal::StrongAfterSwitch],
            ..NOTHING
        },
    ]
}

/// Larger ones: up to a few minutes each.
pub fn large() -> Vec<Configuration> {
    vec![
        Configuration {
            name: "large-crash",
            about: "to strong, called off, with two writes and a crash between any two steps of a node",
            switches: &[TO_STRONG],
            eventual_writes: 2,
            aborts: 1,
            crashes: 1,
            crashing: &[0],
            pace: Pace::Fine,
            goals: &[Goal::EventualAfterAbort, Goal::SealedAfterCrash],
            ..NOTHING
        },
        Configuration {
            name: "large-news",
            about: "two switches to strong, the first called off, news that come one by one, a step that comes late",
            switches: &[TO_STRONG, TO_STRONG],
            prepares: true,
            eventual_writes: 1,
            aborts: 1,
            late_changes: 1,
            slow_news: true,
            goals: &[Goal::LateChangeMovedOn, Goal::EventualAfterAbort],
            ..NOTHING
        },
        Configuration {
            name: "large-partition",
            about: "to strong, while either of two nodes is cut off that take writes",
            switches: &[TO_STRONG],
            eventual_writes: 2,
            eventual_writers: &[0, 2],
            strong_writes: 1,
            partitions: 1,
            isolated: &[0, 2],
            goals: &[Goal::BothSidesWrite, Goal::BlockedByPartition, Goal::DoneAfterPartition],
            ..NOTHING
        },
        Configuration {
            name: "large-exclude",
            about: "to strong without a node that goes on writing and being read, one of its writes comes late",
            switches: &[WITHOUT_2],
            eventual_writes: 2,
            eventual_writers: &[2],
            strong_writes: 1,
            local_reads: 1,
            late_deliveries: 1,
            snapshots: true,
            goals: &[
                Goal::Quarantined,
                Goal::ExcludedWithinCut,
                Goal::LateFromOlderEra,
                Goal::ReadThenStrong,
            ],
            ..NOTHING
        },
        Configuration {
            name: "large-clocks",
            about: "to strong on one key, by nodes whose clocks are far apart, each of which writes",
            switches: &[TO_STRONG],
            keys: &[0],
            eventual_writes: 2,
            eventual_writers: &[0, 1],
            strong_writes: 2,
            strong_writers: &[1, 2],
            walls_ms: [9, 0, 4],
            goals: &[Goal::StrongAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "large-back",
            about: "to eventual, with strong writes at two nodes, two leaders, and the marker twice",
            start: Mode::Strong,
            switches: &[TO_EVENTUAL],
            eventual_writes: 1,
            eventual_writers: &[1, 2],
            strong_writes: 2,
            strong_writers: &[0, 1],
            leaders: &[0, 1],
            marker_copies: 2,
            goals: &[Goal::EventualAfterSwitch, Goal::PutTooLate, Goal::MarkerTwice],
            ..NOTHING
        },
        Configuration {
            name: "large-round",
            about: "to strong and back, with snapshots and a write that comes late",
            switches: &[TO_STRONG, TO_EVENTUAL],
            eventual_writes: 2,
            late_deliveries: 1,
            snapshots: true,
            goals: &[Goal::ThereAndBack, Goal::LateFromOlderEra, Goal::EventualAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "large-unflushed",
            about: "to strong, back, and to strong, with strong writes and reads, and a crash that leaves only logs",
            switches: &[TO_STRONG, TO_EVENTUAL, TO_STRONG],
            eventual_writes: 1,
            strong_writes: 1,
            strong_reads: 1,
            crashes: 1,
            crashing: &[0],
            unflushed: true,
            goals: &[Goal::ThereAndBack, Goal::SealedAfterCrash, Goal::StrongAfterSwitch],
            ..NOTHING
        },
        Configuration {
            name: "large-round-exclude",
            about: "to strong without a node and back, before the node returns; it and another one write",
            switches: &[WITHOUT_2, TO_EVENTUAL],
            eventual_writes: 2,
            eventual_writers: &[1, 2],
            snapshots: true,
            goals: &[Goal::ThereAndBack, Goal::Quarantined, Goal::EventualAfterSwitch],
            ..NOTHING
        },
    ]
}
