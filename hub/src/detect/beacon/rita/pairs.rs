//! Connections become rows: one for each source and name, and for each source and address
//! that no name explains.
//!
//! In: [`Logs`]: connections, one per uid, in any order, and what was asked of DNS. Out:
//! scored [`Row`]s, highest first, those that a list names included; domains below which very many names were asked for are rows
//! without a source. Memory: the connections, and their times and sizes once more.
//!
//! Invariants: a connection counts once in each row; an open one gives bytes and duration,
//! but no time: its beat is not known yet. Times are whole seconds. The window is the last
//! day before the newest connection that counts, read in whole hours.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use super::score::{self, Beacon, Window};
use super::spread::{Shares, Signs};
use super::{Settings, TIMES_MAX, TIMES_MIN, WINDOW_SECONDS, fuse, subdomains};

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
    /// Names under which something of another type was answered than was asked for; empty
    /// where none was named.
    pub others: BTreeSet<String>,
    /// Names, and the program that said them, as a number of its own.
    pub signs: BTreeSet<(String, u64)>,
}

/// Somebody asked DNS for a name, in an hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Begin of the hour.
    pub hour: i64,
    /// Who asked.
    pub src: IpAddr,
    /// Whom.
    pub dst: Option<IpAddr>,
    /// For what.
    pub name: String,
    /// The domain somebody registered above it, where there is one.
    pub domain: Option<String>,
}

/// What is scored together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logs {
    /// Connections of the window, those that stay open included.
    pub connections: Vec<Connection>,
    /// Who has gone where under which name, ever: a pair of addresses that a name explains is
    /// explained before the window, too.
    pub ever: BTreeSet<(IpAddr, IpAddr, String)>,
    /// Questions.
    pub asked: Vec<Asked>,
    /// Addresses that were answered for names below a domain.
    pub resolved: BTreeSet<(String, IpAddr)>,
    /// When anybody first went to a name or address, in seconds; empty where logs are no
    /// rolling set, to which days are added.
    pub first_seen: BTreeMap<String, i64>,
    /// Names and addresses that lists of bad things have.
    pub listed: BTreeSet<String>,
}

/// One source and one destination.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Source; none of a domain below which very many names were asked for.
    pub src: Option<IpAddr>,
    /// Name, address or domain.
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
    /// Names asked for below a domain.
    pub subdomains: u64,
    /// Where there was enough to score.
    pub beacon: Option<Beacon>,
    /// Highest of all base scores, and modifiers.
    pub final_score: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    /// By the name that was said.
    Name(String),
    /// By address: no name explains it.
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
    /// Those of connections that are over.
    finished_seconds: f64,
    hostless: bool,
    other: bool,
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
        self.finished_seconds += connection.seconds.max(0.0);
        if self.times.len() < TIMES_MAX {
            self.times.push(connection.time);
            self.sizes.push(connection.bytes_out as f64);
        }
    }

    /// Scored in a row of its own.
    fn stands(&self) -> bool {
        self.is_candidate() || self.finished_seconds >= fuse::LONG.0[0]
    }

    fn is_candidate(&self) -> bool {
        let distinct: HashSet<i64> = self.times.iter().copied().collect();
        distinct.len() >= TIMES_MIN && self.connections < TIMES_MAX as u64
    }
}

/// What one scoring has in common.
struct Round<'a> {
    logs: &'a Logs,
    settings: &'a Settings,
    window: Option<Window>,
    shares: Shares,
    signs: Signs,
}

/// Scores all that counts. Rows: what may beat, what lasts, what never stops.
#[must_use]
pub fn analyse(logs: &Logs, settings: &Settings) -> Vec<Row> {
    let kept = |c: &&Connection| settings.keeps(c.src, c.dst, !c.proxied.is_empty());
    let kept: Vec<&Connection> = logs.connections.iter().filter(kept).collect();
    let window = window(&kept);
    let from = window.map_or(i64::MIN, |w| w.lo.saturating_sub(w.lo.rem_euclid(3_600)));
    let kept: Vec<&Connection> = kept.into_iter().filter(|c| c.open || c.time >= from).collect();
    let asked = |a: &&Asked| a.hour >= from && settings.keeps_question(a.src, a.dst);
    let asked: Vec<&Asked> = logs.asked.iter().filter(asked).collect();
    let shares = Shares::of(&kept, &asked, settings);
    let round = Round { logs, settings, window, shares, signs: Signs::of(&kept, settings) };
    let names = by_name(&kept, settings);
    let addresses = by_address(&kept, &names, &logs.ever, settings);
    let pairs: Pairs = names.into_iter().chain(addresses).collect();
    let mut rows: Vec<Row> = pairs
        .into_iter()
        .filter_map(|((src, target), pair)| row(src, &target, &pair, &round))
        .collect();
    rows.extend(subdomains::rows(&asked, &kept, &logs.resolved, &round.shares, settings));
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

/// The names of a connection that count.
pub(super) fn names_of<'a>(c: &'a Connection, settings: &Settings) -> BTreeSet<&'a String> {
    // What was said inside a tunnel to one's own proxy is the tunnel's target again.
    let direct = settings.is_internal(c.src) && settings.keeps(c.src, c.dst, false);
    let direct = c.names.iter().filter(|_| direct);
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
            let pair = pairs.entry(key).or_default();
            pair.add(connection);
            pair.other |= connection.others.contains(name);
        }
    }
    pairs
}

