//! `rdb del`

use super::bytes;
use super::confirm::{can_ask, confirm};
use super::put::{AcksArgs, WrittenJson};
use super::read::session_json;
use crate::args::Args;
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, as_text, readable};
use rdb_client::{Bytes, Namespace, Version, Written};
use serde::Serialize;
use std::ffi::OsString;

const EXAMPLES: &str = "Examples:
  rdb del fruit apple                   one key
  rdb del fruit --prefix basket/7/      the keys that begin so
  rdb del fruit --range a b             the keys from a on that come before b
  rdb del fruit --range m ''            the keys from m on";

#[derive(Debug, Clone, clap::Args)]
#[command(
    override_usage = "rdb del [OPTIONS] <NS> <KEY|--prefix PREFIX|--range FROM TO>",
    after_help = EXAMPLES,
    group(clap::ArgGroup::new("what").required(true))
)]
pub(crate) struct DelArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The key; that there is none is no error
    #[arg(group = "what")]
    key: Option<OsString>,
    /// Remove all keys that begin so
    #[arg(long, group = "what", value_name = "PREFIX")]
    prefix: Option<OsString>,
    /// Remove the keys from FROM up to, and without, TO; where TO is '', up to the last one
    #[arg(long, group = "what", num_args = 2, value_names = ["FROM", "TO"])]
    range: Option<Vec<OsString>>,
    /// Remove many keys without asking
    #[arg(long, short, conflicts_with = "key")]
    yes: bool,
    #[command(flatten)]
    acks: AcksArgs,
}

#[derive(Serialize)]
struct RangeJson<'a> {
    namespace: &'a str,
    #[serde(serialize_with = "as_text")]
    version: Version,
    epoch: u64,
}

/// What is to be removed.
enum What {
    Key(Bytes),
    Prefix(Bytes),
    Range(Bytes, Bytes),
}

pub(crate) async fn run(args: &Args, del: &DelArgs) -> Result<Answer, Failure> {
    let what = del.what()?;
    let question = what.in_words().filter(|_| !del.yes);
    if question.is_some() {
        can_ask()?;
    }
    let client = args.connect().await?;
    if let Some(keys) = question {
        // A name that does not exist is told before the question, and not after the answer.
        client.describe_namespace(&del.namespace).await?;
        confirm(&format!("removes {keys} of the namespace '{}'", del.namespace), "yes")?;
    }
    let namespace = client.namespace(&del.namespace).with_acks(del.acks.acks());
    let written = what.remove(&namespace).await?;
    let session = session_json(&namespace);
    let text = format!("ok  version {}\n", written.version);
    let (namespace, version, epoch) = (del.namespace.as_str(), written.version, written.epoch);
    Ok(match &what {
        What::Key(key) => Answer::new(
            text,
            &WrittenJson { namespace, key: JsonKey::from(key), version, epoch, node: version.node, session },
        ),
        What::Prefix(_) | What::Range(..) => Answer::new(text, &RangeJson { namespace, version, epoch }),
    })
}

impl DelArgs {
    fn what(&self) -> Result<What, Failure> {
        match (&self.key, &self.prefix, self.range.as_deref()) {
            (Some(key), _, _) => Ok(What::Key(bytes(key))),
            // A variable of a script that is not set must not remove everything.
            (_, Some(prefix), _) if prefix.is_empty() => {
                Err(Failure::usage("the prefix is empty, so it would be all keys")
                    .hint("--range '' ''  removes all keys"))
            }
            (_, Some(prefix), _) => Ok(What::Prefix(bytes(prefix))),
            (_, _, Some([from, to])) => Ok(What::Range(bytes(from), bytes(to))),
            _ => Err(Failure::usage("no key was given")),
        }
    }
}

impl What {
    /// Which keys go, where they may be many.
    fn in_words(&self) -> Option<String> {
        match self {
            What::Key(_) => None,
            What::Prefix(prefix) => Some(format!("all keys that begin with '{}'", readable(prefix))),
            What::Range(from, to) => Some(match (from.is_empty(), to.is_empty()) {
                (true, true) => "all keys".into(),
                (false, true) => format!("all keys from '{}' on", readable(from)),
                (true, false) => format!("all keys before '{}'", readable(to)),
                (false, false) => format!("all keys from '{}' up to '{}'", readable(from), readable(to)),
            }),
        }
    }

    async fn remove(&self, namespace: &Namespace) -> Result<Written, Failure> {
        Ok(match self {
            What::Key(key) => namespace.delete(key.clone()).await?,
            What::Prefix(prefix) => namespace.delete_prefix(prefix.clone()).await?,
            What::Range(from, to) => namespace.delete_range(from.clone(), to.clone()).await?,
        })
    }
}
