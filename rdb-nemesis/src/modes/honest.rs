//! Whether the lag that nodes tell is honest: held against what is seen from outside, with all peers there, with one cut off
//! and nothing written, with one cut off and writes going on, and afterwards.
//!
//! One key's value counts up at one node, which is the *writer*; what another shows of it says what that one lacks. The writes of one
//! node arrive in order, so the age of the first write that the peer does not show is the true lag of the writer's writes.

use super::cut::Cut;
use super::findings::Findings;
use super::load::number_in;
use super::stage::{EVENTUAL, Nodes, Stage, until};
use super::stats::{Times, millis};
use crate::cluster::{Cluster, PATIENCE, Wire};
use crate::peek::{Pages, Sample};
use anyhow::Result;
use parking_lot::Mutex;
use rdb_client::{Consistency, Mode, Namespace};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// By so much a lag may be told too small: the node looks every 10 ms, and a page takes its time on a busy machine.
const TOO_SMALL_MAX: Duration = Duration::from_millis(150);
/// By so much it may be told too large: a peer's last report is up to a second old when it counts as silent.
const TOO_LARGE_MAX: Duration = Duration::from_millis(1_500);
/// A cut peer must be *unknown* after so long: it is silent after one second, and found out a look later.
const UNKNOWN_AFTER: Duration = Duration::from_millis(1_500);
/// Between writes.
const PACE: Duration = Duration::from_millis(20);
/// After healing, until the lag is known and small again.
const KNOWN_AGAIN_MAX: Duration = Duration::from_secs(5);
const SMALL: Duration = Duration::from_millis(100);
/// With all peers there.
const HEALTHY: Duration = Duration::from_secs(3);
const KEY: &str = "counts-up";
const LOOKS_MIN: usize = 10;

/// When each write was acknowledged, by its number.
type Written = Arc<Mutex<Vec<Instant>>>;

/// What a peer showed: the first number that it did not, for certain not before `asked`.
struct Seen {
    asked: Instant,
    missing: usize,
}

pub(super) async fn run(stage: &Stage, findings: &mut Findings) -> Result<()> {
    let mut cluster = stage.start().await?;
    let nodes = Nodes::create(&cluster, EVENTUAL, Mode::Eventual).await?;
    let mut dice = stage.dice(1);
    let writer = dice.pick(&cluster.ids());
    let away = dice.pick(&cluster.others(&[writer]));
    let pair = Pair { stage, cluster: &cluster, nodes: &nodes, writer, away };
    pair.healthy(findings).await?;
    pair.silent(findings).await?;
    pair.writing(findings).await?;
    cluster.is_sound()
}

/// A node that writes, and one that is cut off.
struct Pair<'a> {
    stage: &'a Stage,
    cluster: &'a Cluster,
    nodes: &'a Nodes,
    writer: u64,
    away: u64,
}

