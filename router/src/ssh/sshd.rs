//! A real `sshd` on this machine for tests: own keys, a port of its own, the user `nobody`
//! where the tests run as root.
//!
//! It is taken from `AGENTMON_SSHD`, from the folder into which `./dev setup` unpacks it, or
//! from the system; nothing is installed, and no other `sshd` is touched. An unpacked one is
//! copied beside its keys first: root's cache is closed to `nobody`. Where there is none the
//! tests say so, and fail with `AGENTMON_REQUIRE_LAB=1`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::time::SystemClock;
use rustix::process::{Pid, Signal, kill_process};

use super::{Patience, Session, SshError, Target};
use crate::collect::Stop;

/// `nobody`, as whom an `sshd` needs no user of its own.
const NOBODY: u32 = 65_534;

/// The server, its keys and who may use it.
pub(crate) struct Sshd {
    process: Option<Child>,
    folder: tempfile::TempDir,
    program: PathBuf,
    pub(crate) target: Target,
}

impl Sshd {
    /// Starts one; `None`, loudly, where there is no `sshd`.
    pub(crate) fn start() -> Option<Self> {
        let Some(program) = program() else {
            let line =
                "SKIPPED: no sshd here (./dev setup unpacks one; or name it in AGENTMON_SSHD)";
            assert!(std::env::var("AGENTMON_REQUIRE_LAB").map_or(true, |v| v != "1"), "{line}");
            eprintln!("{line}");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for name in ["host", "client", "stranger"] {
            keygen(&folder.path().join(name));
        }
        let at = |name: &str| folder.path().join(name);
        let host_key = fs::read_to_string(at("host.pub")).unwrap();
        fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        fs::copy(at("client.pub"), at("authorized")).unwrap();
        fs::write(at("config"), config(folder.path(), port)).unwrap();
        let program = reachable(&program, folder.path());
        let root = crate::sys::user_id() == 0;
        if root {
            chown(at("host"), Some(NOBODY), None).unwrap();
        }
        let target = Target {
            host: "127.0.0.1".into(),
            port,
            user: if root { "nobody".into() } else { whoami() },
            key: at("client"),
            known_hosts: at("known_hosts"),
        };
        let mut sshd = Self { process: None, folder, program, target };
        sshd.run();
        Some(sshd)
    }

    /// Starts the process, which was stopped.
    pub(crate) fn run(&mut self) {
        let mut command = Command::new(&self.program);
        command.args(["-D", "-e", "-f"]).arg(self.at("config"));
        command.env("LD_LIBRARY_PATH", self.folder.path());
        if crate::sys::user_id() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        let log = fs::File::create(self.at("log")).unwrap();
        self.process = Some(command.stdin(Stdio::null()).stderr(log).spawn().unwrap());
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.target.port)).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("sshd does not listen: {}", fs::read_to_string(self.at("log")).unwrap());
    }

    /// Ends the process that listens; conversations go on.
    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Ends it and all conversations, as a machine does that loses its power.
    pub(crate) fn cut(&mut self) {
        let Some(process) = &self.process else { return };
        let below = descendants(process.id());
        self.stop();
        for pid in below.into_iter().filter_map(Pid::from_raw) {
            // It may have ended by itself.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }

    /// A file of the server's folder.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn connect(&self, target: &Target) -> Result<Session, SshError> {
        Session::open(target, patience())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(crate) fn patience() -> Patience {
    Patience { stop: Stop::default(), clock: Arc::new(SystemClock) }
}

/// The processes below one.
fn descendants(pid: u32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let mut all = Vec::new();
    for child in children.split_whitespace() {
        all.push(child.parse().unwrap());
        all.extend(descendants(child.parse().unwrap()));
    }
    all
}

fn program() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("AGENTMON_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("agentmon")))
        .or_else(|| Some(set("HOME")?.join(".cache/agentmon")));
    let named = set("AGENTMON_SSHD");
    let unpacked = cache.map(|cache| cache.join("openssh/usr/sbin/sshd"));
    let all = [named, unpacked, Some("/usr/sbin/sshd".into())];
    all.into_iter().flatten().find(|path| path.exists())
}

/// The program where any user may start it, with the libraries that were unpacked with it.
fn reachable(program: &Path, folder: &Path) -> PathBuf {
    let root = program.ancestors().nth(3).unwrap();
    if root == Path::new("/") {
        return program.to_owned();
    }
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    for file in fs::read_dir(libraries).into_iter().flatten() {
        let file = file.unwrap();
        if file.path().is_file() {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
    let copy = folder.join("sshd");
    fs::copy(program, &copy).unwrap();
    copy
}

fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path);
    assert!(command.status().expect("ssh-keygen, of openssh-client").success());
}

/// `UsePAM` because accounts like `nobody` count as locked without it.
fn config(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\n\
         AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPidFile none\n\
         UsePAM yes\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         Subsystem sftp internal-sftp\nForceCommand internal-sftp -R\n"
    )
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn fails(outcome: Result<Session, SshError>, says: &str) {
    let error = outcome.expect_err("a conversation").to_string();
    assert!(error.contains(says), "{error}");
}

#[test]
fn files_are_read_and_none_is_written() {
    let Some(sshd) = Sshd::start() else { return };
    let mut session = sshd.connect(&sshd.target).unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| i.to_le_bytes()[0]).collect();
    let path = sshd.at("a file; $(id) 'x'.log");
    fs::write(&path, &bytes).unwrap();
    let name = path.to_str().unwrap();
    let file = session.file(name).unwrap().unwrap();
    assert_eq!(session.about_open(&file).unwrap().size, 100_000);
    assert_eq!(session.about_open(&file).unwrap(), session.about(name).unwrap().unwrap());
    let mut read = Vec::new();
    loop {
        let some = session.read(&file, read.len() as u64, u32::MAX).unwrap();
        if some.is_empty() {
            break;
        }
        read.extend(some);
    }
    assert_eq!(read, bytes);
    session.close(file).unwrap();
    let names = session.list(sshd.folder.path().to_str().unwrap()).unwrap();
    let found = names.iter().find(|(name, _)| name == b"a file; $(id) 'x'.log").unwrap();
    assert_eq!(found.1.size, 100_000);
    assert!(session.file(&format!("{name}.1")).unwrap().is_none());
    assert!(session.about("/nowhere/at all").unwrap().is_none());
    let folder = session.file(sshd.folder.path().to_str().unwrap()).unwrap_err().to_string();
    assert!(folder.contains("no regular file"), "{folder}");
}

#[test]
fn a_file_that_may_not_be_read_says_so() {
    let Some(sshd) = Sshd::start() else { return };
    let path = sshd.at("secret");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut session = sshd.connect(&sshd.target).unwrap();
    let error = session.file(path.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("may not read it"), "{error}");
}

#[test]
fn strangers_are_refused_and_refuse() {
    let Some(mut sshd) = Sshd::start() else { return };
    let with = |change: &dyn Fn(&mut Target)| {
        let mut target = sshd.target.clone();
        change(&mut target);
        sshd.connect(&target)
    };
    fails(with(&|t| t.key = sshd.at("stranger")), "authorized_keys");
    fails(with(&|t| t.key = sshd.at("none")), "Permission denied");
    fails(with(&|t| t.known_hosts = "/dev/null".into()), "ssh-keyscan");
    // Another host's key under this name: somebody stands between.
    let other = fs::read_to_string(sshd.at("stranger.pub")).unwrap();
    let line = format!("[127.0.0.1]:{} {other}", sshd.target.port);
    fs::write(sshd.at("known_others"), line).unwrap();
    fails(with(&|t| t.known_hosts = sshd.at("known_others")), "somebody may stand between");
    sshd.stop();
    fails(sshd.connect(&sshd.target), "refused");
}

#[test]
fn who_is_asked_to_stop_does_not_wait() {
    let patience = patience();
    patience.stop.stop();
    let silent = Command::new("cat");
    assert!(matches!(
        Session::start(silent, patience),
        Err(SshError::NoSftp(_) | SshError::Stopped)
    ));
    let patience = self::patience();
    patience.stop.stop();
    let mut silent = Command::new("sleep");
    silent.arg("600");
    assert!(matches!(Session::start(silent, patience), Err(SshError::Stopped)));
}

#[test]
fn what_is_no_sftp_is_told() {
    let mut motd = Command::new("echo");
    motd.arg("Welcome to this machine!");
    fails(Session::start(motd, patience()), "does the login there print something");
    let mut words = Command::new("sh");
    words.args(["-c", "echo 'Host key verification failed.' >&2; exit 255"]);
    fails(Session::start(words, patience()), "ssh-keyscan");
    fails(Session::start(Command::new("/nowhere/ssh"), patience()), "openssh-client");
}
