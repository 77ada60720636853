//! Asking before what cannot be taken back.

use crate::exit::{Class, Failure};
use crate::output::complain;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::IsTerminal;

/// Fails where nobody could answer a question, or see it. For before anything is looked up: it has nothing to do with what the
/// cluster holds.
pub(super) fn can_ask() -> Result<(), Failure> {
    can_ask_about("the deletion", "--yes deletes without asking; there is no way back")
}

/// The same for something else than a deletion.
pub(super) fn can_ask_about(what: &str, hint: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        return Ok(());
    }
    Err(Failure::usage(format!("nobody is there to confirm {what}")).hint(hint))
}

/// Says what is about to happen, and goes on only if `word` is typed.
pub(super) fn confirm(what: &str, word: &str) -> Result<(), Failure> {
    can_ask()?;
    ask(&format!("{what}. There is no way back"), word, "nothing was deleted")
}

/// Says what is about to happen, and goes on only if `word` is typed; else fails, and says what did not happen.
pub(super) fn ask(what: &str, word: &str, otherwise: &str) -> Result<(), Failure> {
    complain(&format!("This {what}.\nType {word} to go on: "));
    let mut line = String::new();
    let read =
        until_typed().inspect_err(|_| complain("\n")).and_then(|()| std::io::stdin().read_line(&mut line));
    if read.is_err() || line.trim() != word {
        return Err(Failure::new(Class::NotDone, format!("that is not {word}; {otherwise}")));
    }
    Ok(())
}

/// Waits for a line, or fails at Ctrl-C where that does not end the process: a read would go on waiting.
fn until_typed() -> std::io::Result<()> {
    let stdin = std::io::stdin();
    poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None)?;
    Ok(())
}
