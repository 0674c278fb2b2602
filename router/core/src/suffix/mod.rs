//! Public suffixes: which part of a name is run by a registry or a hoster, so that the label
//! before it is what somebody registered.
//!
//! In: a name in lower case. Out: its suffix and whose it is. The rules are those of the
//! Public Suffix List (publicsuffix.org, Mozilla Public License 2.0), kept in `list.txt` and
//! packed at build time into a table of 116 KB: as generated code the same list took
//! 0.8 MB of the router's 4. Budget: one binary search per label, no allocation; about 150 ns.
//!
//! Invariants: the longest matching rule wins, an exception before all; a name without a rule
//! has its last label as suffix; the table says what the crate `psl` says (`tests/suffix.rs`,
//! which also brings `list.txt` up to date).

/// Made by `build.rs`; the layout is described there.
static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/suffixes.bin"));

/// Whose suffix it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A registry's: `com`, `co.uk`.
    Registry,
    /// Somebody else's, below a registry's: `github.io`.
    Private,
}

/// The end of a name that is nobody's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suffix<'a> {
    /// `co.uk` of `www.example.co.uk`.
    pub text: &'a str,
    /// Whose it is; `None` where no rule knows it.
    pub kind: Option<Kind>,
}

/// The public suffix of a name; `None` for the empty name.
#[must_use]
pub fn suffix(name: &str) -> Option<Suffix<'_>> {
    let labels = Labels { name, end: Some(name.len()) };
    let (mut node, mut end, mut found) = (0, 0, None);
    for (depth, (start, label)) in labels.enumerate() {
        if depth == 0 {
            (end, found) = (start, None);
        }
        if let Some(kind) = kind(field(node, 25, 2)) {
            (end, found) = (start, Some(kind));
        }
        let Some(child) = child(node, label.as_bytes()) else { break };
        if let Some(kind) = kind(field(child, 23, 2)) {
            let exception = field(child, 27, 1) == 1;
            (end, found) = (if exception { start + label.len() + 1 } else { start }, Some(kind));
        }
        node = child;
    }
    let text = name.get(end..).filter(|text| !text.is_empty())?;
    Some(Suffix { text, kind: found })
}

/// The suffix with the label before it; `None` where there is none.
#[must_use]
pub fn domain(name: &str) -> Option<&str> {
    let front = name.strip_suffix(suffix(name)?.text)?.strip_suffix('.')?;
    name.get(front.rfind('.').map_or(0, |dot| dot + 1)..)
}

/// The labels of a name from the right, each with where it begins.
struct Labels<'a> {
    name: &'a str,
    end: Option<usize>,
}

impl<'a> Iterator for Labels<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let front = self.name.get(..self.end?)?;
        let start = front.rfind('.').map_or(0, |dot| dot + 1);
        self.end = start.checked_sub(1);
        Some((start, front.get(start..)?))
    }
}

fn kind(number: u32) -> Option<Kind> {
    match number {
        1 => Some(Kind::Registry),
        2 => Some(Kind::Private),
        _ => None,
    }
}

// Node 0 is the root, without a label; a place that is not in the table reads as nothing.

fn word(at: usize) -> Option<u32> {
    let bytes = TABLE.get(at..at + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn nodes() -> usize {
    word(0).unwrap_or(0) as usize
}

fn field(node: usize, shift: u32, bits: u32) -> u32 {
    (word(4 + node * 4).unwrap_or(0) >> shift) & ((1 << bits) - 1)
}

/// The index of a node's first child; that of the next node is behind its last.
fn first(node: usize) -> usize {
    let at = 4 + nodes() * 4 + node * 2;
    let bytes = TABLE.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, |bytes| usize::from(u16::from_le_bytes(bytes)))
}

fn label(node: usize) -> &'static [u8] {
    let texts = 4 + nodes() * 4 + (nodes() + 1) * 2;
    let start = texts + field(node, 0, 17) as usize;
    TABLE.get(start..start + field(node, 17, 6) as usize).unwrap_or_default()
}

fn child(node: usize, wanted: &[u8]) -> Option<usize> {
    let (mut low, mut high) = (first(node), first(node + 1));
    while low < high {
        let middle = usize::midpoint(low, high);
        match label(middle).cmp(wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, expected: Option<&str>, domain_expected: Option<&str>) {
        assert_eq!(suffix(name).map(|s| s.text), expected, "{name}");
        assert_eq!(domain(name), domain_expected, "{name}");
    }

    #[test]
    fn names_are_divided_where_registries_end() {
        check("www.example.com", Some("com"), Some("example.com"));
        check("example.co.uk", Some("co.uk"), Some("example.co.uk"));
        check("co.uk", Some("co.uk"), None);
        check("a.b.github.io", Some("github.io"), Some("b.github.io"));
        check("printer", Some("printer"), None);
        check("nas.home.arpa", Some("home.arpa"), Some("nas.home.arpa"));
        check("a.b.no-such-registry", Some("no-such-registry"), Some("b.no-such-registry"));
        check("", None, None);
    }

    #[test]
    fn wildcards_and_exceptions_hold() {
        check("a.b.ck", Some("b.ck"), Some("a.b.ck"));
        check("b.ck", Some("b.ck"), None);
        check("www.ck", Some("ck"), Some("www.ck"));
        check("x.www.ck", Some("ck"), Some("www.ck"));
    }

    #[test]
    fn it_is_told_whose_a_suffix_is() {
        let kind = |name| suffix(name).unwrap().kind;
        assert_eq!(kind("a.com"), Some(Kind::Registry));
        assert_eq!(kind("a.github.io"), Some(Kind::Private));
        assert_eq!(kind("a.no-such-registry"), None);
    }

    #[test]
    fn the_table_is_small() {
        assert!((50_000..160_000).contains(&TABLE.len()), "{} bytes", TABLE.len());
    }
}
