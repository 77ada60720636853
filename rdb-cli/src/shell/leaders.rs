//! Who leads what, in a line; and the thread that prints it above the prompt when it changes.

use super::complete::Known;
use crate::args::Args;
use crate::commands::status::{Node, Survey, ask};
use crate::output::Paint;
use parking_lot::Mutex;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Between looks. A look at a cluster with a node that hangs takes a second more.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Namespaces in the line. Those with the first names: the same ones each time.
const NAMESPACES_MAX: usize = 6;

/// Who leads what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Leaders {
    pub(super) text: String,
}

/// Asks the cluster.
pub(super) async fn look(args: &Args) -> Leaders {
    match survey(args).await {
        Some(survey) => Leaders::of(&survey),
        None => Leaders { text: "leaders  no node answers".into() },
    }
}

async fn survey(args: &Args) -> Option<Survey> {
    ask(&args.connect().await.ok()?).await.ok()
}

impl Leaders {
    fn of(survey: &Survey) -> Self {
        let cluster = &survey.cluster;
        let namespaces = cluster.namespaces.iter().take(NAMESPACES_MAX).map(|namespace| {
            let leaders: Vec<_> = namespace.regions.iter().map(|region| leader(region.leader)).collect();
            format!("{} {}", namespace.name, leaders.join(","))
        });
        let mut parts = vec![format!("catalog {}", leader(cluster.meta_leader))];
        parts.extend(namespaces);
        if NAMESPACES_MAX < cluster.namespaces.len() {
            parts.push(format!("and {} more", cluster.namespaces.len() - NAMESPACES_MAX));
        }
        let amiss = cluster.nodes.iter().filter_map(|node| match survey.node(node) {
            Node::Up => None,
            Node::Unseen(_) => Some(format!("node {} does not answer", node.id)),
            Node::CutOff => Some(format!("node {} cut off", node.id)),
            Node::Down => Some(format!("node {} down", node.id)),
        });
        // Of a silence from a start on it is not known yet whether it lasts.
        let apart = survey.apart().into_iter().filter(|pair| pair.silence_ms != 0);
        let apart = apart.map(|pair| format!("nodes {} and {} apart", pair.deaf, pair.unheard));
        let amiss: Vec<_> = amiss.chain(apart).collect();
        let amiss = if amiss.is_empty() { String::new() } else { format!("   ({})", amiss.join(", ")) };
        Self { text: format!("leaders  {}{amiss}", parts.join(" · ")) }
    }
}

fn leader(node: u64) -> String {
    if node == 0 { "no leader".into() } else { format!("node {node}") }
}

/// Looks again and again, for as long as the process lives. Prints what changed, and remembers names for completion.
pub(super) fn watch(
    args: &Args,
    runtime: &Handle,
    known: &Arc<Mutex<Known>>,
    mut print: impl FnMut(String) -> bool,
) {
    let mut shown = None;
    loop {
        let survey = runtime.block_on(survey(args));
        let leaders = match &survey {
            Some(survey) => Leaders::of(survey),
            None => Leaders { text: "leaders  no node answers".into() },
        };
        if let Some(survey) = &survey {
            *known.lock() = Known::of(&survey.cluster);
        }
        if shown.as_ref() != Some(&leaders) {
            let line = format!("{}\n", Paint::for_stdout().cyan(&leaders.text));
            if !print(line) {
                return;
            }
            shown = Some(leaders);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}
