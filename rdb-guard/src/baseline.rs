//! What was recorded.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Baseline {
    /// The compilers that made what was counted.
    pub(crate) tools: String,
    /// Of one operation, by path.
    pub(crate) instructions: BTreeMap<String, u64>,
}

impl Baseline {
    pub(crate) fn read() -> Result<Self> {
        let file = file();
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no baseline", file.display()))
    }

    pub(crate) fn record(instructions: BTreeMap<String, u64>) -> Result<()> {
        let file = file();
        let text = serde_json::to_string_pretty(&Self { tools: tools(), instructions })? + "\n";
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("baseline.json")
}

/// The first line of what each says of itself.
pub(crate) fn tools() -> String {
    ["rustc", "c++"].map(|tool| first_line(tool).unwrap_or_else(|| format!("no {tool}"))).join(", ")
}

fn first_line(tool: &str) -> Option<String> {
    let said = Command::new(tool).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).lines().next()?.to_owned())
}
