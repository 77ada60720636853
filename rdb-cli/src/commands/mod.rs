//! One file per command.

pub(crate) mod cas;
pub(crate) mod completions;
mod confirm;
mod conflicts;
pub(crate) mod del;
pub(crate) mod get;
pub(crate) mod ns;
pub(crate) mod put;
mod quarantine;
pub(crate) mod read;
pub(crate) mod scan;
pub(crate) mod status;
pub(crate) mod switch;
pub(crate) mod txn;

use crate::args::{Args, Command};
use crate::bench;
use crate::exit::Failure;
use crate::output::Answer;
use rdb_client::Bytes;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) async fn run(args: Args) -> Result<Answer, Failure> {
    match &args.command {
        Command::Put(command) => put::run(&args, command).await,
        Command::Get(command) => get::run(&args, command).await,
        Command::Del(command) => del::run(&args, command).await,
        Command::Cas(command) => cas::run(&args, command).await,
        Command::Txn(command) => txn::run(&args, command).await,
        Command::Scan(command) => scan::run(&args, command).await,
        Command::Ns(command) => ns::run(&args, command).await,
        Command::Status => status::run(&args).await,
        Command::Bench(command) => bench::run(&args, command).await,
        Command::Completions(command) => Ok(completions::run(command)),
        Command::Shell(_) => Err(Failure::usage("this is the shell already")),
    }
}

/// An argument's bytes, whatever they are.
fn bytes(argument: &OsString) -> Bytes {
    argument.clone().into_vec().into()
}

/// Whether stdin brings a shell's lines, and so no values.
pub(crate) static STDIN_IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The value from the command line, from stdin where it is `-`, or from a file.
fn read_value(argument: Option<&OsString>, file: Option<&Path>) -> Result<Bytes, Failure> {
    let read = match (argument, file) {
        (_, Some(file)) => {
            std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
        }
        (Some(argument), None) if argument == "-" && STDIN_IS_TAKEN.load(Ordering::Relaxed) => {
            return Err(Failure::usage(
                "the shell reads its own lines from stdin, so nothing else can come from there",
            )
            .hint("write it in the line, in quotes, or name a file"));
        }
        (Some(argument), None) if argument == "-" => {
            let mut value = Vec::new();
            std::io::stdin()
                .read_to_end(&mut value)
                .map(|_| value)
                .map_err(|error| format!("cannot read stdin: {error}"))
        }
        (Some(argument), None) => return Ok(bytes(argument)),
        (None, None) => Err("no value was given".into()),
    };
    read.map(Bytes::from).map_err(Failure::usage)
}
