//! Between clients and nodes.

use super::World;
use super::node::Input;
use crate::clients::{Caller, GARDENER, NOBODY, NOWHERE, Outcome, Reading, Reply, Request, Wish, value_of};
use crate::event::Event;
use crate::invariants::Violation;
use crate::options::Span;
use rand::RngExt as _;
use rdb_core::apply::Answer;
use rdb_core::ids::NodeId;
use rdb_core::raft::Failure;

/// How long a request or an answer travels.
const WAY: Span = (50, 2_000);
/// What part of its patience a client has that is in a hurry.
const HURRY: u64 = 8;
/// Attempts after which a client takes "not done" for an answer.
const TRIES_MAX: u32 = 12;
/// Attempts after which a client with a session stops asking what became of its write.
const TRIES_IN_DOUBT_MAX: u32 = 40;

/// Planted: who loses the lead tells writers that theirs are not done, whatever becomes of them.
const LEADER_CHANGE_IS_DEFINITE: bool = cfg!(feature = "bug-leader-change-is-definite");
/// Planted: a client sends again what is in doubt, though nobody can know it by its name.
const REPEATS_UNKNOWN: bool = cfg!(feature = "bug-client-repeats-unknown");

impl World {
    /// A client begins an operation, or tries again.
    pub(super) fn wake(&mut self, slot: usize, attempt: u64) {
        if self.clients.pool[slot].attempt != attempt || self.clients_rest {
            return;
        }
        self.move_client(slot);
        if self.clients.pool[slot].region == NOWHERE {
            return self.wake_later(slot, attempt);
        }
        self.clients.begin(slot, &self.options, &mut self.rng);
        let nodes = self.options.nodes;
        let attempt = self.clients.next_attempt();
        let client = &mut self.clients.pool[slot];
        client.attempt = attempt;
        let Some(call) = &mut client.call else { return };
        call.tries += 1;
        let request = Request { client: slot, attempt, region: call.region, wish: call.wish() };
        let stray = client.only_reads || self.rng.random_bool(self.options.stray);
        let node = if stray { NodeId(self.rng.random_range(1..=nodes)) } else { client.favourite };
        // Some requests take so long that their client has long tried again, and written other things since.
        let straggles = self.calm.is_none() && self.rng.random_bool(self.options.network.straggler);
        let way = if straggles { self.options.network.straggler_delay } else { WAY };
        let at = self.now + self.draw(way);
        self.queue.push(at, Event::Request { node, request: Box::new(request) });
        let hurry = self.calm.is_none() && self.rng.random_bool(self.options.hurry);
        let patience = self.options.patience / if hurry { HURRY } else { 1 };
        self.queue.push(self.now + patience, Event::Impatient { client: slot, attempt });
    }

    /// A request reaches a node.
    pub(super) fn request(&mut self, node: NodeId, request: Request) {
        let Request { client, attempt, region, wish } = request;
        let caller = Caller { client, attempt };
        if self.node(node).process.is_none() {
            return self.reply(caller, Reply::Failed(Failure::NotLeader { leader: None }));
        }
        if let Some(failure) = self.is_unknown(node, region) {
            return self.reply(caller, Reply::Failed(failure));
        }
        match wish {
            Wish::Write(commands) => self.input(node, Input::Propose(region, commands, caller)),
            Wish::Read(key) => self.input(node, Input::Read(region, Reading { caller, key })),
        }
    }

    /// A node answers.
    pub(super) fn reply(&mut self, caller: Caller, reply: Reply) {
        let Caller { client, attempt } = caller;
        if client == NOBODY {
            return;
        }
        let at = self.now + self.rng.random_range(WAY.0..WAY.1);
        self.queue.push(at, Event::Reply { client, attempt, reply });
    }

