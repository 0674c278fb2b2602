//! What a record says, as an [`Answer`]: addresses and aliases as such, all else as one
//! line of printable text, the type's name first.
//!
//! Formats: RFC 1035 section 3.3, RFC 2782 (SRV), RFC 9460 (SVCB, HTTPS), RFC 8659 (CAA),
//! RFC 3597 section 5 (`\# length hex` for types without a form of their own).
//!
//! The address hints of SVCB and HTTPS records stand in the text, where
//! [`crate::event::Dns::destinations`] finds them: a client may connect by them at once (RFC
//! 9460 section 7.3).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::types::type_name;
use super::{OPTION_EDE, Reader, Stop};
use crate::event::{Answer, TEXT_BYTES_MAX, unmap};
use crate::name::{cut, printable};

/// Octets shown of data that has no form of its own.
const HEX_OCTETS_MAX: usize = 64;
/// Most octets of what a server says of an error.
const EDE_TEXT_MAX: usize = 128;

impl Reader<'_> {
    /// This record data as an answer. Data that breaks its type's format is shown in hex:
    /// the rest of the message can still be read.
    pub(super) fn answer(&mut self, rtype: u16, class: u16) -> Answer {
        let raw = *self;
        let known = match (rtype, class) {
            // Only in class Internet are these addresses.
            (1, 1) => self.array::<4>().map(|o| Answer::Address(IpAddr::from(o))),
            (28, 1) => self.array::<16>().map(|o| Answer::Address(unmap(IpAddr::from(o)))),
            (5, _) => self.name().map(Answer::Cname),
            _ => self.text(rtype).map(|text| Answer::Other(cut(text, TEXT_BYTES_MAX))),
        };
        match known {
            Ok(answer) if self.at == self.end => answer,
            _ => Answer::Other(hex(raw, rtype)),
        }
    }

    fn text(&mut self, rtype: u16) -> Result<String, Stop> {
        let mut out = type_name(rtype).into_owned();
        match rtype {
            2 | 12 | 39 => add(&mut out, self.name()?),
            6 => self.soa(&mut out)?,
            15 => {
                add(&mut out, self.u16()?);
                add(&mut out, self.name()?);
            }
            13 | 16 | 99 => self.strings(&mut out)?,
            33 => {
                for _ in 0..3 {
                    add(&mut out, self.u16()?);
                }
                add(&mut out, self.name()?);
            }
            64 | 65 => self.service(&mut out)?,
            257 => self.caa(&mut out)?,
            _ => return Err(Stop::Bad("no form of its own")),
        }
        Ok(out)
    }

    /// The first extended error among the options of an OPT record; options that break the
    /// format end the search and nothing else.
    pub(super) fn extended_error(&mut self) -> Option<(u16, String)> {
        loop {
            let (option, length) = (self.u16().ok()?, usize::from(self.u16().ok()?));
            let data = self.take(length).ok()?;
            if option == OPTION_EDE
                && let Some((code, text)) = data.split_first_chunk::<2>()
            {
                return Some((u16::from_be_bytes(*code), printable(text, EDE_TEXT_MAX)));
            }
        }
    }

    fn soa(&mut self, out: &mut String) -> Result<(), Stop> {
        add(out, self.name()?);
        add(out, self.name()?);
        for _ in 0..5 {
            add(out, self.u32()?);
        }
        Ok(())
    }

    /// One or more strings, each with its length in front.
    fn strings(&mut self, out: &mut String) -> Result<(), Stop> {
        while self.at < self.end {
            let length = usize::from(self.u8()?);
            let string = self.take(length)?;
            // Long texts are read to their end, but not collected.
            if out.len() <= TEXT_BYTES_MAX {
                add(out, format_args!("\"{}\"", printable(string, TEXT_BYTES_MAX)));
            }
        }
        Ok(())
    }

    fn caa(&mut self, out: &mut String) -> Result<(), Stop> {
        add(out, self.u8()?);
        let length = usize::from(self.u8()?);
        add(out, printable(self.take(length)?, TEXT_BYTES_MAX));
        add(out, format_args!("\"{}\"", printable(self.rest(), TEXT_BYTES_MAX)));
        Ok(())
    }

    /// `priority target key=value ...`
    fn service(&mut self, out: &mut String) -> Result<(), Stop> {
        add(out, self.u16()?);
        add(out, self.name()?);
        while self.at < self.end {
            let (key, length) = (self.u16()?, usize::from(self.u16()?));
            let from = self.at;
            self.skip(length)?;
            let value = Reader { message: self.message, at: from, end: self.at };
            if out.len() <= TEXT_BYTES_MAX {
                value.service_parameter(key, out)?;
            }
        }
        Ok(())
    }

    /// Keys: IANA's registry "Service Parameter Keys (SvcParamKeys)".
    fn service_parameter(mut self, key: u16, out: &mut String) -> Result<(), Stop> {
        let length = self.end - self.at;
        let mut divider = '=';
        let mut item = |out: &mut String, text: String| {
            out.push(std::mem::replace(&mut divider, ','));
            out.push_str(&text);
        };
        match key {
            1 => {
                out.push_str(" alpn");
                while self.at < self.end {
                    let length = usize::from(self.u8()?);
                    item(out, printable(self.take(length)?, 64));
                }
            }
            2 => out.push_str(" no-default-alpn"),
            3 => {
                add(out, format_args!("port={}", self.u16()?));
            }
            4 => {
                out.push_str(" ipv4hint");
                while self.at < self.end {
                    item(out, Ipv4Addr::from(self.array::<4>()?).to_string());
                }
            }
            6 => {
                out.push_str(" ipv6hint");
                while self.at < self.end {
                    item(out, Ipv6Addr::from(self.array::<16>()?).to_string());
                }
            }
            7 => {
                add(out, format_args!("dohpath={}", printable(self.rest(), 64)));
            }
            // Keys, not text: their length tells whether they are there.
            5 => {
                add(out, format_args!("ech=({length} octets)"));
            }
            _ => {
                add(out, format_args!("key{key}=({length} octets)"));
            }
        }
        Ok(())
    }
}

fn add(out: &mut String, item: impl std::fmt::Display) {
    out.push(' ');
    out.push_str(&item.to_string());
}

fn hex(data: Reader<'_>, rtype: u16) -> String {
    let mut data = data;
    let octets = data.rest();
    let mut out = format!("{} \\# {}", type_name(rtype), octets.len());
    if !octets.is_empty() {
        out.push(' ');
    }
    for octet in octets.iter().take(HEX_OCTETS_MAX) {
        out.push_str(&format!("{octet:02x}"));
    }
    if octets.len() > HEX_OCTETS_MAX {
        out.push_str("...");
    }
    out
}
