//! Lists from files and from a web server that answers well and badly; what routers get.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::time::{Mono, SystemClock};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::fetch::{self, Answer};
use super::*;
use crate::tls;

/// What the web server answers: head lines after the status, body, bytes left out of it.
#[derive(Clone, Default)]
struct Say {
    status: u16,
    head: String,
    body: Vec<u8>,
    missing: usize,
}

impl Say {
    fn text(text: &str) -> Self {
        Self { status: 200, body: text.into(), ..Self::default() }
    }
    fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }
}

/// Answers every request with what is to be said; remembers their heads.
struct Web {
    address: SocketAddr,
    say: Arc<Mutex<Say>>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start() -> Self {
        Self::start_as(None)
    }

    /// With TLS, for these names: the server, and a file with its CA.
    fn start_tls(names: &[&str], folder: &std::path::Path) -> (Self, PathBuf) {
        let ca = tls::Ca::load_or_make(folder).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let served = tls::Served::new(ca, names, Mono::from_nanos(0)).unwrap();
        let tls = served.server_config().unwrap();
        (Self::start_as(Some(tls)), folder.join(tls::CA_CERT))
    }

    fn start_as(tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (say, heads) = (Arc::new(Mutex::new(Say::status(500))), Arc::default());
        let web = Self { address, say: Arc::clone(&say), heads: Arc::clone(&heads) };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let Some(tls) = &tls else {
                    answer(&mut stream, &say, &heads);
                    continue;
                };
                let Ok(mut talk) = rustls::ServerConnection::new(Arc::clone(tls)) else { break };
                answer(&mut rustls::Stream::new(&mut talk, &mut stream), &say, &heads);
                talk.send_close_notify();
                drop(talk.write_tls(&mut stream));
            }
        });
        web
    }

    fn url(&self) -> String {
        format!("http://{}/list.txt", self.address)
    }

    fn url_tls(&self) -> String {
        format!("https://{}/list.txt", self.address)
    }

    fn fetch(&self, say: Say, etag: &str, bytes_max: u64) -> anyhow::Result<Answer> {
        *self.say.lock().unwrap() = say;
        let agent = fetch::agent("/nonexistent".as_ref(), false)?;
        fetch::fetch(&agent, &self.url(), etag, "", None, bytes_max)
    }
}

/// One request; who breaks it off is answered nothing.
fn answer(
    stream: &mut (impl std::io::Read + std::io::Write),
    say: &Mutex<Say>,
    heads: &Mutex<Vec<String>>,
) {
    let (mut head, mut byte) = (Vec::new(), [0u8]);
    while !head.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read(&mut byte), Ok(1)) {
            return;
        }
        head.extend(byte);
        // What is no HTTP at all is answered all the same, or its sender would wait for long.
        if !head.starts_with(b"GET "[..head.len().min(4)].as_ref()) {
            break;
        }
    }
    heads.lock().unwrap().push(String::from_utf8_lossy(&head).to_ascii_lowercase());
    let Say { status, head, body, missing } = say.lock().unwrap().clone();
    let length = body.len() + missing;
    let top = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{head}\r\n"
    );
    drop(stream.write_all(top.as_bytes()).and_then(|()| stream.write_all(&body)));
    drop(stream.flush());
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn fetches_are_conditional_and_bounded() {
    let web = Web::start();
    let answer = |text: &str, etag: &str| Answer::Text {
        text: text.into(),
        etag: etag.into(),
        last_modified: String::new(),
    };
    let tagged = Say { head: "ETag: \"7\"\r\n".into(), ..Say::text("a.example\n") };
    assert_eq!(web.fetch(tagged, "", 1_000).unwrap(), answer("a.example\n", "\"7\""));
    assert_eq!(web.fetch(Say::status(304), "\"7\"", 1_000).unwrap(), Answer::Unchanged);
    assert!(web.heads.lock().unwrap().last().unwrap().contains("if-none-match: \"7\""));
    let gzip = Say { body: packed(b"a.example\n"), ..Say::text("") };
    assert_eq!(web.fetch(gzip, "", 1_000).unwrap(), answer("a.example\n", ""));
    let later = Say { head: "Retry-After: 70\r\n".into(), ..Say::status(429) };
    let wait = web.fetch(later, "", 1_000).unwrap();
    assert!(matches!(wait, Answer::Later(wait, _) if wait == Duration::from_secs(70)), "{wait:?}");
    let check = |say: Say, says: &str| {
        let error = format!("{:#}", web.fetch(say, "", 1_000).unwrap_err());
        assert!(error.contains(says), "`{says}` is not in: {error}");
    };
    check(Say::status(500), "answers 500");
    check(Say::status(404), "answers 404");
    check(Say::text(&"x".repeat(1_001)), "longer than 1000 bytes");
    check(Say { missing: 10, ..Say::text("a.example\n") }, "ended early");
    // A megabyte of nothing in a kilobyte.
    let bomb = packed(&vec![b'\n'; 1 << 20]);
    assert!(bomb.len() < 1_500);
    let bomb = Say { body: bomb, ..Say::text("") };
    let error = format!("{:#}", web.fetch(bomb, "", 10_000).unwrap_err());
    assert!(error.contains("longer than 10000 bytes"), "{error}");
    let redirect = Say { head: format!("Location: {}\r\n", web.url()), ..Say::status(302) };
    assert!(web.fetch(redirect, "", 1_000).is_err(), "round in circles");
}

