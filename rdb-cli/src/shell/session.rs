//! Runs lines, one after the other, over one connection.

use super::demo::{self, Demo};
use super::leaders;
use super::line::{Line, commands, insert_namespace};
use crate::args::{Args, Format};
use crate::commands;
use crate::exit::{Class, Failure};
use crate::output::{Answer, say};
use crate::usage;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};

const HELP: &str = "
At this prompt rdb's commands need no 'rdb', and each tells more: put --help. Besides:

  use NS            name the namespace once: put KEY VALUE, get KEY; use alone undoes it
  help              this
  exit, Ctrl-D      leave; Ctrl-C ends the command that runs
";

/// What a shell remembers from line to line.
pub(super) struct Session {
    /// The options that the shell was started with: they hold unless a line says otherwise.
    base: Args,
    commands: Command,
    namespace: Option<String>,
    demo: Option<Demo>,
}

/// What came of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It ended with this exit code.
    Done(u8),
    /// It was the last.
    Leave,
}

impl Session {
    pub(super) fn new(base: Args, demo: Option<Demo>) -> Self {
        Self { base, commands: commands(), namespace: None, demo }
    }

    pub(super) fn format(&self) -> Format {
        self.base.output
    }

    /// The options, and the connection, for whoever asks beside the lines.
    pub(super) fn base(&self) -> &Args {
        &self.base
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(super) fn demo(&self) -> Option<&Demo> {
        self.demo.as_ref()
    }

    /// Runs a line, and shows what came of it.
    pub(super) async fn run(&mut self, text: &str) -> Step {
        let format = self.format();
        let code = match Line::parse(text) {
            Ok(Line::Nothing) => 0,
            Ok(Line::Leave) => return Step::Leave,
            Ok(Line::Help) => self.help(),
            Ok(Line::Use(namespace)) => self.use_namespace(namespace).await,
            Ok(Line::Demo(word, words)) => show(self.run_demo(&word, &words).await, format),
            Ok(Line::Command(words)) => self.command(words).await,
            Err(failure) => failure.report(format),
        };
        Step::Done(code)
    }

    fn help(&self) -> u8 {
        let mut text = String::new();
        for command in self.commands.get_subcommands().filter(|command| command.get_name() != "help") {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            text += &format!("  {:<16}  {about}\n", command.get_name());
        }
        text += HELP;
        if self.demo.is_some() {
            text += &format!("\n{}", demo::HELP);
        }
        say(text.as_bytes());
        0
    }

    /// A name that does not exist is most likely a slip: better told now than at each command.
    async fn use_namespace(&mut self, namespace: Option<String>) -> u8 {
        if let Some(namespace) = &namespace {
            let described = match self.base.connect().await {
                Ok(client) => client.describe_namespace(namespace).await.map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            if let Err(failure) = described {
                return failure.report(self.format());
            }
        }
        self.namespace = namespace;
        0
    }

    async fn run_demo(&mut self, word: &str, words: &[String]) -> Result<Answer, Failure> {
        let Some(demo) = &mut self.demo else {
            return Err(Failure::usage(format!("\\{word} is for the demo's prompt"))
                .hint("./x demo starts three nodes and opens it; --demo FOLDER names a demo that runs"));
        };
        match word {
            "leaders" => {
                let line = leaders::look(&self.base).await;
                Ok(Answer::new(format!("{}\n", line.text), &line))
            }
            word => demo.run(word, words).await,
        }
    }

    async fn command(&self, mut words: Vec<String>) -> u8 {
        let inserted = self
            .namespace
            .as_ref()
            .filter(|namespace| insert_namespace(&self.commands, &mut words, namespace));
        let format = usage::wanted(&words).unwrap_or(self.format());
        let parsed =
            self.commands.clone().try_get_matches_from(std::iter::once("rdb".to_owned()).chain(words));
        let args = match parsed.and_then(|matches| self.with_base(&matches)) {
            Ok(args) => args,
            Err(error) => {
                let hint = inserted.map(|namespace| {
                    format!("the namespace is '{namespace}' and need not be named; use  undoes that")
                });
                return usage::report(&error, format, hint);
            }
        };
        let format = args.output;
        show(commands::run(args).await, format)
    }

    /// The options that a line does not name are the shell's.
    fn with_base(&self, matches: &ArgMatches) -> Result<Args, clap::Error> {
        let mut args = Args::from_arg_matches(matches)?;
        let typed = |option| matches.value_source(option) == Some(ValueSource::CommandLine);
        if !typed("output") {
            args.output = self.base.output;
        }
        if !typed("endpoints") {
            args.endpoints.clone_from(&self.base.endpoints);
        }
        if !typed("timeout") {
            args.timeout = self.base.timeout;
        }
        if !typed("endpoints") && !typed("timeout") {
            args.connection.clone_from(&self.base.connection);
        }
        Ok(args)
    }
}

/// Returns the exit code.
fn show(done: Result<Answer, Failure>, format: Format) -> u8 {
    match done {
        Ok(answer) => answer.print(format),
        Err(failure) => failure.report(format),
    }
}

/// What is said of a command that Ctrl-C ended.
pub(super) fn interrupted() -> Failure {
    Failure::new(Class::InDoubt, "interrupted: if it was to change something, it may have, or may yet")
}
