//! UCI settings: what they become, and how mistakes are told.

use std::path::Path;

use super::*;

const SHIPPED: &str = include_str!("../../../openwrt-feed/agentmon/files/etc/config/agentmon");
const DOCS: &str = include_str!("../../../docs/openwrt-settings.md");

#[track_caller]
fn read_text(text: &str) -> Settings {
    parse(text.as_bytes()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// What a file with these lines in its first section is told.
#[track_caller]
fn refused(text: &str, says: &[&str]) {
    let problems = parse(text.as_bytes()).unwrap_err();
    let told: Vec<String> = problems
        .iter()
        .map(|p| Problem { file: "agentmon".into(), ..p.clone() }.to_string())
        .collect();
    assert_eq!(told.len(), says.len(), "{told:#?}");
    for (told, says) in told.iter().zip(says) {
        assert!(told.contains(says) && !told.contains('\n'), "{told:?} lacks {says:?}");
    }
}

#[test]
fn the_shipped_file_says_the_defaults() {
    let settings = read_text(SHIPPED);
    assert_eq!(settings, read_text(""), "what is not there has its default");
    assert_eq!(settings.service, Service::default());
}

#[test]
fn the_shipped_file_and_the_documentation_name_every_setting() {
    for setting in schema::SETTINGS {
        let (section, option) = (setting.section, setting.option);
        let word = if is_list(setting.form) { "list" } else { "option" };
        let line = format!("{word} {option} ");
        let begin = if schema::MANY.contains(&section) {
            format!("\nconfig {section} '")
        } else {
            format!(" '{section}'\n")
        };
        let (_, rest) = SHIPPED.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
        let body = rest.split("\nconfig ").next().unwrap();
        assert!(body.contains(&line), "the shipped file lacks {section}.{option}");
        assert!(
            DOCS.contains(&format!("`{section}.{option}`")),
            "the docs lack {section}.{option}"
        );
    }
}

/// `| `main.enabled` | `1` |`: the default that the shipped file has, in words for lists.
#[test]
fn the_documentation_tells_the_shipped_defaults() {
    for section in &syntax::parse(SHIPPED.as_bytes()).unwrap() {
        for entry in &section.options {
            let Value::One(value) = &entry.value else { continue };
            if section.kind == OTHER_PIHOLE || section.kind == LIST && entry.name != "score" {
                continue;
            }
            let name = section.name.as_deref().filter(|_| section.kind != LIST).unwrap_or(LIST);
            let row = format!("| `{name}.{}` | `{value}` |", entry.name);
            assert!(DOCS.contains(&row), "the docs lack: {row}");
        }
    }
}

#[test]
fn options_reach_the_daemon() {
    let settings = read_text(
        "config ring 'ring'\n\toption size '64M'\n\toption path '/mnt/usb/ring.db'\n\
         config collector 'conntrack'\n\toption dump_interval '1m'\n\toption loopback 'on'\n\
         config collector 'dnsmasq_log'\n\toption enabled 1\n\tlist path '/tmp/a.log'\n\tlist path '/tmp/b.log'\n\
         config detector 'direct_ip'\n\tlist allow '198.51.100.0/24'\n\toption grace '2'\n\toption allow_service ''\n\
         config agentmon\n\toption log_level debug\n\toption log_rejects 0\n\tlist local_network '2001:db8::/48'\n",
    );
    let config = settings.config;
    assert_eq!(config.ring.bytes_max, 64 << 20);
    assert_eq!(config.ring.path, Path::new("/mnt/usb/ring.db"));
    assert_eq!(config.collect.conntrack.dump_seconds, 60);
    assert!(config.collect.conntrack.loopback && config.collect.dnsmasq_log.enabled);
    assert_eq!(config.collect.dnsmasq_log.paths.len(), 2);
    assert_eq!(config.tier0.direct_ip.allow.len(), 1);
    assert!(config.tier0.direct_ip.allow_services.is_empty());
    assert_eq!(config.log.level, "debug");
    assert_eq!(config.tier0.local.len(), 1);
    let one = read_text(
        "config detector 'direct_ip'\n\tlist resolver '192.168.1.1'\n\tlist resolver 'fd00::1'\n",
    );
    let resolvers = one.config.tier0.direct_ip.resolvers;
    assert_eq!(resolvers, ["192.168.1.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()]);
    assert!(!settings.service.log_rejects);
}

#[test]
fn lists_are_files_or_names() {
    let settings = read_text(
        "config list 'ads'\n\toption path '/etc/ads.txt'\n\toption score '0.4'\n\
         config list 'off'\n\toption enabled 0\n\
         config list\n\tlist domain 'bad.example'\n\tlist domain 'worse.example'\n",
    );
    let lists = &settings.config.tier0.blocklist.lists;
    let names: Vec<_> = lists.iter().map(|l| (l.name.as_str(), l.score)).collect();
    assert_eq!(names, [("ads", 0.4), ("list2", 0.8)]);
    let domains = vec!["bad.example".to_owned(), "worse.example".to_owned()];
    assert_eq!(settings.service.inline, [Inline { name: "list2".into(), index: 1, domains }]);
}

#[test]
fn piholes_are_as_many_as_there_are_sections() {
    let settings = read_text(
        "config collector 'pihole'\n\toption enabled 1\n\toption name 'attic'\n\
         config other_pihole 'Cellar'\n\toption url 'https://192.0.2.3'\n\toption certificate '/c'\n\
         config other_pihole 'off'\n\toption enabled 0\n",
    );
    let names: Vec<_> = settings.config.collect.pihole.each().map(|c| c.shown_name()).collect();
    assert_eq!(names, ["pihole:attic", "pihole:cellar"]);
    let one = "config other_pihole 'a'\n\toption certificate '/c'\n\toption url ";
    refused(
        &format!("{one} 'http://192.0.2.3'\n"),
        &["agentmon:3: agentmon.a.url: want https://: the password would pass in the clear"],
    );
    refused("config other_pihole 'a'\n", &["agentmon:1: agentmon.a: want `option url`"]);
    refused("config other_pihole\n", &["an `other_pihole` wants a name"]);
    refused(
        "config other_pihole 'a'\n\toption url 'https://192.0.2.3'\n",
        &["agentmon:1: agentmon.a.certificate: name the file"],
    );
    refused(
        &format!("{one} 'https://192.0.2.3'\n\toption ulr 'x'\n"),
        &["agentmon:4: agentmon.a.ulr: no such option; did you mean `url`?"],
    );
    // Only together: two of one address.
    let on = "config collector 'pihole'\n\toption enabled 1\n";
    let two = format!("{on}{one} 'https://192.0.2.3'\n{one} 'https://192.0.2.3'\n");
    let two = two.replacen("'a'", "'b'", 1);
    refused(&two, &["agentmon.a: https://192.0.2.3 stands there twice"]);
}

#[test]
fn by_ssh_the_log_or_the_database() {
    let ssh = |more: &str| {
        let text = format!("config collector 'pihole_ssh'\n\toption enabled 1\n{more}");
        read_text(&text).config.collect.pihole_ssh
    };
    let (log, database) = ("\toption log '/log'\n", "\toption database '/db'\n");
    assert_eq!(ssh("").log, "/var/log/pihole/pihole.log");
    let only = ssh(database);
    assert_eq!((&*only.log, &*only.database), ("", "/db"));
    let both = ssh(&format!("{database}{log}"));
    assert_eq!((&*both.log, &*both.database), ("/log", "/db"));
}

#[test]
fn domains_are_taken_as_people_write_them() {
    let text = "config detector 'dns_tunnel'\n\tlist allow 'Example.COM.'\n";
    assert_eq!(read_text(text).config.tier0.dns_tunnel.allow, ["example.com"]);
    let text = "config detector 'dns_tunnel'\n\tlist allow 'a..b'\n";
    refused(text, &["agentmon:2: agentmon.dns_tunnel.allow: "]);
}

#[test]
fn mistakes_are_told_in_the_words_of_the_file() {
    refused(
        "config collector 'conntrack'\n\toption dump_interval '5x'\n",
        &["agentmon:2: agentmon.conntrack.dump_interval: '5x' is not a duration; use e.g. 15s"],
    );
    refused(
        "config collector 'conntrack'\n\toption dump_intervall '5s'\n",
        &[
            "agentmon:2: agentmon.conntrack.dump_intervall: no such option; did you mean `dump_interval`?",
        ],
    );
    refused(
        "config collector 'conntrack'\n\toption dump_interval '9h'\n",
        &["agentmon.conntrack.dump_interval: want 1 to 3600, not 32400 (seconds)"],
    );
    refused("config ring 'ring'\n\toption size '1K'\n", &["agentmon.ring.size: want 2097152 to"]);
    refused(
        "config colector 'x'\n",
        &["agentmon:1: agentmon: no section type `colector`; did you mean `collector`?"],
    );
    refused("config collector 'x'\n", &["no collector `x`; there are conntrack, firewall,"]);
    refused("config collector\n", &["a `collector` needs a name; there are conntrack"]);
    refused("config hub\nconfig hub\n", &["agentmon.hub: stands there twice"]);
    refused(
        "config agentmon 'main'\n\toption enabled maybe\n",
        &["agentmon.main.enabled: 'maybe' is not a switch"],
    );
    refused(
        "config agentmon 'main'\n\toption log_level loud\n",
        &["agentmon.main.log_level: `loud` is no level"],
    );
    refused("config agentmon 'main'\n\tlist log_level info\n", &["one value is wanted"]);
    refused("config agentmon 'main'\n\toption log_rejects_rate 0\n", &["want 1 to 100000, not 0"]);
    refused(
        "config ring 'ring'\n\toption path 'ring.db'\n",
        &["agentmon.ring.path: 'ring.db' is no absolute path"],
    );
    refused(
        "config ring 'ring'\n\toption snapshot_interval '5s'\n",
        &["agentmon.ring.snapshot_interval: want 0, or at least 60s: flash wears"],
    );
    refused("config hub 'hub'\n\toption join 'hello'\n", &["agentmon.hub.join: not a join line"]);
    refused(
        "config detector 'direct_ip'\n\tlist allow '192.0.2.1'\n\tlist allow 'nonsense'\n",
        &[
            "agentmon:3: agentmon.direct_ip.allow: 'nonsense' is no address or network; use e.g. 192.168.1.0/24",
        ],
    );
    refused("config a b\noption x 'a", &["agentmon:2: a quote (') that is never closed"]);
}

#[test]
fn all_mistakes_are_told_at_once() {
    refused(
        "config agentmon 'main'\n\toption enabled x\n\toption log_level y\nconfig z\n",
        &["agentmon.main.enabled", "agentmon.main.log_level", "no section type `z`"],
    );
    let text: String = (0..100).map(|i| format!("config z{i}\n")).collect();
    assert_eq!(parse(text.as_bytes()).unwrap_err().len(), PROBLEMS_MAX);
}

#[test]
fn what_only_all_together_is_wrong_is_told_too() {
    refused(
        "config collector 'passive_dns'\n\toption group 5\n",
        &["agentmon:2: agentmon.passive_dns.group: want another group"],
    );
    refused(
        "config list 'a'\n\toption score 0.5\n",
        &["agentmon.a: want `option path` or `list domain`"],
    );
    refused(
        "config list 'a'\n\toption path /x\n\tlist domain a.example\n",
        &["exclude each other"],
    );
    refused(
        "config list 'a'\n\toption path /x\n\toption score 7\n",
        &["agentmon:3: agentmon.a.score: "],
    );
}

proptest::proptest! {
    #[test]
    fn any_file_gives_an_answer(text in "(config (agentmon main|ring ring|list x|collector firewall)\n|(option|list) (enabled|size|path|score|group|domain) [a-z0-9./']{0,6}\n){0,12}") {
        match parse(text.as_bytes()) {
            Ok(settings) => proptest::prop_assert!(settings.config.validate().is_ok()),
            Err(problems) => proptest::prop_assert!((1..=PROBLEMS_MAX + 1).contains(&problems.len())),
        }
    }
}
