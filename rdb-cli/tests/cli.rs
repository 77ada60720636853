//! The binary `rdb`, as a shell sees it: what it prints where, and its exit code, against the client tests' fake cluster.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../rdb-client/tests/fake/mod.rs"]
mod fake;

use fake::{Cluster, Fault};
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
    bytes: Vec<u8>,
}

fn rdb_with(cluster: &Cluster, args: &[&OsStr], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdb"))
        .args(args)
        .env_clear()
        .env("FLAREDB_ENDPOINTS", cluster.endpoints().join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        bytes: output.stdout,
    }
}

/// Words are split at spaces.
fn rdb(cluster: &Cluster, line: &str) -> Output {
    let args: Vec<_> = line.split(' ').map(OsStr::new).collect();
    rdb_with(cluster, &args, b"")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stdout))
}

#[test]
fn keys_and_values() {
    let cluster = Cluster::start(3);
    let put = rdb(&cluster, "put test apple red");
    assert_eq!((put.code, put.stdout.as_str()), (0, "ok  version 1.1.1\n"));
    let get = rdb(&cluster, "get test apple");
    assert_eq!((get.code, get.stdout.as_str(), get.stderr.as_str()), (0, "red\n", ""));
    let value = json(&rdb(&cluster, "-o json get test apple"));
    let expected = serde_json::json!({
        "namespace": "test", "key": "apple", "value": "red", "version": "1.1.1",
        "node": value["node"], "served": null, "age_ms": null, "session": null
    });
    assert_eq!(value, expected);

    let senseless = rdb(&cluster, "get test apple --max-age 1s");
    assert_eq!(senseless.code, 2);
    assert!(senseless.stderr.contains("--consistency stale"), "{}", senseless.stderr);
    for (senseless, what) in [
        ("get test apple --session CBAQAQ== --consistency local", "--consistency session"),
        ("get test apple --session no-token", "base64"),
        ("put test apple red --acks 2", "quorum"),
    ] {
        let refused = rdb(&cluster, senseless);
        assert_eq!(refused.code, 2, "{senseless}");
        assert!(refused.stderr.contains(what), "{senseless}: {}", refused.stderr);
    }
    assert_eq!(rdb(&cluster, "put test apple red --acks quorum").code, 0);
    for consistency in ["linearizable", "local", "session", "quorum"] {
        let got = rdb(&cluster, &format!("get test apple --consistency {consistency}"));
        assert_eq!((got.code, got.stdout.trim()), (0, "red"), "{consistency}");
    }
    let nowhere = rdb(&cluster, "get test apple --at nonsense");
    assert_eq!(nowhere.code, 2, "{}", nowhere.stderr);
    let stale = rdb(&cluster, "get test apple --consistency stale --max-age 1s");
    assert_eq!((stale.code, stale.stdout.as_str()), (0, "red\n"));

    let missing = rdb(&cluster, "get test pear");
    assert_eq!((missing.code, missing.stdout.as_str()), (1, ""));
    assert_eq!(missing.stderr, "error: there is no key 'pear' in the namespace 'test'\n");
    assert_eq!(rdb(&cluster, "del test apple").code, 0);
    assert_eq!(rdb(&cluster, "get test apple").code, 1);
}

#[test]
fn any_bytes_pass_unchanged() {
    let cluster = Cluster::start(1);
    let key = OsStr::from_bytes(b"k\xff");
    let value: Vec<u8> = (0..=255).collect();
    let put = rdb_with(&cluster, &["put".as_ref(), "test".as_ref(), key, "-".as_ref()], &value);
    assert_eq!(put.code, 0, "{}", put.stderr);
    let get = ["get".as_ref(), "test".as_ref(), key];
    assert_eq!(rdb_with(&cluster, &[&get[..], &["--raw".as_ref()]].concat(), b"").bytes, value);
    let raw_json = [&["-o".as_ref(), "json".as_ref()], &get[..], &["--raw".as_ref()]].concat();
    assert_eq!(rdb_with(&cluster, &raw_json, b"").bytes, value, "raw is raw");
    let shown = rdb_with(&cluster, &get, b"").stdout;
    assert!(shown.starts_with("\\x00\\x01") && shown.is_ascii(), "{shown}");
    let value = json(&rdb_with(&cluster, &[&["-o".as_ref(), "json".as_ref()], &get[..]].concat(), b""));
    assert_eq!(value["key_base64"], "a/8=");
    assert!(value["value_base64"].as_str().unwrap().starts_with("AAEC"));
    assert!(value.get("value").is_none() && value.get("key").is_none());
}

