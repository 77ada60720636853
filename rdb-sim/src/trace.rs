//! What happened, as a hash and, on request, as text. One seed has one hash: everything in a world comes from the seed.

use crate::event::Happening;
use crate::options::Micros;
use xxhash_rust::xxh3::Xxh3;

/// Where lines of a trace go.
pub type Sink = Box<dyn FnMut(Micros, &str)>;

/// The trace of one world.
#[derive(Default)]
pub(crate) struct Trace {
    hash: Xxh3,
    sink: Option<Sink>,
}

impl Trace {
    /// A trace that also tells each event.
    pub(crate) fn telling(sink: Sink) -> Self {
        Self { hash: Xxh3::default(), sink: Some(sink) }
    }

    pub(crate) fn record(&mut self, at: Micros, event: &impl Happening) {
        let [a, b, c, d] = event.numbers();
        let mut bytes = [0; 40];
        for (place, number) in [at, a, b, c, d].into_iter().enumerate() {
            bytes[8 * place..8 * place + 8].copy_from_slice(&number.to_be_bytes());
        }
        self.hash.update(&bytes);
        if let Some(sink) = &mut self.sink {
            sink(at, &event.describe());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.digest()
    }
}
