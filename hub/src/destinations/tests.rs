//! Addresses to classes: the built-in table, overlaps, a person's own lists, nonsense.

use super::*;

#[track_caller]
fn check(table: &Destinations, address: &str, class: Class, provider: Option<&str>) {
    let found = table.of_text(address).unwrap();
    assert_eq!((found.class, found.provider), (class, provider), "{address}");
}

#[test]
fn the_built_in_table_is_whole() {
    let table = Destinations::built_in();
    assert_eq!(table.bad(), 0);
    let networks: usize = table.sections().iter().map(|s| s.networks).sum();
    assert!(networks > 60_000, "{networks}");
    for section in table.sections() {
        // Licence and date.
        assert!(section.about.contains("202") && section.about.contains(';'), "{section:?}");
    }
    check(&table, "52.94.236.248", Class::Cloud, Some("amazon"));
    check(&table, "104.16.0.1", Class::Cdn, Some("cloudflare"));
    check(&table, "2606:4700::1111", Class::Cdn, Some("cloudflare"));
    check(&table, "8.8.8.8", Class::Cloud, Some("google"));
    check(&table, "2a00:1450:4001::8a", Class::Cloud, Some("google"));
    check(&table, "149.154.167.50", Class::Service, Some("telegram"));
    check(&table, "140.82.121.4", Class::Service, Some("github"));
    check(&table, "204.13.164.118", Class::Tor, None);
    check(&table, "80.128.0.1", Class::Residential, None);
    check(&table, "2003:c0::1", Class::Residential, None);
}

#[test]
fn networks_outside_the_internet() {
    let table = Destinations::built_in();
    for (address, class) in [
        ("192.168.1.1", Class::Local),
        ("10.255.255.255", Class::Local),
        ("172.31.0.1", Class::Local),
        ("100.64.0.1", Class::Local),
        ("239.255.255.250", Class::Local),
        ("fe80::1", Class::Local),
        ("fd00::1", Class::Local),
        ("ff02::fb", Class::Local),
        ("::1", Class::Local),
        ("203.0.113.7", Class::Reserved),
        ("2001:db8::7", Class::Reserved),
        ("255.255.255.255", Class::Local),
        ("250.0.0.1", Class::Reserved),
    ] {
        check(&table, address, class, None);
    }
    assert_eq!(table.of_text("no address"), None);
}

#[test]
fn an_address_that_carries_another_is_the_other() {
    let table = Destinations::built_in();
    check(&table, "::ffff:104.16.0.1", Class::Cdn, Some("cloudflare"));
    check(&table, "64:ff9b::104.16.0.1", Class::Cdn, Some("cloudflare"));
    check(&table, "2002:6810:1::1", Class::Cdn, Some("cloudflare"));
    check(&table, "::ffff:192.168.1.1", Class::Local, None);
}

const TABLE: &str = "\
# a comment before all sections
@\thosting\t\tsource; licence; 2026
198.51.100.0/24
203.0.113.0/25
203.0.113.0/25
@\tcloud\tbig\tsource; licence; 2026
198.51.100.128/25
198.51.100.200-198.51.100.201
2001:db8:1::/48
@\tcloud\tsmall\tsource; licence; 2026
198.51.100.192/30
nonsense
@\tvpn\t\tsource; licence; 2026
198.51.100.255
@\tnoclass\t\tx
198.51.100.1
";

#[test]
fn where_networks_overlap_the_telling_one_counts() {
    let table = Destinations::parse("", TABLE);
    assert_eq!(table.bad(), 2);
    check(&table, "198.51.100.0", Class::Hosting, None);
    check(&table, "198.51.100.127", Class::Hosting, None);
    check(&table, "198.51.100.128", Class::Cloud, Some("big"));
    check(&table, "198.51.100.192", Class::Cloud, Some("small"));
    check(&table, "198.51.100.196", Class::Cloud, Some("big"));
    check(&table, "198.51.100.254", Class::Cloud, Some("big"));
    check(&table, "198.51.100.255", Class::Vpn, None);
    check(&table, "198.51.101.0", Class::Residential, None);
    check(&table, "203.0.113.127", Class::Hosting, None);
    check(&table, "203.0.113.128", Class::Reserved, None);
    check(&table, "2001:db8:1:ffff::1", Class::Cloud, Some("big"));
    check(&table, "2001:db8:2::", Class::Reserved, None);
}

#[test]
fn a_section_of_ones_own_stands_in_place_of_the_same_one() {
    let own =
        "@\tcloud\tbig\tmine; mine; 2026\n192.0.2.0/24\n@\ttor\t\tmine; mine; 2026\n80.1.1.1\n";
    let shipped = TABLE.replace("198.51.100", "80.2.2");
    let table = Destinations::parse(&shipped, own);
    check(&table, "192.0.2.9", Class::Cloud, Some("big"));
    check(&table, "80.2.2.128", Class::Hosting, None);
    check(&table, "80.2.2.192", Class::Cloud, Some("small"));
    // What a person says counts more, however little it says.
    let own = "@\tresidential\t\tmine; mine; 2026\n80.2.2.0/24\n";
    check(&Destinations::parse(&shipped, own), "80.2.2.255", Class::Residential, None);
    // A shipped list knows nothing of networks that are nobody's.
    check(&table, "203.0.113.1", Class::Reserved, None);
    check(&table, "80.1.1.1", Class::Tor, None);
    assert_eq!(table.sections().iter().filter(|s| s.own).count(), 2);
}

