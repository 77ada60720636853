//! `rdb ns`

use super::confirm::{can_ask, confirm};
use super::{conflicts, quarantine, switch};
use crate::args::Args;
use crate::exit::{Class, Failure};
use crate::output::{Answer, table};
use clap::{Subcommand, ValueEnum};
use rdb_client::{Code, Durability, Mode, NamespaceSettings, NamespaceStatus, RegionStatus, WriteError};
use serde::Serialize;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum NsCommand {
    /// Create a namespace
    Create {
        /// 1 to 64 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit
        name: String,
        /// How it keeps its replicas
        #[arg(long, value_enum, default_value_t = ModeArg::Strong)]
        mode: ModeArg,
        /// For how long the values of eventual writes that were lost are kept, as in 24h, 90m or 30s; 30 days at most. Without it
        /// they are counted and not kept
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        keep_lost: Option<u64>,
        /// When a node acknowledges an eventual write
        #[arg(long, value_enum, default_value_t = DurabilityArg::Sync)]
        durability: DurabilityArg,
    },
    /// List all namespaces
    List,
    /// Describe a namespace and its regions
    Describe {
        /// The namespace
        name: String,
    },
    /// Let a node lead a namespace, now and whenever it can
    MoveLeader {
        /// The namespace
        name: String,
        /// The node's id, as in rdb status
        node: u64,
    },
    /// Switch a namespace between strong and eventual, while clients go on
    Switch(switch::SwitchArgs),
    /// Call a switch off that is under way
    Abort {
        /// The namespace
        name: String,
    },
    /// How a namespace's mode stands: what a switch waits for, and each node
    Status {
        /// The namespace
        name: String,
    },
    /// Watch how far an eventual namespace's nodes are behind
    WatchLag(switch::LagArgs),
    /// List the writes that nodes have set aside, since the others went on to strong without them
    Quarantine(quarantine::QuarantineArgs),
    /// List the writes that were lost against others, where the namespace keeps them
    Conflicts(conflicts::ConflictsArgs),
    /// Delete a namespace and all that it holds; there is no way back
    Delete {
        /// The namespace
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ModeArg {
    /// Linearizable, through Raft
    Strong,
    /// Every replica accepts writes, the last one wins
    Eventual,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Strong => Mode::Strong,
            ModeArg::Eventual => Mode::Eventual,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DurabilityArg {
    /// Once it is synced
    Sync,
    /// At once; it is synced within some 50 ms, and a power cut or a crash may lose it before
    Periodic,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Sync => Durability::Sync,
            DurabilityArg::Periodic => Durability::Periodic,
        }
    }
}

/// A time with its unit.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("a time has a unit: s, m, h or d, as in 24h".into()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    seconds.filter(|seconds| 0 < *seconds).ok_or_else(|| "a time is a whole number of s, m, h or d".into())
}