struct Bench {
    dir: tempfile::TempDir,
    config: Config,
    service: Service,
}

impl Bench {
    fn start(config: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        config.validate().unwrap();
        let service =
            Service::start(config.clone(), dir.path(), None, Arc::new(SystemClock)).unwrap();
        Self { dir, config, service }
    }

    fn feed(&self) -> Feed {
        all(self.dir.path()).unwrap().first().cloned().unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        let Some(served) = self.service.served() else { return false };
        let lists = Blocklist::open(Arc::new(served.bytes.to_vec())).unwrap();
        lists.lookup(&name.parse().unwrap()).is_some()
    }
}

#[track_caller]
pub(super) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let patience = std::env::var("AGENTMON_PATIENCE").ok().and_then(|p| p.parse::<u32>().ok());
    for _ in 0..600 * patience.unwrap_or(1).max(1) {
        if check() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within patience: {what}");
}

fn names(count: usize) -> String {
    (0..count).map(|i| format!("listed{i}.example\n")).collect()
}

#[test]
fn a_file_is_taken_when_it_changes_and_refused_when_it_is_no_list() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().join("list.txt");
    let write = |text: &str| {
        fs::write(path.with_extension("tmp"), text).unwrap();
        fs::rename(path.with_extension("tmp"), &path).unwrap();
    };
    write(&names(500));
    let source = Source {
        name: "mine".into(),
        path: path.clone(),
        licence: "CC0".into(),
        ..Source::default()
    };
    let config = Config { sources: vec![source], ..Config::default() };
    let bench = Bench::start(config);
    eventually("it is compiled", || bench.has("a.listed7.example"));
    let feed = bench.feed();
    assert_eq!((feed.entries, feed.lines, feed.error.as_str()), (500, 500, ""));
    assert_eq!((feed.licence.as_str(), feed.accepted), ("CC0", 0));
    assert!(feed.changed > 0 && feed.origin.ends_with("list.txt"));
    for (text, says) in [
        ("<!DOCTYPE html><title>404</title>", "web page"),
        ("", "empty"),
        ("\x1f\u{8b}", "nothing in it can be used"),
        ("# only\n# comments\n", "nothing in it can be used"),
        ("{\"error\": 1}", "JSON"),
        (&names(100), "it shrank from 500 to 100 entries; agentmon feeds accept mine"),
    ] {
        write(text);
        eventually(says, || bench.feed().error.contains(says));
        assert!(bench.has("a.listed499.example"), "the old one stays: {says}");
    }
    // A person says that it is meant to be so.
    accept(bench.dir.path(), "mine").unwrap();
    eventually("the small one is taken", || !bench.has("listed499.example"));
    let feed = bench.feed();
    assert_eq!((feed.entries, feed.accepted, feed.error.as_str()), (100, 1, ""));
    assert!(accept(bench.dir.path(), "nobody's").is_err());
    fs::remove_file(&path).unwrap();
    eventually("its loss is told", || bench.feed().error.contains("list.txt"));
    assert!(bench.has("listed7.example"));
    // After a restart it is there at once, before anything is looked at.
    let Bench { dir, config, service } = bench;
    service.stop();
    drop(service);
    let again = Service::start(config, dir.path(), None, Arc::new(SystemClock)).unwrap();
    assert!(again.served().is_some());
}

