//! Rows on their way into tables: arrow columns, filled row by row, appended in one go.
//!
//! In: values. Out: record batches for DuckDB's appender, about 2.5 times as fast as rows
//! one by one. Runs on the writer thread. Addresses and MACs are formatted straight into
//! the text column, without a string in between.

use std::fmt::{Display, Write};
use std::sync::Arc;

use agentmon_core::Timestamp;
use duckdb::Connection;
use duckdb::arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder,
    ListBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
    TimestampMillisecondBuilder, UInt8Builder, UInt16Builder, UInt32Builder, UInt64Builder,
};
use duckdb::arrow::datatypes::{Field, Schema};

use super::StoreError;

/// A text column.
#[derive(Debug, Default)]
pub(crate) struct Text(StringBuilder);

impl Text {
    /// Appends what displays.
    pub(crate) fn show(&mut self, value: impl Display) {
        // `append_value` ends the item that `write!` has filled.
        write!(self.0, "{value}").expect("a builder in memory takes everything");
        self.0.append_value("");
    }
    /// Appends what displays, or NULL.
    pub(crate) fn show_option(&mut self, value: Option<impl Display>) {
        match value {
            Some(value) => self.show(value),
            None => self.0.append_null(),
        }
    }
    /// Appends text.
    pub(crate) fn push(&mut self, value: &str) {
        self.0.append_value(value);
    }
    /// Appends text or NULL.
    pub(crate) fn option(&mut self, value: Option<&str>) {
        self.0.append_option(value);
    }
}

/// A column of lists of text.
#[derive(Debug)]
pub(crate) struct Texts(ListBuilder<StringBuilder>);

impl Default for Texts {
    fn default() -> Self {
        Self(ListBuilder::new(StringBuilder::new()))
    }
}

impl Texts {
    /// Appends a list; an empty one becomes NULL, which compresses to nothing.
    pub(crate) fn push<T: Display>(&mut self, values: impl Iterator<Item = T>) {
        let mut any = false;
        for value in values {
            any = true;
            write!(self.0.values(), "{value}").expect("a builder in memory takes everything");
            self.0.values().append_value("");
        }
        self.0.append(any);
    }
}

/// A time column.
#[derive(Debug, Default)]
pub(crate) struct Time(TimestampMicrosecondBuilder);

impl Time {
    /// Appends a time.
    pub(crate) fn push(&mut self, time: Timestamp) {
        self.0.append_value(time.micros());
    }
    /// Appends a time or NULL.
    pub(crate) fn option(&mut self, time: Option<Timestamp>) {
        self.0.append_option(time.map(Timestamp::micros));
    }
}

/// A time column of milliseconds.
#[derive(Debug, Default)]
pub(crate) struct TimeMs(TimestampMillisecondBuilder);

impl TimeMs {
    /// Appends a time or NULL.
    pub(crate) fn option(&mut self, time: Option<Timestamp>) {
        self.0.append_option(time.map(|t| t.micros().div_euclid(1_000)));
    }
}

/// Anything that ends as an arrow array.
pub(crate) trait Column: Default {
    /// The values so far; the column is empty afterwards.
    fn take(&mut self) -> ArrayRef;
}

macro_rules! column {
    ($($type:ty => |$this:ident| $builder:expr;)*) => {
        $(impl Column for $type {
            fn take(&mut self) -> ArrayRef {
                let $this = self;
                ArrayBuilder::finish($builder)
            }
        })*
    };
}
column! {
    Text => |c| &mut c.0;
    Texts => |c| &mut c.0;
    Time => |c| &mut c.0;
    TimeMs => |c| &mut c.0;
    BooleanBuilder => |c| c;
    Float64Builder => |c| c;
    Int32Builder => |c| c;
    Int64Builder => |c| c;
    UInt8Builder => |c| c;
    UInt16Builder => |c| c;
    UInt32Builder => |c| c;
    UInt64Builder => |c| c;
}

