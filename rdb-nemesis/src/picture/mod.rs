//! A page about a run that a person can look at: pictures over time, what was done, what each check has looked at, and which rows of
//! the scorecard it was about. It is drawn from the history alone, so that an old one can be looked at, too.

mod moments;
mod panels;
mod rows;

use crate::history::Line;
use anyhow::{Context as _, Result};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use moments::{Moments, Span};
use std::path::Path;

const STYLE: &str = "
    body { font: 15px/1.45 system-ui, sans-serif; max-width: 1180px; margin: 2rem auto; padding: 0 1rem; color: #1f2933 }
    h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
    table { border-collapse: collapse; width: 100% }
    td, th { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #e4e7eb }
    svg { max-width: 100%; height: auto }
    .ok { color: #2b8a3e } .failed { color: #c92a2a; font-weight: 600 }
";

/// Writes the page of a history to a file. `title` is what the run was, `looked` and `problems` what its judge has said.
///
/// # Errors
/// It cannot be drawn or written.
pub fn write_page(
    path: &Path,
    title: &str,
    lines: &[Line],
    looked: &[String],
    problems: &[String],
) -> Result<()> {
    let moments = Moments::of(lines);
    let picture = panels::draw(&moments)?;
    let page = page(title, &moments, &picture, looked, problems);
    std::fs::write(path, page.into_string()).with_context(|| format!("cannot write {}", path.display()))
}

fn page(title: &str, moments: &Moments, picture: &str, looked: &[String], problems: &[String]) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; title { (title) } style { (PreEscaped(STYLE)) } }
            body {
                h1 { (title) }
                @if problems.is_empty() {
                    p.ok { "Nothing is wrong." }
                } @else {
                    ul { @for problem in problems { li.failed { (problem) } } }
                }
                (PreEscaped(picture))
                h2 { "What was done" }
                (spans(&moments.faults))
                @if !moments.switches.is_empty() {
                    h2 { "Switches of the mode" }
                    (spans(&moments.switches))
                }
                h2 { "What was looked at" }
                ul { @for line in looked { li { (line) } } }
                h2 { "Rows of the scorecard" }
                table {
                    tr { th { "row" } th { "what" } th { "here" } }
                    @for (row, what, fault) in rows::of(&moments.faults) {
                        tr {
                            td { (row) } td { (what) }
                            td { (fault) ": " @if problems.is_empty() { span.ok { "passed" } } @else { span.failed { "the run failed" } } }
                        }
                    }
                }
            }
        }
    }
}

fn spans(spans: &[Span]) -> Markup {
    html! {
        table {
            tr { th { "" } th { "from" } th { "for" } th { "what" } }
            @for (number, span) in (1..).zip(spans) {
                tr {
                    td { (number) }
                    td { (format!("{:.2} s", span.from)) }
                    td { (format!("{:.2} s", span.to - span.from)) }
                    td { (span.what) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Seen;

    #[test]
    fn a_page_shows_faults_and_whatever_names_hold() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("page.html");
        let at = |second: u64| second * 1_000_000_000;
        let lines = [
            Line::Note { note: "fault: kill -9 of <node 1>".to_owned(), at_ns: at(1) },
            Line::Seen {
                seen: Seen { leads_in_term: Some(3), mode: Some("eventual".to_owned()), ..Seen::away(1) },
                at_ns: at(1),
            },
            Line::Note { note: "healed: kill -9 of <node 1>".to_owned(), at_ns: at(2) },
        ];
        write_page(&path, "seed 1", &lines, &[], &["something is wrong".to_owned()]).unwrap();
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page.contains("kill -9 of &lt;node 1&gt;") && !page.contains("<node 1>"));
        assert!(page.contains("<svg") && page.contains("something is wrong"));
    }
}
