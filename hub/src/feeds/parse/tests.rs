//! Each publisher's form as published, with addresses and names of documentation, and what
//! servers send in its place.

use agentmon_core::tier0::blocklist::{ListConfig, Named, entries};
use proptest::prelude::*;

use super::*;

/// Entries with threat, reference and the day first seen; what was left out.
#[track_caller]
fn of(form: Form, download: &str) -> (Vec<String>, String) {
    let out = form.list(download.as_bytes()).unwrap().unwrap();
    let mut all = Vec::new();
    entries(&ListConfig::default(), out.text.as_bytes(), &mut |listed| {
        let named = match &listed.named {
            Named::Name(name) => name.as_str().to_owned(),
            Named::Net(net) => net.to_string(),
        };
        let page = listed.page.map(String::from_utf8_lossy).unwrap_or_default();
        let facts = Facts::read(listed.comment);
        let day = facts.first_seen.map(|t| t.to_string()).unwrap_or_default();
        let day = day.split('T').next().unwrap_or_default().to_owned();
        all.push([named + &page, facts.threat, facts.reference, day].join(";"));
    });
    (all, out.left_out())
}

#[track_caller]
fn check(form: Form, download: &str, expected: &[&str], left_out: &str) {
    assert_eq!(
        of(form, download),
        (expected.iter().map(|e| (*e).to_owned()).collect(), left_out.to_owned())
    );
}

const URLHAUS: &str = r#"################################################################
# abuse.ch URLhaus Database Dump (CSV - recent URLs only)      #
################################################################
#
# id,dateadded,url,url_status,last_online,threat,tags,urlhaus_link,reporter
"7001","2026-11-20 10:30:09","http://203.0.113.9:37215/bin.sh","online","2026-11-20 10:30:09","malware_download","32-bit,elf,Mozi","https://urlhaus.abuse.ch/url/7001/","geenensp"
"7002","2026-11-20 10:31:00","https://raw.githubusercontent.com/x/y/main/z.exe","online","","malware_download","None","https://urlhaus.abuse.ch/url/7002/","a"
"7003","2026-11-19 08:00:00","https://loader.example/a b.js","offline","","malware_download","None","https://urlhaus.abuse.ch/url/7003/","a"
"7004","broken line
"#;

#[test]
fn urlhaus() {
    check(
        Form::Urlhaus,
        URLHAUS,
        &[
            "203.0.113.9:37215/bin.sh;malware_download: 32-bit,elf,Mozi;https://urlhaus.abuse.ch/url/7001/;2026-11-20",
            "loader.example/a%20b.js;malware_download;https://urlhaus.abuse.ch/url/7003/;2026-11-19",
        ],
        "1 not an entry, 1 pages of platforms that many share",
    );
}

#[test]
fn threatfox() {
    let text = r#"# "first_seen_utc","ioc_id","ioc_value","ioc_type","threat_type","fk_malware","malware_alias","malware_printable","last_seen_utc","confidence_level","is_compromised","reference","tags","anonymous","reporter"
"2026-11-23 09:00:00", "1001", "198.51.100.7:4444", "ip:port", "botnet_cc", "win.remcos", "", "Remcos", "", "75", "False", "", "remcos", "0", "x"
"2026-11-23 09:01:00", "1002", "c2.example", "domain", "botnet_cc", "win.x", "", "Cobalt Strike", "", "100", "False", "", "", "0", "x"
"2026-11-23 09:02:00", "1003", "d41d8cd98f00b204e9800998ecf8427e", "md5_hash", "payload", "win.x", "", "X", "", "100", "False", "", "", "0", "x"
"2026-11-23 09:03:00", "1004", "maybe.example", "domain", "botnet_cc", "win.x", "", "X", "", "25", "False", "", "", "0", "x"
"#;
    check(
        Form::Threatfox,
        text,
        &[
            "198.51.100.7:4444;Remcos;threatfox 1001;2026-11-23",
            "c2.example;Cobalt Strike;threatfox 1002;2026-11-23",
        ],
        "1 hashes of files, 1 of low confidence",
    );
}