/// Rows for one table.
pub(crate) trait Rows: Default {
    /// The table's name.
    const TABLE: &'static str;
    /// Names of the columns, in the order of [`Rows::take`].
    const COLUMNS: &'static [&'static str];
    /// Rows so far.
    fn len(&self) -> usize;
    /// All columns; empty afterwards.
    fn take(&mut self) -> Vec<ArrayRef>;

    /// Appends all rows to the table within the connection's transaction.
    ///
    /// # Errors
    /// What DuckDB says.
    fn append(&mut self, connection: &Connection) -> Result<(), StoreError> {
        self.append_to(connection, "main", Self::TABLE)
    }

    /// Updates the rows with the same `keys`, adds the others. Keys must be unique among
    /// the rows.
    ///
    /// # Errors
    /// What DuckDB says.
    fn upsert(&mut self, connection: &Connection, keys: &[&str]) -> Result<(), StoreError> {
        if self.len() == 0 {
            return Ok(());
        }
        let (table, columns) = (Self::TABLE, Self::COLUMNS.join(", "));
        let stage = self.stage(connection)?;
        let same = keys.iter().map(|k| format!("t.{k} = s.{k}")).collect::<Vec<_>>().join(" AND ");
        let set = Self::COLUMNS.iter().filter(|c| !keys.contains(c));
        let set = set.map(|c| format!("{c} = s.{c}")).collect::<Vec<_>>().join(", ");
        connection.execute_batch(&format!(
            "UPDATE {table} AS t SET {set} FROM {stage} s WHERE {same};
             INSERT INTO {table} ({columns})
                 SELECT {columns} FROM {stage} s WHERE NOT EXISTS (FROM {table} t WHERE {same});
             DROP TABLE {stage}"
        ))?;
        Ok(())
    }

    /// Puts all rows into a temporary table and returns its name; the caller drops it.
    ///
    /// # Errors
    /// What DuckDB says.
    fn stage(&mut self, connection: &Connection) -> Result<String, StoreError> {
        let name = format!("stage_{}", Self::TABLE);
        connection.execute_batch(&format!(
            "CREATE OR REPLACE TEMP TABLE {name} AS SELECT {} FROM {} LIMIT 0",
            Self::COLUMNS.join(", "),
            Self::TABLE
        ))?;
        self.append_to(connection, "temp", &name)?;
        Ok(format!("temp.{name}"))
    }

    /// Appends all rows to a table of this shape: `main` is the database itself, `temp`
    /// its temporary tables.
    ///
    /// # Errors
    /// What DuckDB says.
    fn append_to(
        &mut self,
        connection: &Connection,
        place: &str,
        table: &str,
    ) -> Result<(), StoreError> {
        if self.len() == 0 {
            return Ok(());
        }
        let arrays = self.take();
        let fields = Self::COLUMNS.iter().zip(&arrays);
        let fields = fields.map(|(name, a)| Field::new(*name, a.data_type().clone(), true));
        let schema = Schema::new(fields.collect::<Vec<_>>());
        let batch = RecordBatch::try_new(Arc::new(schema), arrays)
            .map_err(|e| StoreError::Db(format!("rows for {table}: {e}")))?;
        let mut appender = match place {
            "temp" => connection.appender_with_columns_to_catalog_and_db(
                table,
                "temp",
                "main",
                Self::COLUMNS,
            )?,
            _ => connection.appender_with_columns(table, Self::COLUMNS)?,
        };
        appender.append_record_batch(batch)?;
        // Explicitly: dropping would flush too, but swallow the error.
        appender.flush()?;
        Ok(())
    }
}

