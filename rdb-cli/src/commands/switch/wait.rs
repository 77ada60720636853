//! Waiting for a switch: one live line on a terminal, else a line for each change.

use super::show::{EndJson, StatusJson, ended};
use super::{Lag, in_short};
use crate::args::{Args, Format};
use crate::exit::{Class, Failure};
use crate::output::{Answer, complain};
use rdb_client::{Client, Mode, SwitchEnd, SwitchStatus};
use serde::Serialize;
use std::io::IsTerminal;
use tokio::signal::unix::{SignalKind, signal};

/// A live line longer than most terminals would wrap, and stay.
const LINE_CHARS_MAX: usize = 100;

pub(super) async fn run(
    args: &Args,
    client: &Client,
    begun: &SwitchStatus,
    to: Mode,
) -> Result<Answer, Failure> {
    // Before anything is shown: from then on Ctrl-C is to leave the switch alone, and say so.
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::usage(format!("cannot listen for Ctrl-C, and does not wait: {error}")))?;
    let mut progress = Progress::new(args.output);
    let mut left = Left { name: &begun.name, to, is_told: false };
    progress.show(begun);
    let waited = tokio::select! {
        waited = client.wait_for_switch(begun, |status| progress.show(status)) => Some(waited),
        _ = interrupts.recv() => None,
    };
    progress.end();
    left.is_told = true;
    match waited {
        Some(Ok(end)) => conclude(client, begun, to, &end).await,
        Some(Err(error)) => {
            Err(Failure::new(Class::InDoubt, format!("{}, and cannot be watched: {error}", left.text()))
                .hint(left.hint()))
        }
        None => Err(Failure::new(Class::InDoubt, left.text()).hint(left.hint())),
    }
}

/// A switch that nobody waits for any more.
struct Left<'a> {
    name: &'a str,
    to: Mode,
    is_told: bool,
}

impl Left<'_> {
    fn text(&self) -> String {
        format!("the switch of '{}' to {} goes on", self.name, self.to)
    }

    fn hint(&self) -> String {
        format!("rdb ns status {}  shows how far it is, rdb ns abort {}  calls it off", self.name, self.name)
    }
}

/// A shell ends its command by itself when Ctrl-C comes.
impl Drop for Left<'_> {
    fn drop(&mut self) {
        if !self.is_told {
            complain(&format!("\n{}; {}\n", self.text(), self.hint()));
        }
    }
}

async fn conclude(
    client: &Client,
    begun: &SwitchStatus,
    to: Mode,
    end: &SwitchEnd,
) -> Result<Answer, Failure> {
    #[derive(Serialize)]
    struct Json {
        end: EndJson,
        status: StatusJson,
    }
    let name = &begun.name;
    if !end.completed {
        let message = format!("the switch of '{name}' to {to} {}; it stays {}", ended(end), begun.mode);
        return Err(Failure::new(Class::NotDone, message)
            .hint(format!("rdb ns switch {name} --to {to} --dry-run  says what stands in the way now")));
    }
    let status = super::look(client, name).await?;
    let pause = match end.write_pause.is_zero() {
        true => String::new(),
        false => format!(", writes were held back for {}", in_short(end.write_pause)),
    };
    let text = format!("done  {name} is {to} (epoch {}, era {}){pause}\n", begun.epoch + 1, begun.era + 1);
    Ok(Answer::new(text, &Json { end: EndJson::from(end), status: StatusJson::from(&status) }))
}

/// What is shown on the way, on stderr.
struct Progress {
    is_live: bool,
    is_silent: bool,
    /// What was shown last, but for what changes all the time.
    last: String,
}

impl Progress {
    fn new(format: Format) -> Self {
        Self {
            is_live: std::io::stderr().is_terminal(),
            is_silent: format == Format::Json,
            last: String::new(),
        }
    }

    fn show(&mut self, status: &SwitchStatus) {
        // How it has ended is said in the end.
        if self.is_silent || !status.is_switching() {
            return;
        }
        if self.is_live {
            complain(&format!("\r\x1b[2K{}", cut(&line(status))));
            return;
        }
        let now = changes(status);
        if now != self.last {
            complain(&format!("{}\n", line(status)));
            self.last = now;
        }
    }

    fn end(&self) {
        if self.is_live && !self.is_silent {
            complain("\r\x1b[2K");
        }
    }
}

/// What makes a line worth a new one where lines stay.
fn changes(status: &SwitchStatus) -> String {
    // Of a blocker the numbers change at each look.
    let blockers = status.blockers.iter().map(|blocker| {
        let words: Vec<_> = blocker.split(' ').filter(|word| word.parse::<f64>().is_err()).collect();
        words.join(" ")
    });
    format!("{} {}", status.phase, blockers.collect::<Vec<_>>().join(";"))
}

fn line(status: &SwitchStatus) -> String {
    let mut line = format!("{}  {} for {}", status.name, status.phase, in_short(status.phase_age));
    if !status.write_pause.is_zero() {
        line += &format!("  writes held back {}", in_short(status.write_pause));
    }
    if status.mode == Mode::Eventual {
        line += &format!("  lag {}", Lag::largest(status));
    }
    match &status.blockers[..] {
        [] => {}
        [one] => line += &format!("  waits: {one}"),
        [one, more @ ..] => line += &format!("  waits: {one}, and {} more", more.len()),
    }
    line
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::status;
    use super::*;
    use rdb_client::SwitchPhase;

    #[test]
    fn a_line_tells_phase_pause_lag_and_what_is_waited_for() {
        let one = status();
        assert_eq!(
            line(&one),
            "things  sealing for 1.2 s  writes held back 400 ms  lag unknown, at least 12 ms  waits: node 2 has not sealed \
             its gate yet"
        );
        let more = SwitchStatus { blockers: vec!["a".into(), "b".into(), "c".into()], ..status() };
        assert!(line(&more).ends_with("waits: a, and 2 more"));
        let strong = SwitchStatus { mode: Mode::Strong, blockers: Vec::new(), ..status() };
        assert!(!line(&strong).contains("lag"), "{}", line(&strong));
        assert_eq!(cut(&line(&one)).chars().count(), LINE_CHARS_MAX + 1);
    }

    #[test]
    fn where_lines_stay_only_what_is_new_makes_another_one() {
        let waits = |blocker: &str| SwitchStatus { blockers: vec![blocker.into()], ..status() };
        let first = changes(&waits("node 3 has not told how it stands for 1.2 s"));
        assert_eq!(first, changes(&waits("node 3 has not told how it stands for 1.3 s")));
        assert_ne!(first, changes(&waits("no member that takes part leads the region")));
        assert_ne!(first, changes(&SwitchStatus { phase: SwitchPhase::Draining, ..status() }));
    }
}
