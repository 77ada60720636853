//! What the commands that read have in common: from whom, and how well.

use crate::args::{Args, Format, parse_duration};
use crate::exit::Failure;
use crate::output::{complain, to_json_line};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::ValueEnum;
use rdb_client::{Bytes, Consistency, Namespace, Served};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReadArgs {
    /// How the read is to be served
    ///
    /// Without it: linearizable, or, of an eventual namespace, what the asked node has. At the shell's prompt of an eventual
    /// namespace: session
    #[arg(long, value_enum)]
    consistency: Option<ConsistencyArg>,
    /// How old a stale read may be; an older one is served as a linearizable one
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    max_age: Option<Duration>,
    /// Show no less than this token says, which is the "session" of an earlier answer in JSON; implies --consistency session
    #[arg(long, value_name = "TOKEN", value_parser = parse_session)]
    session: Option<Bytes>,
    /// Ask this node, whoever leads
    #[arg(long, value_name = "HOST:PORT")]
    at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ConsistencyArg {
    /// Sees every write acknowledged before it
    Linearizable,
    /// The same by the leader's clock, where leader_lease is switched on
    Lease,
    /// What the asked node has, with its age
    Stale,
    /// What the asked node has, without it
    Local,
    /// Of an eventual namespace: no less than this session has been shown
    Session,
    /// Of an eventual namespace: the newest that a majority of the nodes has
    Quorum,
}

impl From<ConsistencyArg> for Consistency {
    fn from(typed: ConsistencyArg) -> Self {
        match typed {
            ConsistencyArg::Linearizable => Consistency::Linearizable,
            ConsistencyArg::Lease => Consistency::Lease,
            ConsistencyArg::Stale => Consistency::Stale { max_age: None },
            ConsistencyArg::Local => Consistency::Local,
            ConsistencyArg::Session => Consistency::Session,
            ConsistencyArg::Quorum => Consistency::Quorum,
        }
    }
}

/// A token in base64, as JSON has it.
fn parse_session(text: &str) -> Result<Bytes, String> {
    let decoded = BASE64.decode(text);
    decoded
        .map(Bytes::from)
        .map_err(|error| format!("a session token is base64, as answers in JSON have it: {error}"))
}

/// A session's token as JSON has it; null: nothing was seen, or the namespace is strong.
pub(super) fn session_json(namespace: &Namespace) -> Option<String> {
    Some(namespace.session_token()).filter(|token| !token.is_empty()).map(|token| BASE64.encode(token))
}

impl ReadArgs {
    pub(super) fn consistency(&self) -> Result<Consistency, Failure> {
        let of_session = matches!(self.consistency, None | Some(ConsistencyArg::Session));
        if self.session.is_some() && !of_session {
            return Err(Failure::usage("--session is for --consistency session"));
        }
        match (self.consistency, self.max_age) {
            (Some(ConsistencyArg::Stale), max_age) => Ok(Consistency::Stale { max_age }),
            (_, Some(_)) => Err(Failure::usage("--max-age is for --consistency stale")),
            (None, None) if self.session.is_some() => Ok(Consistency::Session),
            (None, None) => Ok(Consistency::Default),
            (Some(typed), None) => Ok(typed.into()),
        }
    }

    /// The namespace, to be read so.
    pub(super) async fn namespace(&self, args: &Args, name: &str) -> Result<Namespace, Failure> {
        let client = args.connect().await?;
        let namespace = match &self.at {
            None => client.namespace(name),
            Some(address) => client.namespace_at(name, address).ok_or_else(|| {
                Failure::usage(format!("'{address}' is not an address like 127.0.0.1:7101"))
            })?,
        };
        if let Some(token) = &self.session {
            namespace.resume(token)?;
        }
        let consistency = match self.consistency()? {
            // Who has just put a key at the prompt expects to see it, whichever node is asked.
            Consistency::Default if args.connection.is_some() => Consistency::Session,
            consistency => consistency,
        };
        Ok(namespace.with_consistency(consistency))
    }
}

/// Says on stderr what a stale read may miss.
pub(super) fn tell_age(served: Served, format: Format) {
    complain(&age(served, format));
}

fn age(served: Served, format: Format) -> String {
    let age_ms = served.age.map(|age| age.as_millis());
    match (format, age_ms) {
        (Format::Json, age_ms) => to_json_line(&AgeJson { node: served.node, served: "stale", age_ms }),
        (Format::Table, Some(age_ms)) => {
            format!("stale: node {} may miss what was written in the last {age_ms} ms\n", served.node)
        }
        (Format::Table, None) => format!("stale: node {} does not know how old its data is\n", served.node),
    }
}

#[derive(Serialize)]
struct AgeJson {
    node: u64,
    served: &'static str,
    /// Null: unknown.
    age_ms: Option<u128>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_json_had_it() {
        assert_eq!(parse_session("CBAQAQ=="), Ok(Bytes::from_static(&[8, 16, 16, 1])));
        assert!(parse_session("no token").unwrap_err().contains("base64"));
    }

    #[test]
    fn the_age_of_a_stale_read_is_json_where_that_is_asked_for() {
        let known = Served { node: 2, by: None, age: Some(Duration::from_millis(30)) };
        let words = "stale: node 2 may miss what was written in the last 30 ms\n";
        assert_eq!(age(known, Format::Table), words);
        assert_eq!(age(known, Format::Json), "{\"node\":2,\"served\":\"stale\",\"age_ms\":30}\n");
        let unknown = age(Served { age: None, ..known }, Format::Json);
        assert_eq!(unknown, "{\"node\":2,\"served\":\"stale\",\"age_ms\":null}\n");
    }
}