/// Declares rows of a table: a struct of columns with the same names.
macro_rules! rows {
    ($(#[$meta:meta])* $name:ident, $table:literal { $first:ident: $first_type:ty $(, $column:ident: $type:ty)* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $name {
            pub(crate) $first: $first_type,
            $(pub(crate) $column: $type,)*
            pub(crate) rows: usize,
        }
        impl Rows for $name {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [&'static str] = &[stringify!($first), $(stringify!($column)),*];
            fn len(&self) -> usize {
                self.rows
            }
            fn take(&mut self) -> Vec<ArrayRef> {
                self.rows = 0;
                vec![self.$first.take(), $(self.$column.take()),*]
            }
        }
    };
}

rows!(
    /// DNS exchanges.
    DnsRows, "dns_hot" {
        time: Time, sensor: Int32Builder, client: Text, mac: Text, name: Text, domain: Text,
        qtype: UInt16Builder, status: Text, rcode: UInt16Builder, answers: Texts,
        ttl: UInt32Builder, upstream: Text, latency_us: UInt32Builder, blocked_by: Text,
        source: Text, sensor_time: Time,
    }
);

/// The columns finished and open flows share.
macro_rules! flow_rows {
    ($(#[$meta:meta])* $name:ident, $table:literal { $($extra:ident: $type:ty),* $(,)? }) => {
        rows!($(#[$meta])* $name, $table {
            time: Time, sensor: Int32Builder, proto: UInt8Builder, src: Text,
            sport: UInt16Builder, dport: UInt16Builder, nat_src: Text,
            nat_sport: UInt16Builder, nat_dst: Text, nat_dport: UInt16Builder, start: TimeMs,
            duration_ms: UInt64Builder, bytes_out: UInt64Builder, bytes_in: UInt64Builder,
            packets_out: UInt64Builder, packets_in: UInt64Builder, tcp_state: Text,
            replied: BooleanBuilder, offloaded: BooleanBuilder, iface: Text, mac: Text,
            name_age_ms: UInt64Builder, sensor_time: Time,
            $($extra: $type,)*
        });
    };
}
flow_rows!(
    /// Finished flows.
    DoneRows, "flows_done" { peer: UInt32Builder }
);
flow_rows!(
    /// Open flows.
    OpenRows, "flows_open" {
        dst: Text, name: Text, id: UInt64Builder, epoch: UInt64Builder, received: Time,
    }
);

rows!(
    /// Packets the firewall stopped.
    FirewallRows, "firewall_hot" {
        time: Time, sensor: Int32Builder, verdict: Text, prefix: Text, proto: UInt8Builder,
        src: Text, sport: UInt16Builder, dst: Text, dport: UInt16Builder, in_iface: Text,
        out_iface: Text, mac: Text, bytes: UInt32Builder, sensor_time: Time,
    }
);
rows!(
    /// Spans in which a collector may have missed something.
    GapRows, "gaps" {
        time: Time, sensor: Int32Builder, collector: Text, since: Time, reason: Text,
        lost: UInt64Builder,
    }
);
rows!(
    /// Programs, as hosts tell of them.
    ProcessRows, "processes" {
        time: Time, sensor: Int32Builder, phase: Text, process: UInt64Builder,
        parent: UInt64Builder, host: Text, os: Text, pid: UInt32Builder, name: Text, exe: Text,
        deleted: BooleanBuilder, sha256: Text, argv: Texts, user_name: Text, signer: Text,
        package: Text, start: Time, container: Text, ancestors: Text, sensor_time: Time,
    }
);
rows!(
    /// Connections with their programs.
    ConnectionRows, "process_conns" {
        time: Time, sensor: Int32Builder, id: UInt64Builder, open: BooleanBuilder,
        process: UInt64Builder, pid: UInt32Builder, name: Text, direction: Text,
        proto: UInt8Builder, src: Text, sport: UInt16Builder, dst: Text, dport: UInt16Builder,
        start: Time, duration_ms: UInt64Builder, bytes_out: UInt64Builder,
        bytes_in: UInt64Builder, user_name: Text, container: Text, how: Text, domain: Text,
        sensor_time: Time,
    }
);
rows!(
    /// Findings.
    FindingRows, "findings" {
        id: Int64Builder, time: Time, sensor: Int32Builder, rule: Text, subject: Text,
        client: Text, mac: Text, score: Float64Builder, severity: Text, why: Text,
        evidence: Text, alert: Int64Builder, sensor_time: Time,
    }
);
rows!(
    /// Alerts.
    AlertRows, "alerts" {
        id: Int64Builder, dedup_key: Text, topic: Text, rule: Text, subject: Text, client: Text,
        mac: Text, first_seen: Time, last_seen: Time, findings: UInt64Builder,
        score: Float64Builder, severity: Text, why: Text, reasons: Text, status: Text,
        acked_at: Time, ack_note: Text, acked_score: Float64Builder, folded_into: Int64Builder,
        seen_by: UInt32Builder, devices: UInt32Builder, topic_since: Time, learned: BooleanBuilder,
    }
);
rows!(
    /// What each rule says of an alert's subjects.
    PartRows, "alert_parts" {
        alert: Int64Builder, rule: Text, subject: Text, first_seen: Time, last_seen: Time,
        findings: UInt64Builder, score: Float64Builder, worst: Time, why: Text,
        followed_at: Time, followed: Text, learning: BooleanBuilder,
    }
);
rows!(
    /// Keys of alerts, to find them by.
    AlertKeyRows, "alerts" { dedup_key: Text }
);
rows!(
    /// Ids of open flows, to remove them by.
    OpenKeyRows, "flows_open" { sensor: Int32Builder, id: UInt64Builder }
);
rows!(
    /// Where flows went.
    PeerRows, "peers" { id: UInt32Builder, dst: Text, name: Text }
);
rows!(
    /// Names for stored flows, and what finds their rows.
    NameRows, "flows_open" {
        time: Time, sensor: Int32Builder, proto: UInt8Builder, src: Text,
        sport: UInt16Builder, dst: Text, dport: UInt16Builder, name: Text,
        name_age_ms: UInt64Builder,
    }
);
rows!(
    /// Devices.
    DeviceRows, "devices" {
        mac: Text, hostname: Text, name_source: Text, iface: Text, mac_kind: Text, vendor: Text,
        first_seen: Time, last_seen: Time,
    }
);
rows!(
    /// Names of devices, by who gave them.
    DeviceNameRows, "device_names" {
        mac: Text, source: Text, name: Text, first_seen: Time, last_seen: Time,
    }
);
rows!(
    /// Stays of devices at addresses.
    AddressRows, "device_addresses" {
        mac: Text, ip: Text, first_seen: Time, last_seen: Time, stay: Int64Builder,
    }
);
rows!(
    /// How far each epoch of a sensor is stored.
    CursorRows, "ingest_cursor" {
        sensor: Int32Builder, epoch: UInt64Builder, seq: UInt64Builder, events: UInt64Builder,
        bad: UInt64Builder, updated: Time,
    }
);
rows!(
    /// What sensors count.
    CounterRows, "sensor_counters" { sensor: Int32Builder, name: Text, value: UInt64Builder }
);
rows!(
    /// How sensors' collectors are.
    CollectorRows, "sensor_collectors" { sensor: Int32Builder, name: Text, state: Text }
);
rows!(
    /// What the hub counts.
    HubCounterRows, "hub_counters" { name: Text, value: UInt64Builder }
);
rows!(
    /// Connections of Zeek's logs.
    ZeekConnRows, "zeek_conn" {
        sensor: Int32Builder, uid: Text, time: Time, proto: UInt8Builder, src: Text,
        sport: UInt16Builder, dst: Text, dport: UInt16Builder, service: Text,
        duration: Float64Builder, bytes_out: UInt64Builder, bytes_in: UInt64Builder,
        open: BooleanBuilder,
    }
);
rows!(
    /// Names said in them.
    ZeekNameRows, "zeek_name" { sensor: Int32Builder, uid: Text, name: Text, source: Text }
);
rows!(
    /// Hours of event time, and the round before which something last fell into them.
    ArrivalRows, "arrivals" { hour: Time, round: Int64Builder }
);
rows!(
    /// What devices do, by local day.
    HabitRows, "habits" {
        who: Text, kind: Text, what: Text, first_seen: Time, day: Int32Builder, bits: UInt64Builder,
    }
);
rows!(
    /// What devices moved, by hour.
    HourRows, "hours" {
        who: Text, hour: Time, up: UInt64Builder, down: UInt64Builder, flows: UInt64Builder,
        questions: UInt64Builder, odd: UInt8Builder,
    }
);
