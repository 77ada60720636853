//! What the commands that read have in common: from whom, and how well.

use crate::args::{Format, parse_duration};
use crate::exit::Failure;
use crate::output::{complain, to_json_line};
use clap::ValueEnum;
use rdb_client::{Client, Consistency, Namespace, Served};
use serde::Serialize;
use std::time::Duration;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ReadArgs {
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

impl ReadArgs {
    pub(super) fn consistency(&self) -> Result<Consistency, Failure> {
        match (self.consistency, self.max_age) {
            (ConsistencyArg::Stale, max_age) => Ok(Consistency::Stale { max_age }),
            (_, Some(_)) => Err(Failure::usage("--max-age is for --consistency stale")),
            (ConsistencyArg::Lease, None) => Ok(Consistency::Lease),
            (ConsistencyArg::Linearizable, None) => Ok(Consistency::Linearizable),
        }
    }

    /// The namespace, to be read so.
    pub(super) fn namespace(&self, client: &Client, name: &str) -> Result<Namespace, Failure> {
        let namespace = match &self.at {
            None => client.namespace(name),
            Some(address) => client.namespace_at(name, address).ok_or_else(|| {
                Failure::usage(format!("'{address}' is not an address like 127.0.0.1:7101"))
            })?,
        };
        Ok(namespace.with_consistency(self.consistency()?))
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
    fn the_age_of_a_stale_read_is_json_where_that_is_asked_for() {
        let known = Served { node: 2, by: None, age: Some(Duration::from_millis(30)) };
        let words = "stale: node 2 may miss what was written in the last 30 ms\n";
        assert_eq!(age(known, Format::Table), words);
        assert_eq!(age(known, Format::Json), "{\"node\":2,\"served\":\"stale\",\"age_ms\":30}\n");
        let unknown = age(Served { age: None, ..known }, Format::Json);
        assert_eq!(unknown, "{\"node\":2,\"served\":\"stale\",\"age_ms\":null}\n");
    }
}
