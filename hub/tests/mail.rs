//! Alerts by mail to a real SMTP server (aiosmtpd): STARTTLS with a CA of our own, a log-in,
//! and what happens when either is wrong.
//!
//! Needs Debian's python3-aiosmtpd; without it the test says so loudly and is left out, and
//! with `AGENTMON_REQUIRE_LAB=1` fails.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_hub::config::{Config, Place};
use agentmon_hub::control::Request;
use agentmon_hub::deliver::config::{Kind, MailTls, Target};
use agentmon_hub::serve::Hub;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// Debian's own, for its packages.
const PYTHON: &str = "/usr/bin/python3";

/// Takes mail for anybody who logs in as `me`, and writes each to a file.
const SERVER: &str = r#"
import ssl, sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult
folder = sys.argv[1]
class Keep:
    async def handle_DATA(self, server, session, envelope):
        with open(folder + "/mail", "ab") as out:
            out.write(envelope.content)
        return "250 OK"
def login(server, session, envelope, mechanism, data):
    known = (data.login, data.password) == (b"me", b"s3cret")
    return AuthResult(success=known, handled=known)  # not handled: the server answers 535
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/cert.pem", folder + "/key.pem")
class Server(Controller):
    def factory(self):
        return SMTP(self.handler, hostname="localhost", tls_context=context,
            require_starttls=True, auth_required=True, authenticator=login)
server = Server(Keep(), hostname="127.0.0.1", port=int(sys.argv[2]))
server.start()
print("ready", flush=True)
time.sleep(600)
"#;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn has_server() -> bool {
    let import =
        Command::new(PYTHON).args(["-c", "import aiosmtpd"]).stderr(Stdio::null()).status();
    if import.is_ok_and(|status| status.success()) {
        return true;
    }
    let line = "LEFT OUT: mail to a real SMTP server: python3-aiosmtpd is missing";
    assert!(std::env::var("AGENTMON_REQUIRE_LAB").as_deref() != Ok("1"), "{line}");
    eprintln!("{line}");
    false
}

fn certificates(folder: &Path) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    for (name, text) in
        [("ca.pem", ca_cert.pem()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

fn server(folder: &Path, port: u16) -> Running {
    let mut command = Command::new(PYTHON);
    command.args(["-c", SERVER]).arg(folder).arg(port.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    Running(child)
}

/// What a test alert by these settings comes to.
fn try_it(folder: &Path, target: Target) -> Result<(), String> {
    let data = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.deliver.ca_file = folder.join("ca.pem");
    config.deliver.targets = vec![target];
    let place = Place { data_dir: data.path().to_owned(), config_file: None };
    let hub = Hub::start(config, place, Arc::new(SystemClock), None).unwrap();
    let request = Request::TestTarget { name: "mail".into() };
    let told = hub.ask(&request, &mut |_| Ok(())).map_err(|e| format!("{e:#}"));
    hub.stop().unwrap();
    told
}

#[test]
fn mail_by_starttls_and_log_in() {
    if !has_server() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    certificates(folder);
    // Free a moment ago; the server says when it has it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let _server = server(folder, port);
    std::fs::write(folder.join("password"), "s3cret\n").unwrap();
    std::fs::write(folder.join("wrong"), "guess\n").unwrap();
    let good = Target {
        name: "mail".into(),
        kind: Kind::Email,
        server: format!("localhost:{port}"),
        tls: MailTls::Starttls,
        user: "me".into(),
        secret_file: folder.join("password"),
        from: "agentmon <agentmon@example.net>".into(),
        to: vec!["owner@example.net".into()],
        timeout_seconds: 60,
        ..Target::default()
    };
    try_it(folder, good.clone()).unwrap();
    let mail = std::fs::read_to_string(folder.join("mail")).unwrap();
    assert!(
        mail.contains("Subject: [agentmon] TEST MEDIUM test on agentmon: test[.]example"),
        "{mail}"
    );
    assert!(mail.contains("Content-Type: text/html"), "{mail}");

    let error = try_it(folder, Target { secret_file: folder.join("wrong"), ..good.clone() });
    let error = error.unwrap_err();
    assert!(error.contains("535") && !error.contains("guess"), "{error}");

    // A server that another CA vouches for.
    certificates(folder);
    let error = try_it(folder, good).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    assert_eq!(std::fs::read_to_string(folder.join("mail")).unwrap(), mail, "no other mail came");
}
