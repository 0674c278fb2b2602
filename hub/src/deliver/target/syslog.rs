//! A syslog receiver: one message (RFC 5424) for each alert, its text in CEF (Common Event
//! Format, version 0), by UDP (RFC 5426) or TCP with octet counting (RFC 6587).
//!
//! Neither acknowledges: taken is what the system's socket took.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{TcpStream, ToSocketAddrs as _, UdpSocket};

use agentmon_core::finding::Severity;
use anyhow::Context as _;

use super::super::Outcome;
use super::super::config::Transport;
use super::super::notice::{Notice, cut};
use super::To;

/// Longest message in bytes: what every receiver of UDP should take (RFC 5426, 3.2).
const BYTES_MAX: usize = 2_048;
/// Facility "security/authorization messages" (10).
const FACILITY: u8 = 10;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let (host, port) = super::server(to.target)?;
    let address = (host, port).to_socket_addrs().context("server")?.next();
    let address = address.with_context(|| format!("server: `{host}` has no address"))?;
    let messages = notices.iter().map(message);
    match to.target.transport {
        Transport::Udp => {
            let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).context("a socket")?;
            socket.connect(address).context("server")?;
            for message in messages {
                socket.send(message.as_bytes()).context("sending")?;
            }
        }
        Transport::Tcp => {
            let timeout = to.target.timeout();
            let mut stream = TcpStream::connect_timeout(&address, timeout).context("connecting")?;
            stream.set_write_timeout(Some(timeout)).context("a socket")?;
            let framed: String = messages.map(|m| format!("{} {m}", m.len())).collect();
            stream.write_all(framed.as_bytes()).context("sending")?;
            stream.shutdown(std::net::Shutdown::Write).context("sending")?;
        }
    }
    Ok(Outcome::Sent)
}

fn message(notice: &Notice) -> String {
    let (level, cef) = match notice.severity {
        Severity::Critical => (2, 10),
        Severity::High => (3, 8),
        Severity::Medium => (4, 6),
        Severity::Low => (5, 3),
        Severity::Info => (6, 1),
    };
    let mut text = format!(
        "<{}>1 {} - agentmon - {} - CEF:0|agentmon|agentmon|{}|{}|{}|{cef}|",
        FACILITY * 8 + level,
        notice.last_seen,
        notice.reason.as_str(),
        env!("CARGO_PKG_VERSION"),
        header(&notice.rule),
        header(&notice.title()),
    );
    let mut field = |key: &str, value: &str| {
        let _infallible = write!(text, "{key}={} ", extension(value));
    };
    field("externalId", &notice.id.to_string());
    if let Some(client) = &notice.client {
        field(if client.contains(':') { "c6a2" } else { "src" }, client);
    }
    if let Some(mac) = &notice.mac {
        field("smac", mac);
    }
    field("shost", &notice.device);
    field("cs1Label", "subject");
    field("cs1", &notice.subject);
    field("cnt", &notice.findings.to_string());
    field("msg", &notice.why);
    cut(text.trim_end().to_owned(), BYTES_MAX)
}

/// In CEF's header a pipe and a backslash are escaped.
fn header(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|")
}

/// In its extension an equals sign and a backslash are.
fn extension(text: &str) -> String {
    text.replace('\\', "\\\\").replace('=', "\\=").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::super::notice::tests::sample;
    use super::*;

    #[test]
    fn one_line_in_cef() {
        let mut notice = sample(7);
        notice.subject = "a|b=c\\d".into();
        notice.why = "line\nbreak".into();
        let text = message(&notice);
        assert!(text.starts_with("<83>1 2026-11-"), "{text}");
        assert!(text.contains("|dga|HIGH dga on laptop: a\\|b=c\\\\d|8|externalId=7 "), "{text}");
        assert!(text.contains("cs1=a|b\\=c\\\\d "), "{text}");
        assert!(text.ends_with("msg=line break"), "{text}");
        assert!(!text.contains('\n'));
    }
}
