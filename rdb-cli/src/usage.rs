//! How a command line that is wrong is refused: in clap's words, or as JSON where that was asked for.

use crate::args::Format;
use crate::exit::Failure;
use crate::output::complain;
use clap::error::ErrorKind;
use std::ffi::OsStr;

/// Shows help, or says what is wrong, with a hint of the caller's own. Returns the exit code.
pub(crate) fn report(error: &clap::Error, format: Format, hint: Option<String>) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(2);
    if code != 0 && format == Format::Json {
        return failure(error, hint).report(format);
    }
    // To stdout or stderr, as it is help or a complaint.
    let _ = error.print();
    if let Some(hint) = hint.filter(|_| code != 0) {
        complain(&format!("hint: {hint}\n"));
    }
    code
}

/// Which format words ask for that are no command line.
pub(crate) fn wanted<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Option<Format> {
    let mut is_next = false;
    let mut wanted = None;
    for word in words {
        let Some(word) = word.as_ref().to_str() else { continue };
        let value = match word {
            _ if is_next => word,
            "-o" | "--output" => "",
            word => {
                let long = word.strip_prefix("--output=");
                long.or_else(|| word.strip_prefix("-o")).unwrap_or_default().trim_start_matches('=')
            }
        };
        is_next = matches!(word, "-o" | "--output");
        wanted = match value {
            "json" => Some(Format::Json),
            "table" => Some(Format::Table),
            _ => wanted,
        };
    }
    wanted
}

/// What clap says, without the lines that it is set in.
fn failure(error: &clap::Error, hint: Option<String>) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::usage("a command is missing").hint("--help  shows those there are");
    }
    let text = error.render().to_string();
    let mut parts = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let message = parts.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message).to_owned();
    let hints = parts.filter(|part| part.starts_with("Usage:") || part.starts_with("tip:")).chain(hint);
    Failure::usage(message).hint(hints.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_found_in_what_is_no_command_line() {
        let of = |line: &str| wanted(line.split(' '));
        for json in [
            "-o json put",
            "put -ojson",
            "put a --output json",
            "--output=json",
            "-o=json x",
            "-o table -o json",
        ] {
            assert_eq!(of(json), Some(Format::Json), "{json}");
        }
        assert_eq!(of("put a -o table"), Some(Format::Table));
        for none in ["put a json", "-o", "put -o x", "--outputs=json"] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
