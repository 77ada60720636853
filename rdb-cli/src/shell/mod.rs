//! `rdb shell`: every command at a prompt, over one connection. At a terminal with history, completion and a line that says
//! who leads; from a pipe line by line, so that a shell can be scripted.
//!
//! - `line`: what a line is: a command, a word of the shell's own, or one of the demo's.
//! - `session`: runs a line.
//! - `terminal`: the prompt; with `complete`, what Tab offers, and `leaders`, the line above it.
//! - `demo`: the demo's words, which kill, start and cut off its nodes.

mod complete;
mod demo;
mod leaders;
mod line;
mod session;
mod terminal;

use crate::args::{Args, Connection};
use crate::commands::STDIN_IS_TAKEN;
use crate::exit::Failure;
use clap::ValueHint;
use demo::Demo;
use session::{Session, Step};
use std::io::ErrorKind::InvalidData;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tokio::runtime::Runtime;

const EXAMPLES: &str = "Examples:
  rdb shell                                   a prompt; help says what can be typed
  echo 'put fruit apple red' | rdb shell      ends at the first line that fails, with its exit status
  ./x demo                                    a cluster, and a prompt that can kill and cut off its nodes";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ShellArgs {
    /// The folder of a running ./x demo: its nodes are asked, and \kill, \partition and others act on them
    #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    demo: Option<PathBuf>,
    /// Where lines come from a pipe: go on after one that fails. The exit status is still the first failure's
    #[arg(long)]
    keep_going: bool,
}

/// Runs lines until there are no more. Returns the exit code.
pub(crate) fn run(args: &Args, shell: &ShellArgs, runtime: &Runtime) -> u8 {
    STDIN_IS_TAKEN.store(true, Ordering::Relaxed);
    let format = args.output;
    let mut session = match open(args, shell) {
        Ok(session) => session,
        Err(failure) => return failure.report(format),
    };
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        return match terminal::run(&mut session, runtime) {
            Ok(()) => 0,
            Err(error) => Failure::usage(format!("the terminal cannot be used: {error}")).report(format),
        };
    }
    run_lines(&mut session, runtime, shell.keep_going)
}

fn open(args: &Args, shell: &ShellArgs) -> Result<Session, Failure> {
    let demo = shell.demo.as_deref().map(Demo::open).transpose()?;
    let mut base = Args { connection: Some(Connection::default()), ..args.clone() };
    if let Some(demo) = &demo {
        base.endpoints = demo.endpoints();
    }
    Ok(Session::new(base, demo))
}

/// Lines of a pipe or file, without a prompt. Stdin is locked while a line is read and no longer: where it is a terminal, and
/// stdout is none, a command may ask there before it deletes.
fn run_lines(session: &mut Session, runtime: &Runtime, keep_going: bool) -> u8 {
    let mut first_failure = 0;
    loop {
        let mut line = String::new();
        let (step, is_last) = match std::io::stdin().read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => (runtime.block_on(session.run(&line)), false),
            // What is no text is a line that fails. Whatever else it is would be so again, for ever.
            Err(error) => (Step::Done(unread(&error).report(session.format())), error.kind() != InvalidData),
        };
        match step {
            Step::Done(0) => {}
            Step::Done(code) if !keep_going => return code,
            Step::Done(code) => first_failure = if first_failure == 0 { code } else { first_failure },
            Step::Leave => break,
        }
        if is_last {
            break;
        }
    }
    first_failure
}

fn unread(error: &std::io::Error) -> Failure {
    Failure::usage(format!("cannot read stdin: {error}"))
}
