//! The command line: commands, options and their help. Data only; see [`super`] for what
//! happens. The doc comments are the help texts.

use std::net::SocketAddr;
use std::path::PathBuf;

use agentmon_router::collect::syslog::IpNet;
use clap::{Args, Parser, Subcommand, ValueEnum};

use super::baseline::BaselineArgs;
use super::destinations::DestinationsArgs;
use super::leaks::{ExfilArgs, LongArgs};
use super::print::Format;
use crate::up::Options;

/// What every list command explains at its end.
macro_rules! filters {
    () => {
        "\
Filter words (same key: any of them; different keys: all; leading `-`: must not match):
  client:192.0.2.7   client:laptop   client:192.0.2.0/24   device:00:00:5e:00:53:01
  src: dst:          as client: (for dst: also a domain)
  domain:example.com the name or anything below it; domain:*cdn* any pattern
  port:443  port:80,443  port:1000-2000  port:>1024      proto:udp
  class:vpn          class:amazon    what the other end is (flows)
  severity:>=high    rule:dga    status:blocked    type:TXT    sensor:attic    name:*cam*
Times: 90s, 15m, 24h, 7d, 2026-11-01, \"2026-11-01 14:30\", today, 2026-11-01T13:30:00Z"
    };
}

/// Examples, neighbours and the filter words.
macro_rules! help {
    ($examples:literal, $also:literal) => {
        concat!("Examples:\n  ", $examples, "\nSee also: ", $also, "\n\n", filters!())
    };
}

/// Sees what every device and AI agent on a network talks to, and says when it is not
/// normal.
#[derive(Debug, Parser)]
#[command(
    name = "agentmon",
    version,
    max_term_width = 100,
    after_help = "\
Start here:
  agentmon up --demo        everything in one process, with a made-up day to look at
  agentmon up               the same on this machine's real connections and DNS
  agentmon alerts           what should worry you;  agentmon alert ID  says why
  agentmon timeline client:laptop --since 1h        what a device did, in sentences

Data goes to stdout, talk to stderr. Exit: 0 fine, 1 found something (--exit-code), 2 failed."
)]
pub(crate) struct Cli {
    /// Directory of the store [default: /var/lib/agentmon for root, else
    /// $XDG_DATA_HOME/agentmon]
    #[arg(long, global = true, env = "AGENTMON_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Colours in tables
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: Color,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// When tables are coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Also into a pipe
    Always,
    /// Never
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hub and sensor in one process on this machine; nothing to configure
    #[command(after_help = "\
Examples:
  agentmon up                                 what this machine sees, as far as its rights go
  sudo agentmon up --kernel-setup             also packets stopped, DNS on the wire, byte counts
  agentmon up --demo --data /tmp/demo         a made-up day of a 40-device home, with attacks
  agentmon up --pihole-log /var/log/dns.log
  agentmon up --listen 0.0.0.0:8787           other machines may join: agentmon enroll NAME
See also: agentmon alerts, agentmon timeline, agentmon serve")]
    Up(UpArgs),
    /// The hub alone, for sensors on other machines
    #[command(after_help = "\
Examples:
  agentmon serve                              listens on port 8787 of all addresses
  agentmon serve --config hub.toml --data /var/lib/agentmon
  agentmon serve --check --config hub.toml    only says whether the file is valid
SIGHUP (or agentmon reload) reads the configuration again; a bad one is refused.
See also: agentmon enroll NAME, agentmon up")]
    Serve(ServeArgs),
    /// Alerts: what a person should look at, newest first
    #[command(after_help = help!(
        "agentmon alerts                             open alerts
  agentmon alerts severity:>=high --since 24h
  agentmon alerts status:acked --json | jq .why
  agentmon alerts --exit-code severity:critical || notify-send 'agentmon'",
        "agentmon alert ID, agentmon ack ID"
    ))]
    Alerts(AlertsArgs),
    /// One alert: why, the evidence, and what happened around it
    #[command(after_help = "\
Examples:
  agentmon alert 3
  agentmon alert 3 --around 30m
  agentmon alert 3 --json | jq .evidence
  agentmon alert test phone                   a made-up alert to a target of hub.toml
See also: agentmon ack ID, agentmon timeline client:ADDRESS")]
    Alert(AlertArgs),
    /// Marks an alert as seen (or open again with --undo)
    #[command(after_help = "\
