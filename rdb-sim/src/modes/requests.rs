//! Between clients and nodes.

use super::clients::{Kind, Outcome, Reply, Request};
use super::data::number_of;
use super::event::Event;
use super::eventual::NAMESPACE;
use super::node::{Asked, Input, Process};
use super::world::{World, place};
use crate::clients::{Caller, NOBODY};
use crate::invariants::{Violation, holds};
use crate::options::Span;
use rand::RngExt as _;
use rdb_core::eventual::session::{Seen, SessionToken};
use rdb_core::eventual::vector::Vector;
use rdb_core::ids::NodeId;
use rdb_core::switch::Mode;
use rdb_core::switch::service::{self, Need, Refused, Way};

/// How long a request or an answer travels.
const WAY: Span = (50, 2_000);
/// Attempts after which a client takes "not done" for an answer.
const TRIES_MAX: u32 = 12;

impl World {
    /// A client begins an operation, or tries again.
    pub(super) fn wake(&mut self, slot: usize, attempt: u64) {
        if self.clients.pool[slot].attempt != attempt || self.clients_rest {
            return;
        }
        self.clients.begin(slot, self.options.keys, &mut self.rng);
        let attempt = self.clients.next_attempt();
        let client = &mut self.clients.pool[slot];
        client.attempt = attempt;
        let Some(call) = &mut client.call else { return };
        call.tries += 1;
        let (op, kind, shown) = (call.op, call.kind.clone(), call.shown.map(|version| version.hlc));
        let session = client.session.clone();
        let anyone = NodeId(self.rng.random_range(1..=self.options.nodes));
        let mut node = if self.rng.random_bool(0.3) { anyone } else { self.clients.pool[slot].favourite };
        if matches!(kind, Kind::Read { by_lease: true, .. })
            && let Some(leader) = self.a_leader()
        {
            node = leader;
        }
        let straggles = !self.calm && self.rng.random_bool(self.options.network.straggler);
        let way = if straggles { self.options.network.straggler_delay } else { WAY };
        let request = Box::new(Request { client: slot, attempt, op, kind, shown, session });
        self.later(way, Event::Request { node, request });
        let at = self.now + self.options.patience;
        self.queue.push(at, Event::Impatient { client: slot, attempt });
    }

    pub(super) fn wake_later(&mut self, slot: usize, attempt: u64) {
        let (least, most) = self.options.think;
        let most = if self.clients.pool[slot].reads_only { least + (most - least) / 8 } else { most };
        self.later((least, most), Event::Wake { client: slot, attempt });
    }

    /// A request reaches a node.
    pub(super) fn request(&mut self, id: NodeId, request: Request) -> Result<(), Violation> {
        let Request { client, attempt, op, kind, shown, session } = request;
        let caller = Caller { client, attempt };
        let not_done = Reply::NotDone { leader: None };
        let Some(process) =
            self.process(id).filter(|process| process.answers() && process.installing.is_none())
        else {
            self.reply(caller, not_done);
            return Ok(());
        };
        let is_eventual = process.region.mode() == Mode::Eventual;
        match &kind {
            Kind::Write(writes) => match service::admit(Need::Write, &process.peer, &process.region) {
                Ok(Way::OriginLog) => {
                    let now_ms = self.node(id).monotonic_ms(self.now);
                    let shown = shown.unwrap_or_default();
                    let process = self.process_mut(id);
                    if process.is_some_and(|process| process.durable.shown(shown, now_ms).is_err()) {
                        self.totals.ahead_refused += 1;
                        self.reply(caller, not_done);
                        return Ok(());
                    }
                    self.accept(id, caller, op, writes)?;
                }
                Ok(Way::RaftLog(_)) => self.put(id, caller, op, &kind),
                Err(_) => {
                    self.totals.writes_held_back += 1;
                    self.reply(caller, not_done);
                }
            },
            Kind::Swap { .. } => {
                if self.admit_strong(id, caller)? {
                    self.put(id, caller, op, &kind);
                }
            }
            Kind::Read { key, by_lease } => {
                if self.admit_strong(id, caller)? {
                    self.read(id, caller, key, *by_lease)?;
                }
            }
            Kind::ReadSession { .. } | Kind::ReadLocal { .. } if !process.shows_answered() => {
                self.totals.waited_for_merge += 1;
                self.reply(caller, not_done);
            }
            Kind::ReadSession { key } if is_eventual => self.read_session(id, caller, key, session)?,
            Kind::ReadSession { key } => self.read(id, caller, key, false)?,
            Kind::ReadLocal { key } => {
                let found = process.shows(self.node(id), key);
                self.truth.shows(&self.nodes[place(id)])?;
                self.totals.local_reads += 1;
                if let Some((found, seen)) = found {
                    self.reply(caller, Reply::Shown { found, seen });
                } else {
                    self.reply(caller, not_done);
                }
            }
        }
        Ok(())
    }

    /// Whether what needs a strong namespace is served; else it is refused.
    fn admit_strong(&mut self, id: NodeId, caller: Caller) -> Result<bool, Violation> {
        let Some(process) = self.process(id) else { return Ok(false) };
        let way = service::admit(Need::Strong, &process.peer, &process.region);
        let is_strong = process.region.mode() == Mode::Strong;
        holds("never silently weaker", is_strong == way.is_ok(), || {
            format!("node {id} in {:?} serves what needs strong by {way:?}", process.region)
        })?;
        match way {
            Ok(_) => return Ok(true),
            Err(Refused::RequiresStrong) => {
                self.totals.requires_strong += 1;
                self.reply(caller, Reply::RequiresStrong);
            }
            Err(Refused::Switching) => self.reply(caller, Reply::NotDone { leader: None }),
        }
        Ok(false)
    }

