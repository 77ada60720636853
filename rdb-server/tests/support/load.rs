//! Writers that note, outside the nodes, every write that was acknowledged, and a judge that looks for each.

use super::until;
use rdb_client::{Bytes, Client, Namespace, Version, WriteError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::task::JoinHandle;

/// What the writers share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// One writer's notes.
#[derive(Default)]
struct Notes {
    /// Keys that are written once.
    once: Vec<(Bytes, Version)>,
    /// The writer's own key that is written again and again: the last number acknowledged and its version.
    again: (u64, Version),
    /// The last number sent.
    sent: u64,
    not_done: Vec<String>,
    in_doubt: Vec<String>,
}

/// Writers under way.
pub struct Load {
    shared: Arc<Shared>,
    writers: Vec<JoinHandle<Notes>>,
    namespace: Namespace,
    name: String,
}

/// What was written.
pub struct Written {
    notes: Vec<Notes>,
    namespace: Namespace,
    name: String,
}

impl Load {
    /// Starts `writers`. `name` begins all their keys.
    pub fn start(client: &Client, namespace: &str, name: &str, writers: usize) -> Self {
        let namespace = client.namespace(namespace);
        let shared = Arc::<Shared>::default();
        let tasks = (0..writers)
            .map(|writer| {
                let prefix = format!("{name}/{writer}");
                tokio::spawn(write(namespace.clone(), shared.clone(), prefix))
            })
            .collect();
        Self { shared, writers: tasks, namespace, name: name.to_owned() }
    }

    /// Writes acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until `more` writes are acknowledged.
    pub async fn go_on_for(&self, more: u64) {
        let wanted = self.acknowledged() + more;
        until("writes are acknowledged", async || (wanted <= self.acknowledged()).then_some(())).await;
    }

    /// Lets the writers finish what they have begun.
    pub async fn stop(self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        let mut notes = Vec::new();
        for writer in self.writers {
            notes.push(writer.await.unwrap());
        }
        Written { notes, namespace: self.namespace, name: self.name }
    }
}

impl Written {
    /// Writes that were not done, and those in doubt.
    pub fn failures(&self) -> Vec<&str> {
        let all = self.notes.iter().flat_map(|notes| notes.not_done.iter().chain(&notes.in_doubt));
        all.map(String::as_str).collect()
    }

    /// Reads everything that was acknowledged. Returns how much that was.
    pub async fn verify(&self) -> usize {
        let mut verified = 0;
        for (writer, notes) in self.notes.iter().enumerate() {
            for keys in notes.once.chunks(256) {
                let asked: Vec<Bytes> = keys.iter().map(|(key, _)| key.clone()).collect();
                let mut found = read(&self.namespace, asked).await.into_iter().peekable();
                for (key, version) in keys {
                    let record = found.next_if(|record| record.key == *key);
                    let record = record.unwrap_or_else(|| panic!("{key:?} was acknowledged and is gone"));
                    assert_eq!((&record.value, record.version), (key, *version), "of {key:?}");
                    verified += 1;
                }
            }
            let key = Bytes::from(format!("{}/{writer}", self.name));
            let found = read(&self.namespace, vec![key.clone()]).await.pop();
            let found =
                found.map_or((0, Version::default()), |record| (number(&record.value), record.version));
            // One in doubt may come after those that followed it, and then has the higher version.
            let newer = notes.again.1 < found.1 && found.0 <= notes.sent;
            assert!(
                found == notes.again || newer,
                "{key:?}: found {found:?}, acknowledged {:?}",
                notes.again
            );
        }
        verified
    }
}

async fn read(namespace: &Namespace, keys: Vec<Bytes>) -> Vec<rdb_client::Record> {
    until("what was written is read", async || namespace.batch_get(keys.clone()).await.ok()).await
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

/// Writes a new key, whose value is its name, and then the writer's own key anew, until told to stop.
async fn write(namespace: Namespace, shared: Arc<Shared>, prefix: String) -> Notes {
    let mut notes = Notes::default();
    let mut count = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        count += 1;
        let key = Bytes::from(format!("{prefix}/{count}"));
        match namespace.put(key.clone(), key.clone()).await {
            Ok(written) => {
                notes.once.push((key, written.version));
                shared.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => note(&mut notes, &error),
        }
        notes.sent = count;
        match namespace.put(prefix.clone(), count.to_string()).await {
            Ok(written) => notes.again = (count, written.version),
            Err(error) => note(&mut notes, &error),
        }
    }
    notes
}

fn note(notes: &mut Notes, error: &WriteError) {
    match error {
        WriteError::NotDone(error) => notes.not_done.push(error.to_string()),
        WriteError::InDoubt(error) | WriteError::DoneHere(_, error) => notes.in_doubt.push(error.to_string()),
    }
}
