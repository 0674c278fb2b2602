//! OpenWrt's message bus for tests, and a client for it (or for a real one).
//!
//! ```text
//! test-ubusd serve SOCKET [--acl FILE --user NAME]   until killed; SIGTERM is enough
//! test-ubusd list SOCKET [PATTERN]                   {"path":..,"id":..,"methods":{..}} a line
//! test-ubusd call SOCKET OBJECT METHOD [JSON]        the answer as JSON; exit code 1 + status
//! test-ubusd listen SOCKET PATTERN                   {"name":{..}} a line, until killed
//! test-ubusd send SOCKET NAME [JSON]                 sends an event
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use agentmon_router::ubus::message::Status;
use agentmon_tests::ubusd::{Acl, Client, Ubusd};
use anyhow::{Context as _, bail};
use serde_json::{Value, json};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(Status::Ok) => ExitCode::SUCCESS,
        Ok(status) => {
            say(&mut std::io::stderr(), status.as_str());
            ExitCode::from(1)
        }
        Err(error) => {
            say(&mut std::io::stderr(), &format!("test-ubusd: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<Status> {
    match arguments {
        ["serve", socket, rest @ ..] => serve(Path::new(socket), rest),
        ["list", socket, pattern @ ..] => {
            let mut client = Client::connect(Path::new(socket))?;
            for object in client.list(pattern.first().copied())? {
                let (path, id, methods) = (object.path, object.id, object.methods);
                print(&json!({ "path": path, "id": id, "methods": methods }));
            }
            Ok(Status::Ok)
        }
        ["call", socket, object, method, arguments @ ..] => {
            let mut client = Client::connect(Path::new(socket))?;
            match client.call(object, method, &parsed(arguments)?)? {
                Ok(answer) => print(&Value::Object(answer)),
                Err(status) => return Ok(status),
            }
            Ok(Status::Ok)
        }
        ["listen", socket, pattern] => listen(Path::new(socket), pattern),
        ["send", socket, name, data @ ..] => {
            Client::connect(Path::new(socket))?.send_event(name, &parsed(data)?)
        }
        _ => bail!("usage: test-ubusd serve|list|call|listen|send SOCKET ...; see its source"),
    }
}

fn serve(socket: &Path, options: &[&str]) -> anyhow::Result<Status> {
    let (mut acl, mut user) = (Acl::default(), "root");
    for option in options.chunks(2) {
        match option {
            ["--acl", file] => acl = acl.with_file(Path::new(file))?,
            ["--user", name] => user = name,
            other => bail!("unknown option {other:?}"),
        }
    }
    let ubusd = Ubusd::start(socket, acl)?;
    ubusd.connect_as(user);
    print(&json!({ "listening": ubusd.socket() }));
    loop {
        std::thread::park();
    }
}

fn listen(socket: &Path, pattern: &str) -> anyhow::Result<Status> {
    let mut client = Client::connect(socket)?;
    let status = client.listen(pattern)?;
    if status != Status::Ok {
        return Ok(status);
    }
    loop {
        if let Some(heard) = client.hear(Duration::from_secs(3600))? {
            let mut line = serde_json::Map::new();
            line.insert(heard.name, heard.data);
            print(&Value::Object(line));
        }
    }
}

fn parsed(arguments: &[&str]) -> anyhow::Result<Value> {
    match arguments {
        [] => Ok(json!({})),
        [text] => serde_json::from_str(text).context("the last argument is no JSON"),
        _ => bail!("too many arguments"),
    }
}

fn print(value: &Value) {
    say(&mut std::io::stdout(), &value.to_string());
}

/// A reader that went away is no news.
fn say(to: &mut impl std::io::Write, line: &str) {
    drop(writeln!(to, "{line}").and_then(|()| to.flush()));
}
