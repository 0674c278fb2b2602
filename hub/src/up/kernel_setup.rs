//! `agentmon up --kernel-setup`: what the kernel must be told before it tells more.
//!
//! Effects, in this network namespace only: up to three sysctls under `net.netfilter`, which
//! stay as they are afterwards, and agentmon's own nftables table, which decides over no
//! packet and goes with the process, unless it was there before.

use std::io::Write;

use agentmon_router::config::CollectConfig;
use agentmon_router::kernel::probe::Groups;
use agentmon_router::kernel::setup;
use anyhow::Context as _;

/// What was set up and goes again.
pub(super) struct KernelSetup {
    /// The table was not there before.
    own_table: bool,
}

impl KernelSetup {
    /// Sets the switches and installs the table; says what it did.
    ///
    /// # Errors
    /// When the table cannot be installed: the person asked for it by name.
    pub(super) fn make(err: &mut dyn Write) -> anyhow::Result<Self> {
        const WHY: &str = "--kernel-setup (needs root and nftables)";
        for done in setup::switches() {
            super::say(err, &super::said(&[format!("  kernel {done}")]));
        }
        let own_table = !setup::is_installed().context(WHY)?;
        setup::install(Groups::from(&CollectConfig::default())).context(WHY)?;
        super::say(err, "  kernel table inet agentmon: copies DNS, decides over no packet\n");
        Ok(Self { own_table })
    }
}

/// Removes the table, however `up` ends; the switches stay, others may have come to rely
/// on them.
impl Drop for KernelSetup {
    fn drop(&mut self) {
        if self.own_table
            && let Err(error) = setup::remove()
        {
            tracing::error!("agentmon's nftables table stays: {error:#}");
        }
    }
}