#[test]
fn feodo_in_both_forms() {
    let csv = "# Feodo Tracker\n\"first_seen_utc\",\"dst_ip\",\"dst_port\",\"c2_status\",\"last_online\",\"malware\"\n\
        \"2026-01-14 23:53:23\",\"203.0.113.4\",\"443\",\"online\",\"2026-11-24\",\"Emotet\"\n# END 1 entries\n";
    let json = r#"[{"ip_address":"203.0.113.4","port":443,"status":"online","hostname":null,"as_number":64500,
        "as_name":"X","country":"ZZ","first_seen":"2026-01-14 23:53:23","last_online":"2026-11-24","malware":"Emotet"}]"#;
    for text in [csv, json] {
        check(Form::Feodo, text, &["203.0.113.4:443;Emotet;;2026-01-14"], "");
    }
    check(Form::Feodo, "[]", &[], "");
}

#[test]
fn columns_are_found_by_name() {
    let text = "malware,dst_port,new_column,dst_ip,first_seen_utc\nPikabot,8443,x,2001:db8::7,2026-11-01 00:00:00\n";
    check(Form::Feodo, text, &["[2001:db8::7]:8443;Pikabot;;2026-11-01"], "");
}

#[test]
fn sslbl() {
    let text = "# Firstseen,DstIP,DstPort\n2026-11-02 07:00:00,198.51.100.66,8080\n";
    check(
        Form::Sslbl,
        text,
        &["198.51.100.66:8080;botnet server with a known certificate;;2026-11-02"],
        "",
    );
}

#[test]
fn spamhaus() {
    let text = "{\"cidr\":\"203.0.113.0/24\",\"sblid\":\"SBL1\",\"rir\":\"apnic\"}\n{\"cidr\":\"2001:db8:7::/48\",\"sblid\":\"SBL2\",\"rir\":\"ripencc\"}\n\
        {\"type\":\"metadata\",\"timestamp\":1763600000,\"size\":2,\"records\":2}\n";
    check(
        Form::SpamhausDrop,
        text,
        &[
            "203.0.113.0/24;hijacked or leased for crime;SBL1;",
            "2001:db8:7::/48;hijacked or leased for crime;SBL2;",
        ],
        "",
    );
}

#[test]
fn cert_pl() {
    let text = r#"[{"RegisterPositionId":7,"DomainAddress":"bank-login.example","InsertDate":"2026-11-20T16:27:36","DeleteDate":null},
        {"RegisterPositionId":8,"DomainAddress":"gone.example","InsertDate":"2025-01-01T00:00:00","DeleteDate":"2026-01-01T00:00:00"}]"#;
    check(
        Form::CertPl,
        text,
        &["bank-login.example;phishing or fraud;hole.cert.pl 7;2026-11-20"],
        "1 struck off",
    );
}

#[test]
fn pages_alone() {
    let text = "https://login.example/verify\nhttps://docs.google.com/forms/d/x\n";
    check(Form::Pages, text, &["login.example/verify;;;"], "1 pages of platforms that many share");
}

