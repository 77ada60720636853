//! `rdb txn`

mod form;

use super::{STDIN_IS_TAKEN, read_value};
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, JsonValue, complain, readable, table};
use form::{Form, OperationForm};
use rdb_client::{OperationResult, Record, TransactionOutcome};
use serde::Serialize;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

const HELP: &str = r#"The transaction is JSON:
  {
    "if":   [ {"key": "lock", "value": "free"} ],
    "then": [ {"put": {"key": "lock", "value": "mine"}}, {"get": "work"} ],
    "else": [ {"get": "lock"} ]
  }
If all of "if" holds, "then" is done, else "else"; all of it at one moment, or nothing. Each part may be left out.

  In "if", a key and one of     "value": "V"  "version": "1.2.3"  "present": true  "absent": true
  In "then" and "else", one of  {"put": {"key": "K", "value": "V"}}  {"delete": "K"}  {"get": "K"}
                                {"delete_range": {"from": "K", "to": "K"}}   up to, and without, "to"; "": to the end
  Bytes that are no text        {"base64": "/w=="} in place of the string

At most 128 compares and operations, and 4 MiB of keys and values.

The exit status is 0 if the "if" held and "then" was done, 1 if it did not and "else" was done.

Examples:
  rdb txn jobs take.json
  echo '{"if": [{"key": "a", "absent": true}], "then": [{"put": {"key": "a", "value": "1"}}]}' | rdb txn jobs
  rdb -o json txn jobs take.json | jq .held"#;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct TxnArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// Where the transaction is; - or nothing reads it from stdin
    file: Option<PathBuf>,
}

#[derive(Serialize)]
struct Json<'a> {
    namespace: &'a str,
    held: bool,
    /// Of all that was written; null: nothing was.
    version: Option<String>,
    epoch: u64,
    /// Of the operations that were done, in order.
    results: Option<Vec<ResultJson>>,
}

#[derive(Serialize)]
struct ResultJson {
    operation: &'static str,
    #[serde(flatten)]
    key: Option<JsonKey>,
    /// Of a get; null: there is no such key.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Option<FoundJson>>,
}

#[derive(Serialize)]
struct FoundJson {
    #[serde(flatten)]
    value: JsonValue,
    version: String,
}

pub(crate) async fn run(args: &Args, txn: &TxnArgs) -> Result<Answer, Failure> {
    let form = read(txn)?;
    let client = args.connect().await?;
    let outcome = client.namespace(&txn.namespace).transaction(form.transaction()).await?;
    let operations = if outcome.held { &form.then } else { &form.otherwise };
    let json = Json {
        namespace: &txn.namespace,
        held: outcome.held,
        version: outcome.version.map(|version| version.to_string()),
        epoch: outcome.epoch,
        results: outcome.results.as_ref().map(|results| {
            operations.iter().zip(results).map(|(operation, result)| result_json(operation, result)).collect()
        }),
    };
    Ok(Answer::new(text(operations, &outcome), &json).with_exit_code(u8::from(!outcome.held)))
}

fn read(txn: &TxnArgs) -> Result<Form, Failure> {
    let stdin = OsString::from("-");
    let file = txn.file.as_deref().filter(|file| *file != stdin.as_os_str());
    if file.is_none() && std::io::stdin().is_terminal() && !STDIN_IS_TAKEN.load(Ordering::Relaxed) {
        complain(
            "The transaction is read from here; Ctrl-D ends it, and rdb txn --help shows how one is written.\n",
        );
    }
    let text = read_value(Some(&stdin), file)?;
    serde_json::from_slice(&text).map_err(|error| {
        let place = file.map_or_else(|| "stdin".into(), |file| file.display().to_string());
        Failure::usage(format!("the transaction in {place} is not understood: {error}"))
            .hint("rdb txn --help  shows how one is written")
    })
}

fn text(operations: &[OperationForm], outcome: &TransactionOutcome) -> String {
    let held = if outcome.held { "held" } else { "did not hold" };
    let written = match outcome.version {
        Some(version) => format!("version {version}"),
        None => "nothing was written".into(),
    };
    let head = format!("{held}  {written}\n");
    match &outcome.results {
        Some(results) if results.is_empty() => head,
        Some(results) => head + "\n" + &result_table(operations, results),
        None => head + "what it found is no longer kept\n",
    }
}

fn result_table(operations: &[OperationForm], results: &[OperationResult]) -> String {
    let rows = operations.iter().zip(results).map(|(operation, result)| {
        let (found, version) = match result {
            OperationResult::Written => ("done".into(), String::new()),
            OperationResult::Found(None) => ("no such key".into(), String::new()),
            OperationResult::Found(Some(record)) => (readable(&record.value), record.version.to_string()),
        };
        [operation.name().into(), operation.keys(), found, version]
    });
    table(["operation", "key", "result", "version"], rows)
}

fn result_json(operation: &OperationForm, result: &OperationResult) -> ResultJson {
    let found = match result {
        OperationResult::Written => None,
        OperationResult::Found(record) => Some(record.as_ref().map(found_json)),
    };
    ResultJson { operation: operation.name(), key: operation.key().map(JsonKey::from), found }
}

fn found_json(record: &Record) -> FoundJson {
    FoundJson { value: JsonValue::from(&record.value), version: record.version.to_string() }
}
