//! A root file system like a router's, for one script: this machine's programs, the files of
//! the package where the package puts them, memory where OpenWrt has memory, stand-ins for
//! OpenWrt's own scripts, and a network namespace. All of it goes with the script.
//!
//! Needs root and overlayfs; without them the tests are left out, loudly, and fail where
//! `AGENTMON_REQUIRE_LAB=1`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_agentmon-router");
const STUBS: &str = include_str!("stubs.sh");
/// Longest run of a script.
const SECONDS_MAX: &str = "120";

/// Runs before the script: builds the root in `$1` with the package `$2`, the program `$3`
/// and the stand-ins `$4`; the script comes on standard input.
const BUILD: &str = r#"
set -eu
base=$1 package=$2 program=$3 stubs=$4
mount --make-rprivate /
mount -t tmpfs none "$base"
mkdir "$base/up" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" "$base/root"
cd "$base/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o "size=${TMP_SIZE:-64m}" none tmp
rm -rf var etc/config etc/sysctl.d
ln -s tmp var
mkdir -p tmp/run tmp/etc tmp/lock etc/config etc/rc.d etc/init.d etc/sysctl.d lib/functions usr/share/nftables.d
cp "$stubs" etc/rc.common
# What is written to flash from here on, by this machine's others not disturbed.
mkdir -p mnt/flash
mount --bind "$base/up" mnt/flash
touch usr/sbin/agentmon-router
mount --bind "$program" usr/sbin/agentmon-router
cat > tmp/script
ip link set lo up
if [ "${NO_PACKAGE:-}" = 1 ]; then cp -R "$package/files" tmp/files; else cp -R "$package/files/." .; fi
# The package's scripts, as they stand in its makefile.
mkdir tmp/scripts
for name in postinst prerm postrm; do
    sed -n "/^define Package\/agentmon\/$name\$/,/^endef/p" "$package/Makefile" | sed '1d;$d;s/\$\$/$/g' > tmp/scripts/$name
done
# The shell that OpenWrt has; #! lines name rc.common, which takes the script to read.
exec chroot . /usr/bin/busybox ash -u /tmp/script
"#;

/// What a script printed.
pub(crate) struct Said {
    pub(crate) text: String,
    pub(crate) ok: bool,
}

impl Said {
    /// All of these are there.
    #[track_caller]
    pub(crate) fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(self.text.contains(part), "no {part:?} in:\n{}", self.text);
        }
        self
    }

    /// None of these is there.
    #[track_caller]
    pub(crate) fn lacks(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(!self.text.contains(part), "{part:?} in:\n{}", self.text);
        }
        self
    }

    /// What was printed between the lines `== NAME` and the next `==`.
    #[track_caller]
    pub(crate) fn part(&self, name: &str) -> Self {
        let begin = format!("== {name}\n");
        let (_, rest) = self.text.split_once(&begin).unwrap_or_else(|| {
            panic!("no part {name} in:\n{}", self.text);
        });
        let text = if rest.starts_with("== ") { "" } else { rest };
        Self { text: text.split("\n== ").next().unwrap_or_default().to_owned(), ok: self.ok }
    }
}

/// Runs a script of busybox's ash in such a root. `None`: left out.
pub(crate) fn run(script: &str, settings: &[(&str, &str)]) -> Option<Said> {
    if let Err(why) = possible() {
        let required = std::env::var("AGENTMON_REQUIRE_LAB").is_ok_and(|v| v == "1");
        assert!(!required, "the OpenWrt root lacks: {why}");
        let line = format!("LEFT OUT, the OpenWrt root lacks: {why}\n");
        // Past the test harness, which would keep it to itself.
        drop(std::io::stderr().write_all(line.as_bytes()));
        return None;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let stubs = dir.path().join("stubs.sh");
    std::fs::write(&stubs, STUBS).expect("writable");
    let base = dir.path().join("base");
    std::fs::create_dir(&base).expect("writable");
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openwrt-feed/agentmon");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", SECONDS_MAX, "unshare", "--mount", "--net", "--pid", "--fork"]);
    command.args(["--kill-child", "sh", "-c", BUILD, "sh"]);
    command.args([&base, &package, &PathBuf::from(PROGRAM), &stubs]);
    command.envs(settings.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("unshare runs");
    let mut input = child.stdin.take().expect("piped");
    let init = "init() { /usr/bin/busybox ash /etc/rc.common /etc/init.d/agentmon \"$@\" 2>&1; }\n";
    input.write_all((init.to_owned() + script).as_bytes()).expect("taken");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    Some(Said { text, ok: output.status.success() })
}

fn possible() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bits = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let bits = bits.and_then(|b| u64::from_str_radix(b.trim(), 16).ok()).unwrap_or(0);
    if bits >> 21 & 1 == 0 {
        return Err("CAP_SYS_ADMIN (run as root)".into());
    }
    let systems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !systems.lines().any(|line| line.ends_with("\toverlay")) {
        return Err("overlayfs".into());
    }
    for (tool, package) in [("busybox", "busybox"), ("nft", "nftables"), ("unshare", "util-linux")]
    {
        if Command::new(tool).arg("--help").output().is_err() {
            return Err(format!("the tool {tool} (apt-get install {package})"));
        }
    }
    Ok(())
}