#[test]
fn stix() {
    let indicator = |pattern: &str, more: &str| {
        format!(
            r#"{{"type":"indicator","spec_version":"2.1","id":"indicator--1","name":"ScarCruft","pattern":"{pattern}","pattern_type":"stix","valid_from":"2026-10-01T00:00:00Z"{more}}}"#
        )
    };
    let objects = [
        indicator("[domain-name:value = 'c2.example']", ""),
        indicator(
            "[ipv4-addr:value = '203.0.113.5'] OR [ipv6-addr:value='2001:db8::5' OR domain-name:value IN ('x.example', 'y.example')]",
            "",
        ),
        indicator("[ipv4-addr:value = '198.51.100.0/24']", ""),
        indicator("[url:value = 'https://z.example/it\\\\'s']", ""),
        indicator(
            "[network-traffic:dst_ref.value = '203.0.113.6' AND network-traffic:dst_port = 8443]",
            "",
        ),
        indicator("[file:hashes.MD5 = 'd41d8cd98f00b204e9800998ecf8427e']", ""),
        indicator("[domain-name:value = 'a.example' AND file:name = 'b']", ""),
        indicator(
            "[domain-name:value = 'a.example'] FOLLOWEDBY [domain-name:value = 'b.example']",
            "",
        ),
        indicator("[domain-name:value LIKE '%.example']", ""),
        indicator("[domain-name:value != 'good.example']", ""),
        indicator("[domain-name:value = 'r.example']", r#","revoked":true"#),
        r#"{"type":"malware","id":"malware--1","name":"x","is_family":true}"#.to_owned(),
    ];
    let text = format!(r#"{{"type":"bundle","id":"bundle--1","objects":[{}]}}"#, objects.join(","));
    let with = |entry: &str| format!("{entry};ScarCruft;indicator--1;2026-10-01");
    let expected: Vec<String> = [
        "c2.example",
        "203.0.113.5",
        "2001:db8::5",
        "x.example",
        "y.example",
        "198.51.100.0/24",
        "z.example/it's",
        "203.0.113.6:8443",
    ]
    .map(with)
    .into();
    let left_out = "1 of another kind, 4 patterns with conditions, 1 revoked".to_owned();
    assert_eq!(of(Form::Stix, &text), (expected, left_out));
}

#[test]
fn stix_ends_when_it_says() {
    let text = r#"{"type":"bundle","objects":[{"type":"indicator","id":"i","pattern":"[domain-name:value='c2.example']","valid_until":"2026-12-01T00:00:00.000Z"}]}"#;
    let out = Form::Stix.list(text.as_bytes()).unwrap().unwrap();
    assert!(
        out.text.ends_with("| 2026-12-01T00:00:00Z\n") || out.text.contains("2026-12-01T00:00:00"),
        "{}",
        out.text
    );
}

#[test]
fn misp() {
    let attribute = |kind: &str, value: &str, ids: bool| {
        format!(
            r#"{{"type":"{kind}","category":"Network activity","to_ids":{ids},"value":"{value}","timestamp":"1795400000","deleted":false}}"#
        )
    };
    let direct = [
        attribute("domain", "c2.example", true),
        attribute("ip-dst|port", "203.0.113.5|443", true),
        attribute("domain|ip", "d.example|203.0.113.6", true),
        attribute("ip-src", "198.51.100.1", true),
        attribute("domain", "context.example", false),
    ];
    let event = format!(
        r#"{{"info":"Campaign X","uuid":"u-1","date":"2026-11-20","Attribute":[{}],"Object":[{{"name":"url","Attribute":[{}]}}]}}"#,
        direct.join(","),
        attribute("url", "https://e.example/p", true)
    );
    let want = ["c2.example", "203.0.113.5:443", "d.example", "e.example/p"];
    let want: Vec<String> = want.map(|e| format!("{e};Campaign X;misp u-1;2026-11-23")).into();
    for text in [
        event.clone(),
        format!(r#"{{"Event":{event}}}"#),
        format!(r#"{{"response":[{{"Event":{event}}}]}}"#),
        format!(r#"[{{"Event":{event}}}]"#),
    ] {
        let left_out = "1 not meant for detection (`to_ids`), 1 of another kind".to_owned();
        assert_eq!(of(Form::Misp, &text), (want.clone(), left_out));
    }
}

const FORMS: [Form; 9] = [
    Form::Urlhaus,
    Form::Threatfox,
    Form::Feodo,
    Form::Sslbl,
    Form::SpamhausDrop,
    Form::CertPl,
    Form::Pages,
    Form::Stix,
    Form::Misp,
];

/// What servers answer under a feed's address when something is wrong.
#[test]
fn what_is_no_feed_is_an_error() {
    for form in FORMS {
        for text in [
            "<!DOCTYPE html><html><body>503</body></html>",
            "",
            "\u{0}\u{0}\u{0}\u{0}",
            r#"{"query_status":"unauthorized"}"#,
        ] {
            // A page's address may be any word: that it is none comes out when it is taken.
            if form == Form::Pages && text.starts_with('{') {
                continue;
            }
            assert!(form.list(text.as_bytes()).unwrap().is_err(), "{form:?} takes {text:?}");
        }
    }
}

proptest! {
    #[test]
    fn never_panics_and_never_grows_lines(download: Vec<u8>, at in 0usize..9) {
        if let Some(Ok(out)) = FORMS[at].list(&download) {
            prop_assert_eq!(out.text.lines().count(), out.entries);
        }
    }

    #[test]
    fn hostile_fields_stay_in_their_line(threat in ".{0,40}", url in ".{0,40}") {
        let line = format!("\"1\",\"2026-01-01 00:00:00\",\"http://a.example/{}\",\"\",\"\",\"{}\",\"\",\"\"\n", url.replace('"', ""), threat.replace('"', ""));
        if let Some(Ok(out)) = Form::Urlhaus.list(line.as_bytes()) {
            let mut count = 0;
            entries(&ListConfig::default(), out.text.as_bytes(), &mut |listed| {
                count += 1;
                assert_eq!(listed.named, Named::Name(agentmon_core::name::Name::parse(b"a.example").unwrap()));
            });
            prop_assert!(count <= out.entries);
        }
    }
}
