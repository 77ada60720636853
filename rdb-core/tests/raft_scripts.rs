//! Golden scripts of the raft driver: each in `src/raft/testscripts` tells a story, command by command, with the effects
//! of each. `UPDATE_GOLDENFILES=1 cargo test -p rdb-core --test raft_scripts` writes them anew; then read the difference.
//!
//! ```text
//! cluster N             N nodes, none of which has started an election
//! leases                of those that start from now on leaders may read by their clocks
//! campaign NODE         stands for election
//! propose NODE K=V...   one caller's puts
//! read NODE NAME        a linearizable read, known as NAME
//! tick NODE [COUNT]     time passes, with no event in between
//! sync NODE [COUNT]     the log writer finishes its writes, or that many of them
//! apply NODE            the applier applies what it was given
//! deliver [from=N] [to=N]   the messages under way arrive; answers to them wait for the next command
//! drop [from=N] [to=N]      they are lost
//! transfer NODE TO      hands over
//! close NODE            closes the region, if it leads
//! era NODE ERA          its data has come into that era
//! sleep NODE FOLLOWER...    the leader may fall asleep, and these followers hear of it
//! wake NODE             its leader's node is silent
//! truncate NODE INDEX   its log is dropped up to there
//! snapshot FROM TO      the snapshot that FROM was asked to send arrives, with the data as it is now
//! install NODE          the data is replaced by it; a sync then starts the log anew
//! report NODE PEER taken|lost   what became of the snapshot
//! crash NODE            synced writes and applied data stay, all else is gone
//! restart NODE          starts from what stayed
//! elect NODE            campaigns, and all else happens by itself
//! settle                messages, syncs and applies happen by themselves, until there are none
//! status                every node in a line
//! ```
#![allow(clippy::unwrap_used, reason = "the helpers of a test are not seen as tests")]

mod harness;

use goldenscript::{Command, Context, Runner};
use harness::Cluster;
use std::error::Error;

#[derive(Command)]
pub(crate) enum Verb {
    Cluster(u64),
    Leases,
    Campaign(u64),
    Elect(u64),
    Settle,
    Propose(u64, #[arg(many)] Vec<(String, String)>),
    Read(u64, String),
    Tick(u64, Option<u64>),
    Sync(u64, Option<usize>),
    Apply(u64),
    Deliver {
        #[arg(key, optional)]
        from: Option<u64>,
        #[arg(key, optional)]
        to: Option<u64>,
    },
    Drop {
        #[arg(key, optional)]
        from: Option<u64>,
        #[arg(key, optional)]
        to: Option<u64>,
    },
    Transfer(u64, u64),
    Close(u64),
    Era(u64, u32),
    Sleep(u64, #[arg(many)] Vec<u64>),
    Wake(u64),
    Truncate(u64, u64),
    Snapshot(u64, u64),
    Install(u64),
    Report(u64, u64, String),
    Crash(u64),
    Restart(u64),
    Status,
}

impl Runner for Cluster {
    type Command = Verb;

    fn run(&mut self, verb: &Verb, _: &Context) -> Result<String, Box<dyn Error>> {
        self.lines.clear();
        match verb {
            Verb::Cluster(nodes) => self.found(*nodes),
            Verb::Leases => self.leases = true,
            Verb::Campaign(node) => self.turn(*node, |group, _| group.campaign()),
            Verb::Elect(node) => self.elect(*node),
            Verb::Settle => self.settle(),
            Verb::Propose(node, writes) => self.propose(*node, writes),
            Verb::Read(node, name) => self.read(*node, name),
            Verb::Tick(node, count) => self.tick(*node, count.unwrap_or(1)),
            Verb::Sync(node, count) => self.sync(*node, count.unwrap_or(usize::MAX)),
            Verb::Apply(node) => self.apply(*node),
            Verb::Deliver { from, to } => self.deliver(*from, *to),
            Verb::Drop { from, to } => self.drop_messages(*from, *to),
            Verb::Transfer(node, to) => {
                let to = rdb_core::ids::NodeId(*to);
                self.turn(*node, |group, _| group.transfer_leader(to));
            }
            Verb::Close(node) => self.close(*node),
            Verb::Era(node, era) => {
                let era = rdb_core::ids::Era(*era);
                self.turn(*node, |group, _| group.enter(era));
            }
            Verb::Sleep(node, followers) => self.sleep(*node, followers),
            Verb::Wake(node) => self.turn(*node, |group, _| group.wake(true)),
            Verb::Truncate(node, index) => self.truncate(*node, *index),
            Verb::Snapshot(from, to) => self.snapshot(*from, *to)?,
            Verb::Install(node) => self.install(*node)?,
            Verb::Report(node, peer, outcome) => self.report(*node, *peer, outcome),
            Verb::Crash(node) => self.crash(*node),
            Verb::Restart(node) => self.restart(*node)?,
            Verb::Status => self.status(),
        }
        Ok(self.lines.iter().map(|line| format!("{line}\n")).collect())
    }
}

#[test]
fn scripts() {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/testscripts");
    let mut paths: Vec<_> = std::fs::read_dir(scripts).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Cluster::default(), path).unwrap();
    }
}
