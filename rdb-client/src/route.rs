//! Where the operations of one namespace go: the node believed to lead it, the pipe to that node, and the session.
//!
//! Many callers share a route, and all of them learn of a new leader at once. Whoever changes the target therefore says
//! which target failed him: if another caller has already changed it, nothing happens. Else 64 callers that lose one node
//! would each move on by one, and end anywhere.

use crate::attempts::Safety;
use crate::error::{Attempted, Error, WriteError};
use crate::nodes::{Address, Nodes};
use crate::pipe::Pipe;
use crate::seen::Seen;
use crate::session::{Named, Session};
use crate::status::Failed;
use crate::unary;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use rdb_proto::v1;
use rdb_proto::v1::kv_client::KvClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::{Instant, timeout_at};

pub(crate) struct Route {
    pub(crate) namespace: String,
    nodes: Arc<Nodes>,
    target: Mutex<Address>,
    /// The one node to ask, whoever leads.
    pinned: bool,
    /// Open, or found broken by nobody yet. The only thing that an operation in good weather looks at.
    pipe: ArcSwapOption<Pipe>,
    /// Held by the caller that opens a pipe; the others wait for it.
    opening: tokio::sync::Mutex<()>,
    /// Opened by the first write, if writes are to be named.
    session: ArcSwapOption<Session>,
    /// Held by the caller that opens a session; the others wait for it. The token of a session that was asked for and of
    /// which nothing is known yet, 0 where there is none: whoever asks next asks for the same one.
    session_opening: tokio::sync::Mutex<u64>,
    /// The epoch in which the namespace was found to be eventual, so that it has no sessions; 0: it was not.
    nameless_in: AtomicU64,
    /// What this client has been shown, whichever node it asks.
    pub(crate) seen: Arc<Seen>,
}

/// What came of asking for a session.
enum Opened {
    /// One, with its first name.
    Session(Named),
    /// None: in this epoch the namespace is eventual.
    Nameless { epoch: u64 },
}

impl Route {
    pub(crate) fn new(namespace: &str, nodes: Arc<Nodes>) -> Self {
        Self {
            namespace: namespace.to_string(),
            target: Mutex::new(nodes.first_for(namespace)),
            pinned: false,
            seen: Arc::default(),
            nodes,
            pipe: ArcSwapOption::empty(),
            opening: tokio::sync::Mutex::new(()),
            session: ArcSwapOption::empty(),
            session_opening: tokio::sync::Mutex::new(0),
            nameless_in: AtomicU64::new(0),
        }
    }

    /// A route to one node, whoever leads, for the client of another route.
    pub(crate) fn pinned(of: &Route, address: Address) -> Self {
        let target = Mutex::new(address);
        Self { target, pinned: true, seen: of.seen.clone(), ..Self::new(&of.namespace, of.nodes.clone()) }
    }

    pub(crate) fn nodes(&self) -> &Arc<Nodes> {
        &self.nodes
    }

    pub(crate) fn target(&self) -> Address {
        self.target.lock().clone()
    }

    /// Another node leads: ask that one from now on.
    pub(crate) fn follow(&self, from: &Address, leader: &str) {
        if let Some(leader) = self.nodes.learn(leader) {
            self.change(from, leader);
        }
    }

    /// This node is of no use now: ask the next one.
    pub(crate) fn move_on(&self, from: &Address) {
        self.change(from, self.nodes.after(from));
    }

    fn change(&self, from: &Address, to: Address) {
        let mut target = self.target.lock();
        if *target == *from && !self.pinned {
            *target = to;
            // Under the lock, so that no caller stores a pipe to the old target after this.
            self.pipe.store(None);
        }
    }

    /// The pipe to the target, opened if need be.
    pub(crate) async fn pipe(&self, deadline: Instant) -> Result<Arc<Pipe>, Failed> {
        if let Some(pipe) = self.pipe.load_full()
            && !pipe.is_closed()
        {
            return Ok(pipe);
        }
        let open = async {
            let _one_at_a_time = self.opening.lock().await;
            match self.pipe.load_full() {
                Some(pipe) if !pipe.is_closed() => Ok(pipe),
                _ => self.open().await,
            }
        };
        match timeout_at(deadline, open).await {
            Ok(result) => result,
            Err(_) => Err(Failed::Deadline { address: self.target(), sent: false }),
        }
    }

    async fn open(&self) -> Result<Arc<Pipe>, Failed> {
        let address = self.target();
        let pipe = Arc::new(Pipe::open(&self.nodes, address, &self.namespace).await?);
        let target = self.target.lock();
        if *target == *pipe.address() {
            self.pipe.store(Some(pipe.clone()));
        }
        Ok(pipe)
    }

    /// A name for a write, from the session that is open, or from a new one. One caller opens it, and the others wait, each
    /// for as long as it has time. `None`: the namespace is eventual, where a repetition is a write of its own.
    pub(crate) async fn name(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<Option<Named>, WriteError> {
        if self.nameless_in.load(Ordering::Relaxed) != 0 {
            return Ok(None);
        }
        if let Some(named) = self.name_now() {
            return Ok(Some(named));
        }
        let Ok(mut token) = timeout_at(deadline, self.session_opening.lock()).await else {
            let attempted = Attempted { tries: 0, waited: started.elapsed() };
            let before = Some("it waited for a session, which another caller could not open".to_string());
            let node = self.target().to_string();
            return Err(WriteError::NotDone(Error::TimedOut { node, before, attempted }));
        };
        if let Some(named) = self.name_now() {
            return Ok(Some(named));
        }
        if *token == 0 {
            *token = rand::random_range(1..=u64::MAX);
        }
        let opened = self.open_session(*token, deadline).await?;
        *token = 0;
        let first = match opened {
            Opened::Session(first) => first,
            Opened::Nameless { epoch } => {
                self.nameless_in.store(epoch.max(1), Ordering::Relaxed);
                return Ok(None);
            }
        };
        self.session.store(Some(first.session.clone()));
        Ok(Some(first))
    }

    fn name_now(&self) -> Option<Named> {
        self.session.load().as_ref()?.name()
    }

    /// An answer came in this epoch. In a later one the namespace may be strong, and writes have names again.
    pub(crate) fn answered_in(&self, epoch: u64) {
        let nameless_in = self.nameless_in.load(Ordering::Relaxed);
        if nameless_in != 0 && nameless_in < epoch {
            // Unless somebody has found out meanwhile how it is in that epoch.
            let _ = self.nameless_in.compare_exchange(nameless_in, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    async fn open_session(&self, token: u64, deadline: Instant) -> Result<Opened, WriteError> {
        let request = v1::OpenSessionRequest { namespace: self.namespace.clone(), epoch: 0, token };
        // However often it is asked for, one session is opened; and one that is then not used is forgotten in time.
        let answer = unary::ask(self, Safety::Read, request, deadline, async |channel, request| {
            KvClient::new(channel).open_session(request).await
        });
        let answer = answer.await.map_err(|error| WriteError::NotDone(error.into_error()))?;
        let epoch = answer.header.map_or(0, |header| header.epoch);
        Ok(match answer.client {
            0 => Opened::Nameless { epoch },
            client => Opened::Session(Session::open(client, epoch)),
        })
    }

    /// The cluster knows the session no more, or is in another epoch.
    pub(crate) fn forget_session(&self, session: &Arc<Session>) {
        self.session.rcu(|open| open.clone().filter(|open| !Arc::ptr_eq(open, session)));
    }
}
