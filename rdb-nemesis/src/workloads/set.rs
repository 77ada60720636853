//! Elements that are written once, each under a key of its own, and never again: nothing can hide that one is lost.

use super::caller::{Caller, Scene};
use anyhow::Result;
use std::sync::Arc;
use tokio::time::sleep;

const NAME: &str = "set";
const CLIENTS: u64 = 3;

pub(super) fn start(scene: &Arc<Scene>, clients: &mut tokio::task::JoinSet<Result<()>>) {
    for number in 0..CLIENTS {
        clients.spawn(work(scene.clone(), number));
    }
}

async fn work(scene: Arc<Scene>, number: u64) -> Result<()> {
    let mut caller = Caller::connect(&scene, NAME).await?;
    let mut dice = scene.dice(NAME, number);
    let mut count = 0;
    while !scene.is_over() {
        count += 1;
        let element = format!("{number}.{count}");
        caller.put(&format!("{NAME}/{element}"), &element).await;
        sleep(dice.millis(0..20)).await;
    }
    Ok(())
}
