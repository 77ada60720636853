//! `rdb put`

use super::read::session_json;
use super::{bytes, read_value};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, as_text};
use clap::ValueEnum;
use rdb_client::{Acks, Version};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PutArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: OsString,
    /// The value; - reads it from stdin
    #[arg(required_unless_present = "file", allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Take the value from a file
    #[arg(long, conflicts_with = "value")]
    file: Option<PathBuf>,
    #[command(flatten)]
    acks: AcksArgs,
}

/// What the commands that write have in common.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AcksArgs {
    /// How many nodes of an eventual namespace must have it before it counts as done
    #[arg(long, value_enum, value_name = "HOW MANY")]
    acks: Option<AcksArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AcksArg {
    /// The one that was asked
    #[value(name = "1")]
    One,
    /// A majority, as of every write of a strong namespace
    Quorum,
    /// All of them
    All,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Self {
        match acks {
            AcksArg::One => Acks::One,
            AcksArg::Quorum => Acks::Quorum,
            AcksArg::All => Acks::All,
        }
    }
}

impl AcksArgs {
    /// What was asked for; `None`: the namespace's default.
    pub(crate) fn typed(&self) -> Option<AcksArg> {
        self.acks
    }

    pub(crate) fn acks(&self) -> Acks {
        self.acks.map(Acks::from).unwrap_or_default()
    }
}

/// An acknowledged write.
#[derive(Serialize)]
pub(super) struct WrittenJson<'a> {
    pub(super) namespace: &'a str,
    #[serde(flatten)]
    pub(super) key: JsonKey,
    #[serde(serialize_with = "as_text")]
    pub(super) version: Version,
    pub(super) epoch: u64,
    /// Which node took it in.
    pub(super) node: u64,
    /// For get's --session. Null: the namespace is strong.
    pub(super) session: Option<String>,
}

pub(crate) async fn run(args: &Args, put: &PutArgs) -> Result<Answer, Failure> {
    let key = bytes(&put.key);
    let value = read_value(put.value.as_ref(), put.file.as_deref())?;
    let client = args.connect().await?;
    let namespace = client.namespace(&put.namespace).with_acks(put.acks.acks());
    let written = namespace.put(key.clone(), value).await?;
    let json = WrittenJson {
        namespace: &put.namespace,
        key: JsonKey::from(&key),
        version: written.version,
        epoch: written.epoch,
        node: written.version.node,
        session: session_json(&namespace),
    };
    Ok(Answer::new(format!("ok  version {}\n", written.version), &json))
}