    /// An answer reaches its client, who may have stopped waiting for it.
    pub(super) fn replied(&mut self, slot: usize, attempt: u64, reply: Reply) -> Result<(), Violation> {
        if slot == GARDENER {
            self.gardener_replied(attempt, reply);
            return Ok(());
        }
        let client = &self.clients.pool[slot];
        let Some(call) = client.call.as_ref().filter(|_| client.attempt == attempt) else { return Ok(()) };
        if let Reply::Answer(Answer::Done(_) | Answer::Mismatch { .. }) | Reply::Read(_) = &reply {
            self.invariants.deletions.succeeded(call.region, call.moment)?;
        }
        match reply {
            Reply::Answer(Answer::SessionExpired) if call.in_doubt => self.end(slot, Outcome::InDoubt),
            Reply::Answer(Answer::SessionExpired | Answer::EraMismatch) => self.end(slot, Outcome::NotDone),
            Reply::Answer(Answer::Closed) | Reply::Failed(Failure::Closed) => {
                self.totals.refused += 1;
                // That this attempt is not done says nothing of one before it.
                self.end(slot, if call.in_doubt { Outcome::InDoubt } else { Outcome::NotDone });
            }
            Reply::Answer(answer) => {
                self.totals.writes += 1;
                self.progress.entry(call.region).or_default().0 += 1;
                self.end(slot, Outcome::Answered(answer));
            }
            Reply::Read(found) => {
                self.totals.reads += 1;
                self.progress.entry(call.region).or_default().1 += 1;
                let found = found.map(|(version, value)| (version, value_of(&value)));
                self.end(slot, Outcome::Found(found));
            }
            Reply::Failed(Failure::LeaderLost) if LEADER_CHANGE_IS_DEFINITE => {
                self.end(slot, Outcome::NotDone);
            }
            Reply::Failed(Failure::LeaderLost) => self.doubt(slot),
            Reply::Failed(Failure::NotLeader { leader }) => self.not_done(slot, leader),
            Reply::Failed(Failure::Busy | Failure::Superseded | Failure::ModeChanged) => {
                self.not_done(slot, None);
            }
            Reply::Catalog(_) | Reply::Gone => {}
        }
        Ok(())
    }

    /// This attempt is not done, and never will be.
    fn not_done(&mut self, slot: usize, leader: Option<NodeId>) {
        let anyone = NodeId(self.rng.random_range(1..=self.options.nodes));
        let client = &mut self.clients.pool[slot];
        client.favourite = leader.unwrap_or(anyone);
        let Some(call) = &client.call else { return };
        if call.in_doubt || call.tries < TRIES_MAX {
            return self.again(slot);
        }
        self.end(slot, Outcome::NotDone);
    }

    /// Nobody knows what became of this attempt.
    pub(super) fn doubt(&mut self, slot: usize) {
        let anyone = NodeId(self.rng.random_range(1..=self.options.nodes));
        let client = &mut self.clients.pool[slot];
        client.favourite = anyone;
        let session = client.has_session();
        let Some(call) = &mut client.call else { return };
        if !call.kind.is_write() {
            // A read has no effect: nobody misses it.
            return self.end(slot, Outcome::NotDone);
        }
        call.in_doubt = true;
        self.totals.in_doubt += 1;
        if session || REPEATS_UNKNOWN {
            return self.again(slot);
        }
        self.end(slot, Outcome::InDoubt);
    }

    fn again(&mut self, slot: usize) {
        let client = &self.clients.pool[slot];
        let attempt = client.attempt;
        let tired = client.call.as_ref().is_some_and(|call| TRIES_IN_DOUBT_MAX <= call.tries);
        if tired {
            return self.end(slot, Outcome::InDoubt);
        }
        self.wake_later(slot, attempt);
    }

    fn end(&mut self, slot: usize, outcome: Outcome) {
        self.clients.end(slot, outcome, &mut self.rng);
        // A new attempt: what still comes for the old one is too late.
        let attempt = self.clients.next_attempt();
        self.clients.pool[slot].attempt = attempt;
        self.wake_later(slot, attempt);
    }

    pub(super) fn wake_later(&mut self, slot: usize, attempt: u64) {
        let (least, most) = self.options.think;
        let at = self.now + self.rng.random_range(least..most);
        self.queue.push(at, Event::Wake { client: slot, attempt });
    }

    /// A client has waited long enough for an answer.
    pub(super) fn impatient(&mut self, slot: usize, attempt: u64) {
        if slot == GARDENER {
            return self.gardener_is_impatient(attempt);
        }
        let client = &self.clients.pool[slot];
        if client.attempt == attempt && client.call.is_some() {
            self.doubt(slot);
        }
    }
}
