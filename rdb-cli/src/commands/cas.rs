//! `rdb cas`

use super::{bytes, read_value};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, JsonValue, readable};
use rdb_client::{CasOutcome, Expect, Version};
use serde::Serialize;
use std::ffi::OsString;

const EXAMPLES: &str = "The exit status is 0 if it was swapped, 1 if it was not.

Examples:
  rdb cas fruit apple --absent red             store it if there is no such key
  rdb cas fruit apple --expect red green       change it if it is red
  rdb cas fruit apple --present --delete       remove it if it is there";

#[derive(Debug, Clone, clap::Args)]
#[command(
    after_help = EXAMPLES,
    override_usage = "rdb cas [OPTIONS] <NS> <KEY> <--absent|--present|--expect VALUE|--version VERSION> <VALUE|-|--delete>",
    group(clap::ArgGroup::new("expected").required(true)),
    group(clap::ArgGroup::new("then").required(true))
)]
pub(crate) struct CasArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key
    key: OsString,
    /// The value to store; - reads it from stdin
    #[arg(group = "then", allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Remove the key instead of storing a value
    #[arg(long, group = "then")]
    delete: bool,
    /// Expect that there is no such key
    #[arg(long, group = "expected")]
    absent: bool,
    /// Expect that there is such a key, whatever its value
    #[arg(long, group = "expected")]
    present: bool,
    /// Expect this value
    #[arg(long, group = "expected", value_name = "VALUE", allow_negative_numbers = true)]
    expect: Option<OsString>,
    /// Expect the record of this version, as get -o json shows it
    #[arg(long, group = "expected", value_name = "VERSION")]
    version: Option<Version>,
}

#[derive(Serialize)]
struct Json<'a> {
    namespace: &'a str,
    #[serde(flatten)]
    key: JsonKey,
    swapped: bool,
    /// Of the new record if it was swapped, else of the one found.
    version: Option<String>,
    /// What was found if it was not swapped; null: no such key.
    found: Option<JsonValue>,
}

pub(crate) async fn run(args: &Args, cas: &CasArgs) -> Result<Answer, Failure> {
    let key = bytes(&cas.key);
    let expect = match (&cas.expect, cas.version) {
        (Some(value), _) => Expect::Value(bytes(value)),
        (None, Some(version)) => Expect::Version(version),
        (None, None) if cas.present => Expect::Present,
        (None, None) => Expect::Absent,
    };
    let then = if cas.delete { None } else { Some(read_value(cas.value.as_ref(), None)?) };
    let client = args.connect().await?;
    let outcome = client.namespace(&cas.namespace).compare_and_swap(key.clone(), expect, then).await?;
    let (swapped, version, found) = match outcome {
        CasOutcome::Swapped(version) => (true, Some(version), None),
        CasOutcome::Mismatch { version, found } => (false, version, found),
    };
    let text = match (swapped, version, &found) {
        (true, Some(version), _) => format!("swapped  version {version}\n"),
        (true, None, _) => "swapped\n".into(),
        (false, Some(version), Some(found)) => {
            format!("not swapped: found version {version}, {}\n", readable(found))
        }
        (false, ..) => "not swapped: there is no such key\n".into(),
    };
    let json = Json {
        namespace: &cas.namespace,
        key: JsonKey::from(&key),
        swapped,
        version: version.map(|version| version.to_string()),
        found: found.as_ref().map(JsonValue::from),
    };
    Ok(Answer::new(text, &json).with_exit_code(u8::from(!swapped)))
}
