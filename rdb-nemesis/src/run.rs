//! One run: start, work, strike, heal, read everything, judge.

use crate::checks::FINAL;
use crate::cluster::{Cluster, NAMESPACE, PATIENCE, Settings};
use crate::demand::Demand;
use crate::dice::Dice;
use crate::faults::{Fault, Need};
use crate::history::History;
use crate::lab::{Evidence, Lab};
use crate::picture::write_page;
use crate::plan::Plan;
use crate::probe;
use crate::report::{FaultReport, Report};
use crate::resources;
use crate::soak;
use crate::verdict::{self, OPERATIONS_BEFORE_MIN};
use crate::watch;
use crate::workloads::{Caller, Extent, Scene, Where, switched};
use anyhow::{Context as _, Result, anyhow, bail};
use rdb_client::{Client, Consistency, Mode, Options};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// The stream of chance that faults draw from.
const STREAM: u64 = 2;
/// Without faults, before the first one.
const QUIET: Duration = Duration::from_secs(2);
/// Between two faults.
const QUIET_MS: std::ops::Range<u64> = 500..2_500;
/// Keys of one read.
const KEYS_PER_READ: usize = 200;
/// How long a fault that leaves a majority waits for clients to be answered: twice the longest that writes may take.
const ANSWERS_LIMIT: Duration = Duration::from_secs(10);
/// How long workloads may take to resolve what they have in doubt.
const RESOLVE_LIMIT: Duration = Duration::from_secs(120);
/// How long the tries that were asked for may take.
const TRIES_LIMIT: Duration = Duration::from_secs(3_600);

/// Where runs happen.
#[derive(Debug, Clone)]
pub struct Place {
    /// The server's binary.
    pub server: PathBuf,
    /// For the runs' folders. Those of runs that failed stay.
    pub folder: PathBuf,
    /// For a page with pictures of each run.
    pub pages: Option<PathBuf>,
}

impl Place {
    /// Whether the power of disks can be cut here.
    ///
    /// # Errors
    /// Why not.
    pub fn has_power(&self) -> Result<()> {
        let folder = self.folder.join("try-power");
        let tried = crate::cluster::try_power_cut(&folder);
        let _ = std::fs::remove_dir_all(&folder);
        tried
    }
}

/// Whether nodes can have hosts of their own here.
///
/// # Errors
/// Why not.
pub fn has_hosts() -> Result<()> {
    crate::cluster::try_hosts()
}

/// Whether the memory of nodes can be capped here.
///
/// # Errors
/// Why not.
pub fn has_memory_caps() -> Result<()> {
    crate::cluster::try_memory_cap()
}

/// Does one run. Whatever goes wrong is among the report's problems.
pub async fn run(plan: &Plan, place: &Place) -> Report {
    let began = Instant::now();
    let folder = place.folder.join(format!("seed-{}", plan.seed));
    let history = Arc::new(History::begin(plan.seed));
    let mut report = Report::new(plan);
    // Of another run of this seed.
    let _ = std::fs::remove_dir_all(&folder);
    if plan.wanted.soak {
        soak::soak(plan, place, &folder, &history, &mut report).await;
    } else {
        let mut faults = Vec::new();
        if let Err(error) = act(plan, place, &folder, &history, &mut faults).await {
            report.problems.push(format!("{error:#}"));
        }
        judge(plan, &history, &faults, &mut report);
    }
    report.seconds = began.elapsed().as_secs_f64();
    if let Some(pages) = &place.pages
        && let Err(error) = write_pages(pages, &history, &report)
    {
        report.problems.push(format!("the run's page: {error:#}"));
    }
    if report.passed() {
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        keep(&folder, &history, &mut report);
    }
    report
}

pub(crate) fn judge(plan: &Plan, history: &History, faults: &[Evidence], report: &mut Report) {
    let entries = history.entries();
    report.count(&entries);
    report.problems.extend(verdict::vacuous(&entries, faults));
    report.problems.extend(Demand::of(&plan.workloads).vacuous(&entries, faults));
    if plan.lease {
        report.problems.extend(verdict::reads_by_lease(&entries));
    }
    for fault in faults {
        report.problems.extend(verdict::lost_the_lead(fault).filter(|_| plan.wanted.bars));
        let resumed = verdict::resumed_after(&entries, fault);
        report
            .faults
            .push(FaultReport::new(fault, resumed.as_ref().and_then(|resumed| resumed.clone().ok())));
        match resumed {
            Some(Ok(after)) if plan.wanted.bars => {
                report.problems.extend(verdict::over_the_bar(fault, after));
            }
            Some(Err(why)) => report.problems.push(why),
            Some(Ok(_)) | None => {}
        }
    }
    report.peaks = resources::peaks(&history.looks(), plan.nodes());
    report.problems.extend(resources::over(&report.peaks, plan.memory_budget_bytes()));
    let (looked, problems) = verdict::judge(&entries);
    report.looked = looked;
    report.problems.extend(problems);
}

