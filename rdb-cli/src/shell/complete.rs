//! What Tab offers: commands, options, values, and what the cluster has now: namespaces and nodes.

use super::demo;
use super::line::{NAMESPACE, commands, is_named, option, takes_namespace};
use crate::output::Paint;
use clap::{Arg, Command};
use parking_lot::Mutex;
use rdb_client::ClusterStatus;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use std::borrow::Cow;
use std::sync::Arc;

/// The shell's own words.
const WORDS: [&str; 3] = ["exit", "help", "use"];

/// What the cluster has, as of the last look.
#[derive(Debug, Default, Clone)]
pub(super) struct Known {
    namespaces: Vec<String>,
    nodes: Vec<String>,
    addresses: Vec<String>,
}

impl Known {
    pub(super) fn of(cluster: &ClusterStatus) -> Self {
        Self {
            namespaces: cluster.namespaces.iter().map(|namespace| namespace.name.clone()).collect(),
            nodes: cluster.nodes.iter().map(|node| node.id.to_string()).collect(),
            addresses: cluster.nodes.iter().map(|node| node.client_address.clone()).collect(),
        }
    }
}

/// Completes lines for the prompt.
pub(super) struct Helper {
    commands: Command,
    known: Arc<Mutex<Known>>,
    is_demo: bool,
    /// Whether a namespace is in use, so that commands do not name it.
    used: bool,
    files: FilenameCompleter,
}

/// How far a command has been typed.
struct Place<'a> {
    command: &'a Command,
    /// Its names, from the outermost.
    path: Vec<&'a str>,
    /// Its arguments that are there, apart from options.
    positionals: usize,
    /// The option whose value comes next.
    open: Option<&'a Arg>,
}

/// What may stand where the cursor is.
#[derive(Debug, PartialEq, Eq)]
enum Offer {
    Words(Vec<String>),
    File,
}

impl Helper {
    pub(super) fn new(known: Arc<Mutex<Known>>, is_demo: bool) -> Self {
        Self { commands: commands(), known, is_demo, used: false, files: FilenameCompleter::new() }
    }

    pub(super) fn set_used(&mut self, used: bool) {
        self.used = used;
    }

    /// What may follow these words, where `current` is begun.
    fn offer(&self, before: &[&str], current: &str) -> Offer {
        match before {
            [] if current.starts_with('\\') => self.demo_words(),
            [] if !current.starts_with('-') => self.first_words(),
            ["rdb"] if !current.starts_with('-') => self.first_words(),
            [word, ..] if word.starts_with('\\') => Offer::Words(self.known.lock().nodes.clone()),
            ["use"] => Offer::Words(self.known.lock().namespaces.clone()),
            ["help", ..] => self.first_words(),
            words => self.offer_in_command(words, current),
        }
    }

    fn first_words(&self) -> Offer {
        let names = self.commands.get_subcommands().map(|command| command.get_name().to_owned());
        let mut words: Vec<String> = names.chain(WORDS.map(str::to_owned)).collect();
        words.sort();
        words.dedup();
        Offer::Words(words)
    }

    fn demo_words(&self) -> Offer {
        let words = demo::WORDS.iter().filter(|_| self.is_demo);
        Offer::Words(words.map(|word| format!("\\{word}")).collect())
    }

    /// Where in a command these words lead.
    fn place(&self, words: &[&str]) -> Place<'_> {
        let mut place = Place { command: &self.commands, path: Vec::new(), positionals: 0, open: None };
        for word in words.iter().skip_while(|word| **word == "rdb") {
            if place.open.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                place.open = option(place.command, word).filter(|option| option.get_action().takes_values());
            } else if let Some(inner) = place.command.find_subcommand(word) {
                place.command = inner;
                place.path.push(inner.get_name());
                place.positionals = usize::from(self.used && takes_namespace(inner));
            } else {
                place.positionals += 1;
            }
        }
        place
    }

    fn offer_in_command(&self, words: &[&str], current: &str) -> Offer {
        let Place { command, path, positionals, open } = self.place(words);
        if let Some(option) = open {
            return self.values(option, &path);
        }
        if current.starts_with('-') {
            let options = command.get_arguments().filter(|argument| !argument.is_hide_set());
            return Offer::Words(options.filter_map(Arg::get_long).map(|long| format!("--{long}")).collect());
        }
        if command.has_subcommands() {
            return Offer::Words(
                command.get_subcommands().map(|inner| inner.get_name().to_owned()).collect(),
            );
        }
        match command.get_positionals().nth(positionals) {
            Some(argument) => self.values(argument, &path),
            None => Offer::Words(Vec::new()),
        }
    }

    /// What an argument may be.
    fn values(&self, argument: &Arg, path: &[&str]) -> Offer {
        let possible: Vec<_> =
            argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let known = self.known.lock();
        let names_namespace = is_named(argument, NAMESPACE)
            || is_named(argument, "NAME") && matches!(path, ["ns", command] if *command != "create");
        if !possible.is_empty() {
            Offer::Words(possible)
        } else if names_namespace {
            Offer::Words(known.namespaces.clone())
        } else if is_named(argument, "NODE") {
            Offer::Words(known.nodes.clone())
        } else if is_named(argument, "HOST:PORT") {
            Offer::Words(known.addresses.clone())
        } else if is_named(argument, "FILE") {
            Offer::File
        } else {
            Offer::Words(Vec::new())
        }
    }
}

