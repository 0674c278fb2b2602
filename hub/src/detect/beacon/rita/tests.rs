//! The published figures of the score, and what follows from its definition.

use std::collections::BTreeSet;

use super::fuse::{LONG, SUBDOMAINS, bucket, severity};
use super::score::{
    BINS, Window, bars, beacon, bimodal, bowley, deviation, duration, histogram, longest_run,
    quartiles, sizes_score, timestamps, variation,
};
use super::{Asked, Connection, Defaults, Logs, Row, Settings};

const DAY: Window = Window { lo: 0, hi: 86_400 };

/// Equal to within what binary fractions cannot say.
#[track_caller]
fn near(got: f64, expected: f64) {
    assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
}

/// Times with these gaps between them, again and again.
fn times(gaps: &[i64], connections: usize) -> Vec<i64> {
    let steps = gaps.iter().cycle().take(connections - 1);
    std::iter::once(0)
        .chain(steps.scan(0, |at, gap| {
            *at += gap;
            Some(*at)
        }))
        .collect()
}

fn bins(occupied: &[usize], height: u32) -> [u32; BINS] {
    let mut bins = [0; BINS];
    for bin in occupied {
        bins[*bin] = height;
    }
    bins
}

#[test]
fn gaps_make_the_score_of_times() {
    near(timestamps(&times(&[98, 99, 100, 101, 102], 6)).unwrap(), 0.995);
    near(timestamps(&times(&[98, 300], 101)).unwrap(), 0.746);
    near(timestamps(&times(&[60], 1_440)).unwrap(), 1.0);
    // Repeated seconds are no gaps; three gaps are needed.
    assert_eq!(timestamps(&[1, 1, 2, 2, 3, 3]), None);
    near(timestamps(&[1, 1, 2, 2, 3, 3, 4]).unwrap(), 1.0);
    assert_eq!(timestamps(&[]), None);
}

#[test]
fn quartiles_are_by_halves() {
    assert_eq!(quartiles(&[1.0, 2.0, 3.0, 4.0, 5.0]), [1.5, 3.0, 4.5]);
    assert_eq!(quartiles(&[1.0, 2.0, 3.0, 4.0]), [1.5, 2.5, 3.5]);
    assert_eq!(quartiles(&[]), [0.0; 3]);
    assert_eq!(quartiles(&[7.0]), [0.0, 7.0, 0.0]);
}

#[test]
fn equal_values_are_perfect() {
    let four = [500.0; 4];
    assert_eq!((bowley(&four), deviation(&four)), (0.0, 0.0));
    near(sizes_score(&four), 1.0);
    near(timestamps(&[0, 500, 1_000, 1_500, 2_000]).unwrap(), 1.0);
}

/// Below a median of 1 the closeness is 1 for times, and 0 for sizes. Gaps are never 0, so
/// only sizes can show it.
#[test]
fn empty_connections_are_half_alike() {
    near(sizes_score(&[0.0; 5]), 0.5);
    near(super::score::statistical(vec![0.0; 5], 1.0), 1.0);
    near(super::score::statistical(vec![0.0; 5], 0.0), 0.5);
}

#[test]
fn skewness_needs_quartiles_apart() {
    near(bowley(&[0.0, 1.0, 2.0, 9.0]), 0.0);
    // Q1 5, Q2 10, Q3 25: (5 + 25 - 20) / 20.
    near(bowley(&[0.0, 10.0, 10.0, 40.0]), 0.5);
    near(bowley(&[0.0, 0.0, 0.0, 40.0, 40.0]), 0.0);
    near(bowley(&[0.0, 10.0, 20.0, 60.0]), (5.0 + 40.0 - 30.0) / 35.0);
}

#[test]
fn even_hours_are_perfect() {
    let all: Vec<usize> = (0..BINS).collect();
    let even = bins(&all, 7);
    near(variation(&even), 1.0);
    near(bimodal(&even), 1.0);
    assert_eq!((bars(&even), longest_run(&even)), (24, 24));
    let every_hour = times(&[3_600], 24);
    near(beacon(&every_hour, &[100.0; 24], DAY).unwrap().histogram, 1.0);
}