/// The longest unit in which it is a whole number.
fn time(seconds: u64) -> String {
    match seconds {
        seconds if seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[derive(Serialize)]
pub(super) struct NamespaceJson {
    name: String,
    id: u32,
    mode: String,
    epoch: u64,
    era: u32,
    regions: Vec<RegionJson>,
    /// Null: the answering node does not say.
    preferred_leader: Option<u64>,
    /// Whether it is being deleted.
    deleting: bool,
    /// For how long the values of lost writes are kept. 0: they are not.
    keep_lost_seconds: u64,
    durability: String,
}

#[derive(Serialize)]
struct RegionJson {
    id: u64,
    /// Null: none is known.
    leader: Option<u64>,
    term: u64,
    commit_index: u64,
    applied_index: u64,
    members: Vec<u64>,
}

pub(crate) async fn run(args: &Args, command: &NsCommand) -> Result<Answer, Failure> {
    match command {
        NsCommand::Create { name, mode, keep_lost, durability } => {
            let settings = NamespaceSettings {
                durability: (*durability).into(),
                keep_lost_seconds: keep_lost.unwrap_or_default(),
            };
            let client = args.connect().await?;
            let created = client.create_namespace_with(name, (*mode).into(), settings).await?;
            let text = format!("created  {} ({})\n", created.name, created.mode);
            Ok(Answer::new(text, &NamespaceJson::from(&created)))
        }
        NsCommand::List => {
            let namespaces = args.connect().await?.list_namespaces().await?;
            let json: Vec<_> = namespaces.iter().map(NamespaceJson::from).collect();
            Ok(Answer::new(namespace_table(&namespaces), &json))
        }
        NsCommand::Describe { name } => {
            let namespace = args.connect().await?.describe_namespace(name).await?;
            let text = format!(
                "{}  id {}, {}{}, epoch {}, era {}\n{}\n{}",
                namespace.name,
                namespace.id,
                namespace.mode,
                being_deleted(&namespace),
                namespace.epoch,
                namespace.era,
                settings(&namespace),
                region_table(&namespace.regions)
            );
            Ok(Answer::new(text, &NamespaceJson::from(&namespace)))
        }
        NsCommand::MoveLeader { name, node } => {
            let moved = args.connect().await?.move_leader(name, *node).await?;
            Ok(Answer::new(format!("moved  {name} is led by node {node}\n"), &NamespaceJson::from(&moved)))
        }
        NsCommand::Switch(command) => switch::run(args, command).await,
        NsCommand::Abort { name } => switch::abort(args, name).await,
        NsCommand::Status { name } => switch::status(args, name).await,
        NsCommand::WatchLag(command) => switch::watch_lag(args, command).await,
        NsCommand::Quarantine(command) => quarantine::run(args, command).await,
        NsCommand::Conflicts(command) => conflicts::run(args, command).await,
        NsCommand::Delete { name, yes } => delete(args, name, *yes).await,
    }
}

/// What is deleted is the namespace that was there when the question was asked, and none that has its name since.
async fn delete(args: &Args, name: &str, yes: bool) -> Result<Answer, Failure> {
    if !yes {
        can_ask()?;
    }
    let client = args.connect().await?;
    if yes {
        client.delete_namespace(name).await?;
    } else {
        let namespace = client.describe_namespace(name).await?;
        confirm(&format!("deletes '{name}' and all that it holds"), name)?;
        client.delete_namespace_of_id(name, namespace.id).await.map_err(|error| gone_or(error, name))?;
    }
    #[derive(Serialize)]
    struct Deleted<'a> {
        deleted: &'a str,
    }
    Ok(Answer::new(format!("deleted  {name}\n"), &Deleted { deleted: name }))
}

/// Another namespace may have the name by now, so that "there is no namespace" would not be true.
fn gone_or(error: WriteError, name: &str) -> Failure {
    if error.error().code() != Some(Code::NamespaceNotFound) {
        return error.into();
    }
    let message = format!("the namespace '{name}' was deleted while you were asked; nothing was deleted now");
    Failure::new(Class::NotDone, message).hint("rdb ns list  shows whether another one has its name")
}

/// What it was created with, where that is not as by default.
fn settings(namespace: &NamespaceStatus) -> String {
    let mut text = String::new();
    if namespace.keep_lost_seconds != 0 {
        text += &format!("lost writes are kept for {}\n", time(namespace.keep_lost_seconds));
    }
    if namespace.durability == Durability::Periodic {
        text += "eventual writes are acknowledged before they are synced (periodic)\n";
    }
    text
}

fn being_deleted(namespace: &NamespaceStatus) -> &'static str {
    if namespace.deleting { " (being deleted)" } else { "" }
}

/// One line per namespace.
pub(super) fn namespace_table(namespaces: &[NamespaceStatus]) -> String {
    let rows = namespaces.iter().map(|namespace| {
        let leaders: Vec<_> = namespace.regions.iter().map(|region| leader(region.leader)).collect();
        [
            namespace.name.clone(),
            format!("{}{}", namespace.mode, being_deleted(namespace)),
            namespace.epoch.to_string(),
            namespace.regions.len().to_string(),
            leaders.join(","),
        ]
    });
    table(["namespace", "mode", "epoch", "regions", "leader"], rows)
}

fn region_table(regions: &[RegionStatus]) -> String {
    let rows = regions.iter().map(|region| {
        let members: Vec<_> = region.members.iter().map(ToString::to_string).collect();
        [
            region.id.to_string(),
            leader(region.leader),
            region.term.to_string(),
            region.commit_index.to_string(),
            region.applied_index.to_string(),
            members.join(","),
        ]
    });
    table(["region", "leader", "term", "commit", "applied", "members"], rows)
}

fn leader(node: u64) -> String {
    if node == 0 { "none known".into() } else { format!("node {node}") }
}

impl From<&NamespaceStatus> for NamespaceJson {
    fn from(namespace: &NamespaceStatus) -> Self {
        Self {
            name: namespace.name.clone(),
            id: namespace.id,
            mode: namespace.mode.to_string(),
            epoch: namespace.epoch,
            era: namespace.era,
            regions: namespace.regions.iter().map(RegionJson::from).collect(),
            preferred_leader: Some(namespace.preferred_leader).filter(|node| *node != 0),
            deleting: namespace.deleting,
            keep_lost_seconds: namespace.keep_lost_seconds,
            durability: namespace.durability.to_string(),
        }
    }
}

impl From<&RegionStatus> for RegionJson {
    fn from(region: &RegionStatus) -> Self {
        Self {
            id: region.id,
            leader: Some(region.leader).filter(|leader| *leader != 0),
            term: region.term,
            commit_index: region.commit_index,
            applied_index: region.applied_index,
            members: region.members.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let read = ["30s", "90m", "24h", "30d"].map(|text| seconds(text).unwrap());
        assert_eq!(read, [30, 5400, 86_400, 2_592_000]);
        for bad in ["", "24", "h", "0h", "1.5h", "-1h", "24 h", "99999999999999999999h", "9999999999999999h"]
        {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        assert_eq!(read.map(time), ["30 s", "90 min", "24 h", "720 h"]);
    }
}
