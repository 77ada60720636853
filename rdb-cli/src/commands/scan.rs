//! `rdb scan`
//!
//! Records are printed as they come, so that a scan of any size can be looked at and piped.

use super::bytes;
use super::read::{ReadArgs, tell_age};
use crate::args::{Args, Format};
use crate::exit::Failure;
use crate::output::{Answer, JsonKey, JsonValue, as_text, complain, one_line, to_json_line};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rdb_client::{Bytes, Namespace, Record, Scan, ScanOptions, ServedBy, Version};
use serde::Serialize;
use std::ffi::OsString;
use std::io::Write;

const EXAMPLES: &str = "Examples:
  rdb scan fruit                          all records
  rdb scan fruit --prefix basket/7/       those whose keys begin so
  rdb scan fruit --range a b              those from a on that come before b
  rdb scan fruit --from m --reverse       those from m on, the last one first
  rdb scan fruit --limit 100              the first hundred; stderr has the token for the next ones
  rdb scan fruit --prefix basket/ --count how many there are
  rdb -o json scan fruit | jq -r .key     one JSON object a line";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScanArgs {
    /// The namespace
    #[arg(value_name = "NS")]
    namespace: String,
    /// The keys that begin so
    #[arg(long, value_name = "PREFIX", conflicts_with_all = ["range", "from", "to"])]
    prefix: Option<OsString>,
    /// The keys from FROM up to, and without, TO; where TO is '', up to the last one
    #[arg(long, num_args = 2, value_names = ["FROM", "TO"], conflicts_with_all = ["from", "to"])]
    range: Option<Vec<OsString>>,
    /// The keys from this one on
    #[arg(long, value_name = "KEY")]
    from: Option<OsString>,
    /// The keys before this one
    #[arg(long, value_name = "KEY")]
    to: Option<OsString>,
    /// The last key first
    #[arg(long)]
    reverse: bool,
    /// No more records than this
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Keys without their values
    #[arg(long)]
    keys_only: bool,
    /// The number of records, and none of them
    #[arg(long, conflicts_with_all = ["keys_only", "reverse"])]
    count: bool,
    /// Go on where an earlier scan of the same keys was
    #[arg(long)]
    token: Option<String>,
    /// Fail rather than go on at another node, at a later moment, if the one that answers is lost
    #[arg(long)]
    one_moment: bool,
    #[command(flatten)]
    read: ReadArgs,
}

#[derive(Serialize)]
struct CountJson<'a> {
    namespace: &'a str,
    count: u64,
}

#[derive(Serialize)]
struct RecordJson {
    #[serde(flatten)]
    key: JsonKey,
    #[serde(flatten)]
    value: Option<JsonValue>,
    #[serde(serialize_with = "as_text")]
    version: Version,
}

#[derive(Serialize)]
struct TokenJson {
    token: String,
}

pub(crate) async fn run(args: &Args, scan: &ScanArgs) -> Result<Answer, Failure> {
    let options = scan.options()?;
    // Before connecting: what is wrong with the command line is said at once.
    scan.read.consistency()?;
    let namespace = scan.read.namespace(args, &scan.namespace).await?;
    if scan.count {
        return scan.count(&namespace, options).await;
    }
    let mut printer = Printer { format: args.output, keys_only: scan.keys_only, width: 0 };
    let mut records = namespace.scan(options);
    let printed = print(&mut printer, &mut records).await;
    let read_to_the_end = !matches!(printed, Ok(false));
    if let Some(token) = records.token().filter(|_| read_to_the_end) {
        complain(&in_words(args.output, token));
    }
    printed.map(|_| Answer::raw(Vec::new()))
}