    fn put(&mut self, id: NodeId, caller: Caller, op: u64, kind: &Kind) {
        let Some(era) = self.process(id).map(|process| process.region.era()) else { return };
        let Some(command) = kind.command(op) else { return };
        self.truth.proposed(op, kind.writes(op));
        self.input(id, Input::Propose(command, Asked { caller, era }));
    }

    fn read_session(
        &mut self,
        id: NodeId,
        caller: Caller,
        key: &[u8],
        session: Option<SessionToken>,
    ) -> Result<(), Violation> {
        let Some(process) = self.process(id) else { return Ok(()) };
        let Some((era, vector)) = process.shown() else { return Ok(()) };
        let is_satisfied = session.is_none_or(|token| token.seen_at(era, &vector) == Seen::Satisfied);
        let Some((found, seen)) = process.shows(self.node(id), key).filter(|_| is_satisfied) else {
            self.totals.sessions_behind += 1;
            self.reply(caller, Reply::NotDone { leader: None });
            return Ok(());
        };
        let client = &self.clients.pool[caller.client];
        // What it has seen since it asked is not what it asked for.
        if client.attempt == caller.attempt {
            self.truth.session_read(&self.nodes[place(id)], era, &client.seen)?;
            self.totals.session_reads += 1;
        }
        self.reply(caller, Reply::Shown { found, seen });
        Ok(())
    }

    /// A node answers.
    pub(super) fn reply(&mut self, caller: Caller, reply: Reply) {
        let Caller { client, attempt } = caller;
        if client != NOBODY {
            self.later(WAY, Event::Reply { client, attempt, reply: Box::new(reply) });
        }
    }

    /// An answer reaches its client, who may have stopped waiting for it.
    pub(super) fn replied(&mut self, slot: usize, attempt: u64, reply: Reply) -> Result<(), Violation> {
        let client = &mut self.clients.pool[slot];
        let Some(call) = client.call.as_ref().filter(|_| client.attempt == attempt) else { return Ok(()) };
        match reply {
            Reply::Done { version, seen } => {
                let shown = call.shown.unwrap_or_default();
                // One that goes on in an era that the others have left, since it was excluded and has not heard.
                let is_left_behind =
                    version.era < shown.era && self.truth.is_excluded(version.node, version.era);
                holds("a client's later write wins", shown < version || is_left_behind, || {
                    format!("operation {} got {version:?} after its client had shown {shown:?}", call.op)
                })?;
                let (namespace, era, vector) = (NAMESPACE, version.era, Vector::default());
                client.merge(&seen.unwrap_or(SessionToken { namespace, era, vector }));
                self.end(slot, Outcome::Done(version));
            }
            Reply::Mismatch { version, found, era } => {
                let found = version.zip(found).map(|(version, bytes)| (version, number_of(&bytes)));
                client.sees(found);
                client.merge(&SessionToken { namespace: NAMESPACE, era, vector: Vector::default() });
                self.end(slot, Outcome::Mismatch { version, era });
            }
            Reply::Found { found, era } => {
                client.merge(&SessionToken { namespace: NAMESPACE, era, vector: Vector::default() });
                self.end(slot, Outcome::Found { found, era });
            }
            Reply::Shown { found, seen } => {
                client.sees(found);
                client.merge(&seen);
                self.end(slot, Outcome::NotDone);
            }
            Reply::InDoubt => self.doubt(slot),
            Reply::RequiresStrong => self.end(slot, Outcome::NotDone),
            Reply::NotDone { leader } => {
                let anyone = NodeId(self.rng.random_range(1..=self.options.nodes));
                let client = &mut self.clients.pool[slot];
                client.favourite = leader.unwrap_or(anyone);
                if client.call.as_ref().is_some_and(|call| call.tries < TRIES_MAX) {
                    self.wake_later(slot, attempt);
                } else {
                    self.end(slot, Outcome::NotDone);
                }
            }
        }
        Ok(())
    }

    fn doubt(&mut self, slot: usize) {
        self.totals.in_doubt += 1;
        self.clients.pool[slot].favourite = NodeId(self.rng.random_range(1..=self.options.nodes));
        self.end(slot, Outcome::InDoubt);
    }

    pub(super) fn end(&mut self, slot: usize, outcome: Outcome) {
        self.clients.end(slot, outcome);
        // A new attempt: what still comes for the old one is too late.
        let attempt = self.clients.next_attempt();
        self.clients.pool[slot].attempt = attempt;
        self.wake_later(slot, attempt);
    }

    /// A client has waited long enough for an answer.
    pub(super) fn impatient(&mut self, slot: usize, attempt: u64) {
        let client = &self.clients.pool[slot];
        if client.attempt == attempt && client.call.is_some() {
            self.doubt(slot);
        }
    }
}

impl Process {
    /// What it shows under a key in an eventual era, and the token for that.
    fn shows(
        &self,
        node: &super::node::Node,
        key: &[u8],
    ) -> Option<(Option<(rdb_core::version::Version, u64)>, SessionToken)> {
        let (era, _) = self.shown()?;
        // While a copy is merged the records are ahead of what is applied.
        let vector = self.eventual.as_ref()?.machine.state().found();
        Some((node.data.current.read(key), SessionToken { namespace: NAMESPACE, era, vector }))
    }
}
