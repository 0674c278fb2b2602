//! Tells the kernel what the settings ask for, and writes down what came of it.
//!
//! In: checked [`Settings`]. Out: rules in the firewall, one kernel switch, and a [`Check`]
//! for each in [`NOTE_NAME`] of the state directory, which the daemon shows in its status:
//! it cannot look itself when it runs without root's rights. Runs as root in the init
//! script. Nothing here keeps the service from starting.

use std::path::Path;

use super::place::replace;
use super::settings::Settings;
use crate::collect::conntrack::timeouts::{SYSCTL_FOLDER, read_number};
use crate::kernel::hold::Hold;
use crate::kernel::{Check, fw4, setup};

/// The note, below the state directory.
pub const NOTE_NAME: &str = "setup.json";

/// Does it all.
///
/// # Errors
/// When the note cannot be written; the kernel has been told all the same.
pub fn run(settings: &Settings, state: &Path, dropins: &Path) -> (Vec<Check>, anyhow::Result<()>) {
    let (service, collect) = (&settings.service, &settings.config.collect);
    let wish = fw4::Wish {
        groups: collect.into(),
        table: service.nft_table,
        rejects: (service.log_rejects && collect.firewall.enabled)
            .then_some(service.log_rejects_rate),
        hold: Hold::of(&settings.config),
    };
    let mut checks = fw4::apply(&wish, dropins);
    checks.extend(setup::events());
    checks.extend(accounting(Path::new(SYSCTL_FOLDER)));
    let note = serde_json::to_vec(&checks).map_err(anyhow::Error::from);
    let noted = note.and_then(|json| replace(&state.join(NOTE_NAME), &json, 0o644).map(drop));
    (checks, noted)
}

/// OpenWrt counts bytes unless somebody switched that off: told, not overruled.
fn accounting(folder: &Path) -> Option<Check> {
    (read_number(folder, "nf_conntrack_acct") == Some(0)).then(|| {
        Check::bad(
            "byte counts",
            "net.netfilter.nf_conntrack_acct is 0: connections have no volume",
            "set it to 1 in /etc/sysctl.conf, then: service sysctl restart",
        )
    })
}