Examples:
  agentmon ack 3 --note 'the new camera; blocked in the firewall'
  agentmon ack 3 --undo
See also: agentmon alerts status:acked")]
    Ack(AckArgs),
    /// An alert is a false positive: its rules stay silent about it on its device
    #[command(after_help = "\
Examples:
  agentmon fp 3 --comment 'the television asks its maker every minute'
  agentmon fp 3 --rule blocklist --comment 'the list errs'       known bad, named
  agentmon fp 3 --undo
Elsewhere the same rules count half about it. `agentmon allow --list` has all.
See also: agentmon allow, agentmon ack ID")]
    Fp(super::allow::FpArgs),
    /// Allows something: no alert tells of it, until an end or for good
    #[command(after_help = "\
Examples:
  agentmon allow --domain backup.example --device nas --comment 'our backup'
  agentmon allow --ip 203.0.113.0/24 --rule direct-ip --for 7d
  agentmon allow --device laptop --rule host-scan --until 2026-12-01
  agentmon allow --domain ads.example --rule blocklist --comment 'needed for the shop'
  agentmon allow --list
  agentmon allow --undo 2                     everything is as if it had never been said
What is on a list of known-bad things is told all the same, unless --rule names it.
See also: agentmon fp ID, agentmon alerts status:allowed")]
    Allow(super::allow::AllowArgs),
    /// Incidents: what was found about one device at about the same time
    #[command(after_help = help!(
        "agentmon incident                           open ones
  agentmon incident 7                         one as a story: what happened, in order
  agentmon incident --all device:camera --json",
        "agentmon alerts, agentmon timeline --device D"
    ))]
    Incident(super::incident::IncidentArgs),
    /// Per device: queries, blocked, distinct names, flows, bytes
    #[command(after_help = help!(
        "agentmon stats                              the last 24 hours
  agentmon stats --since 7d --csv > week.csv
  agentmon stats domain:example.com           who uses a service, and how much",
        "agentmon devices, agentmon timeline device:NAME"
    ))]
    Stats(ListArgs),
    /// DNS exchanges: who asked for what, and what came of it
    #[command(after_help = help!(
        "agentmon dns client:laptop --since 1h
  agentmon dns status:blocked -domain:ads.example
  agentmon dns domain:example.com --json | jq -r .client | sort | uniq -c",
        "agentmon flows, agentmon timeline"
    ))]
    Dns(ListArgs),
    /// Programs of hosts that talked, with what started them; needs agentmon-host there
    #[command(after_help = help!(
        "agentmon processes proc:curl --since 1h
  agentmon processes --json | jq .ancestors",
        "agentmon agents, agentmon authority"
    ))]
    Processes(ListArgs),
    /// AI agents: which ran on which host, what they contacted, what lay outside their grant
    #[command(after_help = help!(
        "agentmon agents                             the last 24 hours
  agentmon agents --since 7d --json | jq 'select(.is == \"other\")'",
        "agentmon authority test, agentmon processes"
    ))]
    Agents(ListArgs),
    /// Who may talk to whom: check a policy, try it on the past, learn one
    #[command(after_help = "\
Examples:
  agentmon authority check                    what in authority.toml is wrong or does nothing
  agentmon authority test --since 7d          what it would have said of the last week
  agentmon authority explain 1234567890       why one connection is allowed or not
  agentmon authority learn --process claude-code --since 7d
  agentmon authority audit --claude-settings ~/.claude/settings.json
