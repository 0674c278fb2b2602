//! What the score of generated names is worth: on generators that were not learned from.
//!
//! Two tests. One is of the committed weights, on generators and host names written for
//! this test. The other learns anew, from a part of published families and popular names,
//! leaves out one family after the other, and holds the method to its figures; it needs
//! `AGENTMON_TEST_DATA`, a folder with `dga/train/*.txt.gz` and `benign/train/benign.tsv.gz`
//! (their licences keep the names out of the repository), and says so when that is not set.

#![allow(clippy::print_stderr, reason = "what could not be tested is said aloud")]

#[path = "../examples/train_dga/fit.rs"]
#[allow(dead_code, reason = "the training program also writes the weights")]
mod fit;
#[path = "../examples/train_dga/learn.rs"]
mod learn;
#[path = "../examples/train_dga/made.rs"]
mod made;
#[path = "../examples/train_dga/names.rs"]
mod names;

use agentmon_core::Name;
use agentmon_core::tier0::dga::{Config, score};
use learn::Input;
use names::{Family, Named};

/// Benign names are held out by this part, and only one in so many is learned from.
const FOLDS: usize = 5;
const FAMILY_MAX: usize = 400;

/// MINSTD (Park and Miller 1988): another generator than the one the training uses.
struct Minstd(u64);

impl Minstd {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0 * 48_271 % 2_147_483_647;
        self.0 as usize % n
    }
    fn from(&mut self, letters: &str, count: usize) -> String {
        (0..count).map(|_| char::from(letters.as_bytes()[self.below(letters.len())])).collect()
    }
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// 100 names of each of these shapes, as malware has them.
fn generated() -> Vec<(&'static str, Vec<String>)> {
    let mut random = Minstd(20_261);
    let mut family = |name, suffix: &str, label: &dyn Fn(&mut Minstd) -> String| {
        let names = (0..100).map(|_| label(&mut random) + suffix);
        (name, names.collect::<Vec<_>>())
    };
    vec![
        family("twelve letters", ".com", &|r| r.from(LETTERS, 12)),
        family("up to twenty letters", ".org", &|r| {
            let count = 8 + r.below(13);
            r.from(LETTERS, count)
        }),
        family("letters without vowels", ".net", &|r| r.from("bcdfghjklmnpqrstvwxz", 10)),
        family("letters and digits", ".biz", &|r| {
            r.from("abcdefghijklmnopqrstuvwxyz0123456789", 16)
        }),
        family("hexadecimal", ".info", &|r| r.from("0123456789abcdef", 20)),
        family("dynamic DNS", ".ddns.net", &|r| r.from(LETTERS, 11)),
        family("letters up to p", ".ru", &|r| r.from("abcdefghijklmnop", 16)),
        family("speakable", ".eu", &|r| {
            let syllable = |r: &mut Minstd| r.from("bcdfghjklmnpqrstvwxz", 1) + &r.from("aeiou", 1);
            (0..6).map(|_| syllable(r)).collect()
        }),
        family("below www", ".com", &|r| format!("www.{}", r.from(LETTERS, 14))),
    ]
}

/// Host names as devices ask for them, of the shapes that content networks, clouds, things
/// and offices use.
fn ordinary() -> Vec<String> {
    let mut random = Minstd(777);
    let mut names = Vec::new();
    for i in 0..200 {
        let hash = random.from("0123456789abcdef", 16);
        let code = random.from("abcdefghijklmnopqrstuvwxyz0123456789", 13);
        names.extend([
            format!("d{code}.cloudfront.net"),
            format!("{hash}.cdn.example.com"),
            format!("e{i}.dsca.akamaiedge.net"),
            format!("{code}.s3.eu-west-1.amazonaws.com"),
            format!("ec2-192-0-2-{i}.eu-west-1.compute.amazonaws.com"),
            format!("{code}-ats.iot.us-east-1.amazonaws.com"),
            format!("r{i}---sn-{code}.googlevideo.com"),
            format!("{hash}.safeframe.googlesyndication.com"),
            format!("{hash}.hashes.example.net"),
            format!("{code}.azureedge.net"),
            format!("printer-{hash}.local"),
            format!("_ldap._tcp.site{i}._sites.dc._msdcs.office.example"),
            format!("{i}.2.0.192.in-addr.arpa"),
            code,
        ]);
    }
    let chosen = [
        "www.wikipedia.org",
        "de.wikipedia.org",
        "deb.debian.org",
        "crates.io",
        "docs.rs",
        "time.cloudflare.com",
        "captive.apple.com",
        "connectivitycheck.gstatic.com",
        "www.msftconnecttest.com",
        "detectportal.firefox.com",
        "ntp.ubuntu.com",
        "0.openwrt.pool.ntp.org",
        "api.github.com",
        "www.bundesregierung.de",
        "www.gov.uk",
        "www.nytimes.com",
        "ocsp.digicert.com",
        "r3.o.lencr.org",
        "www.tagesschau.de",
        "fritz.box",
        "mqtt.example-things.com",
        "www.openstreetmap.org",
        "www.xkcd.com",
        "www.ikea.com",
        "www.bbc.co.uk",
        "tile.openstreetmap.org",
        "www.lwn.net",
        "www.postgresql.org",
        "www.kernel.org",
        "xn--bcher-kva.example",
    ];
    names.extend(chosen.map(str::to_owned));
    names
}

