//! What can be typed.

use crate::bench::BenchArgs;
use crate::commands::{cas, completions, del, get, ns, put, scan, status, txn};
use crate::shell::ShellArgs;
use clap::{Parser, Subcommand, ValueEnum};
use rdb_client::{Client, Options};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;

use crate::exit::Failure;

const EXIT_CODES: &str = "Exit status:
  0  done
  1  there is no such key, the comparison failed, the cluster is degraded, or the benchmark found wrong data
  2  the command line is wrong
  3  not done: nothing was changed; of status, some of the cluster does not serve
  4  in doubt: a write may have been applied, or may be yet
  5  no node could be reached
  6  done on one node of an eventual namespace, and not known to be on as many as --acks asked for";

/// Above the options that every command has: a command's own come first, in a list of their own.
const GLOBAL: &str = "Options of every command";

/// FlareDB's command line.
#[derive(Debug, Clone, Parser)]
#[command(name = "rdb", version, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Some of the cluster's nodes; the others are learned from them. FLAREDB_ENDPOINTS names them, too
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        value_delimiter = ',',
        value_name = "HOST:PORT,...",
        default_values_t = default_endpoints()
    )]
    pub(crate) endpoints: Vec<String>,

    /// For people, or for programs
    #[arg(short, long, global = true, help_heading = GLOBAL, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,

    /// How long a request may take, all its attempts included
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL,
        default_value = "5s",
        value_parser = parse_duration,
        value_name = "TIME"
    )]
    pub(crate) timeout: Duration,

    /// Shared by all that a shell runs
    #[arg(skip)]
    pub(crate) connection: Option<Connection>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Clap would take the variable for something that was typed: then it shows the option in the usage of every other mistake, and
/// no help to who types `rdb` alone.
fn default_endpoints() -> Vec<String> {
    let named = std::env::var("FLAREDB_ENDPOINTS").ok().filter(|named| !named.is_empty());
    let named = named.unwrap_or_else(|| "127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103".to_owned());
    named.split(',').map(str::to_owned).collect()
}

/// A connection that is made when it is first needed, and then kept.
#[derive(Clone, Default)]
pub(crate) struct Connection(Arc<OnceCell<Client>>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("made", &self.0.initialized()).finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Command {
    /// Store a value under a key
    Put(put::PutArgs),
    /// Read a key
    Get(get::GetArgs),
    /// Remove a key, or many
    Del(del::DelArgs),
    /// Change a key only if it is as expected (compare and swap)
    Cas(cas::CasArgs),
    /// Look at some keys and change others, all at once (a transaction)
    Txn(txn::TxnArgs),
    /// Read many keys in order, or count them
    Scan(scan::ScanArgs),
    /// Namespaces: create, list, describe, switch, delete, and move their leaders
    #[command(subcommand)]
    Ns(ns::NsCommand),
    /// How the cluster is, what it may still lose, and what to do
    #[command(after_help = status::EXIT_CODES)]
    Status,
    /// Measure a cluster, and check its data afterwards
    Bench(Box<BenchArgs>),
    /// A prompt for all of these, with history and completion
    Shell(ShellArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

impl Args {
    /// What the options say of the client.
    pub(crate) fn client_options(&self) -> Options {
        Options { request_timeout: self.timeout, ..Options::new(self.endpoints.clone()) }
    }

    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let connect = || Client::connect(self.client_options());
        match &self.connection {
            Some(Connection(kept)) => Ok(kept.get_or_try_init(connect).await?.clone()),
            None => Ok(connect().await?),
        }
    }
}

/// `500ms`, `5s`, `2m` or `1h`; a number alone is in seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a time is written 500ms, 5s, 2m or 1h".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a time is written 500ms, 5s, 2m or 1h".to_string())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [("500ms", 500), ("5s", 5000), ("1.5", 1500), ("2m", 120_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for wrong in ["", "s", "5 s", "-1s", "1d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
