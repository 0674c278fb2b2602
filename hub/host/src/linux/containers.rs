//! What a network namespace that is not the machine's own is called.
//!
//! In: its inode, and the cgroup of a process inside (cgroups(7)). Out: `docker:1f2e3d4c5b6a`,
//! `podman:...`, `lxc:NAME`, `netns:NAME` (as `ip netns` has it), else `net:INODE`. Pure but for
//! reading `/run/netns`.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use agentmon_core::name::printable;

/// Where `ip netns add` puts names.
pub const NAMES: &str = "/run/netns";
/// Names looked at.
const NAMES_MAX: usize = 1_024;
/// Longest name told.
const NAME_BYTES_MAX: usize = 63;
/// Digits of a container's number that people use.
const DIGITS: usize = 12;
/// Who puts what before the number.
const RUNTIMES: [(&str, &str); 5] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("crio", "crio"),
    ("containerd", "containerd"),
    ("kubepods", "kubernetes"),
];

/// The name of a namespace, by what runs in it where possible.
#[must_use]
pub fn name(netns: u64, cgroup: Option<&str>, names: &Path) -> String {
    cgroup
        .and_then(by_cgroup)
        .or_else(|| by_file(netns, names))
        .unwrap_or_else(|| format!("net:{netns}"))
}

fn by_cgroup(text: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let path = line.splitn(3, ':').nth(2)?;
        if let Some(number) = path.split(|c: char| !c.is_ascii_hexdigit()).find(|p| p.len() == 64) {
            let runtime = RUNTIMES.iter().find(|(word, _)| path.contains(word));
            let short: String = number.chars().take(DIGITS).collect();
            return Some(format!("{}:{short}", runtime.map_or("container", |(_, name)| name)));
        }
        let mut parts =
            path.split('/').skip_while(|p| *p != "lxc" && !p.starts_with("lxc.payload."));
        let first = parts.next()?;
        let name = first.strip_prefix("lxc.payload.").or_else(|| parts.next())?;
        Some(format!("lxc:{}", printable(name.as_bytes(), NAME_BYTES_MAX)))
    })
}

fn by_file(netns: u64, names: &Path) -> Option<String> {
    let entries = std::fs::read_dir(names).ok()?.flatten().take(NAMES_MAX);
    let is = |e: &std::fs::DirEntry| std::fs::metadata(e.path()).is_ok_and(|m| m.ino() == netns);
    let name = entries.into_iter().find(is)?.file_name();
    Some(format!("netns:{}", printable(name.as_encoded_bytes(), NAME_BYTES_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(cgroup: &str, expected: &str) {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(name(7, Some(cgroup), nowhere), expected);
    }

    #[test]
    fn names_of_containers() {
        let number = "0123456789abcdef".repeat(4);
        check(&format!("0::/system.slice/docker-{number}.scope\n"), "docker:0123456789ab");
        check(&format!("5:memory:/docker/{number}\n0::/"), "docker:0123456789ab");
        check(&format!("0::/machine.slice/libpod-{number}.scope"), "podman:0123456789ab");
        check(
            &format!("0::/kubepods/pod1/cri-containerd-{number}.scope"),
            "containerd:0123456789ab",
        );
        check(&format!("0::/other/{number}"), "container:0123456789ab");
        check("0::/lxc/web/init.scope", "lxc:web");
        check("0::/lxc.payload.web\x1b[2J/x", "lxc:web\\x1b[2J");
        check("0::/user.slice", "net:7");
        check("", "net:7");
    }

    #[test]
    fn names_that_were_given_to_namespaces() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("blue");
        std::fs::write(&file, "").unwrap();
        let inode = std::fs::metadata(&file).unwrap().ino();
        assert_eq!(name(inode, None, dir.path()), "netns:blue");
        assert_eq!(name(inode + 1, None, dir.path()), format!("net:{}", inode + 1));
    }
}
