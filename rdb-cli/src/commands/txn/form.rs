//! A transaction as it is written in JSON.

use crate::output::readable;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rdb_client::{Bytes, Expect, Transaction, Version};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;

/// All of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Form {
    #[serde(default, rename = "if")]
    compares: Vec<CompareForm>,
    #[serde(default)]
    pub(super) then: Vec<OperationForm>,
    #[serde(default, rename = "else")]
    pub(super) otherwise: Vec<OperationForm>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "CompareFields")]
struct CompareForm {
    key: Bytes,
    expect: Expect,
}

/// A compare as it is written: of what follows the key, exactly one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompareFields {
    key: Text,
    absent: Option<bool>,
    present: Option<bool>,
    value: Option<Text>,
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OperationForm {
    Put(PutForm),
    Delete(Text),
    DeleteRange(RangeForm),
    Get(Text),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PutForm {
    key: Text,
    value: Text,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RangeForm {
    from: Text,
    to: Text,
}

/// A string, or `{"base64": "..."}` for bytes that are none.
#[derive(Debug)]
pub(super) struct Text(Bytes);

impl TryFrom<CompareFields> for CompareForm {
    type Error = String;

    fn try_from(fields: CompareFields) -> Result<Self, String> {
        let CompareFields { key: Text(key), absent, present, value, version } = fields;
        let expect = match (absent, present, value, version) {
            (Some(true), None, None, None) => Expect::Absent,
            (None, Some(true), None, None) => Expect::Present,
            (None, None, Some(Text(value)), None) => Expect::Value(value),
            (None, None, None, Some(version)) => {
                let version: Version = version.parse().map_err(|error| format!("'{version}': {error}"))?;
                Expect::Version(version)
            }
            _ => {
                let key = readable(&key);
                return Err(format!(
                    "the compare of '{key}' needs one of \"value\", \"version\", \"present\": true, \"absent\": true"
                ));
            }
        };
        Ok(Self { key, expect })
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, or {\"base64\": \"...\"}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(Bytes::copy_from_slice(text.as_bytes())))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Text, M::Error> {
        let Some(("base64", text)) = map.next_entry::<&str, String>()? else {
            return Err(M::Error::custom("expected a string, or {\"base64\": \"...\"}"));
        };
        let bytes = BASE64.decode(text).map_err(|error| M::Error::custom(format!("no base64: {error}")))?;
        if map.next_key::<&str>()?.is_some() {
            return Err(M::Error::custom("nothing may stand beside \"base64\""));
        }
        Ok(Text(bytes.into()))
    }
}

impl Form {
    pub(super) fn transaction(&self) -> Transaction {
        let mut transaction = Transaction::new();
        for compare in &self.compares {
            transaction = transaction.when(compare.key.clone(), compare.expect.clone());
        }
        for operation in &self.then {
            transaction = operation.add_then(transaction);
        }
        for operation in &self.otherwise {
            transaction = operation.add_else(transaction);
        }
        transaction
    }
}

impl OperationForm {
    fn add_then(&self, to: Transaction) -> Transaction {
        match self {
            OperationForm::Put(PutForm { key, value }) => to.then_put(key.0.clone(), value.0.clone()),
            OperationForm::Delete(key) => to.then_delete(key.0.clone()),
            OperationForm::DeleteRange(range) => {
                to.then_delete_range(range.from.0.clone(), range.to.0.clone())
            }
            OperationForm::Get(key) => to.then_get(key.0.clone()),
        }
    }

    fn add_else(&self, to: Transaction) -> Transaction {
        match self {
            OperationForm::Put(PutForm { key, value }) => to.else_put(key.0.clone(), value.0.clone()),
            OperationForm::Delete(key) => to.else_delete(key.0.clone()),
            OperationForm::DeleteRange(range) => {
                to.else_delete_range(range.from.0.clone(), range.to.0.clone())
            }
            OperationForm::Get(key) => to.else_get(key.0.clone()),
        }
    }

    /// As it is written.
    pub(super) fn name(&self) -> &'static str {
        match self {
            OperationForm::Put(_) => "put",
            OperationForm::Delete(_) => "delete",
            OperationForm::DeleteRange(_) => "delete_range",
            OperationForm::Get(_) => "get",
        }
    }

    /// Of one that has one key.
    pub(super) fn key(&self) -> Option<&Bytes> {
        match self {
            OperationForm::Put(put) => Some(&put.key.0),
            OperationForm::Delete(key) | OperationForm::Get(key) => Some(&key.0),
            OperationForm::DeleteRange(_) => None,
        }
    }

    /// Its keys for people.
    pub(super) fn keys(&self) -> String {
        match self {
            OperationForm::DeleteRange(range) => {
                format!("'{}' to '{}'", readable(&range.from.0), readable(&range.to.0))
            }
            _ => self.key().map(|key| readable(key)).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Transaction, String> {
        let form: Result<Form, _> = serde_json::from_str(text);
        form.map(|form| form.transaction()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_is_read() {
        let text = r#"{
            "if": [
                {"key": "a", "absent": true}, {"key": "b", "present": true},
                {"key": "c", "value": "1"}, {"key": "d", "version": "1.2.3"}
            ],
            "then": [
                {"put": {"key": "e", "value": {"base64": "/w=="}}}, {"delete": "f"},
                {"delete_range": {"from": "g", "to": ""}}, {"get": {"base64": "a/8="}}
            ],
            "else": [
                {"get": "h"}, {"put": {"key": "i", "value": "2"}}, {"delete": "j"},
                {"delete_range": {"from": "k", "to": "l"}}
            ]
        }"#;
        let expected = Transaction::new()
            .when_absent("a")
            .when_present("b")
            .when_value("c", "1")
            .when_version("d", Version { era: 1, hlc: 2, node: 3 })
            .then_put("e", &b"\xff"[..])
            .then_delete("f")
            .then_delete_range("g", "")
            .then_get(&b"k\xff"[..])
            .else_get("h")
            .else_put("i", "2")
            .else_delete("j")
            .else_delete_range("k", "l");
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("{}").unwrap(), Transaction::new());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "EOF"),
            (r#"{"when": []}"#, "unknown field `when`"),
            (r#"{"if": [{"key": "a"}]}"#, "the compare of 'a' needs one of"),
            (r#"{"if": [{"key": "a", "absent": false}]}"#, "needs one of"),
            (r#"{"if": [{"key": "a", "absent": true, "value": "1"}]}"#, "needs one of"),
            (r#"{"if": [{"absent": true}]}"#, "missing field `key`"),
            (r#"{"if": [{"key": "a", "version": "x"}]}"#, "'x': a version is era.hlc.node"),
            (r#"{"then": [{"put": {"key": "a"}}]}"#, "missing field `value`"),
            (r#"{"then": [{"set": "a"}]}"#, "unknown variant `set`"),
            (r#"{"then": [{"get": 7}]}"#, "expected a string, or"),
            (r#"{"then": [{"get": {"base64": "?"}}]}"#, "no base64"),
            (r#"{"then": [{"get": {"hex": "00"}}]}"#, "expected a string, or"),
            (r#"{"then": [{"get": {"base64": "", "x": 1}}]}"#, "nothing may stand beside"),
            (r#"{"then": [{"delete_range": {"from": "a"}}]}"#, "missing field `to`"),
            (r#"{"then": [{"get": "a", "put": {"key": "a", "value": "b"}}]}"#, "line 1"),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
