//! `rdb ns conflicts`: the lost writes that a namespace keeps.

use super::bytes;
use crate::args::Args;
use crate::exit::{Class, Failure};
use crate::output::{Answer, JsonKey, JsonValue, as_text, one_line, table};
use rdb_client::{Bytes, Client, ConflictsPage, Error, LostWrite, Version};
use serde::Serialize;
use std::ffi::OsString;

const EXAMPLES: &str = "A write is lost if it does not stay, and nobody who had it in front of him wrote over it. One that is not \
settled may yet be found to be none. All nodes come to the same list; the first that can be reached is asked. To take a write up \
again, put it.

  rdb ns create carts --mode eventual --keep-lost 24h
  rdb ns conflicts carts --prefix user/";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConflictsArgs {
    /// The namespace
    name: String,
    /// Only keys that begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    prefix: OsString,
    /// No more writes than this
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Serialize)]
struct Json<'a> {
    namespace: &'a str,
    node: u64,
    /// For how long the namespace keeps lost writes. 0: it does not.
    keep_lost_seconds: u64,
    /// Whether there may be more than are listed here, and `--limit` left them out.
    more: bool,
    writes: Vec<WriteJson>,
}

#[derive(Serialize)]
struct WriteJson {
    #[serde(serialize_with = "as_text")]
    version: Version,
    incarnation: u64,
    seq: u64,
    #[serde(flatten)]
    key: JsonKey,
    #[serde(flatten)]
    value: Option<JsonValue>,
    deletes: bool,
    #[serde(serialize_with = "as_text")]
    displaced_by: Version,
    displaced_by_incarnation: u64,
    displaced_by_seq: u64,
    settled: bool,
    noted_unix_ms: u64,
}

pub(crate) async fn run(args: &Args, asked: &ConflictsArgs) -> Result<Answer, Failure> {
    let client = args.connect().await?;
    let page = ask(&client, asked).await?;
    let json = Json {
        namespace: &asked.name,
        node: page.node,
        keep_lost_seconds: page.keep_lost_seconds,
        more: page.next.is_some(),
        writes: page.writes.iter().map(WriteJson::from).collect(),
    };
    Ok(Answer::new(in_words(&asked.name, &page), &json))
}

/// Asks one node after the other, until one answers.
async fn ask(client: &Client, asked: &ConflictsArgs) -> Result<ConflictsPage, Failure> {
    let mut failure = Failure::new(Class::Unreachable, "no nodes are known");
    for address in client.nodes() {
        match ask_one(client, &address, asked).await {
            Ok(page) => return Ok(page),
            Err(error @ (Error::Unreachable { .. } | Error::Lost { .. } | Error::TimedOut { .. })) => {
                failure = error.into();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failure)
}

/// All pages of one node as one, up to the limit.
async fn ask_one(client: &Client, address: &str, asked: &ConflictsArgs) -> Result<ConflictsPage, Error> {
    let prefix = bytes(&asked.prefix);
    let (mut writes, mut after) = (Vec::new(), None::<Bytes>);
    loop {
        let left = asked.limit.saturating_sub(u32::try_from(writes.len()).unwrap_or(u32::MAX));
        let page = client.conflicts_at(address, &asked.name, &prefix, after.as_ref(), left).await?;
        writes.extend(page.writes.iter().cloned());
        let is_enough = u32::try_from(writes.len()).map_or(true, |has| asked.limit <= has);
        if is_enough || page.next.is_none() {
            return Ok(ConflictsPage { writes, ..page });
        }
        after.clone_from(&page.next);
    }
}

fn in_words(name: &str, page: &ConflictsPage) -> String {
    if page.writes.is_empty() && page.keep_lost_seconds == 0 {
        return format!(
            "{name} does not keep lost writes; a namespace that is to keep them is created with --keep-lost. How many it has lost: \
             rdb ns status {name}\n"
        );
    }
    let mut text = if page.writes.is_empty() {
        format!("node {} lists no lost writes of {name}\n", page.node)
    } else {
        table(["key", "lost", "value", "displaced by", "settled"], page.writes.iter().map(row))
    };
    if page.next.is_some() {
        text += &format!("there may be more: {} are shown; --limit allows more\n", page.writes.len());
    }
    text
}

fn row(write: &LostWrite) -> [String; 5] {
    let value = write.value.as_ref().map_or_else(|| "(deletes it)".into(), |value| one_line(value));
    let settled = if write.settled { "yes" } else { "not yet" };
    let (lost, by) = (write.version.to_string(), write.displaced_by.to_string());
    [one_line(&write.key), lost, value, by, settled.into()]
}

impl From<&LostWrite> for WriteJson {
    fn from(write: &LostWrite) -> Self {
        Self {
            version: write.version,
            incarnation: write.incarnation,
            seq: write.seq,
            key: JsonKey::from(&write.key),
            value: write.value.as_ref().map(JsonValue::from),
            deletes: write.value.is_none(),
            displaced_by: write.displaced_by,
            displaced_by_incarnation: write.displaced_by_incarnation,
            displaced_by_seq: write.displaced_by_seq,
            settled: write.settled,
            noted_unix_ms: write.noted_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(writes: Vec<LostWrite>, keep_lost_seconds: u64) -> ConflictsPage {
        ConflictsPage { node: 2, writes, next: None, keep_lost_seconds }
    }

    fn lost(key: &'static str, value: Option<&'static str>, settled: bool) -> LostWrite {
        LostWrite {
            version: Version { era: 1, hlc: 7, node: 3 },
            incarnation: 1,
            seq: 9,
            key: key.into(),
            value: value.map(Into::into),
            displaced_by: Version { era: 1, hlc: 8, node: 1 },
            displaced_by_incarnation: 1,
            displaced_by_seq: 4,
            settled,
            noted_ms: 1000,
        }
    }

    #[test]
    fn what_is_lost_is_listed_with_what_displaced_it() {
        let text = in_words("carts", &page(vec![lost("a", Some("x"), true), lost("b", None, false)], 60));
        let rows: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows[1..], ["a 1.7.3 x 1.8.1 yes", "b 1.7.3 (deletes it) 1.8.1 not yet"]);
        let more = ConflictsPage { next: Some("next".into()), ..page(vec![lost("a", None, true)], 60) };
        assert!(in_words("carts", &more).ends_with("there may be more: 1 are shown; --limit allows more\n"));
    }

    #[test]
    fn that_nothing_is_lost_is_not_that_nothing_is_kept() {
        assert_eq!(in_words("carts", &page(Vec::new(), 60)), "node 2 lists no lost writes of carts\n");
        assert!(in_words("carts", &page(Vec::new(), 0)).starts_with("carts does not keep lost writes; "));
    }
}