A policy is authority.toml in the data directory; the shortest one is
  authority = [{process = \"claude-code\", allowed = [\"api.anthropic.com\"]}]
See also: agentmon agents, agentmon alerts rule:authority")]
    Authority(super::authority::AuthorityArgs),
    /// Connections, with the name by which the client had resolved the address
    #[command(after_help = help!(
        "agentmon flows client:laptop port:443 --since 1h
  agentmon flows dst:198.51.100.0/24 -proto:udp
  agentmon flows dst:example.com --sort bytes",
        "agentmon dns, agentmon stats, agentmon firewall"
    ))]
    Flows(FlowsArgs),
    /// Longest connections, open ones included: by device, place and port
    #[command(after_help = help!(
        "agentmon long                               the last 24 hours
  agentmon long status:open --sort total
  agentmon long class:hosting,vpn --since 7d --json | jq .rita_score",
        "agentmon flows --sort duration, agentmon alerts rule:long"
    ))]
    Long(LongArgs),
    /// What devices sent, and where to: bursts, drips, names that carry data
    #[command(after_help = help!(
        "agentmon exfil                              the last 7 days, most sent first
  agentmon exfil --sort ratio --since 24h
  agentmon exfil --dns client:laptop          what the names it asked for carry",
        "agentmon flows --sort bytes, agentmon alerts rule:exfil"
    ))]
    Exfil(ExfilArgs),
    /// Packets the firewall stopped
    #[command(after_help = help!(
        "agentmon firewall client:camera
  agentmon firewall port:23 --since 7d",
        "agentmon flows, agentmon alerts rule:firewall"
    ))]
    Firewall(ListArgs),
    /// What calls home again and again: each source and destination, scored
    #[command(after_help = "\
Examples:
  agentmon beacons                            what beats within the last day, or two weeks
  agentmon beacons --until 2026-11-20 --json
  agentmon beacons --profile rita             imported Zeek logs, scored as RITA 5 does
  agentmon beacons --profile rita --internal 198.51.100.0/24 --json
  agentmon beacons --profile rita --rolling --intel --defaults shipped --since 7d
SCORE is how regular it is, RANK how little explains it; findings begin at a rank of 0.6.
Import logs: agentmon import zeek PATH
See also: agentmon flows, agentmon alerts rule:beacon, agentmon eval beacon")]
    Beacons(BeaconsArgs),
    /// What happened, in sentences, in time order; gaps in knowledge included
    #[command(after_help = help!(
        "agentmon timeline --device laptop --since 1h
  agentmon timeline --process claude-code --at 14:32
  agentmon timeline --domain example.com --since 30d
  agentmon timeline --ip 203.0.113.9 --at 2026-11-23T14:32:00Z --around 10m
  agentmon timeline --since 14:25 --until 14:35
  agentmon timeline kind:finding,gap --since 7d",
        "agentmon alert ID, agentmon dns, agentmon flows"
    ))]
    Timeline(super::timeline::TimelineArgs),
    /// One device on one page: who it is, what it talks to, when it is awake, its alerts
    #[command(after_help = "\
Examples:
  agentmon device laptop
  agentmon device 192.168.1.9 --since 30d
  agentmon device 00:00:5e:00:53:01 --json | jq .talks_to
See also: agentmon devices, agentmon incident --all device:NAME, agentmon timeline --device NAME")]
    Device(super::device::DeviceArgs),
    /// Devices: names, makers, addresses, when seen
    #[command(after_help = help!(
        "agentmon devices
  agentmon devices name:*cam*
  agentmon devices --since 1h                 seen within the last hour
  agentmon devices show 00:00:5e:00:53:01     its names and addresses over time
  agentmon devices name 192.168.1.9 camera    a name that comes before all others",
        "agentmon stats device:NAME, agentmon vendors"
    ))]
    Devices(DevicesArgs),
    /// What detectors would have found in the past with other thresholds, beside what was found
    #[command(after_help = super::backtest::HELP)]
    Backtest(super::backtest::BacktestArgs),
    /// What is normal for each device and for the network
    #[command(after_help = help!(
        "agentmon baseline                           how well each device is known
  agentmon baseline show laptop               its domains, places, ports, hours
  agentmon baseline show network kind:place
  agentmon baseline reset laptop              it learns anew from now on",
        "agentmon new, agentmon alerts rule:off-profile"
    ))]
    Baseline(BaselineArgs),
    /// What was never there before: domains, places, ports, devices
    #[command(after_help = help!(
        "agentmon new                                the last 24 hours
  agentmon new kind:device --since 7d
  agentmon new device:laptop kind:domain --json",
        "agentmon baseline, agentmon alerts rule:new-domain"
    ))]
    New(ListArgs),
    /// Lists for routers: what was taken of each, from where, and what is wrong
    #[command(after_help = super::feeds::HELP)]
    Feeds(super::feeds::FeedsArgs),
    /// Kinds of networks: what an address is in, by which lists; newer or more lists
    #[command(after_help = "\