impl Pair<'_> {
    /// With all peers there: known, small, and no smaller than what is seen.
    async fn healthy(&self, findings: &mut Findings) -> Result<()> {
        // Nodes have to hear of each other first.
        self.until_known().await?;
        self.stage.say("all peers are there");
        let (samples, seen, written) = self.observe(HEALTHY, true).await?;
        let unknown = samples.iter().filter(|sample| !sample.look.known).count();
        findings.require(unknown == 0, || format!("{unknown} lags were unknown, with no peer away"));
        findings.expect(not_too_small(&samples, &seen, &written, self.writer).map(drop));
        Ok(())
    }

    /// A peer is cut off and nobody writes: nothing is missing, but nobody can know that.
    async fn silent(&self, findings: &mut Findings) -> Result<()> {
        self.stage.say(&format!("node {} is cut off, and nobody writes", self.away));
        let cut = Cut::around(self.cluster, &[self.away], Wire::Silent);
        let began = Instant::now();
        let lasts = Duration::from_secs(self.stage.sizes.honest_seconds);
        let (samples, _, _) = self.observe(lasts, false).await?;
        findings.expect(cut.seen(self.cluster).map(drop));
        findings.expect(grows(&samples, began, "without writes").map(drop));
        cut.heal(self.cluster);
        self.known_again(findings).await
    }

    /// A peer is cut off while the others go on.
    async fn writing(&self, findings: &mut Findings) -> Result<()> {
        self.stage.say(&format!("node {} is cut off, and node {} writes", self.away, self.writer));
        let cut = Cut::around(self.cluster, &[self.away], Wire::Silent);
        let began = Instant::now();
        let lasts = Duration::from_secs(self.stage.sizes.honest_seconds);
        let (samples, seen, written) = self.observe(lasts, true).await?;
        findings.expect(cut.seen(self.cluster).map(drop));
        match grows(&samples, began, "with writes") {
            Ok(most) => findings.tell(format!("lag told after {lasts:?} of silence: at least"), most, "s"),
            Err(why) => findings.problem(why),
        }
        match not_too_small(&samples, &seen, &written, self.writer) {
            Ok(held) => {
                findings.count("held against the true lag: looks", held.count() as u64);
                findings.hold("told too small by at most", held.longest(), TOO_SMALL_MAX);
            }
            Err(why) => findings.problem(why),
        }
        cut.heal(self.cluster);
        self.known_again(findings).await
    }

    /// After healing the lag is known and small again.
    async fn known_again(&self, findings: &mut Findings) -> Result<()> {
        findings.hold("known and small again after", self.until_known().await?, KNOWN_AGAIN_MAX);
        Ok(())
    }

    async fn until_known(&self) -> Result<Duration> {
        let pages = Pages::of(self.cluster);
        let small = async || {
            for node in self.cluster.ids() {
                if !pages.look(node).await.is_ok_and(|look| look.known && look.lag <= SMALL) {
                    return false;
                }
            }
            true
        };
        until("every node's lag is known and small", PATIENCE, small).await
    }

    /// Looks at what all nodes tell and at what the peer shows, while the writer writes or does not.
    async fn observe(&self, lasts: Duration, writes: bool) -> Result<(Vec<Sample>, Vec<Seen>, Vec<Instant>)> {
        let (stop, written) = (Arc::<AtomicBool>::default(), Written::default());
        let writing = writes
            .then(|| tokio::spawn(write(self.nodes.at[&self.writer].clone(), written.clone(), stop.clone())));
        let pages = tokio::spawn(Pages::of(self.cluster).watch(self.cluster.ids(), stop.clone()));
        let seeing = tokio::spawn(see(self.nodes.at[&self.away].clone(), written.clone(), stop.clone()));
        sleep(lasts).await;
        stop.store(true, Ordering::Relaxed);
        if let Some(writing) = writing {
            writing.await??;
        }
        let (samples, seen) = (pages.await??, seeing.await??);
        let written = written.lock().clone();
        Ok((samples, seen, written))
    }
}

async fn write(namespace: Namespace, written: Written, stop: Arc<AtomicBool>) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let number = written.lock().len();
        namespace.put(KEY, number.to_string()).await?;
        written.lock().push(Instant::now());
        sleep(PACE).await;
    }
    Ok(())
}

/// What a peer shows, again and again. What an earlier writer has left there counts as nothing.
async fn see(namespace: Namespace, written: Written, stop: Arc<AtomicBool>) -> Result<Vec<Seen>> {
    let namespace = namespace.with_consistency(Consistency::Stale { max_age: None });
    let before = namespace.get(KEY).await?.map(|record| record.version);
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let record = namespace.get(KEY).await?;
        let record = record.filter(|record| before.is_none_or(|before| before < record.version));
        let shown = record.and_then(|record| number_in(&record.value)).map_or(0, |number| number + 1);
        let missing = usize::try_from(shown)?;
        // It may show what its writer has not been told yet.
        if missing < written.lock().len() {
            seen.push(Seen { asked, missing });
        }
        sleep(PACE).await;
    }
    Ok(seen)
}