#[test]
fn compare_and_swap() {
    let cluster = Cluster::start(1);
    assert_eq!(rdb(&cluster, "cas test a --absent 1").stdout, "swapped  version 1.1.1\n");
    let mismatch = rdb(&cluster, "cas test a --absent 1");
    assert_eq!((mismatch.code, mismatch.stdout.as_str()), (1, "not swapped: found version 1.1.1, 1\n"));
    assert_eq!(rdb(&cluster, "cas test a --expect 1 2").code, 0);
    let swapped = json(&rdb(&cluster, "-o json cas test a --version 1.2.1 3"));
    assert_eq!((&swapped["swapped"], &swapped["version"]), (&true.into(), &"1.3.1".into()));
    assert_eq!(rdb(&cluster, "cas test a --expect 3 --delete").code, 0);
    assert_eq!(rdb(&cluster, "cas test a --present 4").code, 1);
    assert_eq!(rdb(&cluster, "cas test a --absent 4").code, 0);
    assert_eq!(rdb(&cluster, "cas test a --present --delete").code, 0);
    for wrong in [
        "cas test a 1",
        "cas test a --absent",
        "cas test a --absent --expect 1 2",
        "cas test a --version x 1",
    ] {
        assert_eq!(rdb(&cluster, wrong).code, 2, "{wrong}");
    }
}

fn txn(cluster: &Cluster, options: &str, transaction: &str) -> Output {
    let args: Vec<_> = options.split(' ').chain(["txn", "test"]).map(OsStr::new).collect();
    rdb_with(cluster, &args, transaction.as_bytes())
}