#[test]
fn eleven_single_hours_are_two_heights() {
    let some: Vec<usize> = (4..15).collect();
    let bins = bins(&some, 1);
    near(variation(&bins), 0.0);
    near(bimodal(&bins), 1.0);
}

#[test]
fn runs_go_on_at_midnight() {
    let bins = bins(&[22, 23, 0, 1, 2, 3], 2);
    assert_eq!((bars(&bins), longest_run(&bins)), (6, 6));
    near(bimodal(&bins), 0.0);
}

#[test]
fn duration_is_span_or_run() {
    let half = 43_200;
    let twelve: Vec<usize> = (0..12).collect();
    near(duration(half, DAY, &bins(&twelve, 1)), 1.0);
    near(duration(half, DAY, &bins(&[0, 1, 2, 4, 6, 8], 1)), 0.5);
    near(duration(86_400, DAY, &bins(&[0, 1, 2, 3, 4], 1)), 0.0);
    // Rounded up: 28,801 of 86,400 is 0.33334.
    near(duration(28_801, DAY, &bins(&[0, 2, 4, 6, 8, 10], 1)), 0.334);
    near(duration(10, Window { lo: 5, hi: 5 }, &bins(&twelve, 1)), 0.0);
}

#[test]
fn bins_hold_their_edges() {
    let counts = histogram(&[0, 3_599, 3_600, 86_399, 86_400, -1_000], DAY);
    assert_eq!((counts[0], counts[1], counts[23]), (3, 1, 2));
}

#[test]
fn buckets_of_the_beacon_score() {
    for (percent, code, shipped) in [
        (49.9, 0.0, 0.0),
        (50.0, 0.2, 0.2),
        (58.6, 0.2688, 0.286),
        (70.0, 0.36, 0.4),
        (75.0, 0.4, 0.45),
        (90.0, 0.6, 0.6),
        (97.9, 0.758, 0.758),
        (100.0, 0.8, 0.8),
    ] {
        near(bucket(percent, Defaults::Code.beacon()), code);
        near(bucket(percent, Defaults::Shipped.beacon()), shipped);
    }
}

#[test]
fn buckets_of_the_other_values() {
    for (seconds, score) in [
        (3_599.9, 0.0),
        (3_600.0, 0.2),
        (14_400.0, 0.4),
        (28_800.0, 0.6),
        (43_200.0, 0.8),
        (50_000.0, 0.8),
        (f64::NAN, 0.0),
    ] {
        near(bucket(seconds, LONG), score);
    }
    for (seconds, score) in [(7_200.403_186, 0.266_674), (14_737.061_15, 0.404_681)] {
        assert!((bucket(seconds, LONG) - score).abs() < 5e-7);
    }
    for (names, score) in [(99.0, 0.0), (100.0, 0.2), (500.0, 0.4), (800.0, 0.6), (1_000.0, 0.8)] {
        near(bucket(names, SUBDOMAINS), score);
    }
}

#[test]
fn words_of_final_scores() {
    for (score, word) in [
        (0.8, "high"),
        (0.81, "critical"),
        (0.6, "high"),
        (0.4, "medium"),
        (0.2, "low"),
        (0.1, "none"),
    ] {
        assert_eq!(severity(score), word, "{score}");
    }
}

fn connection(time: i64, src: &str, dst: &str) -> Connection {
    Connection {
        time,
        src: src.parse().unwrap(),
        dst: dst.parse().unwrap(),
        bytes_out: 100,
        bytes_in: 50,
        seconds: 1.0,
        open: false,
        names: BTreeSet::new(),
        proxied: BTreeSet::new(),
        hostless: false,
        others: BTreeSet::new(),
        signs: BTreeSet::new(),
    }
}

fn analyse(connections: &[Connection], settings: &Settings) -> Vec<Row> {
    super::analyse(&Logs { connections: connections.to_vec(), ..Logs::default() }, settings)
}

