//! Scans: many records in the order of their keys, page by page.
//!
//! A scan outlives the node that serves it: it goes on at another one behind the last page that came. What comes then is
//! of a new moment. Whoever cannot bear that says [`ScanOptions::one_moment`].

use crate::attempts::{Attempts, Safety};
use crate::error::{Error, WriteError};
use crate::namespace::record;
use crate::nodes::Address;
use crate::pipe::ANSWER_BYTES_MAX;
use crate::route::Route;
use crate::seen::Manner;
use crate::status::{Failed, describe};
use crate::unary::{attempt_limit, ended};
use crate::values::{Record, Served, Version};
use bytes::Bytes;
use rdb_proto::v1;
use rdb_proto::v1::kv_client::KvClient;
use rdb_proto::v1::scan::Keys;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Streaming};

/// Which records a scan is to bring, and how.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    wire: v1::Scan,
    token: Bytes,
    one_moment: bool,
}

impl ScanOptions {
    /// All records of the namespace.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The records whose keys begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self::of(Keys::Prefix(prefix.into()))
    }

    /// The records with keys from `from` up to, and without, `to`; all from there on where `to` is empty.
    #[must_use]
    pub fn range(from: impl Into<Bytes>, to: impl Into<Bytes>) -> Self {
        Self::of(Keys::Range(v1::ScanRange { from: from.into(), to: to.into() }))
    }

    fn of(keys: Keys) -> Self {
        let wire = v1::Scan { keys: Some(keys), ..v1::Scan::default() };
        Self { wire, ..Self::default() }
    }

    /// The last key first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.wire.reverse = true;
        self
    }

    /// So many records at most; 0: no limit.
    #[must_use]
    pub fn limit(mut self, limit: u64) -> Self {
        self.wire.limit = limit;
        self
    }

    /// Records with empty values: a fraction of the bytes.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.wire.keys_only = true;
        self
    }

    /// Goes on where an earlier scan of the same keys in the same direction was, by its [`Scan::token`].
    #[must_use]
    pub fn after(mut self, token: impl Into<Bytes>) -> Self {
        self.token = token.into();
        self
    }

    /// Fails rather than go on at another moment once the first records have come. What fails then can be scanned anew
    /// from the beginning.
    #[must_use]
    pub fn one_moment(mut self) -> Self {
        self.one_moment = true;
        self
    }
}

/// A scan under way. Dropped, it ends at the server as well.
///
/// Each page must come within the namespace's timeout; the scan as a whole may take longer. A caller that takes longer
/// between two pages than the server's longest request is cut off by the server, and the scan goes on at a new moment.
pub struct Scan {
    route: Arc<Route>,
    timeout: Duration,
    manner: Manner,
    options: ScanOptions,
    stream: Option<Open>,
    /// Records that have come and were not handed out.
    page: std::vec::IntoIter<v1::Record>,
    /// Goes on behind that page, and before it.
    token: Bytes,
    token_before: Bytes,
    /// Records that came, or were counted.
    received: u64,
    moments: u32,
    served: Option<Served>,
    ended: bool,
    /// What a scan of one moment has failed of.
    broken: Option<Error>,
}

/// A stream of pages, all of one moment.
struct Open {
    node: Address,
    pages: Streaming<v1::ScanResponse>,
    /// No page has come of it.
    fresh: bool,
}

impl Scan {
    pub(crate) fn new(route: Arc<Route>, timeout: Duration, manner: Manner, options: ScanOptions) -> Self {
        Self {
            route,
            timeout,
            manner,
            stream: None,
            page: Vec::new().into_iter(),
            token: options.token.clone(),
            token_before: options.token.clone(),
            options,
            received: 0,
            moments: 0,
            served: None,
            ended: false,
            broken: None,
        }
    }

    /// The next record; `None` at the end. After an error it may be called again, and goes on where it was, unless the scan
    /// is to be of [one moment](ScanOptions::one_moment).
    pub async fn next(&mut self) -> Result<Option<Record>, Error> {
        loop {
            if let Some(next) = self.page.next() {
                return Ok(Some(record(next)));
            }
            if !self.fetch().await? {
                return Ok(None);
            }
        }
    }

    /// The records that have come and were not handed out, else those of the next page; `None` at the end.
    pub async fn next_page(&mut self) -> Result<Option<Vec<Record>>, Error> {
        while self.page.len() == 0 {
            if !self.fetch().await? {
                return Ok(None);
            }
        }
        let page = std::mem::take(&mut self.page);
        Ok(Some(page.map(record).collect()))
    }

