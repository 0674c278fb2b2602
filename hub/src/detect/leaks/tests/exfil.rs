//! `exfil` and `exfil-dns`, with the nightly backup, photos, calls, scanners and CDNs.

use super::*;

const MB: u64 = 1_000_000;

fn upload(ago: i64, device: u8, name: &'static str, out: u64, inward: u64) -> Talk<'static> {
    Talk { ago, lasts: 600, out, inward, ..Talk::to(device, name, "203.0.113.40") }
}

#[test]
fn a_burst_to_a_new_place_is_told_with_its_numbers() {
    let home = Home::new();
    home.talk(upload(2 * HOUR, 2, "eu.drop.bigupload.example", 4_200 * MB, 40 * MB));
    let found = home.one("exfil", "bigupload.example");
    assert_eq!(found.mac.unwrap().to_string(), mac(2));
    assert!(found.score >= 0.6, "{found:?}");
    assert_eq!(evidence(&found, "sent_bytes"), "4200000000");
    assert_eq!(evidence(&found, "shape"), "burst");
    assert!(
        found.why.starts_with("sent 4.20 GB to bigupload.example within a day"),
        "{}",
        found.why
    );
    assert!(found.why.contains("a place new for this device"), "{}", found.why);
}

#[test]
fn the_nightly_backup_is_not() {
    let home = Home::new();
    for day in 0..14 {
        home.talk(upload(
            day * DAY + 11 * HOUR,
            3,
            "upload.backupcloud.example",
            21_000 * MB,
            9 * MB,
        ));
    }
    home.silent();
}

#[test]
fn four_times_the_usual_is_told_even_of_a_known_place() {
    let home = Home::new();
    home.talk(upload(3 * HOUR, 3, "x.sync.example", 9_000 * MB, 9 * MB));
    for day in 1..6 {
        home.talk(upload(day * DAY + 11 * HOUR, 3, "x.sync.example", 150 * MB, 9 * MB));
    }
    let found = home.one("exfil", "sync.example");
    assert_eq!(evidence(&found, "usual_bytes_a_day"), "150000000");
    assert!(found.why.contains("usual are 150 MB"), "{}", found.why);
}

#[test]
fn calls_photos_and_downloads_are_not() {
    let home = Home::new();
    // An hour of video: as much up as down.
    home.talk(Talk {
        proto: 17,
        port: 3478,
        ..upload(HOUR, 1, "media.videocall.example", 700 * MB, 800 * MB)
    });
    // Photos of a holiday, to where they go since weeks, from three devices.
    for device in 1..=3 {
        for day in 0..20 {
            let out = if day == 0 && device == 1 { 2_000 * MB } else { 120 * MB };
            home.talk(upload(
                day * DAY + 3 * HOUR,
                device,
                "photos.cloudalbum.example",
                out,
                2 * MB,
            ));
        }
    }
    home.talk(upload(HOUR, 4, "cdn.videohost.example", 60 * MB, 4_000 * MB));
    home.silent();
}

#[test]
fn a_drip_over_days_is_told() {
    let home = Home::new();
    for hour in 0..60 {
        home.talk(upload(hour * HOUR + 1_000, 1, "paste.quickshare.example", MB * 3 / 2, 4_000));
    }
    let found = home.one("exfil", "quickshare.example");
    assert_eq!(evidence(&found, "shape"), "drip");
    assert_eq!(evidence(&found, "sent_bytes"), "90000000");
}

#[test]
fn telemetry_that_was_always_there_is_not() {
    let home = Home::new();
    for hour in 0..20 * 24 {
        home.talk(upload(hour * HOUR + 1_000, 1, "in.vendor-metrics.example", MB / 2, 4_000));
    }
    home.silent();
}

#[test]
fn a_device_that_changes_its_address_is_one() {
    let home = Home::new();
    home.lives_at(2, "192.168.77.99", 20 * HOUR);
    let part = |ago, without_mac| Talk {
        without_mac,
        ..upload(ago, 2, "a.bigupload.example", 70 * MB, MB)
    };
    home.talk_from(&address(2), part(22 * HOUR, false));
    home.talk_from("192.168.77.99", part(10 * HOUR, true));
    let found = home.one("exfil", "bigupload.example");
    assert_eq!(evidence(&found, "sent_bytes"), "140000000");
    assert_eq!(found.mac.unwrap().to_string(), mac(2));
}

#[test]
fn ipv6_and_addresses_without_a_name() {
    let home = Home::new();
    home.networks("@\thosting\tacme\tx; y; 2026\n2001:db8:ff::/48\n");
    home.talk(Talk { out: 300 * MB, inward: MB, ..Talk::address(4, "2001:db8:ff::9") });
    let found = home.one("exfil", "2001:db8:ff::9");
    assert_eq!(evidence(&found, "provider"), "acme");
    assert!(found.why.contains("an address without a name"), "{}", found.why);
}

#[test]
fn where_it_fetched_it_now_sends() {
    let home = Home::new();
    for day in 1..12 {
        home.talk(upload(day * DAY, 1, "files.example", 2 * MB, 400 * MB));
    }
    home.talk(upload(HOUR, 1, "files.example", 60 * MB, MB));
    let found = home.one("exfil", "files.example");
    assert_eq!(evidence(&found, "shape"), "turn");
}

#[test]
fn nothing_is_grave_while_habits_are_learnt_and_allowed_is_allowed() {
    let mut home = Home::new();
    home.talk(upload(HOUR, 2, "bigupload.example", 4_200 * MB, 40 * MB));
    home.config.allow = vec!["bigupload.example".into()];
    home.silent();
    home.config = Config { learning_days: 30, ..Config::default() };
    home.silent();
    let low = home.findings();
    assert!(
        low.iter().any(|f| f.rule == "exfil" && f.why.contains("still being learnt")),
        "{low:?}"
    );
    home.config.learning_days = 7;
    home.one("exfil", "bigupload.example");
}

/// Text that repeats for nobody.
fn noise(n: u64, letters: usize) -> String {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + u8::try_from(state >> 59).unwrap() % 26)
    };
    (0..letters).map(|_| letter()).collect()
}

#[test]
fn data_in_names_over_days_is_told() {
    let home = Home::new();
    for n in 0..300 {
        let name = format!("{}.t.fastrelay.example", noise(n, 44));
        home.asks(i64::try_from(n).unwrap() * 1_800, 2, &name, 16, "TXT \"ok\"");
    }
    let found = home.one("exfil-dns", "fastrelay.example");
    assert_eq!(evidence(&found, "names"), "300");
    assert_eq!(found.mac.unwrap().to_string(), mac(2));
    assert!(found.why.contains("distinct names below fastrelay.example"), "{}", found.why);
}

#[test]
fn verdicts_and_visited_names_are_not() {
    let home = Home::new();
    for n in 0..300 {
        let ago = i64::try_from(n).unwrap() * 1_800;
        home.asks(ago, 1, &format!("{}.lookup.virusguard.example", noise(n, 32)), 1, "127.0.0.2");
        let cdn = format!("d{}.edge.cloudcdn.example", noise(n, 30));
        home.asks(ago, 3, &cdn, 1, "203.0.113.9");
        home.talk(Talk { ago: ago.max(1) - 1, ..Talk::to(3, &cdn, "203.0.113.9") });
    }
    home.silent();
}
