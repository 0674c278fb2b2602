//! Result columns as JSON: what a query's rows look like on the control socket.
//!
//! Times are RFC 3339 UTC text (`2026-11-23T14:32:07.000123Z`), dates `2026-11-23`, lists
//! arrays, structs objects, byte strings lower-case hex; integers beyond 64 bits and
//! decimals become the nearest number; NaN and infinities, which JSON lacks, are text.

use agentmon_core::Timestamp;
use duckdb::arrow::array::{Array, AsArray, RecordBatch};
use duckdb::arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use serde_json::{Map, Value};

/// DuckDB's name of a column type.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    let name = match data_type {
        DataType::Boolean => "BOOLEAN",
        DataType::Int8 => "TINYINT",
        DataType::Int16 => "SMALLINT",
        DataType::Int32 => "INTEGER",
        DataType::Int64 => "BIGINT",
        DataType::UInt8 => "UTINYINT",
        DataType::UInt16 => "USMALLINT",
        DataType::UInt32 => "UINTEGER",
        DataType::UInt64 => "UBIGINT",
        DataType::Float32 => "FLOAT",
        DataType::Float64 => "DOUBLE",
        DataType::Decimal128(38, 0) => "HUGEINT",
        DataType::Timestamp(_, None) => "TIMESTAMP",
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE",
        DataType::Date32 => "DATE",
        DataType::Time64(_) => "TIME",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR",
        DataType::Dictionary(..) => "ENUM",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BLOB",
        DataType::Interval(_) => "INTERVAL",
        DataType::Decimal128(precision, scale) => return format!("DECIMAL({precision},{scale})"),
        DataType::List(of) => return format!("{}[]", type_name(of.data_type())),
        DataType::Struct(_) => "STRUCT",
        DataType::Map(..) => "MAP",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// The values of row `row`, in column order.
#[must_use]
pub fn row(batch: &RecordBatch, row: usize) -> Vec<Value> {
    batch.columns().iter().map(|column| value(column.as_ref(), row)).collect()
}

/// One value; `row` must be within the array.
fn value(array: &dyn Array, row: usize) -> Value {
    macro_rules! number {
        ($kind:ty) => {
            Value::from(array.as_primitive::<$kind>().value(row))
        };
    }
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => Value::from(array.as_boolean().value(row)),
        DataType::Int8 => number!(Int8Type),
        DataType::Int16 => number!(Int16Type),
        DataType::Int32 => number!(Int32Type),
        DataType::Int64 => number!(Int64Type),
        DataType::UInt8 => number!(UInt8Type),
        DataType::UInt16 => number!(UInt16Type),
        DataType::UInt32 => number!(UInt32Type),
        DataType::UInt64 => number!(UInt64Type),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => Value::from(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Value::from(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Value::from(array.as_string_view().value(row)),
        DataType::Binary => hex(array.as_binary::<i32>().value(row)),
        DataType::Timestamp(unit, _) => Value::from(timestamp(array, *unit, row).to_string()),
        DataType::Date32 => {
            let days = array.as_primitive::<duckdb::arrow::datatypes::Date32Type>().value(row);
            let (y, m, d) = agentmon_core::time::civil_from_days(days.into());
            Value::from(format!("{y:04}-{m:02}-{d:02}"))
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            let us = array.as_primitive::<Time64MicrosecondType>().value(row);
            let s = us / 1_000_000;
            Value::from(format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60))
        }
        DataType::Decimal128(_, scale) => {
            decimal(array.as_primitive::<Decimal128Type>().value(row), *scale)
        }
        DataType::List(_) => list(array.as_list::<i32>().value(row).as_ref()),
        DataType::Map(..) => list(&array.as_map().value(row)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns();
            let pairs = fields.iter().zip(columns);
            let pairs = pairs.map(|(f, c)| (f.name().clone(), value(c.as_ref(), row)));
            Value::Object(pairs.collect::<Map<_, _>>())
        }
        // Everything rarer (intervals, enums, unions): arrow's own text.
        _ => duckdb::arrow::util::display::array_value_to_string(array, row)
            .map_or(Value::Null, Value::from),
    }
}

fn list(items: &dyn Array) -> Value {
    Value::Array((0..items.len()).map(|i| value(items, i)).collect())
}

fn float(f: f64) -> Value {
    serde_json::Number::from_f64(f).map_or_else(|| Value::from(f.to_string()), Value::Number)
}

/// Sums of 64-bit columns arrive as 128-bit integers: exact as far as JSON readers are.
fn decimal(raw: i128, scale: i8) -> Value {
    if scale == 0 {
        if let Ok(n) = i64::try_from(raw) {
            return Value::from(n);
        }
        if let Ok(n) = u64::try_from(raw) {
            return Value::from(n);
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "nearest number is the promise")]
    float(raw as f64 / 10f64.powi(scale.into()))
}

fn hex(bytes: &[u8]) -> Value {
    Value::from(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn timestamp(array: &dyn Array, unit: TimeUnit, row: usize) -> Timestamp {
    match unit {
        TimeUnit::Second => {
            Timestamp::from_secs(array.as_primitive::<TimestampSecondType>().value(row))
        }
        TimeUnit::Millisecond => Timestamp::from_micros(
            array.as_primitive::<TimestampMillisecondType>().value(row).saturating_mul(1_000),
        ),
        TimeUnit::Microsecond => {
            Timestamp::from_micros(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => {
            Timestamp::from_nanos(array.as_primitive::<TimestampNanosecondType>().value(row))
        }
    }
}