fn asked(src: &str, name: &str) -> Asked {
    Asked {
        hour: 999_600,
        src: src.parse().unwrap(),
        dst: Some("192.168.7.1".parse().unwrap()),
        name: name.to_owned(),
        domain: Some(name.split_once('.').unwrap().1.to_owned()),
    }
}

fn named(mut connection: Connection, name: &str) -> Connection {
    connection.names.insert(name.to_owned());
    connection
}

fn beats(dst: &str, n: i64) -> Vec<Connection> {
    (0..n).map(|i| connection(1_000_000 + i * 600, "192.168.7.2", dst)).collect()
}

fn told(rows: &[Row]) -> Vec<(String, u64, u64)> {
    rows.iter().map(|r| (r.dst.clone(), r.connections, r.open)).collect()
}

#[test]
fn only_what_leaves_counts() {
    let settings = Settings::default();
    for dst in ["192.168.7.9", "224.0.0.251", "255.255.255.255", "fe80::1", "ff02::fb"] {
        assert_eq!(analyse(&beats(dst, 144), &settings), vec![], "{dst}");
    }
    let rows = analyse(&beats("203.0.113.9", 144), &settings);
    assert_eq!(told(&rows), [("203.0.113.9".to_owned(), 144, 0)]);
    near(rows[0].beacon.unwrap().score, 1.0);
    near(rows[0].final_score, 0.8);
    let outside: Vec<_> =
        (0..9).map(|i| connection(i * 60, "203.0.113.9", "192.168.7.2")).collect();
    assert_eq!(analyse(&outside, &settings), vec![]);
    let keep = Settings { external_to_internal: true, ..settings };
    assert_eq!(analyse(&outside, &keep).len(), 1);
    let other = Settings { internal: vec!["203.0.113.0/24".parse().unwrap()], ..keep };
    assert_eq!(analyse(&outside, &other).len(), 1);
}

/// Too few to be a beacon, the name explains nothing: the address has a row of its own.
#[test]
fn a_name_explains_addresses_only_where_it_is_scored() {
    let settings = Settings::default();
    let with_name = |n: i64| -> Vec<_> {
        let all = beats("203.0.113.9", 144).into_iter().enumerate();
        all.map(|(i, c)| if (i as i64) < n { named(c, "api.example") } else { c }).collect()
    };
    let rows = analyse(&with_name(3), &settings);
    assert_eq!(told(&rows), [("203.0.113.9".to_owned(), 144, 0)]);
    let rows = analyse(&with_name(4), &settings);
    assert_eq!(told(&rows), [("api.example".to_owned(), 4, 0)]);
}

#[test]
fn open_connections_last_but_do_not_beat() {
    let mut all = beats("203.0.113.9", 5);
    all.push(Connection {
        open: true,
        seconds: 7_200.0,
        ..connection(0, "192.168.7.2", "203.0.113.9")
    });
    let rows = analyse(&all, &Settings::default());
    assert_eq!(told(&rows), [("203.0.113.9".to_owned(), 5, 1)]);
    assert_eq!(rows[0].bytes, 900);
    near(rows[0].seconds, 7_205.0);
    let only_open = &all[5..];
    let rows = analyse(only_open, &Settings::default());
    assert_eq!((rows.len(), rows[0].beacon), (1, None));
}

#[test]
fn requests_that_name_no_host_add_to_an_address() {
    let mut all = beats("203.0.113.9", 144);
    all[7].hostless = true;
    near(analyse(&all, &Settings::default())[0].final_score, 0.9);
    let named: Vec<_> = all.into_iter().map(|c| named(c, "api.example")).collect();
    near(analyse(&named, &Settings::default())[0].final_score, 0.8);
}

#[test]
fn a_proxy_of_ones_own_is_passed_through() {
    let through = |mut c: Connection| {
        c.proxied.insert("api.example".to_owned());
        named(c, "api.example")
    };
    let all: Vec<_> = beats("192.168.7.9", 144).into_iter().map(through).collect();
    let rows = analyse(&all, &Settings::default());
    assert_eq!(told(&rows), [("api.example".to_owned(), 144, 0)]);
}

