//! Connections become rows: one for each source and name, and for each source and address
//! that no name explains.
//!
//! In: [`Connection`]s, one per uid, in any order. Out: scored [`Row`]s, highest first.
//! Memory: the connections, and their times and sizes once more.
//!
//! Invariants: a connection counts once in each row; an open one gives bytes and duration,
//! but no time: its beat is not known yet. Times are whole seconds. The window is the last
//! day before the newest connection that counts, read in whole hours.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::score::{self, Beacon, Window};
use super::{Settings, TIMES_MAX, TIMES_MIN, WINDOW_SECONDS, fuse};

/// One connection, as its last record tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Begin, in whole seconds.
    pub time: i64,
    /// Who began it.
    pub src: IpAddr,
    /// With whom; the proxy where there is one.
    pub dst: IpAddr,
    /// IP bytes of the source.
    pub bytes_out: u64,
    /// IP bytes of the destination.
    pub bytes_in: u64,
    /// How long, in seconds.
    pub seconds: f64,
    /// Not over yet.
    pub open: bool,
    /// Names that TLS or HTTP said, a port included where HTTP's `Host` has one.
    pub names: BTreeSet<String>,
    /// Names that a proxy was asked to go on to.
    pub proxied: BTreeSet<String>,
    /// An HTTP request in it named no host.
    pub hostless: bool,
}

/// One source and one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Source.
    pub src: IpAddr,
    /// Name or address.
    pub dst: String,
    /// Connections that are over.
    pub connections: u64,
    /// Connections that are not.
    pub open: u64,
    /// IP bytes of both.
    pub bytes: u64,
    /// Seconds of all connections.
    pub seconds: f64,
    /// Part of one's own hosts that went there.
    pub prevalence: f64,
    /// Where there was enough to score.
    pub beacon: Option<Beacon>,
    /// Highest of all base scores, and modifiers.
    pub final_score: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Name(String),
    Address(IpAddr),
}

#[derive(Default)]
struct Pair {
    times: Vec<i64>,
    sizes: Vec<f64>,
    connections: u64,
    open: u64,
    bytes: u64,
    seconds: f64,
    hostless: bool,
}

impl Pair {
    fn add(&mut self, connection: &Connection) {
        let bytes = connection.bytes_out.saturating_add(connection.bytes_in);
        self.bytes = self.bytes.saturating_add(bytes);
        self.seconds += connection.seconds.max(0.0);
        self.hostless |= connection.hostless;
        if connection.open {
            self.open += 1;
            return;
        }
        self.connections += 1;
        if self.times.len() < TIMES_MAX {
            self.times.push(connection.time);
            self.sizes.push(connection.bytes_out as f64);
        }
    }

    fn is_candidate(&self) -> bool {
        let distinct: HashSet<i64> = self.times.iter().copied().collect();
        distinct.len() >= TIMES_MIN && self.connections < TIMES_MAX as u64
    }
}

/// Scores all that counts. Rows: what may beat, what lasts, what never stops.
#[must_use]
pub fn analyse(connections: &[Connection], settings: &Settings) -> Vec<Row> {
    let kept = |c: &&Connection| settings.keeps(c.src, c.dst, !c.proxied.is_empty());
    let kept: Vec<&Connection> = connections.iter().filter(kept).collect();
    let window = window(&kept);
    let from = window.map_or(i64::MIN, |w| w.lo.saturating_sub(w.lo.rem_euclid(3_600)));
    let kept: Vec<&Connection> = kept.into_iter().filter(|c| c.open || c.time >= from).collect();
    let names = by_name(&kept, settings);
    let pairs = names.into_iter().chain(by_address(&kept, settings));
    let pairs: BTreeMap<(IpAddr, Target), Pair> = pairs.collect();
    let shares = Shares::of(&kept, settings);
    let mut rows: Vec<Row> = pairs
        .into_iter()
        .filter_map(|((src, target), pair)| row(src, &target, &pair, window, &shares, settings))
        .collect();
    let beats = |row: &Row| row.beacon.map_or(0.0, |b| b.score);
    rows.sort_by(|a, b| {
        let by_score = b.final_score.total_cmp(&a.final_score);
        by_score.then(beats(b).total_cmp(&beats(a)))
    });
    rows
}

/// From the newest finished connection a day back; `None`: none is finished.
fn window(kept: &[&Connection]) -> Option<Window> {
    let times = || kept.iter().filter(|c| !c.open).map(|c| c.time);
    let (hi, oldest) = (times().max()?, times().min()?);
    Some(Window { lo: oldest.max(hi.saturating_sub(WINDOW_SECONDS)), hi })
}

