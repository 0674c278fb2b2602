//! Syslog at the hub itself: a sensor of its own inside `agentmon serve`.
//!
//! In: `[syslog]` of `hub.toml`, a running hub. Out: a router in this process that does
//! nothing but receive syslog, judge it (tier 0) and send it to the hub over loopback, as the
//! sensor [`SENSOR`]: the very parts a router is made of, so that what holds there (a ring
//! that survives a restart, counted losses) holds here. Its files lie in `syslog/` below the
//! data directory.

use std::path::Path;

use agentmon_router::collect::syslog;
use agentmon_router::config::Config;
use agentmon_router::join::{self, Join};
use agentmon_router::supervisor::{self, RouterHandle};
use anyhow::Context as _;

use crate::serve::Hub;
use crate::store;

/// The name of the hub's own sensor.
pub(crate) const SENSOR: &str = "hub";

/// A router that receives syslog and sees nothing else.
fn configuration(syslog: &syslog::Config, state_dir: &Path) -> Config {
    let mut config = Config { state_dir: state_dir.to_owned(), ..Config::default() };
    config.collect.syslog = syslog.clone();
    config.collect.conntrack.enabled = false;
    config.collect.firewall.enabled = false;
    config.collect.passive_dns.enabled = false;
    config.collect.dnsmasq_log.enabled = false;
    config.collect.leases.enabled = false;
    config.collect.neighbours.enabled = false;
    config
}

/// Starts it; `None` where it is not wanted.
pub(crate) fn start(
    syslog: &syslog::Config,
    data: &Path,
    hub: &Hub,
) -> anyhow::Result<Option<RouterHandle>> {
    if !syslog.enabled {
        return Ok(None);
    }
    let state_dir = data.join("syslog");
    store::make_private_dir(&state_dir)?;
    let line = hub.enroll_local(SENSOR).context("enrolling the hub's own sensor")?;
    join::save(&state_dir.join("identity.json"), &Join::decode(&line)?)?;
    let config = configuration(syslog, &state_dir);
    supervisor::start(config).context("receiving syslog").map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_receives_syslog_and_sees_nothing_else() {
        let syslog = syslog::Config { enabled: true, ..syslog::Config::default() };
        let config = configuration(&syslog, Path::new("/d/syslog"));
        config.validate().unwrap();
        assert_eq!(config.collect.syslog, syslog);
        let sections = serde_json::to_value(&config.collect).unwrap();
        let on = |(name, section): (&String, &serde_json::Value)| {
            (section["enabled"] == true).then(|| name.clone())
        };
        let on: Vec<_> = sections.as_object().unwrap().iter().filter_map(on).collect();
        assert_eq!(on, ["syslog"]);
    }
}
