//! Lists -> their compiled form, in memory that does not grow with them.
//!
//! In: the texts, read as often as it takes. Out: the form of `format`, as a stream. Names
//! are sorted in memory at most [`PORTION_NAMES`] at a time (8 MB): when there are more, the
//! first pass over the texts only counts, and each further one keeps the names of some
//! buckets, lowest first. A list of 3 million names is read four times, which costs
//! processor time once and no memory and no temporary file.
//!
//! Invariants: the bytes are the same whatever the portions; a text that changes between
//! passes is an error.

use std::io::{self, Write};

use super::builder::{Builder, Portion};
use super::format::Output;
use super::report::ListReport;
use super::set::BUCKETS;
use super::{Config, ListConfig};

/// Most names sorted at a time.
pub const PORTION_NAMES: usize = 1024 * 1024;

/// Reads a list: hands its text on in portions.
pub type Read<'a, E> = dyn FnMut(&ListConfig, &mut dyn FnMut(&[u8])) -> Result<(), E> + 'a;

/// Compiles the configuration's lists; `source` says what they were made of, and stands in
/// the footer.
///
/// # Errors
/// What `read` or `out` say; a list that changed while it was read.
pub fn compile<E: From<io::Error>>(
    config: &Config,
    source: u64,
    read: &mut Read<'_, E>,
    out: &mut dyn Write,
) -> Result<Vec<ListReport>, E> {
    compile_by(PORTION_NAMES, config, source, read, out)
}

pub(super) fn compile_by<E: From<io::Error>>(
    names_max: usize,
    config: &Config,
    source: u64,
    read: &mut Read<'_, E>,
    out: &mut dyn Write,
) -> Result<Vec<ListReport>, E> {
    let mut first = Builder::of(config.entries_max, Portion { buckets: 0..BUCKETS, names_max });
    let reports = pass(&mut first, config, read)?;
    let (lists, extras) = (first.lists().to_vec(), first.extras().clone());
    let mut output = Output::new(out);
    match first.portions() {
        None => first.write(&mut output)?,
        Some(portions) => {
            for portion in portions {
                let mut next = first.again(portion);
                pass(&mut next, config, read)?;
                next.write(&mut output)?;
            }
        }
    }
    output.finish(&lists, &extras, source)?;
    Ok(reports)
}

fn pass<E>(
    builder: &mut Builder,
    config: &Config,
    read: &mut Read<'_, E>,
) -> Result<Vec<ListReport>, E> {
    config.own_in(builder);
    let mut reports = Vec::with_capacity(config.lists.len());
    for list in &config.lists {
        builder.begin(list);
        read(list, &mut |text| builder.feed(text))?;
        reports.push(builder.end());
    }
    Ok(reports)
}
