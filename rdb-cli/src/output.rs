//! What a command prints: a table or a line for people, JSON with stable fields for programs.

use crate::args::Format;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use comfy_table::{ContentArrangement, Table, TableStyle};
use serde::{Serialize, Serializer};
use std::io::{IsTerminal, Write};

/// What a command answers, in both forms.
pub(crate) struct Answer {
    text: Vec<u8>,
    json: Vec<u8>,
    code: u8,
}

impl Answer {
    /// A text for people, which ends with its own line end, and a value for programs.
    pub(crate) fn new(text: impl Into<Vec<u8>>, json: &impl Serialize) -> Self {
        Self { text: text.into(), json: to_json(json).into(), code: 0 }
    }

    /// The same bytes in both forms.
    pub(crate) fn raw(bytes: Vec<u8>) -> Self {
        Self { json: bytes.clone(), text: bytes, code: 0 }
    }

    /// An answer that is not the one hoped for.
    pub(crate) fn with_exit_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Returns the exit code.
    pub(crate) fn print(&self, format: Format) -> u8 {
        let bytes = match format {
            Format::Table => &self.text,
            Format::Json => &self.json,
        };
        say(bytes);
        self.code
    }
}

/// Writes to stdout. A reader that has seen enough, as `head` has, is no failure of ours.
pub(crate) fn say(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// Writes to stderr, whatever becomes of it.
pub(crate) fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

pub(crate) fn to_json(value: &impl Serialize) -> String {
    let mut json = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("\"{error}\""));
    json.push('\n');
    json
}

/// The same on one line, for those who print many.
pub(crate) fn to_json_line(value: &impl Serialize) -> String {
    let mut json = serde_json::to_string(value).unwrap_or_else(|error| format!("\"{error}\""));
    json.push('\n');
    json
}

/// Columns with a line under their heads, no frame.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(TableStyle::new())
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head);
    for row in rows {
        table.add_row(row);
    }
    let mut lines = String::new();
    for line in table.to_string().lines() {
        lines += line.trim_end();
        lines.push('\n');
    }
    lines
}

/// Bytes as a person can read them: text stays as it is, and anything else, which could also command the terminal, is
/// escaped.
pub(crate) fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t') => text.into(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// The same where a line must stay one: line ends and tabs are escaped, too.
pub(crate) fn one_line(bytes: &[u8]) -> String {
    let text = readable(bytes);
    if text.contains(['\n', '\t']) { bytes.escape_ascii().to_string() } else { text }
}

/// Bytes in JSON: a field `NAME`, a string, where they are UTF-8, else a field `NAME_base64`.
#[derive(Debug)]
pub(crate) struct JsonBytes(pub(crate) bytes::Bytes);

impl JsonBytes {
    pub(crate) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    pub(crate) fn base64(&self) -> Option<String> {
        self.text().is_none().then(|| BASE64.encode(&self.0))
    }
}

/// A key in JSON.
#[derive(Serialize)]
pub(crate) struct JsonKey {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
}

impl From<&bytes::Bytes> for JsonKey {
    fn from(key: &bytes::Bytes) -> Self {
        let bytes = JsonBytes(key.clone());
        Self { key: bytes.text().map(Into::into), key_base64: bytes.base64() }
    }
}

/// A value in JSON.
#[derive(Serialize)]
pub(crate) struct JsonValue {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl From<&bytes::Bytes> for JsonValue {
    fn from(value: &bytes::Bytes) -> Self {
        let bytes = JsonBytes(value.clone());
        Self { value: bytes.text().map(Into::into), value_base64: bytes.base64() }
    }
}

/// Anything that has a text form, as a JSON string.
pub(crate) fn as_text<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// Colours, where they are wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint(bool);

impl Paint {
    pub(crate) fn for_stdout() -> Self {
        Self::for_stream(std::io::stdout().is_terminal())
    }

    /// On a terminal, unless `NO_COLOR` is set to anything.
    pub(crate) fn for_stream(is_terminal: bool) -> Self {
        Self(is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()))
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("1;33", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("1;32", text)
    }

    pub(crate) fn cyan(self, text: &str) -> String {
        self.paint("36", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_escaped() {
        assert_eq!(readable("grün\n\\x".as_bytes()), "grün\n\\x");
        assert_eq!(readable(b"\x1b[31m"), "\\x1b[31m");
        assert_eq!(readable(b"\xff\\"), "\\xff\\\\");
    }

    #[test]
    fn json_tells_text_from_bytes() {
        let text = to_json(&JsonValue::from(&bytes::Bytes::from("a")));
        assert!(text.contains("\"value\": \"a\"") && !text.contains("base64"), "{text}");
        let binary = to_json(&JsonValue::from(&bytes::Bytes::from_static(&[0xff])));
        assert!(binary.contains("\"value_base64\": \"/w==\""), "{binary}");
    }
}
