//! `rdb del`

use super::bytes;
use super::put::WrittenJson;
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey};
use std::ffi::OsString;

#[derive(Debug, clap::Args)]
pub(crate) struct DelArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key; that there is none is no error
    key: OsString,
}

pub(crate) async fn run(args: &Args, del: &DelArgs) -> Result<Answer, Failure> {
    let key = bytes(&del.key);
    let client = args.connect().await?;
    let written = client.namespace(&del.namespace).delete(key.clone()).await?;
    let json = WrittenJson {
        namespace: &del.namespace,
        key: JsonKey::from(&key),
        version: written.version,
        epoch: written.epoch,
    };
    Ok(Answer::new(format!("ok  version {}\n", written.version), &json))
}