/// The run's page, what it is drawn from, and its line in the index.
fn write_pages(folder: &Path, history: &History, report: &Report) -> Result<()> {
    use std::io::Write as _;
    std::fs::create_dir_all(folder)?;
    let name = format!("seed-{}.html", report.seed);
    write_page(&folder.join(&name), &report.in_a_line(), &history.all(), &report.looked, &report.problems)?;
    history.write(&folder.join(format!("seed-{}.jsonl", report.seed)))?;
    let index = std::fs::File::options().create(true).append(true).open(folder.join("index.html"));
    let line = maud::html! { p { a href=(name) { (report.in_a_line()) } } };
    Ok(writeln!(index?, "{}", line.into_string())?)
}

fn keep(folder: &Path, history: &History, report: &mut Report) {
    report.folder = Some(folder.to_owned());
    let written = std::fs::create_dir_all(folder)
        .map_err(anyhow::Error::from)
        .and_then(|()| history.write(&folder.join("history.jsonl")));
    if let Err(error) = written {
        report.problems.push(format!("the history could not be kept: {error:#}"));
    }
}

/// All that happens in a run. The nodes are gone when it returns.
async fn act(
    plan: &Plan,
    place: &Place,
    folder: &Path,
    history: &Arc<History>,
    faults: &mut Vec<Evidence>,
) -> Result<()> {
    let mut lab = begin(plan, place, folder, history).await?;
    work(plan, &mut lab, faults).await
}

/// Starts the nodes, and makes the namespaces.
pub(crate) async fn begin(plan: &Plan, place: &Place, folder: &Path, history: &Arc<History>) -> Result<Lab> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let settings = Settings {
        size: plan.nodes(),
        options: plan.configuration(),
        disks: plan.needs(Need::Disks),
        clocks: plan.needs(Need::Clocks),
        syncs: plan.needs(Need::Syncs),
        hosts: plan.wanted.hosts,
        before: plan.wanted.server_before.clone().filter(|_| plan.needs(Need::Before)),
    };
    let cluster = Cluster::start(&place.server, folder, &settings).await?;
    let options = Options { request_timeout: PATIENCE / 2, ..Options::default() };
    let client = connect(&cluster, options).await?;
    client.create_namespace(NAMESPACE, Mode::Strong).await.context("the namespace cannot be created")?;
    if plan.switches() {
        client
            .create_namespace(switched::NAMESPACE, switched::FIRST)
            .await
            .context("the namespace that is to be switched cannot be created")?;
    }
    let demand = Demand::of(&plan.workloads);
    let answers_limit = if plan.wanted.bars { ANSWERS_LIMIT } else { PATIENCE };
    let lab = Lab { cluster, client, history: history.clone(), demand, answers_limit };
    lab.leader().await?;
    Ok(lab)
}

/// Lets clients work and be struck, and reads everything at every node in the end.
pub(crate) async fn work(plan: &Plan, lab: &mut Lab, faults: &mut Vec<Evidence>) -> Result<()> {
    let scene = Scene {
        lease: plan.lease,
        tries: plan.wanted.tries,
        pace: plan.wanted.soak.then(soak::pace),
        ..Scene::new(lab.history.clone(), lab.cluster.addresses(), plan.seed, switched::NAMESPACE)
    };
    let scene = Arc::new(scene);
    let mut clients = JoinSet::new();
    for workload in &plan.workloads {
        (workload.start)(&scene, &mut clients);
    }
    probe::start(&scene, &mut clients);
    watch::start(&lab.cluster, &scene, &mut clients);
    let struck = strike(plan, lab, &scene, faults).await;
    scene.stop.store(true, Ordering::Relaxed);
    if let Err(error) = struck {
        return Err(match first_failure(&mut clients) {
            Some(failure) => failure.context(format!("{error:#}")),
            None => error,
        });
    }
    finish(clients).await?;
    read_everything(&lab.cluster, &scene).await?;
    lab.cluster.is_sound()
}

/// A client of all nodes.
pub(crate) async fn connect(cluster: &Cluster, options: Options) -> Result<Client> {
    let endpoints = cluster.addresses().into_values().collect();
    let options = Options { endpoints, connect_patience: PATIENCE, ..options };
    Client::connect(options).await.context("no node answers")
}

