//! What a case has found: figures, some of them with a bar, and what is wrong.

use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// One number.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub what: String,
    /// What came out.
    pub value: f64,
    /// In what.
    pub unit: &'static str,
    /// The most that is allowed, where something is.
    pub most: Option<f64>,
}

impl Figure {
    fn said(&self) -> String {
        let bar = self.most.map_or(String::new(), |most| format!(" (bar: {})", number(most)));
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        format!("{} {}{unit}{bar}", self.what, number(self.value))
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    if value.fract() == 0.0 || 1_000.0 <= value { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// What came of a case.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Which.
    pub case: &'static str,
    /// What it drew from.
    pub seed: u64,
    /// How long it took, all included.
    pub seconds: f64,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// All that is wrong. A case without problems has passed.
    pub problems: Vec<String>,
    /// The command that does it again.
    pub again: String,
    /// Where logs, configurations and data are, of a case that failed.
    pub folder: Option<PathBuf>,
}

impl Outcome {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// The case in one line.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        let verdict = if self.passed() { "ok" } else { "FAILED" };
        let figures: Vec<String> = self.figures.iter().map(Figure::said).collect();
        format!("{}: {verdict}: {} ({:.0} s)", self.case, figures.join(", "), self.seconds)
    }
}

/// What a case finds on its way.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) figures: Vec<Figure>,
    pub(super) problems: Vec<String>,
}

impl Findings {
    /// A number that is only told.
    pub(super) fn tell(&mut self, what: impl Into<String>, value: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), value, unit, most: None });
    }

    /// A count that is only told.
    pub(super) fn count(&mut self, what: impl Into<String>, value: u64) {
        self.tell(what, value as f64, "");
    }

    /// A time that must be no longer than its bar.
    pub(super) fn hold(&mut self, what: impl Into<String>, value: Duration, most: Duration) {
        let what = what.into();
        let (unit, value, bar) = in_unit(value, most);
        let figure = Figure { what, value, unit, most: Some(bar) };
        if bar < value {
            self.problem(format!("over the bar: {}", figure.said()));
        }
        self.figures.push(figure);
    }

    /// Something is wrong.
    pub(super) fn problem(&mut self, what: impl Into<String>) {
        self.problems.push(what.into());
    }

    /// Something is wrong unless it is so.
    pub(super) fn require(&mut self, is_so: bool, else_wrong: impl FnOnce() -> String) {
        if !is_so {
            self.problem(else_wrong());
        }
    }

    /// What says that it is wrong.
    pub(super) fn expect(&mut self, looked: Result<(), String>) {
        if let Err(why) = looked {
            self.problem(why);
        }
    }
}

/// Both in the unit that people say the bar in.
fn in_unit(value: Duration, most: Duration) -> (&'static str, f64, f64) {
    if most < Duration::from_secs(1) {
        ("ms", value.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3)
    } else {
        ("s", value.as_secs_f64(), most.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_its_bar_is_a_problem_and_what_is_at_it_is_none() {
        let mut findings = Findings::default();
        let (bar, over) = (Duration::from_millis(100), Duration::from_micros(100_100));
        findings.hold("lag", bar, bar);
        assert_eq!(findings.problems, Vec::<String>::new());
        findings.hold("lag", over, bar);
        assert_eq!(findings.problems, ["over the bar: lag 100.1 ms (bar: 100)"]);
        findings.hold("heal", Duration::from_millis(2_500), Duration::from_secs(3));
        assert_eq!(findings.figures[2].said(), "heal 2.5 s (bar: 3)");
    }
}
