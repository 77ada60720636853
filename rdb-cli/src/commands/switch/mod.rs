//! `rdb ns switch`, `abort`, `status` and `watch-lag`: a namespace between strong and eventual.
//!
//! `wait` shows a switch on its way, `show` how a namespace stands, `lag` how far its nodes are behind.

mod lag;
mod show;
mod wait;

pub(crate) use lag::{LagArgs, run as watch_lag};
pub(crate) use show::run as status;

use super::confirm::{ask, can_ask_about};
use super::ns::ModeArg;
use crate::args::{Args, parse_duration};
use crate::exit::Failure;
use crate::output::{Answer, Paint};
use rdb_client::{Client, Mode, SwitchCheck, SwitchOptions, SwitchStatus};
use serde::Serialize;
use show::StatusJson;
use std::time::Duration;

const EXAMPLES: &str = "The switch goes on by itself, whether this command waits for it or not. Without --wait it ends when the \
switch has begun.

Exit status:
  0  begun; with --wait, completed; with --dry-run, nothing stands in the way
  1  with --dry-run: it would be refused
  3  refused, or called off: the mode is as it was
  4  this command stopped waiting, and the switch goes on";

/// A dry run has found that the switch would be refused.
const EXIT_REFUSED: u8 = 1;

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SwitchArgs {
    /// The namespace
    name: String,
    /// The mode to switch to
    #[arg(long, value_enum)]
    to: ModeArg,
    /// Wait until the switch has ended, and show it on its way
    #[arg(long)]
    wait: bool,
    /// Say what stands in the way, and change nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// To strong: go on without this node; what only it has is set aside when it returns
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    exclude: Vec<u64>,
    /// To strong: call the switch off when writes were held back for so long [default: 10s]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    max_write_pause: Option<Duration>,
    /// Call the switch off when the nodes were not close enough to each other by then [default: 60s]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    max_preparing: Option<Duration>,
    /// With --exclude: do not ask
    #[arg(long, short, requires = "exclude")]
    yes: bool,
}

impl SwitchArgs {
    fn options(&self) -> SwitchOptions {
        SwitchOptions {
            excluded: self.exclude.clone(),
            max_write_pause: self.max_write_pause,
            max_preparing: self.max_preparing,
        }
    }
}

pub(crate) async fn run(args: &Args, switch: &SwitchArgs) -> Result<Answer, Failure> {
    let asks = !switch.exclude.is_empty() && !switch.yes && !switch.dry_run;
    if asks {
        can_ask_about("what is given up", "--yes goes on without asking")?;
    }
    let client = args.connect().await?;
    let to = Mode::from(switch.to);
    if switch.dry_run {
        return Ok(checked(&client.check_switch(&switch.name, to, &switch.options()).await?, to));
    }
    if asks {
        let nodes: Vec<_> = switch.exclude.iter().map(ToString::to_string).collect();
        let what = format!(
            "switches '{}' without node {}: what only it has is set aside, and is not in the namespace any more",
            switch.name,
            nodes.join(" and node ")
        );
        ask(&what, &switch.name, "nothing was changed")?;
    }
    let begun = client.switch_mode(&switch.name, to, &switch.options()).await?;
    if switch.wait {
        return wait::run(args, &client, &begun, to).await;
    }
    let text = format!(
        "begun  {} becomes {to} (switch {})\nrdb ns status {}  shows how far it is, rdb ns abort {}  calls it off\n",
        begun.name, begun.switch, begun.name, begun.name
    );
    Ok(Answer::new(text, &StatusJson::from(&begun)))
}

/// What a dry run has found.
fn checked(check: &SwitchCheck, to: Mode) -> Answer {
    #[derive(Serialize)]
    struct Json<'a> {
        /// Whether it would begin.
        would_begin: bool,
        hindrances: Vec<HindranceJson<'a>>,
        status: StatusJson,
    }
    #[derive(Serialize)]
    struct HindranceJson<'a> {
        text: &'a str,
        hint: &'a str,
        /// Whether it is refused for this; else it waits for it.
        refused: bool,
    }
    let hindrances = check.hindrances.iter();
    let hindrances = hindrances.map(|found| HindranceJson {
        text: &found.text,
        hint: &found.hint,
        refused: found.refused,
    });
    let would_begin = check.hindrances.iter().all(|found| !found.refused);
    let json =
        Json { would_begin, hindrances: hindrances.collect(), status: StatusJson::from(&check.status) };
    let code = if would_begin { 0 } else { EXIT_REFUSED };
    Answer::new(checked_text(check, to, Paint::for_stdout()), &json).with_exit_code(code)
}

