//! Every setting of `/etc/config/agentmon`: the one table.
//!
//! In: nothing. Out: for each option its section, its form, and the key of the daemon's
//! configuration it stands for. Reading, mistakes, the shipped file and its documentation
//! are all checked against this table. Pure.
//!
//! A setting whose key is empty is for the service around the daemon; see
//! [`Service`](super::Service).

/// The form of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `1` or `0`, and UCI's other words for it.
    Flag,
    /// `15s`, `5m`, `24h`, `7d`.
    Seconds,
    /// `512K`, `32M`.
    Bytes,
    /// A whole number.
    Count,
    /// A number with a fraction.
    Fraction,
    /// Any text.
    Text,
    /// An absolute path.
    Path,
    /// Any number of texts (`list`).
    Texts,
    /// Any number of absolute paths (`list`).
    Paths,
    /// Any number of addresses or networks (`list`).
    Nets,
    /// Any number of domains (`list`).
    Names,
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its section's name.
    pub section: &'static str,
    /// Its own name.
    pub option: &'static str,
    /// How it is written.
    pub form: Form,
    /// The daemon's key, `collect.conntrack.dump_seconds`; empty: not the daemon's.
    pub key: &'static str,
}

/// Type and name of every section that exists once.
pub const SECTIONS: [(&str, &str); 30] = [
    ("agentmon", "main"),
    ("ring", "ring"),
    ("hub", "hub"),
    ("collector", "conntrack"),
    ("collector", "firewall"),
    ("collector", "passive_dns"),
    ("collector", "dnsmasq_log"),
    ("collector", "adguard"),
    ("collector", "syslog"),
    ("collector", "pihole"),
    ("collector", "pihole_ssh"),
    ("collector", "pihole_ftl"),
    ("collector", "leases"),
    ("collector", "neighbours"),
    ("detector", "blocklist"),
    ("detector", "dga"),
    ("detector", "direct_ip"),
    ("detector", "dns_bypass"),
    ("detector", "rejects"),
    ("detector", "new_device"),
    ("detector", "watched"),
    ("detector", "dns_tunnel"),
    ("detector", "dns_rebinding"),
    ("detector", "nxdomain_burst"),
    ("detector", "query_rate"),
    ("detector", "host_scan"),
    ("detector", "port_scan"),
    ("detector", "long_flow"),
    ("detector", "unusual_port"),
    ("devices", "devices"),
];

/// Type of sections of which there can be many: a list of names each.
pub const LIST: &str = "list";
/// Another one: a Pi-hole each, beside the one of the collector `pihole`.
pub const OTHER_PIHOLE: &str = "other_pihole";
/// All types of sections of which there can be many.
pub const MANY: [&str; 2] = [LIST, OTHER_PIHOLE];

const fn setting(
    section: &'static str,
    option: &'static str,
    form: Form,
    key: &'static str,
) -> Setting {
    Setting { section, option, form, key }
}

