//! `rdb put`

use super::{bytes, read_value};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, as_text};
use rdb_client::Version;
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
}

pub(crate) async fn run(args: &Args, put: &PutArgs) -> Result<Answer, Failure> {
    let key = bytes(&put.key);
    let value = read_value(put.value.as_ref(), put.file.as_deref())?;
    let client = args.connect().await?;
    let written = client.namespace(&put.namespace).put(key.clone(), value).await?;
    let json = WrittenJson {
        namespace: &put.namespace,
        key: JsonKey::from(&key),
        version: written.version,
        epoch: written.epoch,
    };
    Ok(Answer::new(format!("ok  version {}\n", written.version), &json))
}
