//! A machine that lets its files be read by SSH: a real `sshd` that runs nothing but sftp, as
//! `nobody`, with keys of its own.
//!
//! Out: the settings with which the sensor reads from it. The server is the one that `./dev
//! setup` unpacks, the system's, or the one named in `AGENTMON_SSHD`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::proc::Proc;
use super::world::World;
use super::{eventually, need};

/// As whom it runs and is read: an `sshd` of root needs a user of its own.
const NOBODY: u32 = 65_534;
const PORT: u16 = 2_222;
/// For keys and configuration, below the world's.
const FOLDER: &str = "sshd";

/// The server on one host.
#[derive(Debug)]
pub struct Sshd {
    host: String,
    address: String,
    folder: PathBuf,
    process: Option<Proc>,
}

/// What the machine lacks, in words; empty when such a server can run.
#[must_use]
pub fn missing() -> Vec<String> {
    let server = program().is_none().then(|| "sshd (./dev setup unpacks one)".to_owned());
    let tools = [("ssh", "openssh-client"), ("setpriv", "util-linux")];
    let tools = tools.iter().filter(|(tool, _)| need::find(tool).is_none());
    let tools = tools.map(|(tool, package)| format!("{tool} (apt-get install {package})"));
    server.into_iter().chain(tools).collect()
}

/// How the sensor reads the file `log` of the machine at `address`, whose server may be
/// started later.
#[must_use]
pub fn settings(world: &World, address: &str, log: &Path) -> String {
    let folder = world.file(FOLDER).display().to_string();
    format!(
        "collect.pihole_ssh.enabled = true\n\
         collect.pihole_ssh.host = \"{address}\"\n\
         collect.pihole_ssh.port = {PORT}\n\
         collect.pihole_ssh.user = \"nobody\"\n\
         collect.pihole_ssh.key = \"{folder}/client\"\n\
         collect.pihole_ssh.known_hosts = \"{folder}/known_hosts\"\n\
         collect.pihole_ssh.log = \"{}\"\n\
         collect.pihole_ssh.poll_ms = 200\n",
        log.display()
    )
}

impl Sshd {
    /// On `host`, which is plugged in, at `address`.
    ///
    /// # Panics
    /// When something is missing or it does not listen.
    #[must_use]
    pub fn start(world: &World, host: &str, address: &str) -> Self {
        let folder = world.file(FOLDER);
        fs::create_dir(&folder).expect("test folder is writable");
        let server = Self { host: host.into(), address: address.into(), folder, process: None };
        for name in ["host", "client"] {
            keygen(&server.at(name));
        }
        let key = fs::read_to_string(server.at("host.pub")).expect("it was made just now");
        let write = |name: &str, text: String| fs::write(server.at(name), text).expect("writable");
        write("known_hosts", format!("[{address}]:{PORT} {key}"));
        write("config", server.config());
        chown(server.at("host"), Some(NOBODY), None).expect("the lab runs as root");
        install(&server.folder);
        let mut server = server;
        server.resume(world);
        server
    }

    /// Starts it again.
    ///
    /// # Panics
    /// When it does not listen.
    pub fn resume(&mut self, world: &World) {
        let setpriv = need::find("setpriv").expect("checked before");
        let (sshd, config) = (self.text("sshd"), self.text("config"));
        let who = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let args = [&who[..], &[&sshd, "-D", "-e", "-f", &config]].concat();
        let libraries = self.folder.display().to_string();
        let env = [("LD_LIBRARY_PATH", libraries.as_str())];
        let log = world.file("sshd.log");
        self.process = Some(Proc::start_with(&self.host, &log, &setpriv, &args, &env));
        let to = format!("{}:{PORT}", self.address);
        eventually(10.0, "sshd listens", || {
            let to = to.clone();
            let tried = super::netns::run(&self.host, move || std::net::TcpStream::connect(to));
            tried.map(drop).map_err(|e| e.to_string())
        });
    }

    /// Ends it and every conversation, as a machine does that loses its power.
    ///
    /// # Panics
    /// When it does not run.
    pub fn cut(&mut self) {
        let process = self.process.take().expect("it runs");
        let below = descendants(process.pid().as_raw_nonzero().get());
        process.kill();
        for pid in below.into_iter().filter_map(Pid::from_raw) {
            // It may have ended by itself.
            let _gone = kill_process(pid, Signal::KILL);
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// `UsePAM` because accounts like `nobody` count as locked without it.
    fn config(&self) -> String {
        let (address, folder) = (&self.address, self.folder.display());
        format!(
            "ListenAddress {address}\nPort {PORT}\nHostKey {folder}/host\n\
             AuthorizedKeysFile {folder}/client.pub\nStrictModes no\nPidFile none\nUsePAM yes\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nUseDNS no\n\
             Subsystem sftp internal-sftp\nForceCommand internal-sftp -R\n"
        )
    }
}

/// Where the server is.
fn program() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("AGENTMON_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("agentmon")))
        .or_else(|| Some(set("HOME")?.join(".cache/agentmon")));
    let unpacked = cache.map(|cache| cache.join("openssh/usr/sbin/sshd"));
    let all = [set("AGENTMON_SSHD"), unpacked, Some("/usr/sbin/sshd".into())];
    all.into_iter().flatten().find(|path| path.exists())
}

/// Copies it, and the libraries unpacked beside it, to where `nobody` may start it.
fn install(folder: &Path) {
    let program = program().expect("checked before");
    fs::copy(&program, folder.join("sshd")).expect("the server can be copied");
    let root = program.ancestors().nth(3).filter(|root| *root != Path::new("/"));
    let triple = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let libraries = root.map(|root| fs::read_dir(root.join(triple)));
    for file in libraries.into_iter().flatten().flatten().flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), folder.join(file.file_name())).expect("it can be copied");
        }
    }
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
}

fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f"]).arg(path);
    assert!(command.status().expect("ssh-keygen, of openssh-client").success());
}

/// The processes below one.
fn descendants(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(path).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    children.flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}
