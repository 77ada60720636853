//! Writes at every node, all the time, whoever leads: so it is known to the moment when some node acknowledges writes
//! again. What clients of the workloads see comes later where they must first notice that their node is gone.

use crate::workloads::{Caller, Scene, Where};
use anyhow::Result;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The workload that these writes belong to.
pub(crate) const NAME: &str = "probe";
const PAUSE: Duration = Duration::from_millis(25);
/// A key's history stays short enough to be looked at.
const WRITES_PER_KEY: u64 = 200;

/// Starts them.
pub(crate) fn start(scene: &Arc<Scene>, clients: &mut JoinSet<Result<()>>) {
    for node in scene.addresses.keys() {
        clients.spawn(work(scene.clone(), *node));
    }
}

async fn work(scene: Arc<Scene>, node: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut count = 0;
    while !scene.is_over() {
        let key = format!("{NAME}/{node}/{}", count / WRITES_PER_KEY);
        count += 1;
        caller.put_at(&key, &count.to_string(), Where::Node(node)).await;
        scene.pause(PAUSE).await;
    }
    Ok(())
}
