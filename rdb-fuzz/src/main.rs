//! The engine's binary, which `./x fuzz` builds and runs: one for all targets. Which one it is for, `FLAREDB_FUZZ_TARGET` says; the
//! rest of its command line is libFuzzer's. At its start it writes the target's seeds to `FLAREDB_FUZZ_SEEDS`, and now and then how
//! many inputs were accepted to `FLAREDB_FUZZ_TALLY`.

#![no_main]

use cap::Cap;
use libfuzzer_sys::fuzz_target;
use rdb_fuzz::{Tally, Target};
use std::alloc::System;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

/// What one input may hold at a time. No input is longer than some kilobytes, and what reads it takes no more than it was given,
/// but for some tables of its own.
const INPUT_BYTES_MAX: usize = 16 << 20;

/// Fails an allocation that is too much, which ends the process: the engine itself sees allocations only with a sanitizer.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What this process is for.
struct Job {
    target: &'static Target,
    tally: Mutex<Tally>,
}

static JOB: OnceLock<Job> = OnceLock::new();

fn path_in(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

fn begin() -> Job {
    let name = std::env::var("FLAREDB_FUZZ_TARGET").unwrap_or_default();
    let target = Target::named(&name).unwrap_or_else(|| panic!("FLAREDB_FUZZ_TARGET is no target: '{name}'"));
    if let Some(folder) = path_in("FLAREDB_FUZZ_SEEDS") {
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            let file = folder.join(format!("seed-{number}"));
            std::fs::write(&file, seed).unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
        }
    }
    Job { target, tally: Mutex::new(Tally::to(path_in("FLAREDB_FUZZ_TALLY"))) }
}

fuzz_target!(
    init: {
        JOB.get_or_init(begin);
    },
    |input: &[u8]| {
        let Job { target, tally } = JOB.get_or_init(begin);
        // Fails only where less than nothing would be left.
        let _ = ALLOCATOR.set_limit(ALLOCATOR.allocated() + INPUT_BYTES_MAX);
        let accepted = (target.run)(input);
        let _ = ALLOCATOR.set_limit(usize::MAX);
        tally.lock().unwrap_or_else(PoisonError::into_inner).count(accepted);
    }
);