fn checked_text(check: &SwitchCheck, to: Mode, paint: Paint) -> String {
    let name = &check.status.name;
    let is_refused = check.hindrances.iter().any(|found| found.refused);
    let mut text = match (is_refused, check.hindrances.is_empty()) {
        (true, _) => {
            format!("{}  {name} cannot become {to} now; nothing was changed\n", paint.red("refused"))
        }
        (false, true) => {
            format!("{}  nothing stands in the way of {name} becoming {to}\n", paint.green("ready"))
        }
        (false, false) => {
            format!(
                "{}  {name} can become {to}, after a while that clients do not notice\n",
                paint.yellow("waits")
            )
        }
    };
    for found in &check.hindrances {
        text += &format!("  {}\n    {}\n", found.text, paint.faint(&found.hint));
    }
    text
}

pub(crate) async fn abort(args: &Args, name: &str) -> Result<Answer, Failure> {
    let status = args.connect().await?.abort_switch(name).await?;
    let text =
        format!("called off  {name} stays {} (epoch {}, era {})\n", status.mode, status.epoch, status.era);
    Ok(Answer::new(text, &StatusJson::from(&status)))
}

/// How a namespace's nodes lag, as far as they have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Lag {
    /// At least so much, where it is not known.
    lag_ms: u64,
    known: bool,
}

/// What a node said longer ago than this tells what its lag was, and not what it is: it tells once a second.
const TOLD_MAX: Duration = Duration::from_millis(2500);

impl Lag {
    /// Of one node; `None`: it has not told anything.
    fn of(member: &rdb_client::MemberStanding) -> Option<Self> {
        let said = member.said.as_ref()?;
        let is_fresh = said.age <= TOLD_MAX;
        let known = said.lag_known && is_fresh;
        // What was not everywhere then is so much older now, as far as anybody knows.
        let lag = if known { said.lag } else { said.lag + said.age };
        let lag_ms = u64::try_from(lag.as_millis()).unwrap_or(u64::MAX);
        Some(Self { lag_ms, known })
    }

    /// The largest of all who take part: the namespace's. A node that has told nothing leaves it unknown.
    fn largest(status: &SwitchStatus) -> Self {
        let members = status.members.iter().filter(|member| !member.excluded);
        members.fold(Self { lag_ms: 0, known: true }, |largest, member| {
            let lag = Self::of(member).unwrap_or(Self { lag_ms: 0, known: false });
            Self { lag_ms: largest.lag_ms.max(lag.lag_ms), known: largest.known && lag.known }
        })
    }
}

impl std::fmt::Display for Lag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lag = in_short(Duration::from_millis(self.lag_ms));
        if self.known { f.write_str(&lag) } else { write!(f, "unknown, at least {lag}") }
    }
}

/// `40 ms`, `1.2 s`, `75 s`.
fn in_short(length: Duration) -> String {
    match length.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{:.1} s", length.as_secs_f64()),
        _ => format!("{} s", length.as_secs()),
    }
}

