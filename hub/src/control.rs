//! The conversation between the command line and a running hub: JSON lines over the Unix
//! socket `control.sock` in the data directory (mode 0600).
//!
//! One connection carries one request: the client writes one [`Request`] line, the hub
//! answers with [`Reply`] lines until [`Reply::Done`] or [`Reply::Failed`]. Limits: request
//! line [`REQUEST_BYTES_MAX`]; a query ends after [`QUERY_ROWS_MAX`] rows or its own
//! time-out. The same requests are answered without a hub by opening the file itself:
//! queries read-only, changes read-write.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alert::feedback::New;
use crate::store::zeek::Chunk;

/// Longest request line in bytes (an import chunk is the largest).
pub const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Longest reply line in bytes: one row of the widest table with the longest texts.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The socket's name inside the data directory.
pub const SOCKET_NAME: &str = "control.sock";
/// Most rows one query returns.
pub const QUERY_ROWS_MAX: u64 = 1_000_000;

/// What the command line may ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// One read-only SQL statement with positional parameters.
    Query {
        /// A single SELECT (or other reading) statement.
        sql: String,
        /// Values for `?`, in order: null, bool, number or string.
        params: Vec<Value>,
        /// Give up after this many milliseconds.
        timeout_ms: u64,
        /// Written by the person, not by this program: no file access, no settings.
        untrusted: bool,
    },
    /// Makes (or renews) a sensor's token; answers with one row: `join` line.
    Enroll {
        /// The sensor's name.
        name: String,
        /// Host name or address sensors reach the hub by; default from the configuration.
        address: Option<String>,
    },
    /// A sensor's token is refused from now on.
    Revoke {
        /// The sensor's name.
        name: String,
    },
    /// Marks an alert as seen, or open again.
    Ack {
        /// The alert's id.
        id: i64,
        /// Why.
        note: Option<String>,
        /// Open it again instead.
        undo: bool,
    },
    /// Allows something: alerts about it are not told. Answers with one row: id, alerts.
    Allow {
        /// What.
        feedback: New,
    },
    /// An alert is a false positive. Answers with one row: id, alerts.
    FalsePositive {
        /// The alert's id.
        alert: i64,
        /// Its rule, until and comment.
        feedback: New,
    },
    /// Takes an allowance or a false positive back. Answers with one row: id, alerts.
    Forget {
        /// The feedback's number.
        id: i64,
    },
    /// Gives a device a name that comes before all others, or takes it away.
    NameDevice {
        /// Its MAC, or an address it has.
        device: String,
        /// The name; `None` takes it away.
        name: Option<String>,
    },
    /// What was learnt of a device is forgotten; it learns from now on.
    ResetBaseline {
        /// As it stands in `habits`: a MAC, an address, or `*` for all.
        who: String,
    },
    /// Stores events as if a sensor had sent them: a zstd batch in base64 for a local,
    /// named source. Exactly once by (name, epoch, seq) like any batch.
    Import {
        /// Name of the source; becomes a sensor.
        name: String,
        /// [`agentmon_core::wire`] batch, base64.
        batch: String,
    },
    /// Notes that only events of some times of a log are imported, in a stream of their own.
    ImportSpan {
        /// Name of the source; becomes a sensor.
        name: String,
        /// The epoch of the whole log.
        log: u64,
        /// That of these times of it.
        epoch: u64,
        /// From then on, in microseconds since 1970.
        since_us: Option<i64>,
        /// Up to then.
        until_us: Option<i64>,
    },
    /// Stores rows of one of Zeek's logs for a local, named source. The same again changes
    /// nothing.
    ImportZeek {
        /// Name of the source; becomes a sensor.
        name: String,
        /// The rows.
        chunk: Chunk,
    },
    /// Beacons by our own profile: one row each, highest rank first.
    Beacons {
        /// The end of the spans looked at; the newest event where there is none.
        until_us: Option<i64>,
        /// Least score of a rhythm.
        score: f64,
    },
    /// Detectors over the past with other thresholds, beside what was found: one row for each
    /// rule, device and subject.
    Backtest {
        /// `detect.SECTION.KEY=VALUE`.
        set: Vec<String>,
        /// The begin of the span, in microseconds since 1970.
        since_us: Option<i64>,
        /// Its end; the newest event where there is none.
        until_us: Option<i64>,
        /// Detectors run no more often than once in so many seconds.
        step_s: u64,
        /// Compares with the settings in force, run again, not with what was stored.
        again: bool,
        /// Stops after so long.
        timeout_ms: u64,
        /// The settings in force where no hub runs; a running one goes by its own.
        detect: Option<Box<crate::detect::Config>>,
    },
    /// The lists for routers: one row each.
    Feeds,
    /// The next content of a list is taken, however small.
    AcceptFeed {
        /// The list's name.
        name: String,
    },
    /// Who is told of alerts, and how that goes: one row each.
    Targets,
    /// Sends a made-up alert.
    TestTarget {
        /// To this target.
        name: String,
    },
    /// Writes the rows of a statement into a file, which is the asker's to take away; answers
    /// with one row: its path, and how many rows are in it.
    Export {
        /// One reading statement, held to the rules for a person's.
        sql: String,
        /// What the file is to be.
        format: crate::store::export::Format,
        /// Give up after this many milliseconds.
        timeout_ms: u64,
    },
    /// Rolls days that are over, deletes what is kept no longer; one row for each.
    Cleanup {
        /// Only says what would be done.
        dry_run: bool,
        /// The rules where no hub runs; a running one goes by its own.
        rules: Option<crate::store::days::plan::Retention>,
    },
    /// The tiers of language models: one row each.
    LlmStatus,
    /// Asks a model once more what it was asked before.
    LlmReplay {
        /// The call's number.
        id: i64,
    },
    /// The hub's own state as one row of JSON.
    Status,
    /// Reads the configuration again.
    Reload,
}

/// One line of the answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// Column names and DuckDB type names of the rows that follow.
    Columns {
        /// Names, in order.
        names: Vec<String>,
        /// DuckDB's names of the types, in order.
        types: Vec<String>,
    },
    /// One row; timestamps are RFC 3339 UTC text, lists are arrays.
    Row {
        /// Values in column order.
        values: Vec<Value>,
    },
    /// Something a person should know of the answer; comes before its rows.
    Warning {
        /// What it lacks and why.
        text: String,
    },
    /// All rows sent.
    Done {
        /// Rows, or things changed.
        count: u64,
        /// A limit cut the answer short.
        truncated: bool,
    },
    /// Nothing (more) comes.
    Failed {
        /// What went wrong and what to do about it.
        error: String,
    },
}