impl Completer for Helper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let text = &line[..position];
        let begin = text.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        let before: Vec<&str> = text[..begin].split_whitespace().collect();
        let current = &text[begin..];
        match self.offer(&before, current) {
            Offer::File => self.files.complete_path(line, position),
            Offer::Words(words) => {
                let fitting = words.into_iter().filter(|word| word.starts_with(current));
                let pairs = fitting.map(|word| Pair { replacement: format!("{word} "), display: word });
                Ok((begin, pairs.collect()))
            }
        }
    }
}

impl Hinter for Helper {
    type Hint = String;

    /// The arguments that are still to come.
    fn hint(&self, line: &str, position: usize, _: &rustyline::Context<'_>) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if position < line.len()
            || !line.ends_with(' ')
            || words.is_empty()
            || line.contains(['\'', '"', '\\'])
        {
            return None;
        }
        let place = self.place(&words);
        let missing = place.command.get_positionals().skip(place.positionals).map(|argument| {
            let names = argument.get_value_names().unwrap_or_default().join(" ");
            if argument.is_required_set() { names } else { format!("[{names}]") }
        });
        let missing: Vec<String> = missing.collect();
        (place.open.is_none() && !missing.is_empty()).then(|| missing.join(" "))
    }
}

impl Highlighter for Helper {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Paint::for_stdout().faint(hint).into()
    }
}

impl Validator for Helper {}
impl rustyline::Helper for Helper {}

#[cfg(test)]
mod tests {
    use super::*;

    fn helper(is_demo: bool) -> Helper {
        let known = Known {
            namespaces: vec!["fruit".into(), "things".into()],
            nodes: vec!["1".into(), "2".into()],
            addresses: vec!["host:1".into()],
        };
        Helper::new(Arc::new(Mutex::new(known)), is_demo)
    }

    /// What fits what is typed.
    fn fitting(helper: &Helper, text: &str) -> Vec<String> {
        let history = rustyline::history::MemHistory::new();
        let context = rustyline::Context::new(&history);
        let (begin, pairs) = helper.complete(text, text.len(), &context).unwrap();
        pairs.into_iter().map(|pair| format!("{}{}", &text[..begin], pair.replacement.trim_end())).collect()
    }

    #[test]
    fn commands_options_and_values() {
        let helper = helper(false);
        assert_eq!(fitting(&helper, "pu"), ["put"]);
        assert_eq!(fitting(&helper, "us"), ["use"]);
        assert_eq!(fitting(&helper, "rdb stat"), ["rdb status"]);
        assert_eq!(fitting(&helper, "help co"), ["help completions"]);
        assert_eq!(fitting(&helper, "ns mo"), ["ns move-leader"]);
        assert_eq!(fitting(&helper, "get fruit a --cons"), ["get fruit a --consistency"]);
        assert_eq!(fitting(&helper, "get fruit a --consistency st"), ["get fruit a --consistency stale"]);
        assert_eq!(fitting(&helper, "-o j"), ["-o json"]);
        assert_eq!(fitting(&helper, "completions ba"), ["completions bash"]);
        assert!(fitting(&helper, "get fruit a ").is_empty());
    }

    #[test]
    fn hints_name_what_is_still_to_come() {
        let mut helper = helper(false);
        let history = rustyline::history::MemHistory::new();
        let hint = |helper: &Helper, line: &str| {
            helper.hint(line, line.len(), &rustyline::Context::new(&history)).unwrap_or_default()
        };
        assert_eq!(hint(&helper, "put "), "NS KEY [VALUE]");
        assert_eq!(hint(&helper, "get fruit "), "KEY");
        assert_eq!(hint(&helper, "ns move-leader "), "NAME NODE");
        for none in ["put", "get fruit apple ", "status ", "get --at ", "put 'a ", "", "nonsense "] {
            assert_eq!(hint(&helper, none), "", "{none}");
        }
        helper.set_used(true);
        assert_eq!(hint(&helper, "get "), "KEY");
    }

    #[test]
    fn what_the_cluster_has() {
        let mut helper = helper(true);
        assert_eq!(fitting(&helper, "put "), ["put fruit", "put things"]);
        assert_eq!(fitting(&helper, "-o json get th"), ["-o json get things"]);
        assert!(fitting(&helper, "put fruit f").is_empty(), "a key is not known");
        assert_eq!(fitting(&helper, "use t"), ["use things"]);
        assert_eq!(fitting(&helper, "ns describe f"), ["ns describe fruit"]);
        assert!(fitting(&helper, "ns create f").is_empty());
        assert_eq!(fitting(&helper, "ns move-leader fruit 2"), ["ns move-leader fruit 2"]);
        assert_eq!(fitting(&helper, "get fruit a --at h"), ["get fruit a --at host:1"]);
        assert_eq!(fitting(&helper, "\\ki"), ["\\kill"]);
        assert_eq!(fitting(&helper, "\\kill 2"), ["\\kill 2"]);
        helper.set_used(true);
        assert!(fitting(&helper, "put f").is_empty(), "the namespace is in use and not named");
        assert!(fitting(&self::helper(false), "\\ki").is_empty(), "not a demo");
    }
}
