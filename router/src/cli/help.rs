//! Help texts: every command with an example.

use super::{Io, Outcome, Result, shown};

const OVERVIEW: &str = "\
agentmon-router watches a router's connections, DNS and firewall, checks them on the
spot, and sends them to an agentmon hub.

Usage: agentmon-router COMMAND [OPTION]...

Commands:
  run          watch and forward until stopped (what the service runs)
  join         learn which hub to send to, from the line `agentmon enroll` printed
  status       what runs, what waits, what was lost and why
  tail         the last events, and those to come
  alerts       what should worry you, and why
  ack          acknowledge an alert
  flows        the newest connections
  devices      the devices, and what each did
  score        what lists and the DGA check say about names and addresses
  allow        let something listed through, for a while
  check        is the configuration right, and the kernel ready?
  setup        turn on what the kernel needs; add or remove agentmon's firewall table
  uci          for OpenWrt's init script: make the configuration of /etc/config/agentmon
  completions  completions for bash, zsh or fish
  help         this, or more about one command

Options of all commands:
  --config FILE  another configuration than /etc/agentmon/router.toml
  --help         help about a command
  --version      the version

Exit codes: 0 fine, 1 a problem was found (check, score), 2 it failed.
Environment: AGENTMON_LOG=info,forward=debug overrides the levels of the log.
";