/// Asks for nothing that the cluster would have to change.
async fn look(client: &Client, name: &str) -> Result<SwitchStatus, Failure> {
    Ok(client.switch_status(name).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Command;
    use crate::commands::ns::NsCommand;
    use clap::Parser;
    use rdb_client::{Gate, MemberStanding, Said, SwitchPhase};

    pub(super) fn status() -> SwitchStatus {
        SwitchStatus {
            answered_by: 1,
            controls: true,
            name: "things".into(),
            id: 7,
            mode: Mode::Eventual,
            epoch: 4,
            era: 2,
            phase: SwitchPhase::Sealing,
            to: Some(Mode::Strong),
            switch: 3,
            roster: vec![1, 2],
            excluded: Vec::new(),
            phase_age: Duration::from_millis(1200),
            write_pause: Duration::from_millis(400),
            remaining: Some(Duration::from_secs(9)),
            blockers: vec!["node 2 has not sealed its gate yet".into()],
            members: vec![member(1, Some(said(12, true))), member(2, None)],
            last: None,
            conflicts: 5,
            clock_untrusted: false,
        }
    }

    pub(super) fn member(node: u64, said: Option<Said>) -> MemberStanding {
        MemberStanding {
            node,
            excluded: false,
            reachable: said.is_some(),
            silence: Duration::ZERO,
            said,
            sealed: false,
            drained: false,
        }
    }

    pub(super) fn said(lag_ms: u64, lag_known: bool) -> Said {
        Said {
            age: Duration::from_millis(100),
            mode: Mode::Eventual,
            era: 2,
            epoch: 4,
            gate: Some(Gate::Shut),
            leads: true,
            answering: false,
            lag: Duration::from_millis(lag_ms),
            lag_known,
            behind_writes: 0,
            needs_full_copy: false,
            applied: vec![(1, 120), (2, 98)],
            quarantined: 0,
        }
    }

    fn parse(line: &str) -> Result<SwitchArgs, String> {
        let parsed = Args::try_parse_from(format!("rdb ns switch {line}").split(' '));
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Ns(NsCommand::Switch(switch)) => Ok(switch),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn a_line_says_what_is_to_be_switched_and_how() {
        let switch =
            parse("things --to strong --wait --exclude 3 --exclude 4,5 --yes --max-write-pause 500ms")
                .unwrap();
        assert_eq!((switch.name.as_str(), Mode::from(switch.to)), ("things", Mode::Strong));
        assert!(switch.wait && switch.yes && !switch.dry_run);
        let expected = SwitchOptions {
            excluded: vec![3, 4, 5],
            max_write_pause: Some(Duration::from_millis(500)),
            max_preparing: None,
        };
        assert_eq!(switch.options(), expected);
        assert_eq!(parse("things --to eventual").unwrap().options(), SwitchOptions::default());
        for (wrong, why) in [
            ("things", "--to"),
            ("things --to weak", "strong, eventual"),
            ("--to strong", "NAME"),
            ("things --to strong --dry-run --wait", "cannot be used with"),
            ("things --to strong --exclude two", "invalid value"),
            ("things --to strong --max-write-pause soon", "500ms, 5s, 2m or 1h"),
            ("things --to strong --yes", "--exclude"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_lag_that_is_not_known_is_not_called_small() {
        let lag = |said| Lag::of(&member(1, Some(said))).unwrap().to_string();
        assert_eq!(lag(said(40, true)), "40 ms");
        assert_eq!(lag(said(1250, true)), "1.2 s");
        assert_eq!(lag(said(0, false)), "unknown, at least 100 ms");
        // It was small when it was told, and who knows since.
        let old = Said { age: Duration::from_secs(70), ..said(40, true) };
        assert_eq!(lag(old), "unknown, at least 70 s");
        let mut all = status();
        assert_eq!(Lag::largest(&all).to_string(), "unknown, at least 12 ms", "node 2 has told nothing");
        all.members[1] = member(2, Some(said(30, true)));
        assert_eq!(Lag::largest(&all).to_string(), "30 ms");
    }

    #[test]
    fn a_dry_run_tells_what_is_refused_and_what_is_waited_for() {
        let found = |refused| rdb_client::Hindrance {
            text: "node 2 was not heard for 2.0 s".into(),
            hint: "bring it back".into(),
            refused,
        };
        let text = |hindrances| {
            let check = SwitchCheck { status: status(), hindrances };
            checked_text(&check, Mode::Strong, Paint::for_stream(false))
        };
        assert!(text(Vec::new()).starts_with("ready  nothing stands in the way"));
        assert!(text(vec![found(false)]).starts_with("waits  things can become strong"));
        let refused = text(vec![found(false), found(true)]);
        assert!(refused.starts_with("refused  ") && refused.contains("\n    bring it back\n"), "{refused}");
    }
}
