//! `rdb get`

use super::bytes;
use crate::args::{Args, parse_duration};
use crate::exit::{Class, Failure};
use crate::output::{Answer, JsonKey, JsonValue, as_text, complain, readable};
use clap::ValueEnum;
use rdb_client::{Consistency, Served, ServedBy, Version};
use serde::Serialize;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

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
    /// How the read is to be served
    #[arg(long, value_enum, default_value_t = ConsistencyArg::Linearizable)]
    consistency: ConsistencyArg,
    /// How old a stale read may be; an older one is served as a linearizable one
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    max_age: Option<Duration>,
    /// Ask this node, whoever leads
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConsistencyArg {
    /// Sees every write acknowledged before it
    Linearizable,
    /// The same by the leader's clock, where leader_lease is switched on
    Lease,
    /// What the asked node has, with its age
    Stale,
}

impl GetArgs {
    fn consistency(&self) -> Result<Consistency, Failure> {
        match (self.consistency, self.max_age) {
            (ConsistencyArg::Stale, max_age) => Ok(Consistency::Stale { max_age }),
            (_, Some(_)) => Err(Failure::usage("--max-age is for --consistency stale")),
            (ConsistencyArg::Lease, None) => Ok(Consistency::Lease),
            (ConsistencyArg::Linearizable, None) => Ok(Consistency::Linearizable),
        }
    }
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
}

pub(crate) async fn run(args: &Args, get: &GetArgs) -> Result<Answer, Failure> {
    let key = bytes(&get.key);
    let consistency = get.consistency()?;
    let client = args.connect().await?;
    let namespace = match &get.at {
        None => client.namespace(&get.namespace),
        Some(address) => client
            .namespace_at(&get.namespace, address)
            .ok_or_else(|| Failure::usage(format!("'{address}' is not an address like 127.0.0.1:7101")))?,
    };
    let (record, served) = namespace.with_consistency(consistency).get_served(key.clone()).await?;
    if served.by == Some(ServedBy::Stale) {
        complain(&format!("stale: {}\n", age(served)));
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

fn age(served: Served) -> String {
    match served.age {
        Some(age) => {
            format!("node {} may miss what was written in the last {} ms", served.node, age.as_millis())
        }
        None => format!("node {} does not know how old its data is", served.node),
    }
}