    /// Where a later scan can go on: behind the last page of which all records were handed out. `None`: nothing was, or
    /// there is nothing behind it.
    #[must_use]
    pub fn token(&self) -> Option<&Bytes> {
        let token = if self.page.len() == 0 { &self.token } else { &self.token_before };
        Some(token).filter(|token| !token.is_empty())
    }

    /// How many moments the records that came are of: more than one if the scan had to go on elsewhere.
    #[must_use]
    pub fn moments(&self) -> u32 {
        self.moments
    }

    /// How the last page was served; `None`: none came yet.
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        self.served
    }

    /// All that is left is to be counted and not sent.
    pub(crate) async fn count(mut self) -> Result<u64, Error> {
        self.options.wire.count_only = true;
        while self.fetch().await? {}
        Ok(self.received)
    }

    /// Takes in the next page. Returns whether there was one.
    async fn fetch(&mut self) -> Result<bool, Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.ended {
            return Ok(false);
        }
        let page = self.receive().await?;
        self.received += page.count;
        self.page = page.records.into_iter();
        self.token_before = std::mem::replace(&mut self.token, page.token);
        self.ended = page.done;
        if page.done {
            self.stream = None;
        }
        Ok(true)
    }

    /// Asks until a page comes or there is to be no attempt any more.
    async fn receive(&mut self) -> Result<v1::ScanResponse, Error> {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let route = self.route.clone();
        let mut attempts = Attempts::new(&route, Safety::Read, started, deadline);
        loop {
            let failed = match self.attempt(deadline).await {
                Ok(page) => return Ok(page),
                Err(failed) => failed,
            };
            self.stream = None;
            if self.options.one_moment && self.moments != 0 {
                let error = attempts.end(failed);
                self.broken = Some(error.clone());
                return Err(error);
            }
            attempts.after(failed).await.map_err(WriteError::into_error)?;
        }
    }

    async fn attempt(&mut self, deadline: Instant) -> Result<v1::ScanResponse, Failed> {
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let opened = self.open(deadline).await?;
                self.stream.insert(opened)
            }
        };
        let lost = |reason: String| Failed::Lost(open.node.clone(), reason);
        let page = match timeout_at(deadline, open.pages.message()).await {
            Ok(Ok(Some(page))) if page.done || !page.token.is_empty() => page,
            Ok(Ok(Some(_))) => return Err(lost("it sent a page without a token".into())),
            Ok(Ok(None)) => return Err(lost("the stream ended before the scan's last page".into())),
            Ok(Err(status)) => {
                return Err(match Failed::from_status(&open.node, &status) {
                    Failed::Deadline { .. } => lost(describe(&status)),
                    failed => failed,
                });
            }
            Err(_) => return Err(Failed::Deadline { address: open.node.clone(), sent: true }),
        };
        let header = page.header.clone().unwrap_or_default();
        if std::mem::take(&mut open.fresh) {
            self.moments += 1;
            if header.leader != header.node && !header.leader_address.is_empty() {
                self.route.follow(&open.node, &header.leader_address);
            }
        }
        let highest = page.records.iter().filter_map(|record| record.version.map(Version::from)).max();
        self.manner.seen.saw_bytes(&header.session, highest);
        self.served = Some(Served::from(&header));
        Ok(page)
    }

    /// Asks for what is left.
    async fn open(&self, deadline: Instant) -> Result<Open, Failed> {
        let (nodes, node) = (self.route.nodes(), self.route.target());
        let Some(channel) = nodes.channel(&node) else {
            return Err(Failed::NotSent(node, "unknown node".into()));
        };
        let (consistency, max_age_ms) = self.manner.consistency.to_wire();
        let limit = self.options.wire.limit.saturating_sub(self.received);
        let mut request = Request::new(v1::ScanRequest {
            namespace: self.route.namespace.clone(),
            epoch: 0,
            scan: Some(v1::Scan { limit, ..self.options.wire.clone() }),
            consistency: consistency.into(),
            max_age_ms,
            token: self.token.clone(),
            session: self.manner.token(),
        });
        // For the wait until the first page is read; pages have no deadline but the caller's.
        request.set_timeout(self.manner.patience(attempt_limit(nodes, Safety::Read, deadline)));
        match KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX).scan(request).await {
            Ok(answer) => Ok(Open { node, pages: answer.into_inner(), fresh: true }),
            Err(status) => Err(ended(Failed::from_status(&node, &status), deadline)),
        }
    }
}
