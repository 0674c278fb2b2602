//! E-mail: plain text, and the same as a table in HTML.
//!
//! SMTP (RFC 5321) with STARTTLS (RFC 3207) or TLS from the start (RFC 8314); one connection
//! for each message. The `Message-ID` is made of the delivery's key, so that mail programs
//! know a repetition.

use std::fmt::Write as _;

use anyhow::Context as _;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{Message, SmtpTransport, Transport as _};

use super::super::Outcome;
use super::super::config::MailTls;
use super::super::notice::{Notice, cut, defang, text_of, title_of};
use super::To;
use agentmon_core::name::printable;

/// Longest text in bytes: some hundred alerts.
const TEXT: usize = 256 * 1_024;
/// Longest subject in bytes.
const SUBJECT: usize = 200;

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let message = message(to, notices)?;
    let transport = transport(to)?;
    Ok(match transport.send(&message) {
        Ok(_) => Outcome::Sent,
        Err(error) => {
            let said = printable(chain(&error).as_bytes(), 300);
            // 552 to 554: this message is too large or not wanted; other permanent answers
            // (a wrong password, an unknown receiver) are of the target, not of the message.
            let code = error.status().map(u16::from);
            if matches!(code, Some(552 | 554)) {
                Outcome::Refused(said)
            } else {
                Outcome::later(said)
            }
        }
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let _infallible = write!(text, ": {error}");
        source = error.source();
    }
    text
}

fn message(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Message> {
    let target = to.target;
    let from: Mailbox = target.from.parse().context("from")?;
    let domain = from.email.domain().to_owned();
    let subject = format!("[agentmon] {}", cut(defang(&title_of(notices)), SUBJECT));
    let mut builder = Message::builder()
        .message_id(Some(format!("<{}@{domain}>", super::key(notices))))
        .from(from)
        .subject(subject);
    for receiver in &target.to {
        builder = builder.to(receiver.parse().context("to")?);
    }
    let text = defang(&text_of(notices, TEXT));
    let parts = MultiPart::alternative_plain_html(text, html(notices));
    builder.multipart(parts).context("the message")
}

fn transport(to: &To<'_>) -> anyhow::Result<SmtpTransport> {
    let target = to.target;
    let (host, port) = super::server(target)?;
    let tls = match target.tls {
        MailTls::None => Tls::None,
        MailTls::Starttls => Tls::Required(trust(to, host)?),
        MailTls::Tls => Tls::Wrapper(trust(to, host)?),
    };
    let mut builder =
        SmtpTransport::builder_dangerous(host).port(port).tls(tls).timeout(Some(target.timeout()));
    if let Some(secret) = to.secret()? {
        let credentials = Credentials::new(target.user.clone(), secret.expose().to_owned());
        builder = builder.credentials(credentials);
    }
    Ok(builder.build())
}

fn trust(to: &To<'_>, host: &str) -> anyhow::Result<TlsParameters> {
    let file = to.ca_file();
    let pem = std::fs::read(file).with_context(|| format!("ca_file: {}", file.display()))?;
    let certificate =
        Certificate::from_pem(&pem).with_context(|| format!("ca_file: {}", file.display()))?;
    TlsParameters::builder(host.to_owned())
        .certificate_store(CertificateStore::None)
        .add_root_certificate(certificate)
        .build()
        .context("TLS")
}

fn html(notices: &[Notice]) -> String {
    let mut rows = String::new();
    for (told, notice) in notices.iter().enumerate() {
        if rows.len() > TEXT {
            let _infallible = write!(rows, "<tr><td>and {} more</td></tr>", notices.len() - told);
            break;
        }
        let details = escape(&notice.details()).replace('\n', "<br>");
        let _infallible = write!(
            rows,
            "<tr><td style=\"border-left:4px solid {};padding:4px 8px\"><b>{}</b><br>{details}</td></tr>",
            colour(notice.severity),
            escape(&notice.title()),
        );
    }
    format!(
        "<!doctype html><html><body><table style=\"font-family:sans-serif\">{rows}</table></body></html>"
    )
}

const fn colour(severity: agentmon_core::finding::Severity) -> &'static str {
    use agentmon_core::finding::Severity;
    match severity {
        Severity::Critical => "#b00020",
        Severity::High => "#d9480f",
        Severity::Medium => "#e0a800",
        Severity::Low | Severity::Info => "#868e96",
    }
}

/// As text in HTML; names written so that no program makes a link of them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in defang(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::super::config::{Kind, Target};
    use super::super::super::notice::tests::sample;
    use super::*;

    fn target() -> Target {
        Target {
            name: "mail".into(),
            kind: Kind::Email,
            server: "127.0.0.1:25".into(),
            from: "agentmon <agentmon@example.net>".into(),
            to: vec!["owner@example.net".into()],
            ..Target::default()
        }
    }

    #[test]
    fn a_subject_stays_one_line() {
        let target = target();
        let to = To { target: &target, ca_file: PathBuf::new() };
        let mut notice = sample(1);
        notice.subject = "a\r\nBcc: thief@example.org\r\n\r\nbody".into();
        let mail = message(&to, &[notice]).unwrap();
        let text = String::from_utf8(mail.formatted()).unwrap();
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        assert!(!head.lines().any(|line| line.starts_with("Bcc:")), "{head}");
        assert!(head.contains("Message-ID: <agentmon-101@example.net>"), "{head}");
    }

    #[test]
    fn html_is_text() {
        let mut notice = sample(1);
        notice.why = "<img src=x onerror=alert(1)> \"&'".into();
        let html = html(&[notice]);
        assert!(!html.contains("<img"), "{html}");
        assert!(html.contains("&lt;img src=x"), "{html}");
        assert!(html.contains("qx7kz[.]example"), "{html}");
    }
}
