//! How a command fails: with which words, and with which exit code.

use crate::args::Format;
use crate::output::{self, Paint};
use rdb_client::{Code, Error, WriteError};
use serde::Serialize;
use std::io::IsTerminal;

/// The classes of failure that programs can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// There is no such key, or a comparison failed.
    Negative,
    /// The command line is wrong.
    Usage,
    /// Nothing was changed.
    NotDone,
    /// A write may have been applied.
    InDoubt,
    /// No node could be reached.
    Unreachable,
    /// A write is done on one node, and not known to be on as many as was asked.
    DoneHere,
}

impl Class {
    fn exit_code(self) -> u8 {
        match self {
            Class::Negative => 1,
            Class::Usage => 2,
            Class::NotDone => 3,
            Class::InDoubt => 4,
            Class::Unreachable => 5,
            Class::DoneHere => 6,
        }
    }
}

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    message: String,
    hint: Option<String>,
    code: Option<Code>,
}

impl Failure {
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, code: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Class::Usage, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says it on stderr. Returns the exit code.
    pub(crate) fn report(self, format: Format) -> u8 {
        let text = match format {
            Format::Table => self.to_lines(),
            Format::Json => self.to_json(),
        };
        output::complain(&text);
        self.class.exit_code()
    }

    fn to_lines(&self) -> String {
        let paint = Paint::for_stream(std::io::stderr().is_terminal());
        let mut lines = format!("{} {}\n", paint.red("error:"), self.message);
        if let Some(hint) = &self.hint {
            lines += &format!("{} {hint}\n", paint.cyan("hint:"));
        }
        lines
    }

    fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Json<'a> {
            class: Class,
            code: Option<&'static str>,
            error: &'a str,
            hint: Option<&'a str>,
        }
        let code = self.code.map(|code| code.as_str_name());
        let json = Json { class: self.class, code, error: &self.message, hint: self.hint.as_deref() };
        output::to_json(&json)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let class = match &error {
            Error::Options(_) => Class::Usage,
            Error::Unreachable { .. } | Error::Lost { .. } | Error::TimedOut { .. } => Class::Unreachable,
            Error::Refused(_) => Class::NotDone,
        };
        Failure { class, message: error.to_string(), hint: Some(hint(&error)), code: error.code() }
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotDone(error @ Error::TimedOut { .. }) => {
                Failure { class: Class::NotDone, ..Failure::from(error) }
            }
            WriteError::NotDone(error) => Failure::from(error),
            WriteError::InDoubt(error) => Failure {
                class: Class::InDoubt,
                message: format!("in doubt, it may have been done: {error}"),
                hint: Some(hint_in_doubt(&error)),
                code: error.code(),
            },
            WriteError::DoneHere(_, error) => {
                Failure { class: Class::DoneHere, hint: Some(error.hint()), ..Failure::from(error) }
            }
        }
    }
}

/// A node that answered knows what is in doubt: a record, a deletion that goes on, or a leader that is yet to come.
fn hint_in_doubt(error: &Error) -> String {
    match error {
        Error::Refused(refusal) if !refusal.hint.is_empty() => refusal.hint.clone(),
        _ => "look at what is stored before doing it again".into(),
    }
}

fn hint(error: &Error) -> String {
    match error {
        Error::Options(_) => "name them as in --endpoints 127.0.0.1:7101,127.0.0.1:7102".into(),
        Error::Unreachable { .. } => "is it running? ./x demo starts three nodes on this machine; \
             --endpoints or FLAREDB_ENDPOINTS names others; rdb status  asks each node that is known"
            .into(),
        Error::Lost { .. } => "rdb status  says how the cluster is".into(),
        Error::TimedOut { .. } => "rdb status  says how the cluster is; --timeout allows more time".into(),
        Error::Refused(refusal) if refusal.code == Code::NamespaceNotFound => {
            "rdb ns list  shows those there are, rdb ns create NAME  makes one".into()
        }
        Error::Refused(_) => error.hint(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdb_client::{Attempted, Refusal};

    #[test]
    fn what_is_in_doubt_is_looked_at_where_the_node_says() {
        let refused = |hint: &str| {
            WriteError::InDoubt(Error::Refused(Box::new(Refusal {
                code: Code::DeadlineExceeded,
                message: "it has begun".into(),
                hint: hint.into(),
                node: "host:1".into(),
                attempted: Attempted::default(),
            })))
        };
        let deletion = Failure::from(refused("it goes on by itself"));
        assert_eq!(
            (deletion.class, deletion.hint.as_deref()),
            (Class::InDoubt, Some("it goes on by itself"))
        );
        let unsaid = Failure::from(refused(""));
        assert_eq!(unsaid.hint.as_deref(), Some("look at what is stored before doing it again"));
    }
}