#[test]
fn transactions() {
    let cluster = Cluster::start(1);
    rdb(&cluster, "put test stock/apple 3");
    let take = r#"{
        "if": [{"key": "stock/apple", "value": "3"}, {"key": "sold", "absent": true}],
        "then": [{"put": {"key": "stock/apple", "value": "2"}}, {"get": "stock/apple"},
                 {"delete_range": {"from": "old/", "to": "old0"}}],
        "else": [{"get": "stock/apple"}, {"get": "stock/pear"}]
    }"#;
    let done = txn(&cluster, "-o table", take);
    let expected = "held  version 1.2.1\n\n operation     key               result  version\n";
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    assert!(done.stdout.starts_with(expected), "{}", done.stdout);
    for row in ["put stock/apple done", "get stock/apple 2 1.2.1", "delete_range 'old/' to 'old0' done"] {
        let has = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") == row;
        assert!(done.stdout.lines().any(has), "{row}: {}", done.stdout);
    }
    let failed = txn(&cluster, "-o json", take);
    assert_eq!(failed.code, 1);
    let expected = serde_json::json!({
        "namespace": "test", "held": false, "version": null, "epoch": 1, "results": [
            {"operation": "get", "key": "stock/apple", "found": {"value": "2", "version": "1.2.1"}},
            {"operation": "get", "key": "stock/pear", "found": null},
        ]
    });
    assert_eq!(json(&failed), expected);
    let failed = txn(&cluster, "-o table", take);
    assert!(failed.stdout.starts_with("did not hold  nothing was written\n"), "{}", failed.stdout);
    // From a file, and what is wrong with it.
    let file = std::env::temp_dir().join(format!("rdb-txn-{}.json", std::process::id()));
    std::fs::write(&file, r#"{"if": [{"key": "sold"}]}"#).unwrap();
    let wrong = rdb(&cluster, &format!("txn test {}", file.display()));
    std::fs::write(&file, r#"{"then": [{"put": {"key": "sold", "value": "1"}}]}"#).unwrap();
    let sold = rdb(&cluster, &format!("txn test {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("the compare of 'sold' needs one of"), "{}", wrong.stderr);
    assert!(wrong.stderr.contains("\nhint: rdb txn --help"), "{}", wrong.stderr);
    assert_eq!((sold.code, rdb(&cluster, "get test sold").stdout.as_str()), (0, "1\n"), "{}", sold.stderr);
    assert_eq!(rdb(&cluster, "txn test /nowhere/at/all").code, 2);
    let help = rdb(&cluster, "txn --help").stdout;
    assert!(help.contains("Examples:") && help.contains("exit status"), "{help}");
}

#[test]
fn many_keys_are_removed_after_a_yes() {
    let cluster = Cluster::start(1);
    for key in ["a", "b/1", "b/2", "c", "d", "e"] {
        rdb(&cluster, &format!("put test {key} 1"));
    }
    let there = |key| rdb(&cluster, &format!("get test {key}")).code == 0;
    for unconfirmed in ["del test --prefix b/", "del test --range c e"] {
        let unconfirmed = rdb(&cluster, unconfirmed);
        assert_eq!(unconfirmed.code, 2);
        assert!(unconfirmed.stderr.contains("hint: --yes"), "{}", unconfirmed.stderr);
    }
    assert!(there("b/1") && there("c"), "nothing is removed without a yes");
    assert_eq!(rdb(&cluster, "del test --prefix b/ --yes").stdout, "ok  version 1.7.1\n");
    assert!(there("a") && !there("b/1") && !there("b/2") && there("c"));
    let removed = json(&rdb(&cluster, "-o json del test --range c e --yes"));
    assert_eq!(removed, serde_json::json!({"namespace": "test", "version": "1.8.1", "epoch": 1}));
    assert!(there("a") && !there("c") && !there("d") && there("e"));
    let all = rdb_with(&cluster, &["del", "test", "--range", "b", "", "-y"].map(OsStr::new), b"");
    assert_eq!((all.code, there("a"), there("e")), (0, true, false), "{}", all.stderr);
    let empty = rdb_with(&cluster, &["del", "test", "--prefix", "", "-y"].map(OsStr::new), b"");
    assert_eq!(empty.code, 2, "a variable that is not set must not remove everything");
    for wrong in ["del test", "del test a --prefix b", "del test --range a", "del test a --yes"] {
        assert_eq!(rdb(&cluster, wrong).code, 2, "{wrong}");
    }
    assert!(there("a"));
}

/// One JSON object a line.
fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scans() {
    let cluster = Cluster::start(3);
    for (key, value) in [("a", "1"), ("b/1", "2"), ("b/22", "3"), ("b/3", "4"), ("c", "5")] {
        assert_eq!(rdb(&cluster, &format!("put test {key} {value}")).code, 0);
    }
    let all = rdb(&cluster, "scan test");
    assert_eq!((all.code, all.stderr.as_str()), (0, ""));
    assert_eq!(all.stdout, "a     1\nb/1   2\nb/22  3\nb/3   4\nc     5\n");
    let lines = |line| rdb(&cluster, line).stdout.lines().map(str::to_string).collect::<Vec<_>>();
    assert_eq!(lines("scan test --prefix b/ --keys-only"), ["b/1", "b/22", "b/3"]);
    assert_eq!(lines("scan test --range b/1 b/3 --keys-only"), ["b/1", "b/22"]);
    assert_eq!(lines("scan test --from b/3 --keys-only --reverse"), ["c", "b/3"]);
    assert_eq!(lines("scan test --to b/1 --keys-only"), ["a"]);
    assert_eq!(rdb(&cluster, "scan test --prefix b/ --count").stdout, "3\n");
    let count = json(&rdb(&cluster, "-o json scan test --count --limit 4"));
    assert_eq!(count, serde_json::json!({"namespace": "test", "count": 4}));
    let record = json_lines(&rdb(&cluster, "-o json scan test --limit 2 --reverse"));
    let version = |key: &str| json(&rdb(&cluster, &format!("-o json get test {key}")))["version"].clone();
    let expected = serde_json::json!({"key": "c", "value": "5", "version": version("c")});
    assert_eq!((record.len(), &record[0]), (2, &expected));
    let keys = json_lines(&rdb(&cluster, "-o json scan test --keys-only --prefix a"));
    assert_eq!(keys, [serde_json::json!({"key": "a", "version": version("a")})]);
    let none = rdb(&cluster, "scan test --prefix x");
    assert_eq!((none.code, none.stdout.as_str(), none.stderr.as_str()), (0, "", ""));
    assert_eq!(rdb(&cluster, "scan nowhere").code, 3);
    for wrong in [
        "scan",
        "scan test --prefix a --from b",
        "scan test --range a",
        "scan test --range a b --to c",
        "scan test --limit 0",
        "scan test --count --keys-only",
        "scan test --token !",
        "scan test --max-age 1s",
    ] {
        assert_eq!(rdb(&cluster, wrong).code, 2, "{wrong}");
    }
}

#[test]
fn a_limited_scan_says_how_to_go_on() {
    let cluster = Cluster::start(1);
    for key in 0..7 {
        rdb(&cluster, &format!("put test {key} v"));
    }
    let first = rdb(&cluster, "scan test --keys-only --limit 5");
    assert_eq!((first.code, first.stdout.as_str()), (0, "0\n1\n2\n3\n4\n"));
    let token = first.stderr.strip_prefix("more may follow: --token ").unwrap().trim_end();
    let rest = rdb(&cluster, &format!("scan test --keys-only --token {token}"));
    assert_eq!((rest.stdout.as_str(), rest.stderr.as_str()), ("5\n6\n", ""));
    let first = rdb(&cluster, "-o json scan test --limit 5");
    let said: serde_json::Value = serde_json::from_str(&first.stderr).unwrap();
    assert_eq!((json_lines(&first).len(), &said["token"]), (5, &token.into()));
    // What has come before a failure is printed, and how to go on behind it.
    cluster.fault(1, Fault::BreakAfterApply, 1);
    let broken = rdb(&cluster, "scan test --keys-only --one-moment");
    assert_eq!((broken.code, broken.stdout.as_str()), (5, "0\n1\n2\n"));
    assert!(broken.stderr.starts_with("more may follow: --token "), "{}", broken.stderr);
    cluster.fault(1, Fault::BreakAfterApply, 2);
    assert_eq!(rdb(&cluster, "scan test --keys-only").stdout, "0\n1\n2\n3\n4\n5\n6\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let cluster = Cluster::start(1);
    let value = "v".repeat(100_000);
    for key in 0..20 {
        rdb(&cluster, &format!("put test {key} {value}"));
    }
    for format in ["table", "json"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rdb"))
            .args(["-o", format, "scan", "test"])
            .env_clear()
            .env("FLAREDB_ENDPOINTS", cluster.endpoints().join(","))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Closed before the first word.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &said[..]), (Some(0), ""));
    }
}

#[test]
fn namespaces() {
    let cluster = Cluster::start(3);
    assert_eq!(rdb(&cluster, "ns create fruit").stdout, "created  fruit (strong)\n");
    assert_eq!(rdb(&cluster, "ns create fruit").code, 3);
    let names: Vec<_> = json(&rdb(&cluster, "-o json ns list"))
        .as_array()
        .unwrap()
        .iter()
        .map(|namespace| namespace["name"].clone())
        .collect();
    assert_eq!(names, ["fruit", "test"]);
    assert_eq!(json(&rdb(&cluster, "-o json ns describe fruit"))["regions"][0]["leader"], 1);
    let unconfirmed = rdb(&cluster, "ns delete fruit");
    assert_eq!(unconfirmed.code, 2);
    assert!(unconfirmed.stderr.contains("hint: --yes"), "{}", unconfirmed.stderr);
    assert_eq!(rdb(&cluster, "ns delete fruit --yes").code, 0);
    let gone = rdb(&cluster, "get fruit a");
    assert_eq!(gone.code, 3);
    assert!(gone.stderr.starts_with("error: there is no namespace 'fruit'"), "{}", gone.stderr);
    assert!(gone.stderr.contains("\nhint: rdb ns list"), "{}", gone.stderr);
}

#[test]
fn status_in_words() {
    let mut cluster = Cluster::start(3);
    let healthy = rdb(&cluster, "status");
    assert_eq!(healthy.code, 0);
    assert!(healthy.stdout.starts_with("healthy: may lose 1 of 3 nodes\n"), "{}", healthy.stdout);
    cluster.kill(3);
    let degraded = rdb(&cluster, "status");
    assert_eq!(degraded.code, 1);
    let words = format!(
        "degraded: node 3 ({}) has been unreachable for 5.0 s; serves, but may lose",
        cluster.endpoint(3)
    );
    assert!(degraded.stdout.starts_with(&words), "{}", degraded.stdout);
    assert!(degraded.stdout.contains("\nnext: start it again"), "{}", degraded.stdout);
    let degraded = json(&rdb(&cluster, "-o json status"));
    assert_eq!((&degraded["health"], &degraded["may_lose"]), (&"degraded".into(), &0.into()));
    assert_eq!(degraded["problems"][0]["kind"], "node_down");
    assert_eq!(degraded["problems"][0]["nodes"], serde_json::json!([3]));
    assert_eq!(degraded["nodes"][2]["state"], "down");
    cluster.lead(0);
    let unavailable = rdb(&cluster, "-o json status");
    assert_eq!(unavailable.code, 3);
    assert_eq!(json(&unavailable)["health"], "unavailable");
    // It answers with only one node up, and soon with none.
    cluster.kill(2);
    let alone = rdb(&cluster, "status");
    assert_eq!(alone.code, 3);
    assert!(alone.stdout.starts_with("no quorum: no more than 1 of 3 nodes"), "{}", alone.stdout);
    cluster.kill(1);
    let gone = rdb(&cluster, "status");
    assert_eq!(gone.code, 5);
    assert!(
        gone.stderr.contains("cannot reach") && gone.stderr.contains("is it running? ./x demo"),
        "{}",
        gone.stderr
    );
}

#[test]
fn failures_have_their_own_codes() {
    let mut cluster = Cluster::start(1);
    cluster.fault(1, Fault::BreakAfterApply, 1);
    let again = rdb(&cluster, "put test a 1");
    assert_eq!((again.code, cluster.writes_applied()), (0, 1), "{}", again.stderr);
    cluster.fault(1, Fault::BreakAfterApply, 10_000);
    let doubt = rdb(&cluster, "--timeout 300ms put test a 1");
    assert_eq!((doubt.code, cluster.writes_applied()), (4, 2), "{}", doubt.stderr);
    assert!(doubt.stderr.starts_with("error: in doubt, it may have been done: "), "{}", doubt.stderr);
    cluster.fault(1, Fault::Busy, 10_000);
    assert_eq!(rdb(&cluster, "--timeout 300ms put test a 1").code, 3);
    cluster.kill(1);
    let unreachable = rdb(&cluster, "get test a");
    assert_eq!(unreachable.code, 5);
    let start = format!("error: cannot reach {} (connection refused, ", cluster.endpoint(1));
    assert!(unreachable.stderr.starts_with(&start), "{}", unreachable.stderr);
    assert!(unreachable.stderr.contains("\nhint: is it running?"), "{}", unreachable.stderr);
    let json: serde_json::Value =
        serde_json::from_str(&rdb(&cluster, "-o json put test a 1").stderr).unwrap();
    assert_eq!(json["class"], "unreachable");
    assert_eq!(rdb(&cluster, "put test").code, 2);
    assert_eq!(rdb(&cluster, "--endpoints nonsense get test a").code, 2);
}

#[test]
fn a_wrong_command_line_is_json_too_where_that_is_asked_for() {
    let cluster = Cluster::start(0);
    let said = |line| {
        let refused = rdb(&cluster, line);
        assert_eq!((refused.code, refused.stdout.as_str()), (2, ""), "{line}");
        serde_json::from_str::<serde_json::Value>(&refused.stderr).unwrap()
    };
    let missing = said("-o json put test");
    assert_eq!((&missing["class"], &missing["code"]), (&"usage".into(), &serde_json::Value::Null));
    assert_eq!(missing["error"], "the following required arguments were not provided: <KEY> <VALUE>");
    let hint = missing["hint"].as_str().unwrap();
    assert!(hint.starts_with("Usage: rdb put ") && hint.contains("<NS> <KEY>"), "{hint}");
    let slip = said("--output=json statos");
    assert!(slip["hint"].as_str().unwrap().contains("a similar subcommand exists: 'status'"), "{slip}");
    for wrong in ["-o json", "-o json ns", "put test a 1 -o json --timeout never"] {
        assert_eq!(said(wrong)["class"], "usage", "{wrong}");
    }
    assert!(rdb(&cluster, "put test").stderr.starts_with("error: the following"), "in words where it is not");
    for alone in ["", "ns"] {
        let words: Vec<_> = alone.split_whitespace().map(OsStr::new).collect();
        let helped = rdb_with(&cluster, &words, b"");
        assert!(helped.code == 2 && helped.stderr.contains("\nCommands:\n"), "{}", helped.stderr);
    }
    let usage = rdb(&cluster, "put test").stderr;
    assert!(!usage.contains("--endpoints"), "the variable is not a word of the line: {usage}");
    let help = rdb(&cluster, "-o json --help");
    assert!(help.code == 0 && help.stdout.contains("Usage: rdb"), "{}", help.stdout);
}

#[test]
fn completions_for_every_shell() {
    let cluster = Cluster::start(0);
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = rdb(&cluster, &format!("completions {shell}")).stdout;
        for word in ["status", "shell", "move-leader", "max-age", "keep-going", "linearizable"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

const BENCH: &str = "-o json bench --duration 1s --warmup 100ms --keys 500 --callers 16 --server-name none";

#[test]
fn bench_measures_and_checks() {
    let cluster = Cluster::start(3);
    for variant in [
        "",
        " --transport unary",
        " --distribution zipfian --threads 2",
        " --no-sessions --read-share 0",
        " --in-flight 4",
        " --rate 1000",
    ] {
        let report = rdb(&cluster, &format!("{BENCH}{variant}"));
        assert_eq!(report.code, 0, "{}", report.stderr);
        let report = json(&report);
        assert!(100 < report["operations"].as_u64().unwrap(), "{variant}: {report}");
        assert!(report["drain_ms"].is_u64() || variant.contains("unary"), "{variant}: {report}");
        assert_eq!((&report["check"]["passed"], &report["check"]["keys"]), (&true.into(), &500.into()));
    }
}

#[test]
fn bench_finds_writes_that_were_acknowledged_and_lost() {
    let cluster = Cluster::start(1);
    assert_eq!(rdb(&cluster, "bench --load --keys 500").code, 0);
    cluster.world.forgetful.store(true, Ordering::Relaxed);
    let report = rdb(&cluster, BENCH);
    assert_eq!(report.code, 1);
    let check = &json(&report)["check"];
    assert_eq!(check["passed"], false);
    assert!(
        0 < check["wrong_keys"].as_u64().unwrap() && 0 < check["wrong_reads"].as_u64().unwrap(),
        "{check}"
    );
}

#[test]
fn a_switch_is_begun_watched_and_called_off() {
    let cluster = Cluster::start(3);
    let checked = rdb(&cluster, "ns switch test --to eventual --dry-run");
    assert_eq!(
        (checked.code, checked.stdout.as_str()),
        (0, "ready  nothing stands in the way of test becoming eventual\n")
    );
    assert_eq!(cluster.switches(), (0, false), "a look changes nothing");
    let begun = rdb(&cluster, "ns switch test --to eventual");
    assert_eq!(begun.code, 0, "{}", begun.stderr);
    assert!(begun.stdout.starts_with("begun  test becomes eventual (switch 1)\n"), "{}", begun.stdout);
    assert!(begun.stdout.contains("rdb ns abort test"), "{}", begun.stdout);
    let refused = rdb(&cluster, "-o json ns switch test --to eventual");
    assert_eq!((refused.code, refused.stdout.as_str()), (3, ""));
    let refused: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(refused["code"], "CODE_SWITCH_REFUSED");
    let status = json(&rdb(&cluster, "-o json ns status test"));
    assert_eq!((&status["phase"], &status["switch"]), (&"preparing".into(), &1.into()), "{status}");
    assert!(rdb(&cluster, "ns status test").stdout.starts_with("test  strong, "));
    let lines = json_lines(&rdb(&cluster, "-o json ns watch-lag test --interval 10ms --count 2"));
    assert_eq!((lines.len(), &lines[0]["name"]), (2, &"test".into()));
    let aborted = rdb(&cluster, "ns abort test");
    assert_eq!(
        (aborted.code, aborted.stdout.as_str()),
        (0, "called off  test stays strong (epoch 2, era 1)\n")
    );
    assert_eq!(rdb(&cluster, "ns abort test").code, 3);
    assert_eq!(rdb(&cluster, "ns watch-lag test").code, 3, "a strong namespace has no lag of that kind");
    let nobody = rdb(&cluster, "ns switch test --to strong --exclude 3");
    assert_eq!(nobody.code, 2);
    assert!(nobody.stderr.contains("--yes goes on without asking"), "{}", nobody.stderr);
    assert_eq!(cluster.switches(), (1, false));
}

/// All nodes are asked, and all pages of each; who cannot be asked is not passed over in silence.
#[test]
fn what_nodes_have_set_aside_is_listed() {
    let mut cluster = Cluster::start(3);
    let nothing = rdb(&cluster, "ns quarantine test");
    assert_eq!((nothing.code, nothing.stdout.starts_with("nothing is set aside of test")), (0, true));
    cluster.set_aside(2, &[(b"a", Some(b"red")), (b"b\n", None), (b"c", Some(b"\xff"))]);
    let listed = rdb(&cluster, "ns quarantine test");
    let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<String> = listed.stdout.lines().map(row).collect();
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    for row in [
        "node 2 node 2 3.71.2 a red",
        "node 2 node 2 3.72.2 b\\n (deletes it)",
        "node 2 node 2 3.73.2 c \\xff",
    ] {
        assert!(rows.iter().any(|found| found == row), "{row} is missing in\n{}", listed.stdout);
    }
    let some = json(&rdb(&cluster, "-o json ns quarantine test --limit 1"));
    assert_eq!((&some["nodes"][1]["more"], &some["nodes"][1]["total"]), (&true.into(), &3.into()), "{some}");
    cluster.kill(3);
    let listed = rdb(&cluster, "-o json ns quarantine test");
    assert_eq!(listed.code, 1, "node 3 may have more");
    let listed = json(&listed);
    let expected = serde_json::json!([
        {"version": "3.71.2", "incarnation": 9, "seq": 1, "key": "a", "value": "red", "deletes": false},
        {"version": "3.72.2", "incarnation": 9, "seq": 2, "key": "b\n", "deletes": true},
        {"version": "3.73.2", "incarnation": 9, "seq": 3, "key": "c", "value_base64": "/w==", "deletes": false},
    ]);
    assert_eq!((&listed["nodes"][1]["writes"], &listed["nodes"][1]["more"]), (&expected, &false.into()));
    assert_eq!(listed["nodes"][0]["writes"], serde_json::json!([]));
    assert!(listed["nodes"][2]["writes"].is_null() && listed["nodes"][2]["error"].is_string(), "{listed}");
    assert_eq!(rdb(&cluster, "ns quarantine nowhere").code, 3);
    cluster.kill(1);
    cluster.kill(2);
    assert_eq!(rdb(&cluster, "ns quarantine test").code, 5);
}

#[test]
fn lost_writes_are_listed_as_one_node_has_them() {
    let mut cluster = Cluster::start(3);
    let nothing = rdb(&cluster, "ns conflicts test");
    assert!(
        nothing.code == 0 && nothing.stdout.ends_with("lists no lost writes of test\n"),
        "{}",
        nothing.stdout
    );
    assert_eq!(
        rdb(&cluster, "ns create other --mode eventual --keep-lost 24h --durability periodic").code,
        0
    );
    for node in 1..=3 {
        cluster.lose(node, &[(b"user/a", Some(b"red")), (b"cart", None), (b"user/b", Some(b"\xff"))]);
    }
    cluster.kill(1);
    let listed = rdb(&cluster, "ns conflicts test");
    let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<String> = listed.stdout.lines().map(row).collect();
    assert_eq!((listed.code, rows.len()), (0, 4), "{}{}", listed.stdout, listed.stderr);
    assert!(rows[1].starts_with("user/a 3.71.") && rows[1].ends_with(" red 3.90.1 not yet"), "{rows:?}");
    assert!(rows[2].starts_with("cart 3.72.") && rows[2].ends_with(" (deletes it) 3.90.1 yes"), "{rows:?}");
    let some = rdb(&cluster, "ns conflicts test --limit 2");
    assert!(
        some.stdout.ends_with("there may be more: 2 are shown; --limit allows more\n"),
        "{}",
        some.stdout
    );
    // A page without any of them is not the last one.
    let users = json(&rdb(&cluster, "-o json ns conflicts test --prefix user/b"));
    assert_eq!((&users["more"], &users["keep_lost_seconds"]), (&false.into(), &3600.into()), "{users}");
    let [write] = &users["writes"].as_array().unwrap()[..] else { panic!("{users}") };
    let expected = serde_json::json!({
        "version": write["version"], "incarnation": 9, "seq": 3, "key": "user/b", "value_base64": "/w==",
        "deletes": false, "displaced_by": "3.90.1", "displaced_by_incarnation": 8, "displaced_by_seq": 5,
        "settled": false, "noted_unix_ms": 1000,
    });
    assert_eq!(write, &expected);
    assert_eq!(rdb(&cluster, "ns conflicts nowhere").code, 3);
    assert_eq!(rdb(&cluster, "ns create other --keep-lost 24").code, 2, "a time has a unit");
}

/// Whoever waits for a switch and stops to do so leaves it alone.
#[test]
fn waiting_for_a_switch_ends_with_it_and_ctrl_c_ends_the_waiting_alone() {
    let cluster = Cluster::start(1);
    let wait = || {
        Command::new(env!("CARGO_BIN_EXE_rdb"))
            .args(["ns", "switch", "test", "--to", "eventual", "--wait"])
            .env_clear()
            .env("FLAREDB_ENDPOINTS", cluster.endpoints().join(","))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    // Its first line is shown once it waits.
    let first_line = |child: &mut std::process::Child| {
        let mut byte = [0];
        let mut line = Vec::new();
        while byte != *b"\n" {
            std::io::Read::read_exact(child.stderr.as_mut().unwrap(), &mut byte).unwrap();
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    };
    let mut called_off = wait();
    assert!(first_line(&mut called_off).starts_with("test  preparing for "));
    assert_eq!(rdb(&cluster, "ns abort test").code, 0);
    let output = called_off.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("was called off") && stderr.contains("it stays strong"), "{stderr}");

    let mut left = wait();
    first_line(&mut left);
    let pid = rustix::process::Pid::from_child(&left);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = left.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(cluster.switches(), (2, true), "{stderr}");
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("goes on") && stderr.contains("rdb ns abort test"), "{stderr}");
}
