//! What a line asks for. Words are quoted as in a shell; a word that begins with `\` is the demo's.

use crate::args::Args;
use crate::exit::Failure;
use clap::{Command, CommandFactory};

/// A line, understood as far as it can be without asking anyone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Blank, or a comment.
    Nothing,
    /// The end.
    Leave,
    /// What can be typed.
    Help,
    /// Name the namespace for the lines that follow, or for none.
    Use(Option<String>),
    /// A word of the demo and what follows it.
    Demo(String, Vec<String>),
    /// A command of `rdb`, without `rdb`.
    Command(Vec<String>),
}

/// The value name by which commands mark the argument that is a namespace.
pub(super) const NAMESPACE: &str = "NS";

impl Line {
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let text = text.trim();
        if text.starts_with('#') {
            return Ok(Line::Nothing);
        }
        if let Some(demo) = text.strip_prefix('\\') {
            let mut words = demo.split_whitespace().map(str::to_owned);
            return Ok(match words.next().unwrap_or_default().as_str() {
                "" | "help" | "h" | "?" => Line::Help,
                "q" | "quit" => Line::Leave,
                word => Line::Demo(word.to_owned(), words.collect()),
            });
        }
        let mut words = shlex::split(text).ok_or_else(|| {
            Failure::usage("a quote is not closed, or the line ends with \\")
                .hint("'it''s' is quoted \"it's\"")
        })?;
        // As it stands in documents.
        if words.first().is_some_and(|word| word == "rdb") {
            words.remove(0);
        }
        let line = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Line::Nothing,
            ["exit" | "quit"] => Line::Leave,
            ["help" | "-h" | "--help"] => Line::Help,
            ["use"] => Line::Use(None),
            ["use", namespace] => Line::Use(Some(namespace.into())),
            ["use", ..] => return Err(Failure::usage("use takes the name of one namespace, or none")),
            _ => Line::Command(words),
        };
        Ok(line)
    }
}

/// All commands, ready to be looked at.
pub(super) fn commands() -> Command {
    let mut commands = Args::command();
    commands.build();
    commands
}

/// Puts the namespace where the command that is typed wants it. Says whether it did.
pub(super) fn insert_namespace(commands: &Command, words: &mut Vec<String>, namespace: &str) -> bool {
    let Some(place) = command_place(commands, words) else { return false };
    let takes = commands.find_subcommand(&words[place]).is_some_and(takes_namespace);
    if takes {
        words.insert(place + 1, namespace.into());
    }
    takes
}

/// Where the command stands among the words: behind options, each with its value.
fn command_place(commands: &Command, words: &[String]) -> Option<usize> {
    let mut place = 0;
    while let Some(word) = words.get(place) {
        if !word.starts_with('-') {
            return Some(place);
        }
        place += 1 + usize::from(takes_value(commands, word));
    }
    None
}

/// Whether the command's first argument is a namespace.
pub(super) fn takes_namespace(command: &Command) -> bool {
    command.get_positionals().next().is_some_and(|first| is_named(first, NAMESPACE))
}

pub(super) fn is_named(argument: &clap::Arg, name: &str) -> bool {
    argument.get_value_names().is_some_and(|names| names.first().is_some_and(|first| first == name))
}

/// Whether an option's value is the word behind it.
pub(super) fn takes_value(command: &Command, word: &str) -> bool {
    option(command, word).is_some_and(|option| option.get_action().takes_values())
}

/// The option that a word is, if its value is not in the word itself.
pub(super) fn option<'a>(command: &'a Command, word: &str) -> Option<&'a clap::Arg> {
    let mut short = word.strip_prefix('-')?.chars();
    let short = short.next().filter(|_| short.next().is_none());
    let long = word.strip_prefix("--");
    command.get_arguments().find(|argument| {
        long.is_some() && argument.get_long() == long || short.is_some() && argument.get_short() == short
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> Line {
        Line::Command(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn lines() {
        let parse = |text| Line::parse(text).unwrap();
        assert_eq!(parse("  "), Line::Nothing);
        assert_eq!(parse("# a comment, and it's one"), Line::Nothing);
        assert_eq!(parse("put fruit 'a b' \"it's\""), command(&["put", "fruit", "a b", "it's"]));
        assert_eq!(parse("rdb get fruit ''"), command(&["get", "fruit", ""]));
        assert_eq!(parse("use fruit"), Line::Use(Some("fruit".into())));
        assert_eq!(parse("use"), Line::Use(None));
        assert_eq!(parse("exit"), Line::Leave);
        assert_eq!(parse("\\q"), Line::Leave);
        assert_eq!(parse("help"), Line::Help);
        assert_eq!(parse("help put"), command(&["help", "put"]));
        assert_eq!(parse("\\partition 1|2,3"), Line::Demo("partition".into(), vec!["1|2,3".into()]));
        assert_eq!(parse("\\"), Line::Help);
        for wrong in ["put fruit 'a", "get a \\", "use a b"] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_namespace_goes_behind_the_command() {
        let commands = commands();
        let with = |text: &str| {
            let mut words: Vec<_> = text.split(' ').map(str::to_owned).collect();
            let inserted = insert_namespace(&commands, &mut words, "fruit");
            assert_eq!(inserted, words.join(" ") != text);
            words.join(" ")
        };
        assert_eq!(with("put a b"), "put fruit a b");
        assert_eq!(with("-o json get a --raw"), "-o json get fruit a --raw");
        assert_eq!(with("--output=json --timeout 3s del a"), "--output=json --timeout 3s del fruit a");
        assert_eq!(with("cas --absent a b"), "cas fruit --absent a b");
        for untouched in ["status", "ns describe things", "help put", "nonsense a"] {
            assert_eq!(with(untouched), untouched);
        }
    }
}