Examples:
  agentmon destinations                       which lists, how many networks, licence, date
  agentmon destinations 1.1.1.1 2606:4700::1      what these are
  agentmon destinations --update tor=exits.txt vpn:acme=acme.txt --about 'acme.example; free'
Classes: residential hosting cloud service cdn relay vpn tor; local, reserved.
Lists of one's own stand in place of those of the same class and provider. Databases of
countries and autonomous systems (*.mmdb) are used when they lie in DATA/destinations.
See also: agentmon flows class:vpn")]
    Destinations(DestinationsArgs),
    /// Language models that are asked for a second opinion: how they are, what they said
    #[command(after_help = "\
Examples:
  agentmon llm                                both tiers: ready or why not, today's use
  agentmon llm opinions --since 24h           what was said of which alert
  agentmon llm calls --json | jq .outcome     every question, with its cost
  agentmon llm call 12                        one of them, word by word
  agentmon llm replay 12                      the same question once more, and what changed
Models are set in hub.toml, section [llm]. They advise: no opinion makes an alert smaller.
See also: agentmon alerts rule:second-opinion")]
    Llm(super::llm::LlmArgs),
    /// Who is told of alerts, what waits for them, and why they do not take it
    #[command(after_help = "\
Examples:
  agentmon targets
  agentmon targets --json | jq 'select(.error)'
  agentmon alert test phone                   a made-up alert, to try one
Targets are set in hub.toml, section [deliver].
See also: agentmon alerts, agentmon status")]
    Targets(super::targets::TargetsArgs),
    /// Makers of devices, by their MACs: which table, who made what, a newer table
    #[command(after_help = "\
Examples:
  agentmon vendors                            which table, how many blocks, of when
  agentmon vendors 00:00:0c:00:00:01          who made that
  agentmon vendors --update oui.csv mam.csv oui36.csv
The files are the IEEE's public listings. A running hub takes the new table over within a
minute; without one the table that came with this program is used.
See also: agentmon devices")]
    Vendors(VendorsArgs),
    /// Sensors: who sends, how late, what was lost
    #[command(after_help = "\
Examples:
  agentmon sensors
  agentmon sensors show router                its collectors and counters
  agentmon sensors revoke router              its token is refused from now on
See also: agentmon enroll NAME")]
    Sensors(SensorsArgs),
    /// Prints the one line with which a sensor joins this hub
    #[command(after_help = "\
Examples:
  agentmon enroll router | ssh root@router 'agentmon-router join'
  agentmon enroll router --address hub.lan > join.txt
Enrolling a name again renews its token; the old one is refused.
See also: agentmon sensors")]
    Enroll(EnrollArgs),
    /// One read-only SQL statement over the store
    #[command(after_help = "\
Examples:
  agentmon sql \"SELECT domain, count(*) AS n FROM dns GROUP BY 1 ORDER BY 2 DESC LIMIT 10\"
  agentmon sql --csv \"FROM flows WHERE bytes_out > 100000000\"
  agentmon sql \"SHOW TABLES\"
  agentmon sql --views                        the tables and what their columns mean
Times are UTC. Files, settings and extensions are out of reach of these statements.
See also: agentmon stats, agentmon timeline")]
    Sql(SqlArgs),
    /// Loads history from files
    #[command(after_help = "\
Examples:
  agentmon import pihole-log /var/log/pihole/pihole.log
  agentmon import pihole-log /var/log/pihole/pihole.log.*.gz
  agentmon import pcap lan.pcap
  agentmon import conntrack events.txt --since 7d         of: conntrack -E -o timestamp > events.txt
  agentmon import pihole-ftl /etc/pihole/pihole-FTL.db      91 days, as a rule; again adds what is new
  agentmon import zeek /opt/zeek/logs                       every day's folder; then agentmon beacons
  agentmon import agentmon-py events.db --config agentmon.toml > hub.toml
Loading the same file again changes nothing; a file that has grown adds what is new.
See also: agentmon sensors, agentmon dns sensor:import")]
    Import(ImportArgs),
    /// What a detector is worth on names and questions you know the truth of
    #[command(after_help = "\
Examples:
  agentmon eval dga --positives generated.txt --negatives popular.txt
  agentmon eval dga --positives families/ --negatives popular.txt.gz --json | jq .auc
  agentmon eval tunnel --positives tools/ --negatives day.tsv.gz
