//! Filter words as SQL: one table's meaning of each word, values always as parameters.
//!
//! In: [`Word`]s and a table's [`Terms`]. Out: a [`Condition`], SQL text made of literals
//! of this file only, and its parameters in order. Pure. A NULL column never matches a
//! word and always matches its negation.

use agentmon_core::Name;
use agentmon_core::event::Mac;
use agentmon_core::finding::Severity;
use ipnet::IpNet;
use serde_json::Value;

use super::filter::{Key, Word};
use super::owners::{self, Known};
use super::units;

/// What a word means for one table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Term {
    /// Address columns: an address, a network, a MAC or a device name matches any of them.
    Address(&'static [&'static str]),
    /// As `Address`; a domain also matches the name column.
    AddressOrName(&'static str, &'static str),
    /// A MAC column; address columns that tell which device it was where that is empty, the
    /// first one the MAC's own; and the time at which it was.
    Device(&'static str, &'static [&'static str], &'static str),
    /// Name columns: the name itself or anything below it.
    Domain(&'static [&'static str]),
    /// A text column, compared without case; `*` stands for any text.
    Text(&'static str),
    /// An address column, and a list column of answers that may hold the address.
    AddressOrAnswer(&'static str, &'static str),
    /// An address column, and a text column that may be a place at the address.
    AddressOrPlace(&'static str, &'static str),
    /// A program's name and its process number.
    Program(&'static str, &'static str),
    /// A connection's five columns, as an agent on its host told them with its program.
    Owner,
    /// A host's name: a device by its own name, MAC or address.
    Host(&'static str),
    /// A column that is a list of texts: any of them.
    AnyText(&'static str),
    /// Port numbers, ranges `1000-2000`, comparisons `>1024`.
    Number(&'static str),
    /// IP protocol names or numbers.
    Protocol(&'static str),
    /// DNS record type names or numbers.
    RecordType(&'static str),
    /// Severity words and comparisons.
    Severity(&'static str),
    /// The sensor's name; the column holds its id.
    Sensor(&'static str),
    /// What kind of network an address is in: [`super::places`] adds it, when the rest is there.
    Class,
    /// Known, but nothing in this store can match it yet.
    Nothing,
}

/// The words a table knows.
pub(crate) type Terms = [(Key, Term)];

/// SQL and its parameters.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Condition {
    pub(crate) sql: String,
    pub(crate) params: Vec<Value>,
    /// Conditions of which no two hold for one row, and one of which holds for every row that
    /// this one holds for: see [`Condition::from`].
    parts: Vec<Part>,
}

/// One way in which a row may be a device's.
#[derive(Clone, Debug, Default, PartialEq)]
struct Part {
    sql: String,
    params: Vec<Value>,
}

impl Condition {
    /// A condition that always holds, to add to.
    pub(crate) fn new() -> Self {
        Self { sql: "true".to_owned(), ..Self::default() }
    }

    /// A condition that never holds.
    pub(crate) fn never() -> Self {
        Self { sql: "false".to_owned(), ..Self::default() }
    }

    /// What stands behind FROM, to be followed by WHERE and this condition: the table, or those
    /// of its rows that come into question. A column is skipped by or looked up in where it alone
    /// is compared; `mac = ? OR src = ?` reads all there is, two tables one after the other
    /// do not. Takes the table's parameters in front of its own.
    pub(crate) fn from(&mut self, table: &str) -> String {
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return table.to_owned();
        }
        let (sql, params): (Vec<String>, Vec<Vec<Value>>) =
            parts.into_iter().map(|p| (format!("FROM {table} WHERE {}", p.sql), p.params)).unzip();
        self.params.splice(0..0, params.into_iter().flatten());
        format!("({}) {table}", sql.join(" UNION ALL "))
    }

    /// A statement that ends with `FROM` and the table, over [`Self::from`] it.
    pub(crate) fn over(&mut self, select: &str, table: &str) -> String {
        match select.strip_suffix(&format!(" FROM {table}")) {
            Some(head) => format!("{head} FROM {}", self.from(table)),
            None => select.to_owned(),
        }
    }

    /// Also this must hold.
    pub(crate) fn and(&mut self, sql: &str, params: impl IntoIterator<Item = Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.params.extend(params);
    }

    fn add(&mut self, sql: &str, param: impl Into<Value>) {
        self.sql.push_str(sql);
        self.params.push(param.into());
    }
}

/// Does the table know every word? The first it does not know is returned.
pub(crate) fn unknown(words: &[Word], terms: &Terms) -> Option<Key> {
    words.iter().map(|w| w.key).find(|key| !terms.iter().any(|(k, _)| k == key))
}

/// Turns words into a condition for one table.
///
/// # Errors
/// A sentence naming a word this table does not know, or a value that makes no sense.
pub(crate) fn build(words: &[Word], terms: &Terms) -> Result<Condition, String> {
    let mut all = Condition::new();
    if let Some(key) = unknown(words, terms) {
        let known: Vec<String> = terms.iter().map(|(k, _)| format!("{}:", k.as_str())).collect();
        return Err(format!(
            "`{}:` means nothing here; this command knows {}",
            key.as_str(),
            known.join(" ")
        ));
    }
    for (key, term) in terms {
        let mut wanted = Vec::new();
        let mut unwanted = Vec::new();
        for word in words.iter().filter(|w| w.key == *key) {
            if word.negated { &mut unwanted } else { &mut wanted }.push(word);
        }
        if matches!(term, Term::Class) {
            continue;
        }
        if !wanted.is_empty() {
            let any = alternatives(*term, &wanted).map_err(|e| format!("{}: {e}", key.as_str()))?;
            // WHERE takes NULL for false.
            all.and(&any.sql, any.params);
            all.parts = any.parts;
        }
        if !unwanted.is_empty() {
            let any =
                alternatives(*term, &unwanted).map_err(|e| format!("{}: {e}", key.as_str()))?;
            all.and(&format!("NOT coalesce({}, false)", any.sql), any.params);
        }
    }
    Ok(all)
}

fn alternatives(term: Term, words: &[&Word]) -> Result<Condition, String> {
    let mut any = Condition { sql: "(".to_owned(), ..Condition::default() };
    if let (Term::Device(mac, addresses, time), Some(known)) = (term, known(words)) {
        known_device(mac, addresses, time, &known, &mut any);
        any.sql.push(')');
        return Ok(any);
    }
    for (i, value) in words.iter().flat_map(|word| &word.values).enumerate() {
        if i > 0 {
            any.sql.push_str(" OR ");
        }
        one(term, value, &mut any)?;
    }
    any.sql.push(')');
    Ok(any)
}

fn one(term: Term, value: &str, out: &mut Condition) -> Result<(), String> {
    match term {
        Term::Address(columns) => each(columns, out, |c, out| address(c, value, out)),
        Term::AddressOrName(column, name) => {
            address(column, value, out);
            if value.parse::<IpNet>().is_err() {
                out.sql.push_str(" OR ");
                domain(name, value, out);
            }
        }
        Term::Device(mac, addresses, time) => device(mac, addresses, time, value, out),
        Term::Domain(columns) => each(columns, out, |c, out| domain(c, value, out)),
        Term::Text(column) => text(column, value, out),
        Term::AddressOrAnswer(column, answers) => {
            address(column, value, out);
            if let Ok(ip) = value.parse::<std::net::IpAddr>() {
                let sql = format!(" OR list_contains({answers}, ?)");
                out.add(&sql, ip.to_canonical().to_string());
            }
        }
        Term::AddressOrPlace(column, place) => address_or_place(column, place, value, out),
        Term::Program(name, pid) => program(name, pid, value, out),
        Term::Owner => {
            out.sql.push_str(
                "(proto, src, sport, dst, dport) IN (SELECT (c.proto, c.src, c.sport, c.dst, \
                 c.dport) FROM process_conns c WHERE ",
            );
            program("c.name", "c.pid", value, out);
            out.sql.push(')');
        }
        Term::Host(column) => host(column, value, out),
        Term::AnyText(column) => out.add(
            &format!("len(list_filter({column}, lambda item: lower(item) GLOB ?)) > 0"),
            glob(value),
        ),
        Term::Number(column) => number(column, value, out)?,
        Term::Protocol(column) => {
            let n = units::protocol_number(value)
                .ok_or_else(|| format!("`{value}` is no protocol (tcp, udp, icmp, 47)"))?;
            out.add(&format!("{column} = CAST(? AS INTEGER)"), n);
        }
        Term::RecordType(column) => {
            let n = units::record_type_number(value)
                .ok_or_else(|| format!("`{value}` is no record type (A, AAAA, TXT, TYPE65400)"))?;
            out.add(&format!("{column} = CAST(? AS INTEGER)"), n);
        }
        Term::Severity(column) => severity(column, value, out)?,
        Term::Sensor(column) => {
            out.add(
                &format!("{column} IN (SELECT id FROM sensors WHERE lower(name) GLOB ?)"),
                glob(value),
            );
        }
        Term::Class | Term::Nothing => out.sql.push_str("false"),
    }
    Ok(())
}

fn each(columns: &[&str], out: &mut Condition, mut f: impl FnMut(&str, &mut Condition)) {
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.sql.push_str(" OR ");
        }
        f(column, out);
    }
}

/// An address, a network, a MAC address, or a device's name with `*`.
fn address(column: &str, value: &str, out: &mut Condition) {
    if let Ok(ip) = value.parse::<std::net::IpAddr>() {
        return out.add(&format!("{column} = ?"), ip.to_canonical().to_string());
    }
    if let Ok(net) = value.parse::<IpNet>() {
        return network(column, net, out);
    }
    if let Ok(mac) = value.parse::<Mac>() {
        let sql = format!("{column} IN (SELECT ip FROM device_addresses WHERE mac = ?)");
        return out.add(&sql, mac.to_string());
    }
    let sql = format!("{column} IN (SELECT ip FROM address_names WHERE lower(hostname) GLOB ?)");
    out.add(&sql, glob(value));
    if value.contains('*') {
        out.add(&format!(" OR {column} GLOB ?"), glob(value));
    }
}

/// Addresses are text and DuckDB's INET is no part of the library: IPv4 is compared as a
/// number, IPv6 as 32 hexadecimal digits.
fn network(column: &str, net: IpNet, out: &mut Condition) {
    match net {
        IpNet::V4(net) => {
            let octet = |i: u8, shift: u32| {
                let part = format!("split_part({column}, '.', {i})");
                format!("TRY_CAST({part} AS BIGINT) * {}", 1u64 << shift)
            };
            let number = [octet(1, 24), octet(2, 16), octet(3, 8), octet(4, 0)].join(" + ");
            out.add(
                &format!("(NOT contains({column}, ':') AND {number} BETWEEN CAST(? AS BIGINT)"),
                u32::from(net.network()),
            );
            out.add(" AND CAST(? AS BIGINT))", u32::from(net.broadcast()));
        }
        IpNet::V6(net) => {
            // Groups left and right of `::`, empty ones dropped, zeros between.
            let groups = |side: u8| {
                format!(
                    "list_filter(string_split(split_part({column}, '::', {side}), ':'), \
                     lambda g: g <> '')"
                )
            };
            let (left, right) = (groups(1), groups(2));
            let zeros = format!("list_resize([]::VARCHAR[], 8 - len({left}) - len({right}), '0')");
            let digits = format!(
                "array_to_string(list_transform(list_concat(list_concat({left}, {zeros}), {right}), \
                 lambda g: lpad(g, 4, '0')), '')"
            );
            out.add(
                &format!("(contains({column}, ':') AND {digits} BETWEEN ?"),
                format!("{:032x}", u128::from(net.network())),
            );
            out.add(" AND ?)", format!("{:032x}", u128::from(net.broadcast())));
        }
    }
}

/// A device by MAC, by name, or by an address: then the device seen there last. A record is
/// the device's by its MAC; where it has none, by whose its address was at that time: two
/// devices that have an address one after the other are two.
fn device(mac_column: &str, addresses: &[&str], time: &str, value: &str, out: &mut Condition) {
    let (address, (macs, key)) = (owners::address(value), owners::macs(value));
    out.add(&format!("coalesce({mac_column} IN ({macs}), false)"), key.clone());
    for (nth, column) in addresses.iter().enumerate() {
        // Of a connection's other end no MAC is known.
        let unknown = if nth == 0 { format!("{mac_column} IS NULL AND ") } else { String::new() };
        let sql = format!(
            " OR ({unknown}EXISTS (FROM address_owners o WHERE o.address = {column} \
             AND o.device IN ({macs}) AND {time} >= o.owned_since AND {time} < o.owned_until))"
        );
        out.add(&sql, key.clone());
        // An address nobody is known at.
        if let Some(address) = &address {
            let sql = format!(
                " OR ({unknown}{column} = ? AND NOT EXISTS (FROM address_owners o \
                 WHERE o.address = {column}))"
            );
            out.add(&sql, address.clone());
        }
    }
}

/// All that is known of the devices these words mean, where they have been looked up.
fn known(words: &[&Word]) -> Option<Known> {
    let mut all = Known::default();
    for word in words {
        all.join(word.known.as_ref()?);
    }
    Some(all)
}

/// As [`device`], of what has been looked up.
fn known_device(mac: &str, addresses: &[&str], time: &str, known: &Known, out: &mut Condition) {
    let mut parts: Vec<Part> = Vec::new();
    let among = |column: &str, values: Vec<Value>| {
        let marks = vec!["?"; values.len()].join(", ");
        (format!("{column} IN ({marks})"), values)
    };
    let texts = |texts: &mut dyn Iterator<Item = &str>| texts.map(Value::from).collect::<Vec<_>>();
    out.sql.push_str("false");
    if !known.macs.is_empty() {
        let (sql, params) = among(mac, texts(&mut known.macs.iter().map(String::as_str)));
        out.sql.push_str(&format!(" OR {sql}"));
        out.params.extend(params.iter().cloned());
        add_part(&mut parts, sql, params);
    }
    let own = known.addresses();
    for (nth, column) in addresses.iter().enumerate().filter(|_| !own.is_empty()) {
        let (sql, params) = among(column, texts(&mut own.iter().copied()));
        // Of a connection's other end no MAC is known.
        let sql = if nth == 0 { format!("{mac} IS NULL AND {sql}") } else { sql };
        out.sql.push_str(&format!(" OR ({sql}"));
        out.params.extend(params.iter().cloned());
        at_times(column, time, known, out);
        out.sql.push(')');
        add_part(&mut parts, sql, params);
    }
    if parts.is_empty() {
        add_part(&mut parts, "false".to_owned(), Vec::new());
    }
    out.parts = parts;
}

/// One more way, of rows that no way before has.
fn add_part(parts: &mut Vec<Part>, mut sql: String, mut params: Vec<Value>) {
    if !parts.is_empty() {
        let before: Vec<String> = parts.iter().map(|p| format!("({})", p.sql)).collect();
        sql.push_str(&format!(" AND NOT coalesce({}, false)", before.join(" OR ")));
        params.extend(parts.iter().flat_map(|p| p.params.iter().cloned()));
    }
    parts.push(Part { sql, params });
}

/// The address was the device's at the time.
fn at_times(column: &str, time: &str, known: &Known, out: &mut Condition) {
    let stays = known.lasting();
    if stays.iter().all(|stay| (stay.since, stay.until) == (None, None)) {
        return;
    }
    out.sql.push_str(" AND (false");
    for address in &known.nobodys {
        out.add(&format!(" OR {column} = ?"), address.clone());
    }
    for stay in stays {
        out.add(&format!(" OR ({column} = ?"), stay.address);
        for (op, at) in [(">=", stay.since), ("<", stay.until)] {
            if let Some(at) = at {
                out.add(&format!(" AND {time} {op} make_timestamp(CAST(? AS BIGINT))"), at);
            }
        }
        out.sql.push(')');
    }
    out.sql.push(')');
}

/// The name or anything below it; with `*` a pattern over the whole name.
fn domain(column: &str, value: &str, out: &mut Condition) {
    if value.contains('*') {
        return out.add(&format!("{column} GLOB ?"), glob(value));
    }
    let name = Name::parse(value.as_bytes());
    let name = name.map_or_else(|_| value.to_ascii_lowercase(), |n| n.as_str().to_owned());
    out.add(&format!("{column} = ?"), name.clone());
    out.add(&format!(" OR ends_with({column}, ?)"), format!(".{name}"));
}

/// An address, or a place at it: `192.0.2.1:443/tcp`.
fn address_or_place(column: &str, place: &str, value: &str, out: &mut Condition) {
    address(column, value, out);
    if let Ok(ip) = value.parse::<std::net::IpAddr>() {
        let ip = ip.to_canonical();
        let bare = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
        out.add(&format!(" OR {place} = ?"), ip.to_string());
        out.add(&format!(" OR starts_with({place}, ?)"), format!("{bare}:"));
    }
}

/// By its name, or its process number.
fn program(name: &str, pid: &str, value: &str, out: &mut Condition) {
    match value.parse::<u32>() {
        Ok(number) => out.add(&format!("{pid} = CAST(? AS BIGINT)"), number),
        Err(_) => text(name, value, out),
    }
}

/// By its name, or as the device that has it.
fn host(column: &str, value: &str, out: &mut Condition) {
    text(column, value, out);
    let of = |which: &str| {
        format!(" OR lower({column}) IN (SELECT lower(hostname) FROM devices d WHERE {which})")
    };
    out.add(&of("d.mac = ?"), value.to_lowercase());
    out.add(&of("d.mac IN (SELECT n.mac FROM address_names n WHERE n.ip = ?)"), value.to_owned());
}

fn text(column: &str, value: &str, out: &mut Condition) {
    out.add(&format!("lower({column}) GLOB ?"), glob(value));
}

/// A GLOB pattern in lower case in which only `*` is special.
pub(super) fn glob(value: &str) -> String {
    let mut pattern = String::with_capacity(value.len());
    for c in value.to_lowercase().chars() {
        match c {
            '?' | '[' => pattern.extend(['[', c, ']']),
            '\\' => pattern.push_str("\\\\"),
            _ => pattern.push(c),
        }
    }
    pattern
}

fn number(column: &str, value: &str, out: &mut Condition) -> Result<(), String> {
    let bad = || format!("`{value}` is no port (443, 1000-2000, >1024, <=1023)");
    let port = |text: &str| text.trim().parse::<u16>().map_err(|_| bad());
    for (prefix, op) in [(">=", ">="), ("<=", "<="), (">", ">"), ("<", "<")] {
        if let Some(rest) = value.strip_prefix(prefix) {
            out.add(&format!("{column} {op} CAST(? AS INTEGER)"), port(rest)?);
            return Ok(());
        }
    }
    if let Some((from, to)) = value.split_once('-') {
        out.add(&format!("({column} BETWEEN CAST(? AS INTEGER)"), port(from)?);
        out.add(" AND CAST(? AS INTEGER))", port(to)?);
    } else {
        out.add(&format!("{column} = CAST(? AS INTEGER)"), port(value)?);
    }
    Ok(())
}

fn severity(column: &str, value: &str, out: &mut Condition) -> Result<(), String> {
    let (op, word) = [">=", "<=", ">", "<", "="]
        .iter()
        .find_map(|op| value.strip_prefix(op).map(|word| (*op, word)))
        .unwrap_or(("=", value));
    let word = word.trim().to_ascii_lowercase();
    let known = Severity::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| {
        let all = Severity::ALL.map(Severity::as_str).join(", ");
        format!("`{value}` is no severity ({all}; >=high)")
    })?;
    let matching = Severity::ALL.into_iter().filter(|s| match op {
        ">=" => *s >= known,
        "<=" => *s <= known,
        ">" => *s > known,
        "<" => *s < known,
        _ => *s == known,
    });
    let words: Vec<Value> = matching.map(|s| s.as_str().into()).collect();
    let marks =
        if words.is_empty() { "NULL".to_owned() } else { vec!["?"; words.len()].join(", ") };
    out.sql.push_str(&format!("{column} IN ({marks})"));
    out.params.extend(words);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::filter;

    const TERMS: &Terms = &[
        (Key::Src, Term::Address(&["src"])),
        (Key::Dst, Term::AddressOrName("dst", "name")),
        (Key::Device, Term::Device("mac", &["src"], "time")),
        (Key::Domain, Term::Domain(&["name"])),
        (Key::Port, Term::Number("dport")),
        (Key::Proto, Term::Protocol("proto")),
        (Key::Severity, Term::Severity("severity")),
        (Key::Status, Term::Text("status")),
        (Key::Proc, Term::Nothing),
    ];

    fn of(words: &[&str]) -> Result<Condition, String> {
        let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
        build(&filter::parse(&words).unwrap(), TERMS)
    }

    #[track_caller]
    fn check(words: &[&str], sql: &str, params: &[Value]) {
        let got = of(words).unwrap();
        assert_eq!(got.sql, sql);
        assert_eq!(got.params, params);
    }

    #[test]
    fn words_become_parameterised_sql() {
        check(&[], "true", &[]);
        check(&["src:192.0.2.7"], "true AND (src = ?)", &["192.0.2.7".into()]);
        check(
            &["port:80,443", "port:1000-2000", "-port:>60000"],
            "true AND (dport = CAST(? AS INTEGER) OR dport = CAST(? AS INTEGER) OR \
             (dport BETWEEN CAST(? AS INTEGER) AND CAST(? AS INTEGER))) \
             AND NOT coalesce((dport > CAST(? AS INTEGER)), false)",
            &[80.into(), 443.into(), 1000.into(), 2000.into(), 60_000.into()],
        );
        check(
            &["domain:Example.COM."],
            "true AND (name = ? OR ends_with(name, ?))",
            &["example.com".into(), ".example.com".into()],
        );
        check(&["proto:TCP"], "true AND (proto = CAST(? AS INTEGER))", &[6.into()]);
        check(
            &["severity:>=high"],
            "true AND (severity IN (?, ?))",
            &["high".into(), "critical".into()],
        );
        check(&["severity:>critical"], "true AND (severity IN (NULL))", &[]);
        check(&["-proc:curl"], "true AND NOT coalesce((false), false)", &[]);
    }

    #[test]
    fn a_value_never_becomes_sql() {
        let evil = "x'; DROP TABLE dns; --";
        for word in ["src", "dst", "device", "domain", "status"] {
            let got = of(&[&format!("{word}:{evil}")]).unwrap();
            assert!(!got.sql.contains("DROP"), "{}", got.sql);
            assert!(got.params.iter().any(|p| p.as_str().is_some_and(|p| p.contains("drop"))));
            assert_eq!(got.sql.matches('?').count(), got.params.len(), "{word}");
        }
    }

    #[test]
    fn only_the_star_is_special_in_a_pattern() {
        assert_eq!(glob("TV-*"), "tv-*");
        assert_eq!(glob("a?[b]\\"), "a[?][[]b]\\\\");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        #[track_caller]
        fn check(word: &str, expected: &str) {
            let error = of(&[word]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        check("port:https", "port: `https` is no port");
        check("port:70000", "is no port");
        check("proto:quic", "is no protocol");
        check("severity:bad", "info, low, medium, high, critical");
        check("rule:dga", "`rule:` means nothing here; this command knows src: dst:");
    }
}
