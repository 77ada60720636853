//! Logs: one event a line, as text or JSON. raft-rs writes through slog; its lines join the same stream, with their
//! region and node as fields.

use crate::config::LogFormat;
use slog::{Drain, KV, Key, Level, Never, OwnedKVList, Record, Serializer};
use std::fmt::Write as _;
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error. `directives` say what is logged.
///
/// # Errors
/// The directives are not understood, or logging was started before.
pub fn init(directives: &str, format: LogFormat) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives)
        .map_err(|error| format!("the log directives '{directives}' are not understood: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// A slog logger that writes to `tracing`, for raft-rs.
pub(crate) fn slog_logger() -> slog::Logger {
    slog::Logger::root(ToTracing, slog::o!())
}

/// Hands raft-rs's records on. Its fields are few and wanted on every line: the region, and what the message names.
struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let mut fields = Fields::default();
        // Serialising into a string cannot fail.
        let _ = values.serialize(record, &mut fields);
        let _ = record.kv().serialize(record, &mut fields);
        let (message, region, fields) = (record.msg(), fields.region, fields.text);
        match record.level() {
            Level::Critical | Level::Error => tracing::error!(target: "raft", region, fields, "{message}"),
            Level::Warning => tracing::warn!(target: "raft", region, fields, "{message}"),
            Level::Info => tracing::info!(target: "raft", region, fields, "{message}"),
            Level::Debug => tracing::debug!(target: "raft", region, fields, "{message}"),
            Level::Trace => tracing::trace!(target: "raft", region, fields, "{message}"),
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        match level {
            Level::Critical | Level::Error => tracing::enabled!(target: "raft", tracing::Level::ERROR),
            Level::Warning => tracing::enabled!(target: "raft", tracing::Level::WARN),
            Level::Info => tracing::enabled!(target: "raft", tracing::Level::INFO),
            Level::Debug => tracing::enabled!(target: "raft", tracing::Level::DEBUG),
            Level::Trace => tracing::enabled!(target: "raft", tracing::Level::TRACE),
        }
    }
}

#[derive(Default)]
struct Fields {
    region: u64,
    text: String,
}

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, value: &std::fmt::Arguments<'_>) -> slog::Result {
        let space = if self.text.is_empty() { "" } else { " " };
        write!(self.text, "{space}{key}={value}").map_err(|_| slog::Error::Other)
    }

    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        if key == "region" {
            self.region = value;
            return Ok(());
        }
        self.emit_arguments(key, &format_args!("{value}"))
    }
}