Reads files only, no store. A directory of positives is one family or tool for each file.
See also: agentmon-router score NAME")]
    Eval(EvalArgs),
    /// Reads a Pi-hole or a log from a timer, once to its end, or follows it
    #[command(after_help = "\
Examples:
  agentmon collect --once --pihole https://pi.hole --password-file pw --certificate ca.pem
  agentmon collect --once --pihole-ftl /etc/pihole/pihole-FTL.db --json
  agentmon collect --pihole-log /var/log/pihole/pihole.log      follows it, until Ctrl-C
  agentmon collect --once --ssh agentmon@192.168.1.2 --ssh-key key --ssh-known-hosts hosts
Each pass goes on where the last one ended, and tells nothing twice, wherever it was ended.
Exit: 0 all read, 2 a source failed (the others were read).
See also: agentmon import, agentmon up, agentmon dns sensor:collect")]
    Collect(Box<CollectArgs>),
    /// Rows of a table or of a statement as a CSV, JSON or Parquet file
    #[command(after_help = super::export::HELP)]
    Export(super::export::ExportArgs),
    /// Makes files of older days, and deletes what is kept no longer
    #[command(after_help = "\
Examples:
  agentmon cleanup --dry-run                  what would be done, and how much it is
  agentmon cleanup                            by the rules in hub.toml, section [retention]
A running hub does it by itself (`automatic`). expire: older than the rules keep it; evict: the
disk budget is used up, the oldest day goes; roll: a day leaves the database for a file.
See also: agentmon status")]
    Cleanup(super::cleanup::CleanupArgs),
    /// State of the hub and of the store
    #[command(after_help = "\
Examples:
  agentmon status
  agentmon status --json | jq .events_waiting
See also: agentmon sensors")]
    Status(StatusArgs),
    /// Makes the running hub read its configuration again
    #[command(after_help = "\
Examples:
  agentmon reload                             as SIGHUP does, but says what became of it
See also: agentmon serve --check")]
    Reload,
    /// Prints completions for a shell
    #[command(after_help = "\
Examples:
  agentmon completions bash > /etc/bash_completion.d/agentmon
  agentmon completions zsh > ~/.zfunc/_agentmon
  agentmon completions fish > ~/.config/fish/completions/agentmon.fish
See also: agentmon --help")]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
}

/// Table for a person, or lines for a program.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FormatArgs {
    /// One JSON object per line
    #[arg(long, conflicts_with = "csv")]
    pub(crate) json: bool,
    /// CSV with a header line (RFC 4180)
    #[arg(long)]
    pub(crate) csv: bool,
}

impl FormatArgs {
    /// The format asked for.
    pub(crate) const fn format(self) -> Format {
        match self {
            Self { json: true, .. } => Format::Json,
            Self { csv: true, .. } => Format::Csv,
            _ => Format::Table,
        }
    }
}

/// What every list command takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// From this time on [default: 24h where a list grows by the minute, else everything]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Up to this time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// At most this many rows [default: 50 in a table, all in --json and --csv]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Filter words, as client:laptop or -domain:example.com
    #[arg(value_name = "FILTER")]
    pub(crate) words: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Acknowledged ones too
    #[arg(long)]
    pub(crate) all: bool,
    /// Exit with 1 when any alert is listed
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct AlertArgs {
    #[command(subcommand)]
    pub(crate) action: Option<AlertAction>,
    /// Number of the alert, from `agentmon alerts`
    #[arg(required = true)]
    pub(crate) id: Option<i64>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// How far around the alert to look
    #[arg(long, value_name = "AGE", default_value = "5m")]
    pub(crate) around: String,
}

/// What else `alert` does.
#[derive(Debug, Subcommand)]
pub(crate) enum AlertAction {
    /// Sends a made-up alert to a target, at once and past its rules
    Test {
        /// The target's name, from `agentmon targets`
        target: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AckArgs {
    /// Numbers of the alerts
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<i64>,
    /// Why; kept with the alert
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Open it again
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Args, Debug)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t, value_name = "BY")]
    pub(crate) sort: FlowOrder,
}