#[test]
fn the_ends_of_the_address_space() {
    let text = "@\tcloud\ta\tx; y; 2026\n0.0.0.0/0\n::/0\n";
    let table = Destinations::parse("", text);
    check(&table, "1.0.0.0", Class::Cloud, Some("a"));
    check(&table, "223.255.255.255", Class::Cloud, Some("a"));
    check(&table, "2fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Cloud, Some("a"));
    // Said of all addresses, it is said of these too.
    check(&table, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Class::Cloud, Some("a"));
}

#[test]
fn lists_are_taken_in_and_error_pages_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let source = |text: String| text.parse::<Source>().unwrap();
    let relays = put("relays", b"# exits\n198.51.100.7\n198.51.100.8 ; two\n\n2001:db8::/64\n");
    let page = put("page", b"<html>\n<body>429</body>\n</html>\n");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"203.0.113.0/24\n").unwrap();
    let packed = put("nets.gz", &packed.finish().unwrap());

    let first = [source(format!("tor={}", relays.display()))];
    let text = update("", &first, "example; licence; 2026-11-23").unwrap();
    write(&file(dir.path()), &text).unwrap();
    let table = Destinations::of_dir(dir.path());
    check(&table, "198.51.100.8", Class::Tor, None);
    check(&table, "2001:db8::1", Class::Tor, None);
    // It stands in place of the built-in section, and only of that.
    check(&table, "204.13.164.118", Class::Hosting, None);
    check(&table, "104.16.0.1", Class::Cdn, Some("cloudflare"));

    let second = [source(format!("vpn:acme={}", packed.display()))];
    let text = update(&text, &second, "x; y; 2026").unwrap();
    let table = Destinations::parse("", &text);
    check(&table, "203.0.113.9", Class::Vpn, Some("acme"));
    check(&table, "198.51.100.8", Class::Tor, None);

    let bad = [source(format!("tor={}", page.display()))];
    let error = update(&text, &bad, "x").unwrap_err().to_string();
    assert!(error.contains("no network in it"), "{error}");
    for (text, says) in
        [("tor", "want CLASS=FILE"), ("onion=x", "there are local"), ("tor=", "want CLASS=FILE")]
    {
        let error = text.parse::<Source>().unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn tables_follow_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut following = Following::new(dir.path());
    check(&following.now(), "80.1.1.1", Class::Residential, None);
    write(&file(dir.path()), "@\ttor\t\tx; y; 2026\n80.1.1.1\n").unwrap();
    check(&following.now(), "80.1.1.1", Class::Tor, None);
    // What cannot be read as a database is passed over.
    std::fs::write(dir.path().join(FOLDER).join("broken.mmdb"), b"nonsense").unwrap();
    check(&following.now(), "80.1.1.1", Class::Tor, None);
}

use std::io::Write as _;

use proptest::prelude::*;

/// The answer by looking at every network.
fn slow(table: &[(u32, u32, Class, u16)], address: u32) -> Option<u16> {
    let holds = table.iter().filter(|(first, last, ..)| (*first..=*last).contains(&address));
    let rank = |n: &&(u32, u32, Class, u16)| (n.2, std::cmp::Reverse(n.1 - n.0), n.3);
    holds.max_by_key(rank).map(|n| n.3)
}

proptest! {
    #[test]
    fn any_text_never_panics(text in "(@\t(tor|vpn|x)\t[a-z]?\t?\n|[0-9a-f:./\\-]{0,20}\n|\\PC{0,9}\n){0,12}", v6: u128) {
        let table = Destinations::parse(&text, &text);
        let found = table.of(std::net::Ipv6Addr::from(v6).into());
        prop_assert!(found.provider.is_none_or(|name| name.len() <= PROVIDER_BYTES_MAX));
    }

    #[test]
    fn the_search_finds_what_looking_at_all_finds(
        nets in proptest::collection::vec((0u32..64, 0u32..16, 3usize..10), 0..20)
    ) {
        // Within 11.0.0.0/26; a section for each network, so that each can be told apart.
        let base = u32::from(std::net::Ipv4Addr::new(11, 0, 0, 0));
        let mut text = String::new();
        let mut all = Vec::new();
        for (n, (first, len, class)) in nets.iter().enumerate() {
            let (first, last, class) = (base + first, base + first + len, Class::ALL[*class]);
            let (a, b) = (std::net::Ipv4Addr::from(first), std::net::Ipv4Addr::from(last));
            text.push_str(&format!("@\t{}\tn{n}\tx; y; 2026\n{a}-{b}\n", class.as_str()));
            all.push((first, last, class, u16::try_from(n).unwrap()));
        }
        let table = Destinations::parse(&text, "");
        for address in base..base + 90 {
            let found = table.of(std::net::Ipv4Addr::from(address).into());
            let expected = slow(&all, address).map(|n| format!("n{n}"));
            prop_assert_eq!(found.provider.map(str::to_owned), expected);
        }
    }
}
