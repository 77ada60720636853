//! Growth: how throughput, processor time and memory go with data, keys, the size of values, callers, namespaces and nodes.

use crate::points::{Album, Place, measure, read_json, write_json};
use crate::sample::Bench;
use crate::stores::Store;
use anyhow::{Result, bail};
use std::path::Path;

/// What grows.
struct Axis {
    name: &'static str,
    x: &'static str,
    places: fn() -> Vec<Place>,
}

const AXES: [Axis; 6] = [
    Axis { name: "data", x: "bytes of data, keys of 16 bytes and values of 256", places: by_data },
    Axis { name: "keys", x: "keys, with values of 32 bytes", places: by_keys },
    Axis { name: "values", x: "bytes of a value", places: by_value_size },
    Axis { name: "callers", x: "callers", places: by_callers },
    Axis { name: "namespaces", x: "namespaces that share the load", places: by_namespaces },
    Axis { name: "nodes", x: "nodes, on one machine", places: by_nodes },
];

/// Of a key and its value, as `rdb bench` makes them where nothing else is said.
const RECORD_BYTES: u64 = 16 + 256;
/// At most so many, and so many bytes, where sizes grow.
const KEYS_MAX: u64 = 100_000;
const VALUES_BYTES_MAX: u64 = 256 << 20;
const KINDS: [&str; 2] = ["put", "linearizable get"];
const MANY: &str = "--callers 1024";
/// With 1,024 callers, values of a mebibyte would all wait in memory.
const FEW: &str = "--callers 64";

/// Measures and draws the axes of these names, or all of them, into this folder; without a `bench`, what was measured before is drawn.
pub(crate) fn draw(bench: Option<&Bench>, folder: &Path, names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| AXES.iter().all(|axis| axis.name != **name)) {
        bail!("there is no axis '{unknown}': {}", AXES.map(|axis| axis.name).join(", "));
    }
    for axis in AXES.iter().filter(|axis| names.is_empty() || names.iter().any(|name| name == axis.name)) {
        let points = match bench {
            Some(bench) => measure(bench, (axis.places)()),
            None => read_json(folder, axis.name)?,
        };
        let album = Album { folder, x: axis.x, points: &points };
        let name = |figure: &str| format!("{}-{figure}", axis.name);
        album.draw(&name("throughput"), "operations a second", |sample| sample.report.throughput())?;
        album.draw(&name("cpu"), "server processor time of an operation, µs", |sample| {
            sample.report.server_us()
        })?;
        #[allow(clippy::cast_precision_loss, reason = "mebibytes")]
        album
            .draw(&name("memory"), "the most memory of a node, MiB", |sample| sample.memory_mib_max as f64)?;
        // After each, so that a run that is ended early has told what it knows.
        write_json(folder, axis.name, &points)?;
    }
    Ok(())
}

const fn nodes(nodes: usize) -> Store {
    Store::FlareDb { nodes }
}

/// Puts and gets under these words, at this place of two curves.
fn both(curves: [&'static str; 2], x: u64, store: Store, words: &str) -> [Place; 2] {
    let shares = ["--read-share 0", "--read-share 1"];
    [0, 1].map(|kind| Place {
        curve: curves[kind],
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        x: x as f64,
        store,
        words: format!("{} {words}", shares[kind]),
    })
}

fn by_data() -> Vec<Place> {
    let one = ["put, one node", "linearizable get, one node"];
    let three = ["put, three nodes", "linearizable get, three nodes"];
    let place =
        |curves, keys, store| both(curves, keys * RECORD_BYTES, store, &format!("{MANY} --keys {keys}"));
    let on_one = [360_000, 3_600_000, 36_000_000].map(|keys| place(one, keys, nodes(1)));
    let on_three = [360_000, 3_600_000, 11_000_000].map(|keys| place(three, keys, nodes(3)));
    on_one.into_iter().chain(on_three).flatten().collect()
}

fn by_keys() -> Vec<Place> {
    let place = |keys: u64| both(KINDS, keys, nodes(3), &format!("{MANY} --keys {keys} --value-size 32"));
    [1_000, 10_000, 100_000, 1_000_000, 10_000_000].into_iter().flat_map(place).collect()
}

fn by_value_size() -> Vec<Place> {
    let place = |bytes: u64| {
        let keys = (VALUES_BYTES_MAX / bytes).min(KEYS_MAX);
        both(KINDS, bytes, nodes(3), &format!("{FEW} --keys {keys} --value-size {bytes}"))
    };
    [16, 64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20]
        .into_iter()
        .flat_map(place)
        .collect()
}

fn by_callers() -> Vec<Place> {
    let place = |count: u64| both(KINDS, count, nodes(3), &format!("--callers {count}"));
    [1, 4, 16, 64, 256, 1024, 4096].into_iter().flat_map(place).collect()
}

fn by_namespaces() -> Vec<Place> {
    let place = |count: u64| both(KINDS, count, nodes(3), &format!("{MANY} --namespaces {count}"));
    [1, 10, 100, 1000].into_iter().flat_map(place).collect()
}

fn by_nodes() -> Vec<Place> {
    [1, 3, 5].into_iter().flat_map(|count| both(KINDS, count as u64, nodes(count), MANY)).collect()
}