/// Faults one after the other, with quiet between them, until the time is over.
async fn strike(plan: &Plan, lab: &mut Lab, scene: &Scene, faults: &mut Vec<Evidence>) -> Result<()> {
    let (began, began_ns) = (Instant::now(), lab.history.now_ns());
    let enough = scene.history.answered() + OPERATIONS_BEFORE_MIN;
    sleep(QUIET).await;
    while scene.history.answered() < enough && began.elapsed() < PATIENCE {
        sleep(QUIET / 20).await;
    }
    clients_succeed(lab, began_ns).await.context("before the first fault")?;
    let mut dice = Dice::new(plan.seed, STREAM);
    for in_turn in plan.faults.iter().cycle() {
        let fault = if plan.wanted.soak { dice.pick(&plan.faults) } else { in_turn };
        if fault.needs(Need::Before) && lab.cluster.is_upgraded() {
            // It is done once a run.
            sleep(QUIET).await;
        } else {
            strike_with(fault, lab, &mut dice, faults).await?;
        }
        sleep(dice.millis(if plan.wanted.soak { soak::QUIET_MS } else { QUIET_MS })).await;
        let time_is_over = plan.wanted.seconds <= began.elapsed().as_secs();
        let all_struck = plan.wanted.soak || plan.faults.len() <= faults.len();
        if time_is_over && all_struck && tries_are_made(scene) {
            break;
        }
        if TRIES_LIMIT < began.elapsed() {
            bail!(
                "of {} tries {} were made in {TRIES_LIMIT:?}",
                scene.tries,
                scene.tried.load(Ordering::Relaxed)
            );
        }
    }
    // So that the last write comes after all of it.
    sleep(QUIET / 2).await;
    Ok(())
}

/// One fault, from its strike until clients are served again.
async fn strike_with(
    fault: &Fault,
    lab: &mut Lab,
    dice: &mut Dice,
    faults: &mut Vec<Evidence>,
) -> Result<()> {
    let evidence = (fault.strike)(lab, dice).await.with_context(|| format!("fault {}", fault.name))?;
    let healed_ns = evidence.ended_ns;
    faults.push(evidence);
    lab.cluster.is_sound()?;
    clients_succeed(lab, healed_ns).await.with_context(|| format!("after {}", fault.name))
}

fn tries_are_made(scene: &Scene) -> bool {
    scene.tries <= scene.tried.load(Ordering::Relaxed)
}

/// Waits until all that clients do has succeeded since then.
async fn clients_succeed(lab: &Lab, since_ns: u64) -> Result<()> {
    let missing = lab.all_succeed(since_ns, PATIENCE).await;
    missing.map_err(|missing| {
        anyhow!("vacuous: for {} s none of these succeeded: {missing}", PATIENCE.as_secs())
    })
}

/// Why a client has ended early, if one has: what went wrong may follow from it.
fn first_failure(clients: &mut JoinSet<Result<()>>) -> Option<anyhow::Error> {
    std::iter::from_fn(|| clients.try_join_next())
        .find_map(|ended| ended.map_err(anyhow::Error::from).and_then(|ended| ended).err())
}

/// Lets clients resolve what they have in doubt.
pub(crate) async fn finish(mut clients: JoinSet<Result<()>>) -> Result<()> {
    let all = async {
        while let Some(ended) = clients.join_next().await {
            ended??;
        }
        Ok(())
    };
    match timeout(RESOLVE_LIMIT, all).await {
        Ok(ended) => ended,
        Err(_) => bail!("after {} s clients still wait for answers", RESOLVE_LIMIT.as_secs()),
    }
}

/// Reads every key at every node, by its name and by a scan: by a linearizable read, and as the node has it.
pub(crate) async fn read_everything(cluster: &Cluster, scene: &Arc<Scene>) -> Result<()> {
    cluster.catch_up().await?;
    let mut reader = Caller::connect(scene, FINAL).await?;
    let mut of_switched = Caller::connect_to(scene, FINAL, scene.switched).await?;
    let keys = scene.history.keys();
    for consistency in [Consistency::Linearizable, Consistency::Stale { max_age: None }] {
        for node in scene.addresses.keys().copied() {
            for (workload, keys) in &keys {
                let reader = if workload == switched::NAME { &mut of_switched } else { &mut reader };
                let keys: Vec<String> = keys.iter().cloned().collect();
                for keys in keys.chunks(KEYS_PER_READ) {
                    read(reader, keys, node, consistency).await?;
                }
                scan(reader, &Extent::prefix(format!("{workload}/"), keys), node, consistency).await?;
            }
        }
    }
    Ok(())
}

async fn read(reader: &mut Caller, keys: &[String], node: u64, consistency: Consistency) -> Result<()> {
    let deadline = Instant::now() + PATIENCE / 2;
    while reader.batch_get(keys, Where::Node(node), consistency).await.is_none() {
        if deadline < Instant::now() {
            bail!("node {node} does not answer reads though all is healed");
        }
        sleep(QUIET / 20).await;
    }
    Ok(())
}

async fn scan(reader: &mut Caller, extent: &Extent, node: u64, consistency: Consistency) -> Result<()> {
    let deadline = Instant::now() + PATIENCE / 2;
    while !reader.scan(extent, Where::Node(node), consistency).await? {
        if deadline < Instant::now() {
            bail!("node {node} does not answer scans though all is healed");
        }
        sleep(QUIET / 20).await;
    }
    Ok(())
}