/// Order of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowOrder {
    /// Newest first
    #[default]
    Time,
    /// Most bytes first
    Bytes,
    /// Longest first
    Duration,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SensorsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<SensorsAction>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SensorsAction {
    /// Its collectors and counters
    Show {
        /// The sensor's name
        name: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Its token is refused from now on; what it sent stays
    Revoke {
        /// The sensor's name
        name: String,
    },
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DevicesArgs {
    #[command(subcommand)]
    pub(crate) action: Option<DevicesAction>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DevicesAction {
    /// Its names by who gave them, its addresses from when to when
    Show {
        /// MAC, address or name
        device: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Gives it a name that comes before all others
    Name {
        /// MAC or address
        device: String,
        /// The name; without one, the name given here is taken away
        name: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct VendorsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// MACs to look up
    #[arg(value_name = "MAC", conflicts_with = "update")]
    pub(crate) macs: Vec<String>,
    /// Makes a new table of these files
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) update: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct EnrollArgs {
    /// The sensor's name: letters, digits, dashes
    pub(crate) name: String,
    /// Host name or address by which the sensor reaches this hub
    #[arg(long, value_name = "HOST")]
    pub(crate) address: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SqlArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// The statement; `-` reads it from stdin
    #[arg(required_unless_present = "views")]
    pub(crate) statement: Option<String>,
    /// Tell the tables and what their columns mean
    #[arg(long, conflicts_with = "statement")]
    pub(crate) views: bool,
    /// Give up after this time
    #[arg(long, value_name = "AGE", default_value = "60s")]
    pub(crate) timeout: String,
    /// At most this many rows [default: 50 in a table, all in --json and --csv]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct CollectArgs {
    /// One pass up to the end, for timers; without it, one source is followed
    #[arg(long)]
    pub(crate) once: bool,
    /// A Pi-hole (v6), by its web interface
    #[arg(long, value_name = "URL")]
    pub(crate) pihole: Vec<String>,
    /// Its address, where its name is not resolved here
    #[arg(long, value_name = "ADDRESS", requires = "pihole")]
    pub(crate) address: Option<String>,
    /// File with its password, best an app password
    #[arg(long, value_name = "FILE", requires = "pihole")]
    pub(crate) password_file: Option<PathBuf>,
    /// File with the certificate to trust, for https
    #[arg(long, value_name = "FILE", requires = "pihole")]
    pub(crate) certificate: Option<PathBuf>,
    /// Pi-hole's long-term database (pihole-FTL.db)
    #[arg(long, value_name = "FILE")]
    pub(crate) pihole_ftl: Vec<PathBuf>,
    /// The log of Pi-hole or dnsmasq
    #[arg(long, value_name = "FILE")]
    pub(crate) pihole_log: Vec<PathBuf>,
    /// A Pi-hole by SSH: its log, and its database where that is named
    #[arg(long, value_name = "USER@HOST[:PORT]")]
    pub(crate) ssh: Vec<String>,
    /// File with the private key for it, without a passphrase
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub(crate) ssh_key: Option<PathBuf>,
    /// File with the host's own key, as ssh-keyscan writes it
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub(crate) ssh_known_hosts: Option<PathBuf>,
    /// The log there; empty: it is not read
    #[arg(
        long,
        value_name = "PATH",
        requires = "ssh",
        default_value = "/var/log/pihole/pihole.log"
    )]
    pub(crate) ssh_log: String,
    /// The database there, /etc/pihole/pihole-FTL.db; empty: it is not read
    #[arg(long, value_name = "PATH", requires = "ssh", default_value = "")]
    pub(crate) ssh_database: String,
    /// At the very first pass, read what a file holds already
    #[arg(long)]
    pub(crate) from_start: bool,
    /// Zone of the dates in a log: local, utc, +02:00, or a POSIX TZ string
    #[arg(long, value_name = "ZONE", default_value = "local")]
    pub(crate) timezone: String,
    /// Name under which it appears in `agentmon sensors`
    #[arg(long, value_name = "NAME", default_value = "collect")]
    pub(crate) sensor: String,
    /// A block list to hold the names against (hosts file, plain domains, adblock)
    #[arg(long, value_name = "FILE")]
    pub(crate) blocklist: Vec<PathBuf>,
    /// Longest pass, in seconds; the next one goes on behind it
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "once")]
    pub(crate) longest: u64,
    /// One JSON object per source and pass, on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    pub(crate) kind: ImportKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImportKind {
    /// The log of Pi-hole or dnsmasq, plain or .gz
    PiholeLog {
        /// Files, oldest first where it matters
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Name under which the history appears in `agentmon sensors`
        #[arg(long, value_name = "NAME", default_value = "import")]
        sensor: String,
        /// A block list to hold the names against (hosts file, plain domains, adblock);
        /// its file name is what findings call it
        #[arg(long, value_name = "FILE")]
        blocklist: Vec<PathBuf>,
        /// The zone of the dates in the log: local, utc, +02:00, or a POSIX TZ string
        #[arg(long, value_name = "ZONE", default_value = "local")]
        timezone: String,
        #[command(flatten)]
        span: super::import::SpanArgs,
    },
    /// Pi-hole's long-term database (pihole-FTL.db), of a running Pi-hole or a copy
    PiholeFtl {
        /// Files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Name under which the history appears in `agentmon sensors`
        #[arg(long, value_name = "NAME", default_value = "import")]
        sensor: String,
        /// A block list to hold the names against (hosts file, plain domains, adblock);
        /// its file name is what findings call it
        #[arg(long, value_name = "FILE")]
        blocklist: Vec<PathBuf>,
        #[command(flatten)]
        span: super::import::SpanArgs,
    },
    /// What `conntrack -E` or `-L` printed, or a copy of /proc/net/nf_conntrack, plain or .gz
    Conntrack {
        /// Files; `conntrack -E -o timestamp` tells times, else the file's own is taken
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Name under which the history appears in `agentmon sensors`
        #[arg(long, value_name = "NAME", default_value = "conntrack")]
        sensor: String,
        #[command(flatten)]
        span: super::import::SpanArgs,
    },
    Pcap(super::import_pcap::PcapArgs),
    /// The database and the configuration of the Python agentmon
    AgentmonPy(super::import_python::PythonArgs),
    /// Zeek's logs (conn, dns, http, ssl, open_*), TSV or JSON, plain or .gz
    Zeek {
        /// Files, or folders that are searched for them
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Name under which the history appears in `agentmon sensors`
        #[arg(long, value_name = "NAME", default_value = "zeek")]
        sensor: String,
        #[command(flatten)]
        span: super::import::SpanArgs,
    },
}

/// How beacons are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BeaconProfile {
    /// Our own: connections and questions, periods from 30 s to a day
    #[default]
    Agentmon,
    /// As RITA 5 does, over imported Zeek logs
    Rita,
}