/// Without pairs of addresses of which a connection went into a row by name that is scored,
/// or is open and has said anything at all.
fn by_address(
    kept: &[&Connection],
    names: &Pairs,
    ever: &BTreeSet<(IpAddr, IpAddr, String)>,
    settings: &Settings,
) -> Pairs {
    let stands = |src: IpAddr, name: &String| {
        names.get(&(src, Target::Name(name.clone()))).is_some_and(Pair::stands)
    };
    let now = kept.iter().filter(|c| {
        let names = names_of(c, settings);
        c.open && (c.hostless || !names.is_empty()) || names.iter().any(|n| stands(c.src, n))
    });
    let before = ever.iter().filter(|(src, _, name)| stands(*src, name));
    let explained: HashSet<(IpAddr, IpAddr)> =
        now.map(|c| (c.src, c.dst)).chain(before.map(|(src, dst, _)| (*src, *dst))).collect();
    let mut pairs = Pairs::new();
    for connection in kept {
        let (src, dst) = (connection.src, connection.dst);
        let counts = settings.keeps(src, dst, false) && !explained.contains(&(src, dst));
        if counts {
            let pair = pairs.entry((src, Target::Address(dst))).or_default();
            pair.add(connection);
            pair.other |= connection.others.contains("");
        }
    }
    pairs
}

fn row(src: IpAddr, target: &Target, pair: &Pair, round: &Round<'_>) -> Option<Row> {
    let defaults = round.settings.defaults;
    let beacon = round
        .window
        .filter(|_| pair.is_candidate())
        .and_then(|window| score::beacon(&pair.times, &pair.sizes, window));
    let beats = beacon.map_or(0.0, |b| fuse::bucket(b.score * 100.0, defaults.beacon()));
    let lasts = fuse::bucket(pair.seconds, fuse::LONG);
    let strobe = pair.connections >= TIMES_MAX as u64;
    let strobes = if strobe { fuse::STROBE } else { 0.0 };
    let dst = match target {
        Target::Name(name) => name.clone(),
        Target::Address(ip) => ip.to_string(),
    };
    let listed = round.logs.listed.contains(&dst);
    if beacon.is_none() && lasts == 0.0 && !strobe && !listed {
        return None;
    }
    let first = round.window.zip(round.logs.first_seen.get(&dst));
    let known = first.map_or(0.0, |(window, first)| fuse::first_seen(window.hi - first));
    let prevalence = match target {
        Target::Address(dst) if round.settings.is_internal(*dst) => {
            round.shares.of_target(&Target::Address(src))
        }
        target => round.shares.of_target(target),
    };
    let when = |condition: bool, modifier: f64| if condition { modifier } else { 0.0 };
    let hostless = pair.hostless && matches!(target, Target::Address(_));
    let modifiers = [
        known,
        when(listed && pair.bytes >= fuse::LISTED_BYTES, fuse::LISTED_MUCH),
        fuse::prevalence(prevalence, defaults),
        when(hostless, fuse::HOSTLESS),
        when(pair.other, fuse::OTHER_TYPE),
        when(round.signs.is_rare(src, target), defaults.rare_signature()),
    ];
    Some(Row {
        src: Some(src),
        dst,
        connections: pair.connections,
        open: pair.open,
        bytes: pair.bytes,
        seconds: pair.seconds,
        prevalence,
        subdomains: 0,
        beacon,
        final_score: fuse::fuse(&[beats, lasts, strobes, when(listed, fuse::LISTED)], &modifiers),
    })
}