#[test]
fn the_window_is_the_last_day_in_whole_hours() {
    // A day and two hours; what is older than the hour in which the window begins is out.
    let all: Vec<_> =
        (0..157).map(|i| connection(i * 600 + 1_800, "192.168.7.2", "203.0.113.9")).collect();
    let (newest, oldest) = (156 * 600 + 1_800, 156 * 600 + 1_800 - 86_400);
    let expected = (0..157).filter(|i| i * 600 + 1_800 >= oldest - oldest % 3_600).count();
    assert!(expected < 157 && newest % 600 == 0);
    assert_eq!(analyse(&all, &Settings::default())[0].connections, expected as u64);
}

#[test]
fn a_common_destination_counts_less_by_the_shipped_defaults() {
    let shipped = Settings { defaults: Defaults::Shipped, ..Settings::default() };
    near(analyse(&beats("203.0.113.9", 144), &shipped)[0].final_score, 0.65);
}

proptest::proptest! {
    #[test]
    fn scores_stay_in_bounds(
        times in proptest::collection::vec(proptest::prelude::any::<i64>(), 0..200),
        sizes in proptest::collection::vec(0.0f64..1e18, 0..200),
        lo in proptest::prelude::any::<i64>(), hi in proptest::prelude::any::<i64>(),
    ) {
        if let Some(b) = beacon(&times, &sizes, Window { lo, hi }) {
            for score in [b.score, b.timestamps, b.sizes, b.duration, b.histogram] {
                proptest::prop_assert!((0.0..=1.0).contains(&score), "{b:?}");
            }
        }
    }
}

#[test]
fn answers_of_another_type_add() {
    let mut all: Vec<_> =
        beats("203.0.113.9", 144).into_iter().map(|c| named(c, "api.example")).collect();
    all[3].others.insert("api.example".to_owned());
    near(analyse(&all, &Settings::default())[0].final_score, 0.95);
    all[3].others = BTreeSet::from(["".to_owned(), "b.example".to_owned()]);
    near(analyse(&all, &Settings::default())[0].final_score, 0.8);
}

/// A name that lasts is scored, though it does not beat: its address is explained. So is one
/// that the name had explained before the window.
#[test]
fn long_and_earlier_names_explain_addresses() {
    let mut all = vec![named(connection(1_000_000, "192.168.7.2", "203.0.113.9"), "a.example")];
    all.extend(beats("203.0.113.9", 144));
    let dsts = |logs: &Logs| {
        let rows = super::analyse(logs, &Settings::default());
        rows.into_iter().map(|r| r.dst).collect::<Vec<_>>()
    };
    let mut logs = Logs { connections: all, ..Logs::default() };
    assert_eq!(dsts(&logs), ["203.0.113.9"]);
    logs.connections[0].seconds = 3_600.0;
    assert_eq!(dsts(&logs), ["a.example"]);
    for c in &mut logs.connections[1..] {
        c.dst = "203.0.113.77".parse().unwrap();
    }
    assert_eq!(dsts(&logs), ["203.0.113.77", "a.example"]);
    let ip = |ip: &str| ip.parse().unwrap();
    logs.ever.insert((ip("192.168.7.2"), ip("203.0.113.77"), "a.example".to_owned()));
    assert_eq!(dsts(&logs), ["a.example"]);
}

#[test]
fn who_only_asked_counts_for_prevalence() {
    let shipped = Settings { defaults: Defaults::Shipped, ..Settings::default() };
    let connections: Vec<_> =
        beats("203.0.113.9", 144).into_iter().map(|c| named(c, "api.example")).collect();
    // Of the source, the resolver and others that asked for it or for something else.
    let share = |others: &[(&str, &str)]| {
        let asked = others.iter().map(|(src, name)| asked(src, name)).collect();
        let logs = Logs { connections: connections.clone(), asked, ..Logs::default() };
        super::analyse(&logs, &shipped)[0].prevalence
    };
    near(share(&[]), 1.0);
    near(share(&[("192.168.7.3", "b.example")]), 1.0 / 3.0);
    near(share(&[("192.168.7.3", "api.example")]), 1.0);
}