/// Prints all that comes. Returns whether it was read to the end.
async fn print(printer: &mut Printer, records: &mut Scan) -> Result<bool, Failure> {
    let mut told = false;
    while let Some(page) = records.next_page().await? {
        let stale = records.served().filter(|served| served.by == Some(ServedBy::Stale));
        if let Some(served) = stale.filter(|_| !std::mem::replace(&mut told, true)) {
            tell_age(served, printer.format);
        }
        if !printer.print(&page) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// How to go on, for a person or a program.
fn in_words(format: Format, token: &Bytes) -> String {
    let token = BASE64.encode(token);
    match format {
        Format::Table => format!("more may follow: --token {token}\n"),
        Format::Json => to_json_line(&TokenJson { token }),
    }
}

impl ScanArgs {
    fn options(&self) -> Result<ScanOptions, Failure> {
        let end = |end: &Option<OsString>| end.as_ref().map_or_else(Bytes::new, bytes);
        let mut options = match (&self.prefix, self.range.as_deref()) {
            (Some(prefix), _) => ScanOptions::prefix(bytes(prefix)),
            (_, Some([from, to])) => ScanOptions::range(bytes(from), bytes(to)),
            _ => ScanOptions::range(end(&self.from), end(&self.to)),
        };
        options = options.limit(self.limit.unwrap_or(0));
        if self.reverse {
            options = options.reverse();
        }
        if self.keys_only {
            options = options.keys_only();
        }
        if self.one_moment {
            options = options.one_moment();
        }
        if let Some(token) = &self.token {
            let token = BASE64.decode(token);
            let token = token.map_err(|_| {
                Failure::usage("that is no token").hint("pass on, as it is, what an earlier scan printed")
            })?;
            options = options.after(token);
        }
        Ok(options)
    }

    async fn count(&self, namespace: &Namespace, options: ScanOptions) -> Result<Answer, Failure> {
        let count = namespace.count(options).await?;
        Ok(Answer::new(format!("{count}\n"), &CountJson { namespace: &self.namespace, count }))
    }
}

/// Prints records page by page.
struct Printer {
    format: Format,
    keys_only: bool,
    /// Of the column of keys: it only grows, since what is printed cannot be moved.
    width: usize,
}

/// A longer key does not push the values of all others to the right.
const WIDTH_MAX: usize = 40;

impl Printer {
    /// Returns whether anybody still reads.
    fn print(&mut self, page: &[Record]) -> bool {
        let lines = match self.format {
            Format::Table => self.table(page),
            Format::Json => page.iter().map(|record| self.json(record)).collect(),
        };
        let mut stdout = std::io::stdout().lock();
        // A reader that has seen enough, as `head` has, is no failure of ours.
        stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_ok()
    }

    fn table(&mut self, page: &[Record]) -> String {
        let rows: Vec<_> = page.iter().map(|record| (one_line(&record.key), record)).collect();
        let widths = rows.iter().map(|(key, _)| key.chars().count()).filter(|width| *width <= WIDTH_MAX);
        self.width = widths.max().unwrap_or(0).max(self.width);
        let mut lines = String::new();
        for (key, record) in rows {
            if self.keys_only {
                lines += &key;
            } else {
                lines += &format!("{key:width$}  {}", one_line(&record.value), width = self.width);
            }
            lines.push('\n');
        }
        lines
    }

    fn json(&self, record: &Record) -> String {
        to_json_line(&RecordJson {
            key: JsonKey::from(&record.key),
            value: (!self.keys_only).then(|| JsonValue::from(&record.value)),
            version: record.version,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &'static [u8]) -> Record {
        Record { key: key.to_string().into(), value: value.into(), version: Version::default() }
    }

    #[test]
    fn values_line_up_and_stay_on_their_lines() {
        let mut printer = Printer { format: Format::Table, keys_only: false, width: 0 };
        let long = "k".repeat(WIDTH_MAX + 1);
        let page = [record("a", b"1"), record("grün", b"two\nlines"), record(&long, b"\xff")];
        let expected = format!("a     1\ngrün  two\\nlines\n{long}  \\xff\n");
        assert_eq!(printer.table(&page), expected);
        assert_eq!(printer.table(&[record("b", b"")]), "b     \n", "as wide as before");
    }
}