#[test]
fn a_list_from_the_web_survives_a_bad_server() {
    let web = Web::start();
    *web.say.lock().unwrap() = Say { head: "ETag: \"1\"\r\n".into(), ..Say::text(&names(200)) };
    let source = Source { name: "web".into(), url: web.url(), ..Source::default() };
    let bench = Bench::start(Config {
        sources: vec![source],
        watched: vec!["ai.example".into()],
        ..Config::default()
    });
    eventually("it is compiled", || bench.has("listed7.example"));
    let folder = keep::folder(bench.dir.path());
    // As if its time had come again.
    let due = || {
        let mut feed = keep::read(&folder, "web");
        (feed.checked, feed.failures) = (1, 0);
        keep::write(&folder, &feed).unwrap();
    };
    *web.say.lock().unwrap() = Say::text("<html>busy</html>");
    due();
    eventually("the page is refused", || bench.feed().error.contains("web page"));
    assert!(bench.feed().failures > 0 && bench.has("listed7.example"));
    *web.say.lock().unwrap() = Say::status(503);
    due();
    eventually("the refusal is told", || bench.feed().error.contains("503"));
    *web.say.lock().unwrap() = Say::text(&names(300));
    due();
    eventually("the new one is in force", || bench.has("listed299.example"));
    assert_eq!((bench.feed().error.as_str(), bench.feed().entries), ("", 300));
    // A configuration without it: it is gone, what is watched stays.
    bench.service.reconfigure(&Config { sources: Vec::new(), ..bench.config.clone() });
    eventually("it is gone", || !bench.has("listed7.example") && bench.feed().name.is_empty());
    let served = bench.service.served().unwrap();
    let lists = Blocklist::open(Arc::new(served.bytes.to_vec())).unwrap();
    assert!(lists.judge(&"x.ai.example".parse().unwrap()).watched.is_some());
    bench.service.reconfigure(&Config::default());
    eventually("nothing is served", || bench.service.served().is_none());
}

/// Fetched from `web`, with the CAs of a file.
fn fetched(web: &Web, ca: &std::path::Path, say: Say) -> Result<Answer, String> {
    *web.say.lock().unwrap() = say;
    let agent = fetch::agent(ca, true).map_err(|e| format!("{e:#}"))?;
    let since = "Mon, 23 Nov 2026 10:00:00 GMT";
    fetch::fetch(&agent, &web.url_tls(), "\"7\"", since, None, 10_000).map_err(|e| format!("{e:#}"))
}