#[test]
fn programs_shown_to_one_destination_are_rare() {
    let shipped = Settings { defaults: Defaults::Shipped, ..Settings::default() };
    let named = |dst: &str, name: &str, sign: u64| -> Vec<Connection> {
        let said =
            |c| Connection { signs: BTreeSet::from([(name.to_owned(), sign)]), ..named(c, name) };
        beats(dst, 144).into_iter().map(said).collect()
    };
    let scores = |signs: [u64; 2]| {
        let mut all = named("203.0.113.9", "a.example", signs[0]);
        all.extend(named("203.0.113.10", "b.example", signs[1]));
        let rows = analyse(&all, &shipped);
        rows.iter().map(|r| (r.final_score * 100.0).round()).collect::<Vec<_>>()
    };
    // Prevalence of one host of one takes 0.15 off each.
    assert_eq!(scores([1, 2]), [80.0, 80.0]);
    assert_eq!(scores([1, 1]), [65.0, 65.0]);
}

#[test]
fn very_many_names_are_a_row_of_their_own() {
    let names = |n: usize| {
        let asked = (0..n).map(|i| asked("192.168.7.2", &format!("x{i}.tunnel.example")));
        Logs { asked: asked.collect(), ..Logs::default() }
    };
    assert_eq!(super::analyse(&names(99), &Settings::default()), []);
    let rows = super::analyse(&names(500), &Settings::default());
    assert_eq!((rows.len(), rows[0].src, rows[0].subdomains), (1, None, 500));
    near(rows[0].final_score, 0.55);
    // Somebody else goes where the names lead.
    let mut logs = names(500);
    let ip = "203.0.113.9".parse().unwrap();
    logs.resolved.insert(("tunnel.example".to_owned(), ip));
    logs.connections.push(connection(1_000_000, "192.168.7.3", "203.0.113.9"));
    near(super::analyse(&logs, &Settings::default())[0].final_score, 0.4);
}

/// Two beacons of a day, one to a place known for so many days.
#[track_caller]
fn check_first_seen(days: i64, expected: f64) {
    let hour = |n: i64| connection(n * 3_600, "10.0.0.9", "203.0.113.7");
    let mut logs = Logs { connections: (0..25).map(hour).collect(), ..Logs::default() };
    let before = analyse(&logs.connections.clone(), &Settings::default());
    logs.first_seen.insert("203.0.113.7".into(), 24 * 3_600 - days * 86_400);
    let after = super::analyse(&logs, &Settings::default());
    near(after[0].final_score - before[0].final_score, expected);
}

#[test]
fn what_is_new_in_a_rolling_set_counts_more_and_what_is_old_less() {
    check_first_seen(0, 0.15);
    check_first_seen(7, 0.15);
    check_first_seen(8, 0.0);
    check_first_seen(29, 0.0);
    check_first_seen(30, -0.15);
    check_first_seen(90, -0.15);
}

#[test]
fn what_a_list_names_is_a_row_of_its_own_and_much_of_it_counts_more() {
    let once = |bytes: u64| Connection {
        bytes_out: bytes,
        bytes_in: 0,
        ..connection(100, "10.0.0.9", "203.0.113.7")
    };
    let scores = |bytes: u64, listed: &str| -> Vec<f64> {
        let connections = vec![once(bytes), once(0)];
        let listed = [listed.to_owned()].into();
        let logs = Logs { connections, listed, ..Logs::default() };
        super::analyse(&logs, &Settings::default()).iter().map(|row| row.final_score).collect()
    };
    assert!(scores(1_000, "198.51.100.1").is_empty());
    near(scores(1_000, "203.0.113.7")[0], 0.8);
    near(scores(24_999_999, "203.0.113.7")[0], 0.8);
    near(scores(25_000_000, "203.0.113.7")[0], 0.95);
}