type Pairs = BTreeMap<(IpAddr, Target), Pair>;

fn names_of<'a>(c: &'a Connection, settings: &Settings) -> BTreeSet<&'a String> {
    if !settings.is_internal(c.src) {
        return BTreeSet::new();
    }
    // What was said inside a tunnel to one's own proxy is the tunnel's target again.
    let direct = c.names.iter().filter(|_| settings.keeps(c.src, c.dst, false));
    // A proxy asked for an address of one's own has not been asked to leave.
    let leaves = |name: &&String| match name.parse() {
        Ok(ip) => !settings.is_internal(c.dst) || settings.keeps(c.src, ip, false),
        Err(_) => true,
    };
    c.proxied.iter().filter(leaves).chain(direct).collect()
}

fn by_name(kept: &[&Connection], settings: &Settings) -> Pairs {
    let mut pairs = Pairs::new();
    for connection in kept {
        for name in names_of(connection, settings) {
            let key = (connection.src, Target::Name(name.clone()));
            pairs.entry(key).or_default().add(connection);
        }
    }
    pairs
}

/// Without pairs of addresses of which a connection went into a row by name that is scored,
/// or is open and has a name.
fn by_address(kept: &[&Connection], settings: &Settings) -> Pairs {
    let names = by_name(kept, settings);
    let explained = |c: &Connection| {
        names_of(c, settings).into_iter().any(|name| {
            let pair = names.get(&(c.src, Target::Name(name.clone())));
            c.open || pair.is_some_and(Pair::is_candidate)
        })
    };
    let explained: HashSet<(IpAddr, IpAddr)> =
        kept.iter().filter(|c| explained(c)).map(|c| (c.src, c.dst)).collect();
    let mut pairs = Pairs::new();
    for connection in kept {
        let (src, dst) = (connection.src, connection.dst);
        let counts = settings.keeps(src, dst, false) && !explained.contains(&(src, dst));
        if counts {
            pairs.entry((src, Target::Address(dst))).or_default().add(connection);
        }
    }
    pairs
}

/// How many of one's own hosts went where.
struct Shares {
    hosts: usize,
    to: BTreeMap<Target, HashSet<IpAddr>>,
}

impl Shares {
    fn of(kept: &[&Connection], settings: &Settings) -> Self {
        let (mut all, mut to) = (HashSet::new(), BTreeMap::<Target, HashSet<IpAddr>>::new());
        for c in kept {
            let (own, other) =
                if settings.is_internal(c.src) { (c.src, c.dst) } else { (c.dst, c.src) };
            all.insert(own);
            to.entry(Target::Address(other)).or_default().insert(own);
            for name in names_of(c, settings) {
                to.entry(Target::Name(name.clone())).or_default().insert(own);
            }
        }
        Self { hosts: all.len(), to }
    }

    fn share(&self, target: &Target) -> f64 {
        let hosts = self.to.get(target).map_or(0, HashSet::len);
        if self.hosts == 0 { 0.0 } else { hosts as f64 / self.hosts as f64 }
    }
}

fn row(
    src: IpAddr,
    target: &Target,
    pair: &Pair,
    window: Option<Window>,
    shares: &Shares,
    settings: &Settings,
) -> Option<Row> {
    let beacon = window
        .filter(|_| pair.is_candidate())
        .and_then(|window| score::beacon(&pair.times, &pair.sizes, window));
    let beats = beacon.map_or(0.0, |b| fuse::bucket(b.score * 100.0, settings.defaults.beacon()));
    let lasts = fuse::bucket(pair.seconds, fuse::LONG);
    let strobe = pair.connections >= TIMES_MAX as u64;
    let strobes = if strobe { fuse::STROBE } else { 0.0 };
    if beacon.is_none() && lasts == 0.0 && !strobe {
        return None;
    }
    let inner = match target {
        Target::Address(dst) if settings.is_internal(*dst) => Target::Address(src),
        other => other.clone(),
    };
    let prevalence = shares.share(&inner);
    let hostless = pair.hostless && matches!(target, Target::Address(_));
    let hostless = if hostless { fuse::HOSTLESS } else { 0.0 };
    let modifiers = [fuse::prevalence(prevalence, settings.defaults), hostless];
    Some(Row {
        src,
        dst: match target {
            Target::Name(name) => name.clone(),
            Target::Address(ip) => ip.to_string(),
        },
        connections: pair.connections,
        open: pair.open,
        bytes: pair.bytes,
        seconds: pair.seconds,
        prevalence,
        beacon,
        final_score: fuse::fuse(&[beats, lasts, strobes], &modifiers),
    })
}