/// How much smaller than the truth the writer has told its lag, each time that the truth is known.
///
/// When the peer was asked, it lacked the write `missing`; so a look that had ended by then told of a time at which the peer
/// lacked it too, if that write was acknowledged before the look began.
fn not_too_small(
    samples: &[Sample],
    seen: &[Seen],
    written: &[Instant],
    writer: u64,
) -> Result<Times, String> {
    let mut differences = Vec::new();
    for sample in samples.iter().filter(|sample| sample.node == writer) {
        let Some(next) = seen.iter().find(|seen| sample.answered <= seen.asked) else { continue };
        let Some(acknowledged) = written.get(next.missing).filter(|at| **at <= sample.asked) else {
            continue;
        };
        let truth = sample.asked.duration_since(*acknowledged);
        differences.push(truth.saturating_sub(sample.look.lag));
        let told = sample.look.lag + TOO_SMALL_MAX;
        if told < truth {
            return Err(format!(
                "dishonest: node {writer} told a lag of {:.0} ms when its peer lacked a write of {:.0} ms before",
                millis(sample.look.lag),
                millis(truth)
            ));
        }
    }
    Ok(Times::of(differences))
}

/// Whether a silent peer's lag was unknown and grew with the silence, as every node told it. Returns the largest, in seconds.
fn grows(samples: &[Sample], began: Instant, when: &str) -> Result<f64, String> {
    let late: Vec<&Sample> = samples.iter().filter(|sample| began + UNKNOWN_AFTER <= sample.asked).collect();
    if late.len() < LOOKS_MIN {
        return Err(format!("vacuous: {} looks at silent peers, of {LOOKS_MIN}", late.len()));
    }
    for sample in &late {
        let silence = sample.asked.duration_since(began);
        let (node, lag) = (sample.node, sample.look.lag);
        if sample.look.known {
            return Err(format!(
                "dishonest: {when} node {node} knew its lag {silence:?} after a peer was cut off"
            ));
        }
        // The peer was last heard before the cut, or at it.
        if lag + TOO_SMALL_MAX < silence {
            return Err(format!(
                "dishonest: {when} node {node} told a lag of {lag:?} after {silence:?} of silence"
            ));
        }
        if sample.answered.duration_since(began) + TOO_LARGE_MAX < lag {
            return Err(format!("{when} node {node} told a lag of {lag:?} after {silence:?} of silence"));
        }
    }
    Ok(late.iter().map(|sample| sample.look.lag).max().unwrap_or_default().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peek::Look;

    fn sample(at: Instant, lag_ms: u64, known: bool) -> Sample {
        let look = Look { lag: Duration::from_millis(lag_ms), known, behind: 1, log_bytes: 0 };
        Sample { node: 1, asked: at, answered: at, look }
    }

    #[test]
    fn a_lag_smaller_than_the_truth_is_found() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        // Written at 0, 100 and 200; at 1,000 the peer shows the first one alone.
        let written = [at(0), at(100), at(200)];
        let seen = [Seen { asked: at(1_000), missing: 1 }];
        let told = |lag_ms| not_too_small(&[sample(at(900), lag_ms, true)], &seen, &written, 1);
        assert!(told(500).is_err(), "the truth is 800 ms");
        assert_eq!(told(790).unwrap().longest(), Duration::from_millis(10));
        assert_eq!(told(5_000).unwrap().longest(), Duration::ZERO);
        // Of another time than the peer was asked about, nothing is known.
        let late = not_too_small(&[sample(at(1_100), 0, true)], &seen, &written, 1).unwrap();
        assert_eq!(late.count(), 0);
    }

    #[test]
    fn a_silent_peers_lag_must_be_unknown_and_grow() {
        let began = Instant::now();
        let samples = |lag: fn(u64) -> u64, known| -> Vec<Sample> {
            let at = |ms| began + Duration::from_millis(ms);
            (0..100).map(|step| step * 100).map(|ms| sample(at(ms), lag(ms), known)).collect()
        };
        let looked = |lag, known| grows(&samples(lag, known), began, "now");
        assert_eq!(looked(|ms| ms + 100, false), Ok(10.0));
        assert!(looked(|ms| ms + 100, true).is_err(), "nobody can know it");
        assert!(looked(|_| 2_000, false).is_err(), "it does not grow");
        assert!(looked(|ms| ms + 3_600_000, false).is_err(), "it is no measure of anything");
        assert!(grows(&samples(|ms| ms, false)[..15], began, "now").is_err(), "nobody has looked");
    }
}
