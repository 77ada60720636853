//! What the nodes say of eventual namespaces in their metrics.

use crate::cluster::{Cluster, page};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a node says of the one eventual namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) lag: Duration,
    /// Whether the lag is known; else it is at least so much.
    pub(crate) known: bool,
    /// Peers that lack something.
    pub(crate) behind: u64,
    pub(crate) log_bytes: u64,
}

/// One look, and when it was taken: not before `asked`, not after `answered`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) node: u64,
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    pub(crate) look: Look,
}

/// The nodes' pages.
#[derive(Debug, Clone)]
pub(crate) struct Pages(BTreeMap<u64, SocketAddr>);

impl Pages {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self(cluster.http_addresses())
    }

    /// What a node says now.
    pub(crate) async fn look(&self, node: u64) -> Result<Look> {
        let address = self.0.get(&node).with_context(|| format!("there is no node {node}"))?;
        let text = page(*address, "/metrics").await?;
        look_in(&text).with_context(|| format!("node {node} tells no lag of an eventual namespace"))
    }

    /// Looks at these nodes again and again until it is to stop.
    pub(crate) async fn watch(self, nodes: Vec<u64>, stop: Arc<AtomicBool>) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            for node in &nodes {
                let asked = Instant::now();
                let look = self.look(*node).await?;
                samples.push(Sample { node: *node, asked, answered: Instant::now(), look });
            }
            sleep(INTERVAL).await;
        }
        Ok(samples)
    }
}

/// What a node's page of metrics says. The worst of all regions, where there are several.
pub(crate) fn look_in(text: &str) -> Option<Look> {
    let all = |name: &str| -> Vec<u64> {
        let start = format!("flaredb_{name}{{");
        let number = |line: &str| line.strip_prefix(&start)?.split_once("} ")?.1.parse().ok();
        text.lines().filter_map(number).collect()
    };
    Some(Look {
        lag: Duration::from_millis(all("eventual_lag_ms").into_iter().max()?),
        known: all("eventual_lag_known").into_iter().min()? == 1,
        behind: all("eventual_peers_behind").into_iter().max()?,
        log_bytes: all("eventual_log_bytes").into_iter().max()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_all_regions_is_what_counts() {
        let text = "# TYPE flaredb_eventual_lag_ms gauge\n\
            flaredb_eventual_lag_ms{region=\"3\"} 12\nflaredb_eventual_lag_ms{region=\"4\"} 7\n\
            flaredb_eventual_lag_known{region=\"3\"} 1\nflaredb_eventual_lag_known{region=\"4\"} 0\n\
            flaredb_eventual_peers_behind{region=\"3\"} 2\nflaredb_eventual_log_bytes{region=\"3\"} 99\n";
        let look = Look { lag: Duration::from_millis(12), known: false, behind: 2, log_bytes: 99 };
        assert_eq!(look_in(text), Some(look));
        assert_eq!(look_in("flaredb_region_leader{region=\"3\"} 1\n"), None);
    }
}