/// RITA's two sets of defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RitaDefaults {
    /// Those in its code, with which its published results were made
    #[default]
    Code,
    /// Those of the configuration file it ships
    Shipped,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BeaconsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// How beacons are scored
    #[arg(long, value_enum, default_value_t, value_name = "PROFILE")]
    pub(crate) profile: BeaconProfile,
    /// Least score of what is shown; profile agentmon alone
    #[arg(long, value_name = "SCORE", default_value_t = 0.5)]
    pub(crate) min_score: f64,
    /// A network of your own; more than once for several [default: RFC 1918, fd00::/8]; profile
    /// rita alone, as all that follow but --until and --limit
    #[arg(long, value_name = "CIDR")]
    pub(crate) internal: Vec<IpNet>,
    /// Keep connections that come from outside
    #[arg(long)]
    pub(crate) external_to_internal: bool,
    /// Which of RITA's two sets of defaults
    #[arg(long, value_enum, default_value_t, value_name = "SET")]
    pub(crate) defaults: RitaDefaults,
    /// The logs are a set to which days are added: destinations first seen within 7 days count
    /// more, those known for 30 days less
    #[arg(long)]
    pub(crate) rolling: bool,
    /// Count what the hub's lists of bad things have (see `agentmon feeds`)
    #[arg(long)]
    pub(crate) intel: bool,
    /// Only this source of imported logs
    #[arg(long, value_name = "NAME")]
    pub(crate) sensor: Option<String>,
    /// Connections begun from this time on [default: all; the newest day of them is scored]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) since: Option<String>,
    /// Connections begun up to this time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) until: Option<String>,
    /// At most this many rows [default: 50 in a table, all in --json and --csv]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    #[command(subcommand)]
    pub(crate) kind: EvalKind,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EvalKind {
    /// The score of names that look generated, as the router's detector has it
    #[command(after_help = "\
One name per line, plain or gzip. Recall is told at false-positive rates of 1 %, 0.1 % and
0.01 %, flagged is what reaches the detector's default threshold. The same again with
`.invalid` instead of what stands behind the judged label: whether top-level domains count.")]
    Dga(EvalDgaArgs),
    /// Tunnels through DNS: how soon each is found, and what is taken for one
    #[command(after_help = "\
Tab-separated questions with a header line, plain or gzip: columns t_s (seconds), qtype and
name must be there; client, tunnel (0 or 1), rcode, answers (addresses, with commas) and ttl
may be. Each tool is played as recorded and at a hundredth of its speed.")]
    Tunnel(EvalTunnelArgs),
    /// Beacons of known truth, planted into ordinary traffic: how many are heard, and what else
    /// is taken for one
    #[command(after_help = "\
Examples:
  agentmon eval beacon --json                           into a made-up day of 80 devices
  agentmon eval beacon --background DIR                 into the last day of a stopped hub's store
  agentmon eval beacon --periods 60,3600 --jitters 0.2 --losses 0,0.3 --trials 200
One row for each period, jitter and loss (in JSON one object with all of them).")]
    Beacon(super::eval_beacon::EvalBeaconArgs),
    /// Days of a home on which nothing happens: what all rules over history would tell
    #[command(after_help = super::eval_day::HELP)]
    Day(super::eval_day::EvalDayArgs),
}