/// All options; those of a section named in [`MANY`] are of every section of that type.
pub const SETTINGS: &[Setting] = &[
    setting("main", "enabled", Form::Flag, ""),
    setting("main", "log_level", Form::Text, "log.level"),
    setting("main", "nft_table", Form::Flag, ""),
    setting("main", "log_rejects", Form::Flag, ""),
    setting("main", "log_rejects_rate", Form::Count, ""),
    setting("main", "enforce", Form::Flag, "enforce.enabled"),
    setting("main", "enforce_dry_run", Form::Flag, "enforce.dry_run"),
    setting("main", "enforce_block", Form::Text, "enforce.block"),
    setting("main", "enforce_addresses", Form::Flag, "enforce.addresses"),
    setting("main", "enforce_interface", Form::Texts, "enforce.interfaces"),
    setting("main", "local_network", Form::Nets, "tier0.local"),
    setting("ring", "path", Form::Path, "ring.path"),
    setting("ring", "size", Form::Bytes, "ring.bytes_max"),
    setting("ring", "snapshot_interval", Form::Seconds, "ring.snapshot_seconds"),
    setting("ring", "snapshot_path", Form::Path, "ring.snapshot_path"),
    setting("hub", "enabled", Form::Flag, "forward.enabled"),
    setting("hub", "join", Form::Text, ""),
    setting("hub", "url", Form::Text, ""),
    setting("hub", "name", Form::Text, ""),
    setting("hub", "token_file", Form::Path, ""),
    setting("hub", "ca", Form::Path, ""),
    setting("hub", "health_interval", Form::Seconds, "forward.health_seconds"),
    setting("hub", "batch_events", Form::Count, "forward.batch_events"),
    setting("hub", "batch_size", Form::Bytes, "forward.batch_bytes"),
    setting("conntrack", "enabled", Form::Flag, "collect.conntrack.enabled"),
    setting("conntrack", "dump_interval", Form::Seconds, "collect.conntrack.dump_seconds"),
    setting("conntrack", "poll_interval", Form::Seconds, "collect.conntrack.poll_seconds"),
    setting("conntrack", "flows_max", Form::Count, "collect.conntrack.flows_max"),
    setting("conntrack", "loopback", Form::Flag, "collect.conntrack.loopback"),
    setting("conntrack", "buffer", Form::Bytes, "collect.conntrack.buffer_bytes"),
    setting("firewall", "enabled", Form::Flag, "collect.firewall.enabled"),
    setting("firewall", "group", Form::Count, "collect.firewall.group"),
    setting("passive_dns", "enabled", Form::Flag, "collect.passive_dns.enabled"),
    setting("passive_dns", "group", Form::Count, "collect.passive_dns.group"),
    setting("passive_dns", "exchanges_max", Form::Count, "collect.passive_dns.exchanges_max"),
    setting("dnsmasq_log", "enabled", Form::Flag, "collect.dnsmasq_log.enabled"),
    setting("dnsmasq_log", "path", Form::Paths, "collect.dnsmasq_log.paths"),
    setting("dnsmasq_log", "timezone", Form::Text, "collect.dnsmasq_log.timezone"),
    setting("dnsmasq_log", "from_start", Form::Flag, "collect.dnsmasq_log.from_start"),
    setting("adguard", "enabled", Form::Flag, "collect.adguard.enabled"),
    setting("adguard", "path", Form::Path, "collect.adguard.path"),
    setting("adguard", "from_start", Form::Flag, "collect.adguard.from_start"),
    setting("syslog", "enabled", Form::Flag, "collect.syslog.enabled"),
    setting("syslog", "udp", Form::Texts, "collect.syslog.udp"),
    setting("syslog", "tcp", Form::Texts, "collect.syslog.tcp"),
    setting("syslog", "tls", Form::Texts, "collect.syslog.tls"),
    setting("syslog", "tls_cert", Form::Path, "collect.syslog.tls_cert"),
    setting("syslog", "tls_key", Form::Path, "collect.syslog.tls_key"),
    setting("syslog", "tls_client_ca", Form::Path, "collect.syslog.tls_client_ca"),
    setting("syslog", "allow", Form::Nets, "collect.syslog.allow"),
    setting("syslog", "timezone", Form::Text, "collect.syslog.timezone"),
    setting("syslog", "rate", Form::Count, "collect.syslog.messages_per_second"),
    setting("syslog", "connections_max", Form::Count, "collect.syslog.connections_max"),
    setting("syslog", "lag", Form::Seconds, "collect.syslog.lag_seconds"),
    setting("syslog", "silence", Form::Seconds, "collect.syslog.silence_seconds"),
    setting("pihole", "enabled", Form::Flag, "collect.pihole.enabled"),
    setting("pihole", "url", Form::Text, "collect.pihole.url"),
    setting("pihole", "address", Form::Text, "collect.pihole.address"),
    setting("pihole", "password_file", Form::Path, "collect.pihole.password_file"),
    setting("pihole", "certificate", Form::Path, "collect.pihole.certificate"),
    setting("pihole", "name", Form::Text, "collect.pihole.name"),
    setting("pihole_ssh", "enabled", Form::Flag, "collect.pihole_ssh.enabled"),
    setting("pihole_ssh", "host", Form::Text, "collect.pihole_ssh.host"),
    setting("pihole_ssh", "port", Form::Count, "collect.pihole_ssh.port"),
    setting("pihole_ssh", "user", Form::Text, "collect.pihole_ssh.user"),
    setting("pihole_ssh", "key", Form::Path, "collect.pihole_ssh.key"),
    setting("pihole_ssh", "known_hosts", Form::Path, "collect.pihole_ssh.known_hosts"),
    setting("pihole_ssh", "log", Form::Path, "collect.pihole_ssh.log"),
    setting("pihole_ssh", "timezone", Form::Text, "collect.pihole_ssh.timezone"),
    setting("pihole_ssh", "from_start", Form::Flag, "collect.pihole_ssh.from_start"),
    setting("pihole_ssh", "database", Form::Path, "collect.pihole_ssh.database"),
    setting("pihole_ssh", "copy_interval", Form::Seconds, "collect.pihole_ssh.copy_seconds"),
    setting("pihole_ssh", "copy_size", Form::Bytes, "collect.pihole_ssh.copy_bytes_max"),
    setting("pihole_ssh", "copy_folder", Form::Path, "collect.pihole_ssh.copy_folder"),
    setting("pihole_ftl", "enabled", Form::Flag, "collect.pihole_ftl.enabled"),
    setting("pihole_ftl", "path", Form::Path, "collect.pihole_ftl.path"),
    setting("pihole_ftl", "from_start", Form::Flag, "collect.pihole_ftl.from_start"),
    setting("pihole_ftl", "poll_interval", Form::Seconds, "collect.pihole_ftl.poll_seconds"),
    setting("leases", "enabled", Form::Flag, "collect.leases.enabled"),
    setting("leases", "path", Form::Paths, "collect.leases.paths"),
    setting("neighbours", "enabled", Form::Flag, "collect.neighbours.enabled"),
    setting("neighbours", "dump_interval", Form::Seconds, "collect.neighbours.dump_seconds"),
    setting("blocklist", "enabled", Form::Flag, "tier0.blocklist.enabled"),
    setting("blocklist", "entries_max", Form::Count, "tier0.blocklist.entries_max"),
    setting("blocklist", "repeat", Form::Seconds, "tier0.blocklist.repeat_seconds"),
    setting("blocklist", "allow", Form::Texts, "tier0.blocklist.allow"),
    setting("blocklist", "pattern", Form::Texts, "tier0.blocklist.patterns"),
    setting("blocklist", "hub_lists", Form::Flag, "hub_lists.enabled"),
    setting("blocklist", "hub_lists_size", Form::Bytes, "hub_lists.bytes_max"),
    setting("dga", "enabled", Form::Flag, "tier0.dga.enabled"),
    setting("dga", "suspicious", Form::Fraction, "tier0.dga.suspicious"),
    setting("dga", "strong", Form::Fraction, "tier0.dga.strong"),
    setting("dga", "burst", Form::Count, "tier0.dga.burst"),
    setting("dga", "window", Form::Seconds, "tier0.dga.window_seconds"),
    setting("dga", "repeat", Form::Seconds, "tier0.dga.repeat_seconds"),
    setting("direct_ip", "enabled", Form::Flag, "tier0.direct_ip.enabled"),
    setting("direct_ip", "grace", Form::Seconds, "tier0.direct_ip.grace_seconds"),
    setting("direct_ip", "startup_grace", Form::Seconds, "tier0.direct_ip.startup_grace_seconds"),
    setting("direct_ip", "names_keep", Form::Seconds, "tier0.names.keep_seconds"),
    setting("direct_ip", "names_max", Form::Count, "tier0.names.entries_max"),
    setting("direct_ip", "many", Form::Count, "tier0.direct_ip.many"),
    setting("direct_ip", "repeat", Form::Seconds, "tier0.direct_ip.repeat_seconds"),
    setting("direct_ip", "icmp", Form::Flag, "tier0.direct_ip.icmp"),
    setting("direct_ip", "allow_service", Form::Texts, "tier0.direct_ip.allow_services"),
    setting("direct_ip", "allow", Form::Nets, "tier0.direct_ip.allow"),
    setting("direct_ip", "ignore_client", Form::Nets, "tier0.direct_ip.ignore_clients"),
    setting("direct_ip", "resolver", Form::Nets, "tier0.direct_ip.resolvers"),
    setting("dns_bypass", "enabled", Form::Flag, "tier0.dns_bypass.enabled"),
    setting("dns_bypass", "ignore_client", Form::Nets, "tier0.dns_bypass.ignore_clients"),
    setting("dns_bypass", "resolver", Form::Nets, "tier0.dns_bypass.resolvers"),
    setting("rejects", "enabled", Form::Flag, "tier0.firewall.enabled"),
    setting("rejects", "insist_packets", Form::Count, "tier0.firewall.insist_packets"),
    setting("rejects", "scan_window", Form::Seconds, "tier0.firewall.scan_seconds"),
    setting("rejects", "scan_addresses", Form::Count, "tier0.firewall.scan_addresses"),
    setting("rejects", "scan_ports", Form::Count, "tier0.firewall.scan_ports"),
    setting("rejects", "repeat", Form::Seconds, "tier0.firewall.repeat_seconds"),
    setting("rejects", "inbound", Form::Flag, "tier0.firewall.inbound"),
    setting("new_device", "enabled", Form::Flag, "tier0.new_device.enabled"),
    setting("new_device", "learn", Form::Seconds, "tier0.new_device.learn_seconds"),
    setting("new_device", "many", Form::Count, "tier0.new_device.many"),
    setting("devices", "name", Form::Texts, "devices.names"),
    setting("devices", "known_path", Form::Path, "devices.known_path"),
    setting("watched", "enabled", Form::Flag, "tier0.watched.enabled"),
    setting("watched", "name", Form::Texts, "tier0.watched.names"),
    setting("dns_tunnel", "enabled", Form::Flag, "tier0.dns_tunnel.enabled"),
    setting("dns_tunnel", "weight", Form::Count, "tier0.dns_tunnel.weight"),
    setting("dns_tunnel", "trickle_weight", Form::Count, "tier0.dns_tunnel.trickle_weight"),
    setting("dns_tunnel", "many_names", Form::Count, "tier0.dns_tunnel.many_names"),
    setting("dns_tunnel", "repeat", Form::Seconds, "tier0.dns_tunnel.repeat_seconds"),
    setting("dns_tunnel", "allow", Form::Names, "tier0.dns_tunnel.allow"),
    setting("dns_rebinding", "enabled", Form::Flag, "tier0.dns_rebinding.enabled"),
    setting("dns_rebinding", "repeat", Form::Seconds, "tier0.dns_rebinding.repeat_seconds"),
    setting("dns_rebinding", "allow", Form::Names, "tier0.dns_rebinding.allow"),
    setting("nxdomain_burst", "enabled", Form::Flag, "tier0.nxdomain_burst.enabled"),
    setting("nxdomain_burst", "names", Form::Count, "tier0.nxdomain_burst.names"),
    setting("nxdomain_burst", "names_of_few", Form::Count, "tier0.nxdomain_burst.names_of_few"),
    setting("nxdomain_burst", "repeat", Form::Seconds, "tier0.nxdomain_burst.repeat_seconds"),
    setting("query_rate", "enabled", Form::Flag, "tier0.query_rate.enabled"),
    setting("query_rate", "queries", Form::Count, "tier0.query_rate.queries"),
    setting("query_rate", "queries_all", Form::Count, "tier0.query_rate.queries_all"),
    setting("query_rate", "times_usual", Form::Count, "tier0.query_rate.times_usual"),
    setting("query_rate", "repeat", Form::Seconds, "tier0.query_rate.repeat_seconds"),
    setting("host_scan", "enabled", Form::Flag, "tier0.host_scan.enabled"),
    setting("host_scan", "addresses", Form::Count, "tier0.host_scan.addresses"),
    setting("host_scan", "window", Form::Seconds, "tier0.host_scan.window_seconds"),
    setting("host_scan", "repeat", Form::Seconds, "tier0.host_scan.repeat_seconds"),
    setting("port_scan", "enabled", Form::Flag, "tier0.port_scan.enabled"),
    setting("port_scan", "ports", Form::Count, "tier0.port_scan.ports"),
    setting("port_scan", "window", Form::Seconds, "tier0.port_scan.window_seconds"),
    setting("port_scan", "repeat", Form::Seconds, "tier0.port_scan.repeat_seconds"),
    setting("long_flow", "enabled", Form::Flag, "tier0.long_flow.enabled"),
    setting("long_flow", "from", Form::Seconds, "tier0.long_flow.seconds"),
    setting("long_flow", "repeat", Form::Seconds, "tier0.long_flow.repeat_seconds"),
    setting("long_flow", "expected", Form::Flag, "tier0.long_flow.expected"),
    setting("unusual_port", "enabled", Form::Flag, "tier0.unusual_port.enabled"),
    setting("unusual_port", "learn", Form::Seconds, "tier0.unusual_port.learning_seconds"),
    setting("unusual_port", "many", Form::Count, "tier0.unusual_port.many"),
    setting("unusual_port", "repeat", Form::Seconds, "tier0.unusual_port.repeat_seconds"),
    setting("unusual_port", "allow_service", Form::Texts, "tier0.unusual_port.allow_services"),
    setting(OTHER_PIHOLE, "enabled", Form::Flag, ""),
    setting(OTHER_PIHOLE, "url", Form::Text, ""),
    setting(OTHER_PIHOLE, "address", Form::Text, ""),
    setting(OTHER_PIHOLE, "password_file", Form::Path, ""),
    setting(OTHER_PIHOLE, "certificate", Form::Path, ""),
    setting(LIST, "enabled", Form::Flag, ""),
    setting(LIST, "path", Form::Path, ""),
    setting(LIST, "score", Form::Fraction, ""),
    setting(LIST, "format", Form::Text, ""),
    setting(LIST, "kind", Form::Text, ""),
    setting(LIST, "block", Form::Flag, ""),
    setting(LIST, "sources_min", Form::Count, ""),
    setting(LIST, "licence", Form::Text, ""),
    setting(LIST, "domain", Form::Texts, ""),
];

/// The options of a section.
pub fn of(section: &str) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.section == section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_setting_has_a_section_and_stands_there_once() {
        let names: BTreeSet<_> = SECTIONS.iter().map(|(_, name)| *name).chain(MANY).collect();
        assert_eq!(names.len(), SECTIONS.len() + MANY.len(), "a section's name is there once");
        let mut seen = BTreeSet::new();
        for setting in SETTINGS {
            assert!(names.contains(setting.section), "{setting:?}");
            assert!(seen.insert((setting.section, setting.option)), "{setting:?}");
        }
        let mut keys = BTreeSet::new();
        for setting in SETTINGS.iter().filter(|s| !s.key.is_empty()) {
            assert!(keys.insert(setting.key), "{setting:?}");
        }
    }
}
