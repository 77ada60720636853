//! The prompt at a terminal.

use super::complete::{Helper, Known};
use super::leaders;
use super::session::{Session, Step, interrupted};
use crate::output::say;
use parking_lot::Mutex;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor, ExternalPrinter as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// For what was interrupted to be gone.
const LAST_WORDS_WAIT: Duration = Duration::from_millis(100);
/// Lines that the history keeps.
const HISTORY_MAX: usize = 1000;

/// Reads and runs lines until Ctrl-D.
pub(super) fn run(session: &mut Session, runtime: &Runtime) -> rustyline::Result<()> {
    let known = Arc::new(Mutex::new(Known::default()));
    let config = Config::builder()
        .max_history_size(HISTORY_MAX)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .auto_add_history(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor: Editor<Helper, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Helper::new(known.clone(), session.demo().is_some())));
    let history = history_file();
    if let Some(history) = &history {
        // There is none at first, and a line is worth more than its history.
        let _ = editor.load_history(history);
    }
    greet(session);
    watch_leaders(session, runtime, known, &mut editor)?;
    // From here on Ctrl-C ends a command, and not this process.
    let _interrupts = runtime
        .block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) })?;
    loop {
        if let Some(helper) = editor.helper_mut() {
            helper.set_used(session.namespace().is_some());
        }
        let prompt =
            session.namespace().map_or_else(|| "rdb> ".into(), |namespace| format!("rdb {namespace}> "));
        match editor.readline(&prompt) {
            Ok(line) => {
                if let Some(history) = &history {
                    let _ = editor.append_history(history);
                }
                if runtime.block_on(run_line(session, &line)) == Step::Leave {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error),
        }
    }
    if let Some(demo) = session.demo() {
        say(demo.farewell().as_bytes());
    }
    Ok(())
}

fn greet(session: &Session) {
    if session.demo().is_none() {
        say(format!("FlareDB at {}; help says what can be typed\n", session.base().endpoints.join(", "))
            .as_bytes());
    }
}

async fn run_line(session: &mut Session, line: &str) -> Step {
    let format = session.format();
    let done = tokio::select! {
        step = session.run(line) => Some(step),
        _ = tokio::signal::ctrl_c() => None,
    };
    if let Some(step) = done {
        return step;
    }
    // A benchmark's tasks end a moment later, and clear their bar: before the prompt is there, and not over it.
    tokio::time::sleep(LAST_WORDS_WAIT).await;
    say(b"\n");
    Step::Done(interrupted().report(format))
}

/// On a thread of its own, since printing may wait for the prompt. It ends with the process.
fn watch_leaders(
    session: &Session,
    runtime: &Runtime,
    known: Arc<Mutex<Known>>,
    editor: &mut Editor<Helper, DefaultHistory>,
) -> rustyline::Result<()> {
    let mut printer = editor.create_external_printer()?;
    let (args, runtime) = (session.base().clone(), runtime.handle().clone());
    std::thread::Builder::new()
        .name("leaders".to_owned())
        .spawn(move || leaders::watch(&args, &runtime, &known, |line| printer.print(line).is_ok()))?;
    Ok(())
}

/// Where lines are remembered; `None` where there is no home, or no folder can be made.
fn history_file() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    let folder = state.join("flaredb");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
