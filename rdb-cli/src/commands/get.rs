//! `rdb get`

use super::bytes;
use crate::args::Args;
use crate::exit::{Class, Failure};
use crate::output::{Answer, JsonKey, JsonValue, as_text, readable};
use rdb_client::Version;
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: OsString,
    /// Print the value's bytes and nothing else
    #[arg(long, conflicts_with = "file")]
    raw: bool,
    /// Write the value's bytes to a file
    #[arg(long)]
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Json<'a> {
    namespace: &'a str,
    #[serde(flatten)]
    key: JsonKey,
    #[serde(flatten)]
    value: JsonValue,
    #[serde(serialize_with = "as_text")]
    version: Version,
}

pub(crate) async fn run(args: &Args, get: &GetArgs) -> Result<Answer, Failure> {
    let key = bytes(&get.key);
    let client = args.connect().await?;
    let Some(record) = client.namespace(&get.namespace).get(key.clone()).await? else {
        let message = format!("there is no key '{}' in the namespace '{}'", readable(&key), get.namespace);
        return Err(Failure::new(Class::Negative, message));
    };
    if get.raw {
        return Ok(Answer::raw(record.value.to_vec()));
    }
    let json = Json {
        namespace: &get.namespace,
        key: JsonKey::from(&key),
        value: JsonValue::from(&record.value),
        version: record.version,
    };
    let text = match &get.file {
        Some(file) => {
            std::fs::write(file, &record.value)
                .map_err(|error| Failure::usage(format!("cannot write {}: {error}", file.display())))?;
            format!("{} bytes in {}  version {}\n", record.value.len(), file.display(), record.version)
        }
        None => format!("{}\n", readable(&record.value)),
    };
    Ok(Answer::new(text, &json))
}
