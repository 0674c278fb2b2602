//! Packs `src/suffix/list.txt`, the public suffixes, into the table that `src/suffix/mod.rs`
//! searches: a tree of labels, read from the right.
//!
//! In: lines `=icann` or `=private`, then rules (`com`, `*.ck`, `!www.ck`). Out:
//! `suffixes.bin`, little-endian: the number of nodes (u32), the nodes (u32 each, see
//! `node`), the index of each node's first child (u16 each, one more than nodes), and the
//! labels' text. Nodes are ordered level by level, siblings sorted by their bytes, so the
//! children of a node end where those of the next begin.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

const LIST: &str = "src/suffix/list.txt";

#[derive(Default)]
struct Node {
    children: BTreeMap<String, Node>,
    /// 1: a suffix of a registry, 2: of somebody else.
    kind: u32,
    /// The same for any label below.
    below: u32,
    exception: bool,
}

fn main() {
    println!("cargo::rerun-if-changed={LIST}");
    let text = std::fs::read_to_string(LIST).expect("the list of suffixes lies beside the code");
    let out = std::env::var_os("OUT_DIR").expect("cargo says where output goes");
    let table = table(&tree(&text));
    std::fs::write(Path::new(&out).join("suffixes.bin"), table).expect("output can be written");
}

fn tree(text: &str) -> Node {
    let mut root = Node::default();
    let mut kind = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line {
            "=icann" => kind = 1,
            "=private" => kind = 2,
            rule => {
                assert!(kind > 0, "{LIST}: `{rule}` stands before `=icann`");
                add(&mut root, rule, kind);
            }
        }
    }
    root
}

fn add(root: &mut Node, rule: &str, kind: u32) {
    let (exception, rule) = rule.strip_prefix('!').map_or((false, rule), |rule| (true, rule));
    let (any, rule) = rule.strip_prefix("*.").map_or((false, rule), |rule| (true, rule));
    let mut node = root;
    for label in rule.rsplit('.') {
        assert!((1..=63).contains(&label.len()) && label != "*", "{LIST}: `{rule}`");
        node = node.children.entry(label.to_owned()).or_default();
    }
    if any {
        node.below = kind;
    } else {
        (node.kind, node.exception) = (kind, exception);
    }
}

fn table(root: &Node) -> Vec<u8> {
    let (mut nodes, mut firsts, mut text) = (vec![0], Vec::new(), String::new());
    let mut places: HashMap<&str, u32> = HashMap::new();
    let mut level = vec![root];
    while !level.is_empty() {
        let mut next = Vec::new();
        for parent in level {
            firsts.push(u16::try_from(nodes.len()).expect("fewer than 65,536 nodes"));
            for (label, child) in &parent.children {
                let place = *places.entry(label).or_insert_with(|| {
                    text.push_str(label);
                    u32::try_from(text.len() - label.len()).expect("a small list")
                });
                nodes.push(node(place, label, child));
                next.push(child);
            }
        }
        level = next;
    }
    firsts.push(u16::try_from(nodes.len()).expect("fewer than 65,536 nodes"));
    assert_eq!(firsts.len(), nodes.len() + 1);
    let count = u32::try_from(nodes.len()).expect("fewer than 65,536 nodes");
    let mut out = count.to_le_bytes().to_vec();
    out.extend(nodes.iter().flat_map(|node| node.to_le_bytes()));
    out.extend(firsts.iter().flat_map(|first| first.to_le_bytes()));
    out.extend(text.bytes());
    out
}

/// Where the label's text begins (17 bits), its length (6), its kind (2), the kind of any
/// label below (2), whether it is an exception (1).
fn node(place: u32, label: &str, node: &Node) -> u32 {
    assert!(place < 1 << 17, "more text than fits");
    let length = u32::try_from(label.len()).expect("at most 63");
    place | length << 17 | node.kind << 23 | node.below << 25 | u32::from(node.exception) << 27
}