#[derive(Args, Debug)]
pub(crate) struct EvalDgaArgs {
    /// Generated names: a file, or a directory with one file for each family
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) positives: PathBuf,
    /// Harmless names
    #[arg(long, value_name = "FILE")]
    pub(crate) negatives: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 1 when recall is below 0.80 at 1 % or 0.60 at 0.1 %, or more than 0.1 % of
    /// the harmless names are flagged
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Args, Debug)]
pub(crate) struct EvalTunnelArgs {
    /// Questions of one tunnel, or a directory with one file for each tool
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "negatives")]
    pub(crate) positives: Option<PathBuf>,
    /// Ordinary questions
    #[arg(long, value_name = "FILE")]
    pub(crate) negatives: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Exit with 1 when a tool is not found within 60 s, or 10 minutes at a hundredth of its
    /// speed, or something ordinary is taken for one
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    /// Configuration file [default: /etc/agentmon/hub.toml where there is one]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address and port for sensors, in place of the configured one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Only check the configuration
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// Also play a made-up day of a home with planted attacks, so that there is something
    /// to look at; kept in a directory of its own unless --data names one
    #[arg(long)]
    pub(crate) demo: bool,
    /// Another day: the same number makes the same day
    #[arg(long, value_name = "N", requires = "demo", default_value_t = crate::demo::SEED)]
    pub(crate) demo_seed: u64,
    /// End when the made-up day is loaded
    #[arg(long, requires = "demo")]
    pub(crate) exit_after_demo: bool,
    /// Where sensors reach the hub; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    pub(crate) listen: SocketAddr,
    /// A log of Pi-hole or dnsmasq to follow [default: those at the usual places]
    #[arg(long, value_name = "FILE")]
    pub(crate) pihole_log: Vec<PathBuf>,
    /// Take the syslog of other resolvers here, by UDP and TCP: 0.0.0.0:5514
    #[arg(long, value_name = "ADDRESS:PORT", requires = "syslog_from")]
    pub(crate) syslog: Vec<SocketAddr>,
    /// Who may send it: 192.168.1.1/32 is one machine
    #[arg(long, value_name = "NETWORK", requires = "syslog")]
    pub(crate) syslog_from: Vec<IpNet>,
    /// Switch on what the kernel must be told first: byte counts, an own nftables table for
    /// stopped packets and DNS (needs root; the table goes with `nft delete table inet agentmon`)
    #[arg(long)]
    pub(crate) kernel_setup: bool,
}

impl UpArgs {
    /// What [`crate::up`] is asked for.
    pub(crate) fn options(&self, data: PathBuf) -> Options {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Options {
            data: absolute(&data),
            listen: self.listen,
            logs: self.pihole_log.iter().map(absolute).collect(),
            syslog: self.syslog.clone(),
            syslog_from: self.syslog_from.clone(),
            demo: self.demo.then_some(self.demo_seed),
            exit_after_demo: self.exit_after_demo,
            kernel_setup: self.kernel_setup,
        }
    }
}