#[test]
fn https_is_believed_by_the_cas_that_are_named_and_by_no_others() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (web, ca) = Web::start_tls(&["127.0.0.1"], folder.path());
    let dated = "ETag: \"8\"\r\nLast-Modified: Mon, 23 Nov 2026 12:00:00 GMT\r\n";
    let list = Say { head: dated.into(), ..Say::text("a.example\n") };
    let expected = Answer::Text {
        text: b"a.example\n".to_vec(),
        etag: "\"8\"".into(),
        last_modified: "Mon, 23 Nov 2026 12:00:00 GMT".into(),
    };
    assert_eq!(fetched(&web, &ca, list.clone()), Ok(expected));
    assert_eq!(fetched(&web, &ca, Say::status(304)), Ok(Answer::Unchanged));
    let head = web.heads.lock().unwrap().last().unwrap().clone();
    assert!(head.contains("if-none-match: \"7\"") && head.contains("if-modified-since: mon, 23"));

    // Another's certificate, a name that is not in it, and no TLS at all.
    let heads = || web.heads.lock().unwrap().len();
    let before = heads();
    let (_web, strange) = Web::start_tls(&["127.0.0.1"], other.path());
    let refused = fetched(&web, &strange, list.clone()).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert_eq!(heads(), before, "it was asked all the same");
    let elsewhere = tempfile::tempdir().unwrap();
    let (named, ca_of_named) = Web::start_tls(&["lists.example"], elsewhere.path());
    let refused = fetched(&named, &ca_of_named, list.clone()).unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    assert!(fetched(&Web::start(), &ca, list).is_err(), "plain text for https");
    let missing = fetched(&web, "/nowhere.pem".as_ref(), Say::status(304)).unwrap_err();
    assert!(missing.contains("lists.ca_file"), "{missing}");

    // From https to https, and never to where anybody may read along.
    let plain = Web::start();
    *plain.say.lock().unwrap() = Say::text("b.example\n");
    let to = |url: String| Say { head: format!("Location: {url}\r\n"), ..Say::status(302) };
    assert!(fetched(&web, &ca, to(plain.url())).is_err());
    assert!(plain.heads.lock().unwrap().is_empty(), "it was asked without TLS");
}

/// The whole way, with everything that a server may send in a list's place.
#[test]
fn a_list_by_https_survives_what_is_no_list() {
    let folder = tempfile::tempdir().unwrap();
    let (web, ca_file) = Web::start_tls(&["127.0.0.1"], folder.path());
    *web.say.lock().unwrap() = Say::text(&names(500));
    let source = Source { name: "web".into(), url: web.url_tls(), ..Source::default() };
    let bench = Bench::start(Config {
        sources: vec![source],
        bytes_max: 100_000,
        ca_file,
        ..Config::default()
    });
    eventually("it is compiled", || bench.has("listed499.example"));
    let kept = keep::folder(bench.dir.path());
    let offered = |what: &str, say: Say, says: &str| {
        *web.say.lock().unwrap() = say;
        let mut feed = keep::read(&kept, "web");
        (feed.checked, feed.failures) = (1, 0);
        keep::write(&kept, &feed).unwrap();
        eventually(what, || bench.feed().error.contains(says));
        assert!(bench.has("listed499.example"), "{what}: the good one is gone");
    };
    offered("an error page", Say::text("<!DOCTYPE html><p>busy"), "web page");
    offered("a tenth of it", Say::text(&names(50)), "from 500 to 50");
    offered("a bomb", Say { body: packed(&vec![b'\n'; 1 << 20]), ..Say::text("") }, "longer than");
}

#[test]
fn configurations_are_checked() {
    let check = |source: Source, says: &str| {
        let (key, allowed) =
            Config { sources: vec![source], ..Config::default() }.validate().unwrap_err();
        assert!(format!("{key}: {allowed}").contains(says), "{key}: {allowed}");
    };
    let good = Source { name: "a".into(), path: "/x".into(), ..Source::default() };
    check(Source { name: "a/b".into(), ..good.clone() }, "lists.sources[0].name");
    check(Source { name: String::new(), ..good.clone() }, "lists.sources[0].name");
    check(Source { path: "x".into(), ..good.clone() }, "absolute");
    check(Source { url: "https://a.example/".into(), ..good.clone() }, "either");
    check(Source { path: PathBuf::new(), url: "ftp://a/".into(), ..good.clone() }, "https://");
    check(Source { refresh_seconds: 5, ..good.clone() }, "300 to");
    check(Source { score: 7.0, ..good.clone() }, "lists[0].score");
    let twice = Config { sources: vec![good.clone(), good], ..Config::default() };
    assert!(twice.validate().unwrap_err().1.contains("another list"));
    let pattern = Config { patterns: vec!["*".into()], ..Config::default() };
    assert!(pattern.validate().unwrap_err().0.contains("patterns[0]"));
}

#[test]
fn what_is_read_is_bounded() {
    assert_eq!(fetch::read(&b"abc"[..], 3).unwrap(), b"abc");
    assert!(fetch::read(std::io::repeat(b'x').take(1 << 40), 1_000).is_err());
}
