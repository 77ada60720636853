//! `rdb shell` with lines from a pipe: what it prints, how it ends, and what the demo's words do to processes and nodes. The
//! cluster is the client tests' fake one, and the demo a folder with processes that only look like nodes.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../rdb-client/tests/fake/mod.rs"]
mod fake;

use fake::Cluster;
use rdb_proto::internal::v1::faults_server::{Faults, FaultsServer};
use rdb_proto::internal::v1::{CutRequest, CutResponse};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(program: &Path, endpoints: &str, options: &[&str], lines: &str) -> Output {
    let mut child = Command::new(program)
        .arg("shell")
        .args(options)
        .env("FLAREDB_ENDPOINTS", endpoints)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A shell that ends early does not read the rest.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn shell(cluster: &Cluster, options: &[&str], lines: &str) -> Output {
    run(Path::new(env!("CARGO_BIN_EXE_rdb")), &cluster.endpoints().join(","), options, lines)
}

#[test]
fn lines_are_commands_over_one_connection() {
    let cluster = Cluster::start(3);
    let mut lines =
        "# comments and blank lines are skipped\n\nput test apple 'red and green'\nrdb get test apple\n"
            .to_owned();
    for key in 0..50 {
        lines += &format!("put test key/{key} value\n");
    }
    let done = shell(&cluster, &[], &lines);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert!(
        done.stdout.starts_with("ok  version 1.1.1\nred and green\nok  version 1.2.1\n"),
        "{}",
        done.stdout
    );
    assert_eq!(cluster.writes_applied(), 51);
    let statuses = cluster.world.statuses.load(Ordering::Relaxed);
    assert!(statuses <= 3, "connected again and again: {statuses}");
}

#[test]
fn it_ends_at_the_first_failure_unless_told_otherwise() {
    let cluster = Cluster::start(1);
    let lines = "put test a 1\nget test missing\nput test b 1\nput nowhere c 1\n";
    let ended = shell(&cluster, &[], lines);
    assert_eq!((ended.code, ended.stdout.as_str()), (1, "ok  version 1.1.1\n"));
    assert!(ended.stderr.contains("there is no key 'missing'"), "{}", ended.stderr);
    let went_on = shell(&cluster, &["--keep-going"], lines);
    assert_eq!((went_on.code, went_on.stdout.as_str()), (1, "ok  version 1.2.1\nok  version 1.3.1\n"));
    assert!(went_on.stderr.contains("there is no namespace 'nowhere'"), "{}", went_on.stderr);
    for (line, code) in
        [("put test 'a 1", 2), ("nonsense", 2), ("put test", 2), ("put nowhere a 1", 3), ("put --help", 0)]
    {
        assert_eq!(shell(&cluster, &[], &format!("{line}\n")).code, code, "{line}");
    }
    assert_eq!(shell(&cluster, &[], "exit\nnonsense\n").code, 0);
    assert_eq!(shell(&cluster, &[], "shell\n").code, 2);
}

#[test]
fn a_namespace_in_use_is_not_named() {
    let cluster = Cluster::start(1);
    let done = shell(&cluster, &[], "use test\nput a 1\nget a\nuse\nget test a\n");
    assert_eq!((done.code, done.stdout.as_str()), (0, "ok  version 1.1.1\n1\n1\n"), "{}", done.stderr);
    let unknown = shell(&cluster, &[], "use nowhere\n");
    assert_eq!(unknown.code, 3);
    assert!(unknown.stderr.contains("nowhere"), "{}", unknown.stderr);
    let named = shell(&cluster, &[], "use test\nget test a\n");
    assert_eq!(named.code, 2);
    assert!(named.stderr.contains("hint: the namespace is 'test' and need not be named"), "{}", named.stderr);
}

#[test]
fn options_hold_for_all_lines_unless_a_line_has_its_own() {
    let cluster = Cluster::start(1);
    let done = shell(&cluster, &["-o", "json"], "put test a 1\nget -o table test a\nget test a\n");
    assert_eq!(done.code, 0, "{}", done.stderr);
    let (written, rest) = done.stdout.split_once("}\n").unwrap();
    assert!(written.contains("\"version\": \"1.1.1\""), "{}", done.stdout);
    assert!(rest.starts_with("1\n{\n"), "{}", done.stdout);
}

#[test]
fn stdin_is_for_lines_alone() {
    let cluster = Cluster::start(1);
    for line in ["put test a -", "txn test", "txn test -"] {
        let refused = shell(&cluster, &["--keep-going"], &format!("{line}\nput test b 1\n"));
        assert_eq!((refused.code, refused.stdout.lines().count()), (2, 1), "{line}: {}", refused.stderr);
        assert!(refused.stderr.contains("the shell reads its own lines from stdin"), "{}", refused.stderr);
    }
    assert_eq!(shell(&cluster, &[], "ns delete test\n").code, 2, "nobody is there to confirm");
}

/// `rdb` with stdin and stderr at a terminal, and stdout in a pipe, or there as well.
struct AtTerminal {
    child: Child,
    terminal: File,
    seen: String,
}

impl AtTerminal {
    fn new(cluster: &Cluster, args: &[&str]) -> Self {
        Self::with(&cluster.endpoints().join(","), args, false)
    }

    fn with(endpoints: &str, args: &[&str], is_stdout: bool) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let end = File::options().read(true).write(true).open(name).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rdb"))
            .args(args)
            .env("FLAREDB_ENDPOINTS", endpoints)
            .env("NO_COLOR", "1")
            .env("TERM", "xterm")
            .env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .stdin(end.try_clone().unwrap())
            .stdout(if is_stdout { end.try_clone().unwrap().into() } else { Stdio::piped() })
            .stderr(end)
            .spawn()
            .unwrap();
        Self { child, terminal: terminal.into(), seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.terminal.write_all(text.as_bytes()).unwrap();
    }

    /// Reads what is on the screen until `text` is.
    fn until(&mut self, text: &str) {
        self.until_both(text, "");
    }

    /// Until `text` is, and `then` behind it.
    fn until_both(&mut self, text: &str, then: &str) {
        while !self.seen.split_once(text).is_some_and(|(_, rest)| rest.contains(then)) {
            let mut buffer = [0; 1024];
            let length = self.terminal.read(&mut buffer).unwrap_or_else(|_| panic!("ended: {}", self.seen));
            self.seen += &String::from_utf8_lossy(&buffer[..length]);
        }
    }

    /// How it ended, and what it wrote to stdout. One that waits for what never comes is killed, and has no exit code.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + HANGS_AFTER;
        while self.child.try_wait().unwrap().is_none() {
            if deadline <= Instant::now() {
                self.child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Far longer than anything here takes.
const HANGS_AFTER: Duration = Duration::from_secs(30);
/// Ctrl-D at the beginning of a line.
const END: &str = "\x04";

#[test]
fn a_question_is_answered_where_stdin_is_a_terminal_and_stdout_is_none() {
    let cluster = Cluster::start(1);
    let mut shell = AtTerminal::new(&cluster, &["shell"]);
    shell.type_in("put test a 1\nns delete test\n");
    shell.until("Type test to go on: ");
    shell.type_in(&format!("test\n{END}"));
    assert_eq!(shell.end(), (Some(0), "ok  version 1.1.1\ndeleted  test\n".into()));
    assert_eq!(cluster.namespace_id("test"), None);
}

#[test]
fn the_prompt_is_left_without_a_word_while_nodes_are_asked() {
    let mut cluster = Cluster::start(1);
    let endpoints = cluster.endpoints().join(",");
    cluster.kill(1);
    // The leaders' thread asks nodes that do not answer, nearly all the time, and again before a status has failed.
    for _ in 0..3 {
        let mut shell = AtTerminal::with(&endpoints, &["shell"], true);
        shell.until("leaders  no node answers");
        shell.type_in("status\n");
        // Before the prompt is there, the terminal would take it for the end of a line, and forget it.
        shell.until_both("hint: is it running?", "rdb> ");
        shell.type_in(END);
        let mut rest = Vec::new();
        // It fails when the last end of the terminal is closed.
        let _ = shell.terminal.read_to_end(&mut rest);
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(!rest.contains("panicked"), "{rest}");
        assert_eq!(shell.end(), (Some(0), String::new()), "{rest}");
    }
}

#[test]
fn what_is_unknown_is_not_asked_about() {
    let cluster = Cluster::start(1);
    for unknown in ["ns delete nowhere", "del nowhere --prefix a", "del nowhere --range a b"] {
        let args: Vec<_> = unknown.split(' ').collect();
        let mut rdb = AtTerminal::new(&cluster, &args);
        // Nobody waits for the answer.
        rdb.type_in("no\n");
        rdb.until("there is no namespace 'nowhere'");
        assert!(!rdb.seen.contains("go on"), "{}", rdb.seen);
        assert_eq!(rdb.end(), (Some(3), String::new()), "{unknown}");
    }
}

#[test]
fn a_namespace_that_came_after_the_question_is_not_deleted() {
    let cluster = Cluster::start(1);
    let before = cluster.namespace_id("test");
    let mut rdb = AtTerminal::new(&cluster, &["ns", "delete", "test"]);
    rdb.until("Type test to go on: ");
    cluster.replace_namespace("test");
    rdb.type_in("test\n");
    rdb.until("error: the namespace 'test' was deleted while you were asked; nothing was deleted now");
    assert_eq!(rdb.end(), (Some(3), String::new()));
    assert!(cluster.namespace_id("test").is_some_and(|now| Some(now) != before), "the new one is there");
}

#[test]
fn stdin_that_cannot_be_read_ends_it() {
    let cluster = Cluster::start(1);
    let folder = File::open(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdb"))
        .args(["shell", "--keep-going"])
        .env("FLAREDB_ENDPOINTS", cluster.endpoints().join(","))
        .stdin(folder)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    // One that goes on says it again and again, and is listened to no longer.
    child.stderr.take().unwrap().take(200).read_to_string(&mut said).unwrap();
    let times = said.matches("error: cannot read stdin").count();
    if times != 1 {
        child.kill().unwrap();
    }
    assert_eq!((times, child.wait().unwrap().code()), (1, Some(2)), "{said}");
}

#[test]
fn a_line_that_is_no_text_fails_and_no_other() {
    let cluster = Cluster::start(1);
    let mut child = Command::new(env!("CARGO_BIN_EXE_rdb"))
        .args(["shell", "--keep-going"])
        .env("FLAREDB_ENDPOINTS", cluster.endpoints().join(","))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"put test a \xff\nput test b 1\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b"ok  version 1.1.1\n"[..]));
}

#[test]
fn the_demos_words_need_a_demo() {
    let cluster = Cluster::start(1);
    let refused = shell(&cluster, &[], "\\kill 1\n");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("hint: ./x demo"), "{}", refused.stderr);
    assert!(!shell(&cluster, &[], "help\n").stdout.contains("\\kill"));
    let nowhere = shell(&cluster, &["--demo", "/nowhere"], "status\n");
    assert_eq!(nowhere.code, 2);
    assert!(nowhere.stderr.contains("/nowhere is not a demo's folder"), "{}", nowhere.stderr);
}

/// A node, and what it was told: to which nothing passes, and from which.
type Call = (u64, Vec<u64>, Vec<u64>);

/// All that the nodes' fault calls were told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Call>>>);

struct Node(u64, Told);

#[tonic::async_trait]
impl Faults for Node {
    async fn cut(
        &self,
        request: tonic::Request<CutRequest>,
    ) -> Result<tonic::Response<CutResponse>, tonic::Status> {
        let CutRequest { to, from } = request.into_inner();
        self.1.0.lock().unwrap().push((self.0, to, from));
        Ok(tonic::Response::new(CutResponse {}))
    }
}

/// A demo of two nodes. Their processes read their configuration for ever; the test answers for them.
struct Demo {
    folder: PathBuf,
    base: u16,
    told: Told,
    runtime: tokio::runtime::Runtime,
}

impl Demo {
    fn new(name: &str) -> Self {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        for node in 1..=2 {
            std::fs::write(folder.join(format!("node-{node}.toml")), "").unwrap();
        }
        let server = folder.join("rdb-server");
        // As rdb-server is called: with --config and the file.
        std::fs::write(&server, "#!/bin/sh\nexec tail -f \"$2\"\n").unwrap();
        std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o755)).unwrap();
        let program = folder.join("rdb");
        let linked = std::fs::hard_link(env!("CARGO_BIN_EXE_rdb"), &program);
        linked.or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_rdb"), &program).map(drop)).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let base = (0..).map(|attempt| 30_000 + attempt * 300).find(|base| all_free(*base)).unwrap();
        std::fs::write(folder.join("port-base"), format!("{base}\n")).unwrap();
        Self { folder, base, told: Told::default(), runtime }
    }

    /// Serves what a node that runs would.
    fn serve(&self, node: u16) {
        let (faults, told) =
            (std::net::SocketAddr::from(([127, 0, 0, 1], self.base + node)), self.told.clone());
        let service = FaultsServer::new(Node(node.into(), told));
        self.runtime.spawn(tonic::transport::Server::builder().add_service(service).serve(faults));
        let http = std::net::TcpListener::bind(("127.0.0.1", self.base + 200 + node)).unwrap();
        let pid = self.folder.join(format!("node-{node}.pid"));
        std::thread::spawn(move || {
            for mut stream in http.incoming().flatten() {
                let _ = stream.read(&mut [0; 1024]);
                // No node is ready while its process still becomes what it is to be: it then has no command line to be known by.
                let status = if name_of(&pid) == "tail" { "200 OK" } else { "503 Service Unavailable" };
                let _ =
                    stream.write_all(format!("HTTP/1.1 {status}\r\nConnection: close\r\n\r\n").as_bytes());
            }
        });
        while std::net::TcpStream::connect(faults).is_err() {
            std::thread::yield_now();
        }
    }

    fn shell(&self, lines: &str) -> Output {
        let folder = self.folder.to_str().unwrap();
        run(&self.folder.join("rdb"), "", &["--demo", folder, "--keep-going"], lines)
    }

    fn pid(&self, node: u64) -> i32 {
        std::fs::read_to_string(self.folder.join(format!("node-{node}.pid"))).unwrap().trim().parse().unwrap()
    }

    fn told(&self) -> Vec<Call> {
        std::mem::take(&mut self.told.0.lock().unwrap())
    }
}

fn all_free(base: u16) -> bool {
    [1, 2, 201, 202].iter().all(|offset| std::net::TcpListener::bind(("127.0.0.1", base + offset)).is_ok())
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.shell("\\kill 1\n\\kill 2\n");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The name of the process that a file names.
fn name_of(pid: &Path) -> String {
    let pid = std::fs::read_to_string(pid).unwrap_or_default();
    std::fs::read_to_string(format!("/proc/{}/comm", pid.trim())).unwrap_or_default().trim().to_owned()
}

fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn runs(pid: i32) -> bool {
    matches!(state(pid), Some('R' | 'S' | 'D'))
}

#[test]
fn nodes_are_started_paused_stopped_and_killed() {
    let demo = Demo::new("processes");
    demo.serve(1);
    let started = demo.shell("\\start 1\n\\start 1\n");
    let pid = demo.pid(1);
    assert_eq!(started.stdout, format!("started  node 1 (pid {pid})\n"), "{}", started.stderr);
    assert_eq!(started.code, 3);
    assert!(started.stderr.contains(&format!("node 1 runs already (pid {pid})")), "{}", started.stderr);
    assert!(runs(pid), "it outlives the shell");

    let paused = demo.shell("\\pause 1\n\\pause 1\n\\stop 1\n");
    assert!(paused.stdout.starts_with("paused  node 1"), "{}", paused.stdout);
    assert!(
        paused.stderr.contains("node 1 hangs already") && paused.stderr.contains("\\resume 1"),
        "{}",
        paused.stderr
    );
    assert_eq!(state(pid), Some('T'));
    let resumed = demo.shell("\\resume 1\n\\resume 1\n");
    assert!(resumed.stderr.contains("node 1 does not hang"), "{}", resumed.stderr);
    assert!(runs(pid));

    let stopped = demo.shell("\\stop 1\n\\stop 1\n\\kill 1\n");
    assert!(stopped.stdout.starts_with("stopped  node 1"), "{}", stopped.stdout);
    assert_eq!(stopped.stderr.matches("node 1 is down already").count(), 2, "{}", stopped.stderr);
    let killed = demo.shell("\\start 1\n\\kill 1\n");
    assert!(killed.stdout.contains("killed  node 1 (pid "), "{}", killed.stdout);
    assert_eq!(killed.code, 0, "{}", killed.stderr);
    let again = demo.pid(1);
    assert!(matches!(state(again), None | Some('Z')), "it lives on");

    // A pid that has gone to another program is not a node.
    std::fs::write(demo.folder.join("node-2.pid"), std::process::id().to_string()).unwrap();
    assert!(demo.shell("\\kill 2\n").stderr.contains("node 2 is down already"));
    for (wrong, words) in
        [("\\kill", "takes one node"), ("\\kill 7", "there is no node '7'"), ("\\boom", "there is no \\boom")]
    {
        let refused = demo.shell(&format!("{wrong}\n"));
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
}

#[test]
fn cuts_are_told_to_every_node() {
    let demo = Demo::new("cuts");
    demo.serve(1);
    let cut = demo.shell("\\partition 1 | 2\n");
    assert_eq!(cut.code, 0, "{}", cut.stderr);
    let expected =
        "cut  1 | 2; \\heal  mends it\n      node 2 was not told (it is down); the others keep their side\n";
    assert_eq!(cut.stdout, expected);
    assert_eq!(demo.told(), [(1, vec![2], vec![2])]);
    demo.serve(2);
    assert_eq!(demo.shell("\\partition 1>2\n").code, 0);
    let mut told = demo.told();
    told.sort();
    assert_eq!(told, [(1, vec![2], vec![]), (2, vec![], vec![1])]);
    let healed = demo.shell("\\heal\n");
    assert_eq!((healed.code, healed.stdout.as_str()), (0, "healed  all nodes reach each other again\n"));
    let mut told = demo.told();
    told.sort();
    assert_eq!(told, [(1, vec![], vec![]), (2, vec![], vec![])]);
    for wrong in ["\\partition", "\\partition 1,2", "\\partition 1|9", "\\heal 1"] {
        assert_eq!(demo.shell(&format!("{wrong}\n")).code, 2, "{wrong}");
    }
    assert!(demo.told().is_empty());
    // What a node that is started again has forgotten, it is told again.
    let restarted = demo.shell("\\partition 1|2\n\\start 1\n");
    assert_eq!(restarted.code, 0, "{}", restarted.stderr);
    assert_eq!(demo.told().iter().filter(|(node, ..)| *node == 1).count(), 2);
}
