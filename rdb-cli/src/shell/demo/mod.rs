//! The demo's words. They act on the nodes of a folder as `scripts/lib/cluster.sh` lays it out:
//!
//! ```text
//! port-base     the first port: clients at +N, peers at +100+N, HTTP at +200+N
//! node-N.toml   a node's configuration; its path is how its process is recognised
//! node-N.pid    the process that was started last
//! node-N.log    what it said
//! ```

mod faults;
mod partition;
mod process;

use crate::exit::{Class, Failure};
use crate::output::Answer;
use partition::Partition;
use process::{NodeFiles, State};
use rustix::process::Signal;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What follows `\`.
pub(super) const WORDS: [&str; 9] =
    ["heal", "help", "kill", "leaders", "partition", "pause", "resume", "start", "stop"];

pub(super) const HELP: &str = "\
In the demo, N is a node, as in status:

  \\kill N           crash it: kill -9
  \\stop N           ask it to stop; it hands over what it leads
  \\pause N          let it hang; \\resume N lets it go on
  \\start N          start it again
  \\partition 1|2,3  cut the network between node 1 and the others; 1>2 cuts one direction
  \\heal             mend all cuts
  \\leaders          who leads what; also printed whenever it changes
";

/// How long a node that was started may take to be ready, before the prompt comes back without waiting for more.
const READY_WAIT: Duration = Duration::from_secs(15);
/// The same while the network is cut: it may have nobody to be ready with.
const READY_WAIT_CUT: Duration = Duration::from_secs(3);

/// A demo that runs, or may be started.
pub(super) struct Demo {
    folder: PathBuf,
    server: PathBuf,
    port_base: u16,
    nodes: Vec<u64>,
    cut: Option<Partition>,
}

#[derive(Serialize)]
struct NodeJson {
    node: u64,
    state: &'static str,
}

impl Demo {
    /// Reads the demo's folder.
    pub(super) fn open(folder: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(format!("{} is not a demo's folder: {why}", folder.display()))
                .hint("./x demo starts a demo in demo-data/ and opens this prompt")
        };
        let folder = std::path::absolute(folder).map_err(|error| wrong(error.to_string()))?;
        let base = std::fs::read_to_string(folder.join("port-base"))
            .map_err(|error| wrong(format!("its port-base cannot be read: {error}")))?;
        let port_base =
            base.trim().parse().map_err(|_| wrong(format!("its port-base is '{}', no port", base.trim())))?;
        let nodes: Vec<u64> =
            (1..=9).filter(|node| NodeFiles::new(&folder, *node).config.is_file()).collect();
        if nodes.is_empty() {
            return Err(wrong("it has no node-1.toml".into()));
        }
        Ok(Self { server: server_program(), folder, port_base, nodes, cut: None })
    }

    /// Where the nodes serve clients.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| self.address(*node, 0)).collect()
    }

    fn address(&self, node: u64, offset: u64) -> String {
        format!("127.0.0.1:{}", u64::from(self.port_base) + offset + node)
    }

    pub(super) fn farewell(&self) -> String {
        let cut = self.cut.as_ref().map(|cut| format!("; the network is still cut: {cut}"));
        format!(
            "the nodes run on{}.  ./x demo  opens this prompt again,  ./x demo --stop  ends them\n",
            cut.unwrap_or_default()
        )
    }

    /// Does what `\word` says.
    pub(super) async fn run(&mut self, word: &str, words: &[String]) -> Result<Answer, Failure> {
        match word {
            "kill" => self.kill(self.node(word, words)?).await,
            "stop" => self.stop(self.node(word, words)?).await,
            "start" => self.start(self.node(word, words)?).await,
            "pause" => self.pause(self.node(word, words)?).await,
            "resume" => self.resume(self.node(word, words)?).await,
            "partition" => self.partition(words).await,
            "heal" => self.heal(words).await,
            _ => Err(Failure::usage(format!("there is no \\{word}")).hint("\\help  shows what there is")),
        }
    }

    /// The one node that is named.
    fn node(&self, word: &str, words: &[String]) -> Result<u64, Failure> {
        let [node] = words else {
            return Err(Failure::usage(format!(
                "\\{word} takes one node, as in  \\{word} {}",
                self.nodes[0]
            )));
        };
        let known = node.parse().ok().filter(|node| self.nodes.contains(node));
        known.ok_or_else(|| Failure::usage(format!("there is no node '{node}'; there are {}", self.names())))
    }

    fn names(&self) -> String {
        self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    fn files(&self, node: u64) -> NodeFiles {
        NodeFiles::new(&self.folder, node)
    }

    async fn kill(&self, node: u64) -> Result<Answer, Failure> {
        let files = self.files(node);
        let (State::Up(pid) | State::Paused(pid)) = files.state() else { return Err(down(node)) };
        process::signal(pid, Signal::KILL, node)?;
        process::until_gone(pid, node).await?;
        Ok(done(node, "down", &format!("killed  node {node} (pid {pid}); \\start {node}  brings it back")))
    }

    async fn stop(&self, node: u64) -> Result<Answer, Failure> {
        let files = self.files(node);
        let pid = match files.state() {
            State::Up(pid) => pid,
            State::Paused(_) => {
                return Err(not_done(format!("node {node} hangs and would not notice"))
                    .hint(format!("\\resume {node}  first, or  \\kill {node}")));
            }
            State::Down => return Err(down(node)),
        };
        process::signal(pid, Signal::TERM, node)?;
        process::until_gone(pid, node).await?;
        Ok(done(node, "down", &format!("stopped  node {node}; \\start {node}  brings it back")))
    }

    async fn pause(&self, node: u64) -> Result<Answer, Failure> {
        let files = self.files(node);
        match files.state() {
            State::Up(pid) => process::signal(pid, Signal::STOP, node)?,
            State::Paused(_) => return Err(not_done(format!("node {node} hangs already"))),
            State::Down => return Err(down(node)),
        }
        files.until(|state| !matches!(state, State::Up(_))).await;
        Ok(done(
            node,
            "paused",
            &format!("paused  node {node}: it neither answers nor notices; \\resume {node}  ends that"),
        ))
    }

    async fn resume(&self, node: u64) -> Result<Answer, Failure> {
        let files = self.files(node);
        match files.state() {
            State::Paused(pid) => process::signal(pid, Signal::CONT, node)?,
            State::Up(_) => return Err(not_done(format!("node {node} does not hang"))),
            State::Down => return Err(down(node)),
        }
        files.until(|state| !matches!(state, State::Paused(_))).await;
        Ok(done(node, "up", &format!("resumed  node {node}")))
    }

    async fn start(&self, node: u64) -> Result<Answer, Failure> {
        let files = self.files(node);
        match files.state() {
            State::Up(pid) => return Err(not_done(format!("node {node} runs already (pid {pid})"))),
            State::Paused(_) => {
                return Err(not_done(format!("node {node} runs, and hangs")).hint(format!("\\resume {node}")));
            }
            State::Down => {}
        }
        let pid = files.start(&self.server, node)?;
        if let Some(cut) = &self.cut {
            // It has forgotten what it was cut off from. The others have not, so this need not succeed.
            let _ =
                faults::cut(&self.address(node, 0), cut.of(node, &self.nodes), faults::Patience::UntilServed)
                    .await;
        }
        let wait = if self.cut.is_some() { READY_WAIT_CUT } else { READY_WAIT };
        let ready = files.until_ready(&self.address(node, 200), wait, node).await?;
        Ok(done(
            node,
            "up",
            &match ready {
                None => format!("started  node {node} (pid {pid})"),
                Some(why) => format!("started  node {node} (pid {pid}); not ready yet: {why}"),
            },
        ))
    }

    async fn partition(&mut self, words: &[String]) -> Result<Answer, Failure> {
        let partition = Partition::parse(&words.concat(), &self.nodes)?;
        let unaware = self.apply(Some(&partition)).await?;
        let mut text = format!("cut  {partition}; \\heal  mends it\n");
        for (node, why) in &unaware {
            text += &format!("      node {node} was not told ({why}); the others keep their side\n");
        }
        self.cut = Some(partition);
        #[derive(Serialize)]
        struct Json {
            cut: String,
            not_told: Vec<u64>,
        }
        let cut = self.cut.as_ref().map(ToString::to_string).unwrap_or_default();
        Ok(Answer::new(text, &Json { cut, not_told: unaware.into_iter().map(|(node, _)| node).collect() }))
    }

    async fn heal(&mut self, words: &[String]) -> Result<Answer, Failure> {
        if !words.is_empty() {
            return Err(Failure::usage("\\heal mends all cuts, and takes nothing behind it"));
        }
        // A node that is down forgets; one that hangs stays cut off from its side.
        let deaf: Vec<_> = self.apply(None).await?;
        let deaf: Vec<_> =
            deaf.into_iter().filter(|(node, _)| self.files(*node).state() != State::Down).collect();
        if let Some((node, why)) = deaf.first() {
            return Err(Failure::new(
                Class::InDoubt,
                format!("node {node} was not reached ({why}) and may keep its cuts"),
            )
            .hint(format!("\\resume {node}  if it hangs, then  \\heal  again")));
        }
        self.cut = None;
        #[derive(Serialize)]
        struct Json {
            healed: bool,
        }
        Ok(Answer::new("healed  all nodes reach each other again\n", &Json { healed: true }))
    }

    /// Tells every node. Returns those that could not be told, and why.
    async fn apply(&self, partition: Option<&Partition>) -> Result<Vec<(u64, String)>, Failure> {
        let mut unaware = Vec::new();
        for node in &self.nodes {
            let cut = partition.map(|partition| partition.of(*node, &self.nodes)).unwrap_or_default();
            match faults::cut(&self.address(*node, 0), cut, faults::Patience::Once).await {
                Ok(()) => {}
                Err(faults::Refused::Unreached(why)) => unaware.push((*node, why)),
                Err(faults::Refused::Unsupported) => {
                    return Err(not_done(format!("node {node} was started without fault_calls"))
                        .hint("./x demo --stop  and  ./x demo  start the nodes with it"));
                }
                Err(faults::Refused::Other(why)) => {
                    return Err(not_done(format!("node {node} refuses: {why}")));
                }
            }
        }
        if unaware.len() == self.nodes.len() {
            return Err(Failure::new(Class::Unreachable, "no node runs, so nothing was cut or mended")
                .hint("\\start 1"));
        }
        Ok(unaware)
    }
}

/// The server that lies beside this program, as builds and packages leave them.
fn server_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("rdb-server"));
    beside.filter(|server| server.is_file()).unwrap_or_else(|| "rdb-server".into())
}

fn done(node: u64, state: &'static str, text: &str) -> Answer {
    Answer::new(format!("{text}\n"), &NodeJson { node, state })
}

fn not_done(message: String) -> Failure {
    Failure::new(Class::NotDone, message)
}

fn down(node: u64) -> Failure {
    not_done(format!("node {node} is down already")).hint(format!("\\start {node}  starts it"))
}