const COMMANDS: [(&str, &str); 15] = [
    (
        "run",
        "\
Usage: agentmon-router run [--config FILE]

Watches and forwards until SIGTERM or SIGINT. SIGHUP reads the configuration again, as
one step: a bad one is refused with a log line, and the old one stays in force.

Example:
  agentmon-router run --config ./router.toml
",
    ),
    (
        "join",
        "\
Usage: agentmon-router join [--file PATH] [--config FILE] [--offline]

Reads a join line from standard input or a file (never from the command line, where
other users could see it), asks the hub whether it is good, and keeps it. A router that
runs takes it over within seconds.

  --file PATH  where the line is
  --offline    keep it without asking the hub

Examples:
  agentmon-router join < join.txt
  ssh hub agentmon enroll attic-router | ssh router agentmon-router join
",
    ),
    (
        "status",
        "\
Usage: agentmon-router status [--json] [--config FILE]

What a running router does: collectors, ring, hub, losses. Exit code 2 when none runs.

Examples:
  agentmon-router status
  agentmon-router status --json | jq .ring.pending
",
    ),
    (
        "tail",
        "\
Usage: agentmon-router tail [--last N] [--follow] [--json] [--config FILE]

The last events of a running router, at most 512.

  --last N   how many of the past (20)
  --follow   go on with those to come
  --json     one JSON object per line, as the replay collector reads

Examples:
  agentmon-router tail --last 100
  agentmon-router tail --follow --json >> events.ndjson
",
    ),
    (
        "alerts",
        "\
Usage: agentmon-router alerts [--open] [--severity WORD] [--rule RULE] [--device DEVICE]
                              [--limit N] [--json] [--config FILE]

What the running router found since it started, newest first: an alert folds all findings
of one rule, subject and device. The hub keeps the lasting record.

  --open           only those nobody acknowledged
  --severity WORD  at least info, low, medium, high or critical
  --device DEVICE  of this device, by name, MAC or address
  --limit N        at most so many (50; at most 200)
  --json           one JSON object per line

Examples:
  agentmon-router alerts --open --severity medium
  agentmon-router alerts --device 192.168.1.23 --json | jq -r .why
",
    ),
    (
        "ack",
        "\
Usage: agentmon-router ack ID [--note TEXT] [--config FILE]

Acknowledges an alert of the running router: it counts on silently, and opens again only
when it gets worse.

Example:
  agentmon-router ack f5922819cf10d561 --note \"the new printer\"
",
    ),
    (
        "flows",
        "\
Usage: agentmon-router flows [--device DEVICE] [--limit N] [--json] [--config FILE]

The newest connections the running router saw, at most 200.

Example:
  agentmon-router flows --device laptop --limit 20
",
    ),
    (
        "devices",
        "\
Usage: agentmon-router devices [--limit N] [--json] [--config FILE]

The devices the running router knows, last seen first, with what each asked and sent since
the router started.

Example:
  agentmon-router devices --json | jq -r '[.device, .bytes] | @tsv'
",
    ),
    (
        "score",
        "\
Usage: agentmon-router score NAME|ADDRESS|URL... [--json] [--config FILE]

What the lists and the check for generated names say about each name, address (with a port,
if you like) or page, and why: the list and the line, what exempts it, the names above it
that were looked for. Needs no running router. Exit code 1 when something is bad.

Example:
  agentmon-router score www.example.com xjwqkzvbtrpf.example 192.0.2.1:8080
",
    ),
    (
        "allow",
        "\
Usage: agentmon-router allow NAME|ADDRESS [--device DEVICE] [--for TIME] [--why TEXT]
       agentmon-router allow --device DEVICE [--for TIME] [--why TEXT]
       agentmon-router allow --list [--json]
       agentmon-router allow --remove ID|NAME|ADDRESS

Lets something through that `enforce` would stop: a name with all below it, an address or a
network; all that a device sends, with --device alone. At once, and kept over restarts of the
program; what is to hold for good belongs into `enforce.exceptions`.

  --device DEVICE  only from this MAC, address or network
  --for TIME       for so long: 30m, 2h, 7d; at most a year
  --why TEXT       for those who find it later
  --list           what is let through now
  --remove WHICH   takes exceptions away that were added so

Examples:
  agentmon-router allow shop.example.com --device 00:00:5e:00:53:07 --for 2h --why presents
  agentmon-router allow --remove shop.example.com
",
    ),
    (
        "check",
        "\
Usage: agentmon-router check [--kernel] [--config FILE | --uci FILE] [--print-default]

Reads the configuration and everything it names, changes nothing, and says what is wrong,
with file, line and key; then what the kernel lacks, and how to mend it. Exit code 1 when
something is wrong with the configuration.

  --uci FILE       OpenWrt's settings instead: /etc/config/agentmon
  --print-default  the default configuration as TOML
  --kernel         exit code 1 also when the kernel lacks something

Example:
  agentmon-router check --config ./router.toml
",
    ),
    (
        "setup",
        "\
Usage: agentmon-router setup [--rules | --remove | --print] [--config FILE]

Turns on what connection tracking needs to tell bytes, times and events (three switches
under net.netfilter, until the next boot). Changes nothing else unless asked:

  --rules   also installs the table `inet agentmon`: it makes the kernel track connections
            and copies DNS packets to agentmon; it decides over no packet
  --remove  removes that table again, and does nothing else
  --print   prints the table, and what to add to your own firewall so that agentmon sees
            what it stops; changes nothing

Examples:
  agentmon-router setup --rules
  agentmon-router setup --print | less
",
    ),
    (
        "uci",
        "\
Usage: agentmon-router uci render|setup|remove [--uci FILE] [--out DIR] [--state DIR]
                           [--user NAME]

What OpenWrt's init script needs; runs as root. Nothing of it writes to flash.

  render  checks /etc/config/agentmon and makes /var/etc/agentmon/router.toml and the folders
          the service works in; prints what changed, for the script. With mistakes it
          changes nothing, tells all of them, and exits with 1
  setup   puts agentmon's rules beside OpenWrt's firewall and keeps them through its reloads
  remove  takes those rules away again

  --uci FILE   other settings than /etc/config/agentmon
  --out DIR    where generated files go (/var/etc/agentmon)
  --state DIR  another state directory than /var/run/agentmon
  --user NAME  whom the service's folders shall belong to

Example:
  agentmon-router uci render && agentmon-router uci setup
",
    ),
    (
        "completions",
        "\
Usage: agentmon-router completions bash|zsh|fish

Example:
  agentmon-router completions bash > /etc/bash_completion.d/agentmon-router
",
    ),
    ("help", "Usage: agentmon-router help [COMMAND]\n\nExample:\n  agentmon-router help join\n"),
];

/// The names of all commands.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    COMMANDS.iter().map(|(name, _)| *name)
}

/// All commands: to standard output when asked for, as an error when not.
pub(super) fn overview(io: &mut Io<'_>, asked: bool) -> Result {
    if asked {
        io.out.write_all(OVERVIEW.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    io.err.write_all(OVERVIEW.as_bytes())?;
    anyhow::bail!("a command is missing")
}

/// One command.
pub(super) fn command(name: &str, io: &mut Io<'_>) -> Result {
    let Some((_, text)) = COMMANDS.iter().find(|(known, _)| *known == name) else {
        anyhow::bail!("no command `{}`; see agentmon-router --help", shown(name));
    };
    io.out.write_all(text.as_bytes())?;
    Ok(Outcome::Fine)
}
