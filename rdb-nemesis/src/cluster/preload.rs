//! Libraries that are loaded into a node before its own: they change what it is told of the world, by a file that can be written while
//! it runs. They are in C, since this workspace has no unsafe code; so a C compiler is needed.

use anyhow::{Context as _, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The system's list of such libraries.
const VARIABLE: &str = "LD_PRELOAD";

/// One library, for one node.
#[derive(Debug, Clone)]
pub(super) struct Preload {
    library: PathBuf,
    file: PathBuf,
    /// By which the library finds the file.
    file_variable: &'static str,
}

impl Preload {
    pub(super) fn new(library: &Path, file: PathBuf, file_variable: &'static str) -> Self {
        Self { library: library.to_owned(), file, file_variable }
    }

    /// Builds a library from its source. Returns where it is.
    pub(super) fn build(folder: &Path, name: &str, source: &str) -> Result<PathBuf> {
        let (code, library) = (folder.join(format!("{name}.c")), folder.join(format!("{name}.so")));
        std::fs::write(&code, source)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&code);
        let built = compiler.output().with_context(|| format!("{name} needs a C compiler (cc)"))?;
        if !built.status.success() {
            bail!("{name} cannot be built here: {}", String::from_utf8_lossy(&built.stderr).trim());
        }
        Ok(library)
    }

    /// Lets a program live with all of these.
    pub(super) fn give_to<'a>(preloads: impl Iterator<Item = &'a Self>, command: &mut Command) {
        let mut libraries = Vec::new();
        for preload in preloads {
            command.env(preload.file_variable, &preload.file);
            libraries.push(preload.library.to_string_lossy().into_owned());
        }
        if !libraries.is_empty() {
            command.env(VARIABLE, libraries.join(":"));
        }
    }

    /// Whether a process lives with it.
    pub(super) fn is_used_by(&self, process: u32) -> Result<bool> {
        let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
        Ok([&self.library, &self.file].iter().all(|path| maps.contains(&*path.to_string_lossy())))
    }

    /// Writes its file, from the beginning. A running program sees it in place.
    pub(super) fn write(&self, numbers: &[i64]) -> Result<()> {
        use std::io::Write as _;
        let file = File::options().create(true).truncate(false).write(true).open(&self.file);
        let mut file = file.with_context(|| format!("cannot write {}", self.file.display()))?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
        Ok(file.write_all(&bytes)?)
    }

    /// The number at this place of its file.
    pub(super) fn read(&self, place: usize) -> Result<i64> {
        const BYTES: usize = size_of::<i64>();
        let bytes =
            std::fs::read(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let number = bytes.get(place * BYTES..).and_then(|rest| rest.first_chunk());
        Ok(i64::from_ne_bytes(*number.with_context(|| format!("{} is too short", self.file.display()))?))
    }
}
