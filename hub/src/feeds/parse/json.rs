//! Feeds of JSON records: Spamhaus DROP (<https://www.spamhaus.org/blocklists/do-not-route-or-peer/>)
//! and CERT Polska's warning list (<https://cert.pl/en/warning-list/>).

use serde::{Deserialize, de::DeserializeOwned};

use super::{Out, text_of};
use crate::feeds::facts::{Facts, time};

/// A whole document.
pub(super) fn read<T: DeserializeOwned>(download: &[u8]) -> Result<T, String> {
    let text = text_of(download)?;
    serde_json::from_str(&text).map_err(|e| {
        let what = agentmon_core::name::printable(e.to_string().as_bytes(), 160);
        format!("is not of the feed's form ({what})")
    })
}

/// `{"cidr":"203.0.113.0/24","sblid":"SBL1"}`, one a line, the last with `"type":"metadata"`.
#[derive(Deserialize)]
struct Drop {
    cidr: Option<String>,
    sblid: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) fn spamhaus_drop(download: &[u8], out: &mut Out) -> Result<(), String> {
    let text = text_of(download)?;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match serde_json::from_str::<Drop>(line) {
            Ok(Drop { cidr: Some(cidr), sblid, .. }) => {
                let reference = sblid.unwrap_or_default();
                let threat = "hijacked or leased for crime".to_owned();
                out.entry(&cidr, &Facts { threat, reference, ..Facts::default() });
            }
            Ok(Drop { kind: Some(_), .. }) => {}
            Ok(_) | Err(_) => out.skip("not an entry"),
        }
    }
    if out.entries == 0 {
        return Err("holds no networks of Spamhaus DROP".into());
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Warning {
    domain_address: String,
    insert_date: Option<String>,
    delete_date: Option<String>,
    register_position_id: Option<u64>,
}

pub(super) fn cert_pl(download: &[u8], out: &mut Out) -> Result<(), String> {
    let warnings: Vec<Warning> = read(download)?;
    for warning in warnings {
        if warning.delete_date.is_some() {
            out.skip("struck off");
            continue;
        }
        let id = warning.register_position_id.map(|id| format!("hole.cert.pl {id}"));
        let facts = Facts {
            threat: "phishing or fraud".into(),
            reference: id.unwrap_or_default(),
            first_seen: warning.insert_date.as_deref().and_then(time),
            expires: None,
        };
        out.entry(&warning.domain_address, &facts);
    }
    out.is_something("names of the warning list")
}
