//! `rdb get`

use super::bytes;
use super::read::{ReadArgs, session_json, tell_age};
use crate::args::{Args, Format};
use crate::exit::{Class, Failure};
use crate::output::{Answer, JsonKey, JsonValue, as_text, readable};
use rdb_client::{ServedBy, Version};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Clone, clap::Args)]
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
    #[command(flatten)]
    read: ReadArgs,
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
    /// Which node answered, and how.
    node: u64,
    served: Option<String>,
    /// Null: not a stale read, or unknown.
    age_ms: Option<u128>,
    /// For --session. Null: the namespace is strong.
    session: Option<String>,
}

pub(crate) async fn run(args: &Args, get: &GetArgs) -> Result<Answer, Failure> {
    let key = bytes(&get.key);
    // Before connecting: what is wrong with the command line is said at once.
    get.read.consistency()?;
    let namespace = get.read.namespace(args, &get.namespace).await?;
    let (record, served) = namespace.get_served(key.clone()).await?;
    // In JSON the answer has it.
    if served.by == Some(ServedBy::Stale) && args.output == Format::Table {
        tell_age(served, args.output);
    }
    let Some(record) = record else {
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
        node: served.node,
        served: served.by.map(|by| by.to_string()),
        age_ms: served.age.map(|age| age.as_millis()),
        session: session_json(&namespace),
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