fn value(name: &str) -> f64 {
    score(&name.parse::<Name>().expect("a name")).value
}

#[test]
fn the_committed_weights_tell_generated_from_ordinary() {
    let Config { suspicious, strong, .. } = Config::default();
    let ordinary = ordinary();
    let wrong: Vec<_> = ordinary.iter().filter(|name| value(name) >= suspicious).collect();
    assert!(wrong.is_empty(), "ordinary names are suspicious: {wrong:?}");
    for (family, names) in generated() {
        let reach = |line: f64| names.iter().filter(|name| value(name) >= line).count();
        let (suspicious, strong) = (reach(suspicious), reach(strong));
        // What can be spoken is told by its number only.
        let least = if family == "speakable" { (50, 0) } else { (85, 40) };
        assert!(
            (suspicious, strong) >= least,
            "{family}: {suspicious} suspicious, {strong} strong"
        );
        eprintln!("{family}: {suspicious} suspicious, {strong} strong of {}", names.len());
    }
}

fn input(folder: &str) -> Input {
    let mut benign = names::read(&format!("{folder}/benign/train/benign.tsv.gz")).expect("names");
    let mut at = 0..;
    benign.retain(|_| at.next().is_some_and(|i: usize| i.is_multiple_of(6)));
    let mut families = Vec::new();
    for entry in std::fs::read_dir(format!("{folder}/dga/train")).expect("families") {
        let path = entry.expect("a file").path().to_string_lossy().into_owned();
        if path.ends_with(".txt.gz") {
            let mut family = Family::read(&path).expect("names");
            let step = family.names.len().div_ceil(FAMILY_MAX);
            family.names = family.names.into_iter().step_by(step).collect();
            families.push(family);
        }
    }
    families.sort_by(|a, b| a.name.cmp(&b.name));
    let mut made = made::families(&benign);
    let mut at = 0..;
    made.retain(|_| at.next().is_some_and(|i: usize| i.is_multiple_of(4)));
    Input { benign, popular: Vec::new(), families, made }
}

/// The mean over families of the part found where 1 in 100, and 1 in 1,000, benign labels
/// are, neither families nor labels having been learned from. Popularity is not used.
#[test]
fn the_method_holds_for_families_left_out() {
    let Ok(folder) = std::env::var("AGENTMON_TEST_DATA") else {
        eprintln!("NOT TESTED: recall on families left out: AGENTMON_TEST_DATA is not set");
        return;
    };
    let input = input(&folder);
    assert!(input.families.len() >= 20, "{} families", input.families.len());
    let fold = |label: &str| xxhash_rust::xxh3::xxh3_64(label.as_bytes()) as usize % FOLDS;
    let mut sums = [0.0; 2];
    for held in 0..FOLDS {
        let out = |f: &Family| f.number(&input.families) as usize % FOLDS == held;
        let model = learn::learn(&input, |n| fold(&n.label) != held, |f| !out(f)).quantised();
        let odds = |names: &mut dyn Iterator<Item = &Named>| -> Vec<f32> {
            names.map(|name| model.odds_of(name)).collect()
        };
        let mut benign = odds(&mut input.benign.iter().filter(|n| fold(&n.label) == held));
        benign.sort_by(|a, b| b.total_cmp(a));
        let lines = [benign[benign.len() / 100], benign[benign.len() / 1_000]];
        for family in input.families.iter().filter(|f| out(f)) {
            let odds = odds(&mut family.names.iter());
            for (sum, line) in sums.iter_mut().zip(lines) {
                let found = odds.iter().filter(|o| **o > line).count();
                *sum += found as f64 / odds.len() as f64 / input.families.len() as f64;
            }
        }
    }
    eprintln!("families left out: {:.3} at 1 %, {:.3} at 0.1 %", sums[0], sums[1]);
    assert!(sums[0] >= 0.70 && sums[1] >= 0.30, "{sums:?}");
}
