//! `rdb ns quarantine`: what nodes have set aside, since the others went on to strong without them.

use crate::args::Args;
use crate::exit::{Class, Failure};
use crate::output::{Answer, JsonKey, JsonValue, as_text, one_line, table};
use rdb_client::{Bytes, Client, Error, QuarantinePage, QuarantinedWrite, Version};
use serde::Serialize;
use tokio::task::JoinSet;

const EXAMPLES: &str = "Each node has its own: all are asked that can be reached. What is listed is in the namespace no more, and \
stays where it is. To take a write up again, put it.

Exit status:
  0  every node has answered
  1  some could not be asked, and may have more
  5  no node could be reached";

/// Some nodes were not asked, so that the list may be short of theirs.
const EXIT_PARTIAL: u8 = 1;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct QuarantineArgs {
    /// The namespace
    name: String,
    /// No more writes of each node than this
    #[arg(long, value_name = "NUMBER", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// What one node has said.
struct Told {
    address: String,
    said: Result<QuarantinePage, Error>,
}

#[derive(Serialize)]
struct Json<'a> {
    namespace: &'a str,
    nodes: Vec<NodeJson<'a>>,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    address: &'a str,
    /// Null, like what follows: it could not be asked.
    node: Option<u64>,
    /// How many it has set aside.
    total: Option<u64>,
    /// Whether it has more than are listed here, and `--limit` left them out.
    more: Option<bool>,
    writes: Option<Vec<WriteJson>>,
    error: Option<String>,
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
    /// Whether it removed the key: then there is no value.
    deletes: bool,
}

pub(crate) async fn run(args: &Args, quarantine: &QuarantineArgs) -> Result<Answer, Failure> {
    let client = args.connect().await?;
    let told = ask(&client, quarantine).await;
    if told.iter().all(|told| told.said.is_err()) {
        // A node's own word says more than that another one cannot be reached.
        let errors = told.into_iter().filter_map(|told| told.said.err());
        let worst = errors.max_by_key(|error| matches!(error, Error::Refused(_)));
        return Err(
            worst.map_or_else(|| Failure::new(Class::Unreachable, "no nodes are known"), Failure::from)
        );
    }
    let is_partial = told.iter().any(|told| told.said.is_err());
    let json = Json { namespace: &quarantine.name, nodes: told.iter().map(NodeJson::from).collect() };
    let code = if is_partial { EXIT_PARTIAL } else { 0 };
    Ok(Answer::new(in_words(&quarantine.name, &told), &json).with_exit_code(code))
}

/// Asks all nodes at once. Each answers for itself.
async fn ask(client: &Client, quarantine: &QuarantineArgs) -> Vec<Told> {
    let mut asked = JoinSet::new();
    for address in client.nodes() {
        let (client, quarantine) = (client.clone(), quarantine.clone());
        asked.spawn(async move {
            let said = ask_one(&client, &address, &quarantine).await;
            Told { address, said }
        });
    }
    let mut told = asked.join_all().await;
    told.sort_by_key(|told| (told.said.as_ref().map_or(u64::MAX, |page| page.node), told.address.clone()));
    told
}

/// All pages of one node as one, up to the limit.
async fn ask_one(client: &Client, address: &str, asked: &QuarantineArgs) -> Result<QuarantinePage, Error> {
    let mut all: Option<QuarantinePage> = None;
    loop {
        let (after, has) = match &all {
            Some(all) => (all.next.clone(), u32::try_from(all.writes.len()).unwrap_or(u32::MAX)),
            None => (None::<Bytes>, 0),
        };
        let left = asked.limit.saturating_sub(has);
        let mut page = client.quarantine_at(address, &asked.name, after.as_ref(), left).await?;
        if let Some(before) = all {
            page.writes.splice(0..0, before.writes);
        }
        let is_enough = u32::try_from(page.writes.len()).map_or(true, |has| asked.limit <= has);
        if is_enough || page.next.is_none() {
            return Ok(page);
        }
        all = Some(page);
    }
}

fn in_words(name: &str, told: &[Told]) -> String {
    let pages = || told.iter().filter_map(|told| told.said.as_ref().ok());
    let mut text = if pages().all(|page| page.total == 0) {
        format!("nothing is set aside of {name} on the nodes that answered\n")
    } else {
        let rows = pages().flat_map(|page| page.writes.iter().map(|write| row(page.node, write)));
        table(["at", "accepted by", "version", "key", "value"], rows)
    };
    for page in pages().filter(|page| page.next.is_some()) {
        let (node, shown, total) = (page.node, page.writes.len(), page.total);
        text += &format!("node {node} has more: {shown} of {total} are shown; --limit allows more\n");
    }
    for Told { address, said } in told {
        if let Err(error) = said {
            text += &format!("{address} could not be asked, and may have more: {error}\n");
        }
    }
    text
}

fn row(at: u64, write: &QuarantinedWrite) -> [String; 5] {
    let value = write.value.as_ref().map_or_else(|| "(deletes it)".into(), |value| one_line(value));
    let by = format!("node {}", write.version.node);
    [format!("node {at}"), by, write.version.to_string(), one_line(&write.key), value]
}

impl<'a> From<&'a Told> for NodeJson<'a> {
    fn from(told: &'a Told) -> Self {
        let page = told.said.as_ref().ok();
        Self {
            address: &told.address,
            node: page.map(|page| page.node),
            total: page.map(|page| page.total),
            more: page.map(|page| page.next.is_some()),
            writes: page.map(|page| page.writes.iter().map(WriteJson::from).collect()),
            error: told.said.as_ref().err().map(ToString::to_string),
        }
    }
}

impl From<&QuarantinedWrite> for WriteJson {
    fn from(write: &QuarantinedWrite) -> Self {
        Self {
            version: write.version,
            incarnation: write.incarnation,
            seq: write.seq,
            key: JsonKey::from(&write.key),
            value: write.value.as_ref().map(JsonValue::from),
            deletes: write.value.is_none(),
        }
    }
}
