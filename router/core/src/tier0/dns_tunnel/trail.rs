//! What one device, or the whole network, has sent below one domain: a weight that fades.
//!
//! In: the information of one new name after the other. Out: fading sums. Pure; constant
//! size. Three spans: [`BURST`] sees many short names at once, [`FAST`] a tunnel at work,
//! [`SLOW`] one that trickles.

use std::time::Duration;

use super::information::Information;
use crate::event::{Answer, Dns};
use crate::name::Name;
use crate::tier0::question::Question;
use crate::tier0::sketch::Kept;
use crate::time::Mono;

/// Half of what was sent this long ago counts: two names a second are seen within a minute,
/// one every two seconds, as a virus scanner asks while it goes through a disk, never.
pub(super) const BURST: Duration = Duration::from_secs(120);
/// Half of what was sent this long ago counts: a tunnel of one long name every two minutes
/// is seen within ten.
pub(super) const FAST: Duration = Duration::from_secs(900);
/// The same for what trickles: a name every half an hour adds up over a working day.
pub(super) const SLOW: Duration = Duration::from_secs(6 * 3_600);

/// Information at which a name weighs what it says; longer names weigh more for each bit and
/// shorter ones less, since whoever has something to send fills names. An identifier or a
/// fingerprint says 100 to 200 bits.
const USUAL_BITS: f32 = 200.0;
/// What one label can hold: further ones are there to carry more, and weigh more.
const LABEL_BITS: f32 = 320.0;
/// Bits beyond one label that add once a name's bits to its weight.
const BEYOND_BITS: f32 = 40.0;
/// Most and least times its bits a name weighs for its length.
const LENGTH_MAX: f32 = 5.0;
const LENGTH_MIN: f32 = 0.25;
/// How much more a name weighs that no program asks for when it wants an address: bytes
/// outside host names, types only tools use.
const ODD: f32 = 4.0;
/// The same for types that mail servers and the like use too.
const RARE: f32 = 2.0;
/// The same for long answers in words: what comes back is data as well.
const LONG_ANSWER: f32 = 2.0;
/// Characters from which on an answer in words is long.
const LONG_ANSWER_CHARS: usize = 100;
/// A fingerprint asks about something; as many of them as a virus scanner asks for while it
/// goes through a disk are no tunnel.
const FINGERPRINT_MAX: f32 = 10.0;
/// From here on a name is too long for a trickle of ordinary ones, or for one device alone.
const LONG_BITS: f32 = 150.0;
/// From here on a short name counts among many different ones.
const SHORT_BITS: f32 = 10.0;
/// An odd one counts as so many: nobody asks for ten in a quarter of an hour.
const SHORT_ODD: f32 = 24.0;
/// The same for types that mail servers use too.
const SHORT_RARE: f32 = 2.0;

/// As how many names of a burst it counts: a fingerprint, a name that holds a session's
/// number and a few bytes beside it, an odd one.
const BURST_FINGERPRINT: f32 = 0.6;
const BURST_SESSION: f32 = 2.5;
const BURST_SESSION_BITS: f32 = 50.0;
const BURST_ODD: f32 = 8.0;

/// What a new name adds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Weight {
    pub(super) bits: f32,
    pub(super) fast: f32,
    /// Of `fast`, what is in long names that are neither fingerprints nor addresses.
    pub(super) long: f32,
    /// How much it counts among many different names.
    pub(super) short: f32,
    /// How much it counts among many at once.
    pub(super) burst: f32,
    pub(super) odd: bool,
}

impl Weight {
    pub(super) fn of(dns: &Dns, question: &Question<'_>, info: Information) -> Self {
        let oddness = oddness(dns, question, info);
        let weight = info.bits * length(info.bits) * oddness;
        let asks = info.fingerprint && oddness < ODD;
        let fast = if asks { weight.min(FINGERPRINT_MAX) } else { weight };
        let new = !info.counter && !question.is_glued() && !question.has_address();
        let plain = new && !asks;
        let many = new && info.fresh >= SHORT_BITS && !question.is_service();
        Self {
            bits: info.bits,
            fast,
            long: if plain && info.bits >= LONG_BITS { weight } else { 0.0 },
            short: match many && !asks {
                true if oddness >= ODD => SHORT_ODD,
                true if oddness >= RARE => SHORT_RARE,
                true => 1.0,
                false => 0.0,
            },
            burst: match many {
                true if oddness >= ODD => BURST_ODD,
                true if asks => BURST_FINGERPRINT,
                true if info.fresh >= BURST_SESSION_BITS => BURST_SESSION,
                true => 1.0,
                false => 0.0,
            },
            odd: oddness >= ODD,
        }
    }
}

/// How many times its bits a name weighs for its length.
fn length(bits: f32) -> f32 {
    let beyond = (bits - LABEL_BITS).max(0.0) / BEYOND_BITS;
    (bits.min(LABEL_BITS) / USUAL_BITS + beyond).clamp(LENGTH_MIN, LENGTH_MAX)
}

/// How unlike an ordinary question it is, besides by its length.
fn oddness(dns: &Dns, question: &Question<'_>, info: Information) -> f32 {
    // RFC 1035, 2782, 3596, 9460 and IANA's registry of types.
    let service = question.is_service();
    let by_type = match dns.qtype {
        // A, NS, SOA, PTR, AAAA, NAPTR, DS, RRSIG, NSEC, DNSKEY, TLSA, SVCB, HTTPS, CAA.
        1 | 2 | 6 | 12 | 28 | 35 | 43 | 46 | 47 | 48 | 52 | 64 | 65 | 257 => 1.0,
        // MX, TXT, SPF.
        15 | 16 | 99 => RARE,
        33 if service || question.sub.starts_with('_') => 1.0,
        // CNAME, NULL, KEY, SRV of no service, ANY, private use, what nobody has heard of.
        _ => ODD,
    };
    let by_bytes = if info.odd_bytes && !service { ODD } else { 1.0 };
    let words = dns.answers.iter().any(|answer| match answer {
        Answer::Address(_) => false,
        Answer::Cname(name) => name.as_str().len() >= LONG_ANSWER_CHARS,
        Answer::Other(text) => text.len() >= LONG_ANSWER_CHARS,
    });
    by_type.max(by_bytes).max(if words { LONG_ANSWER } else { 1.0 })
}

/// What was sent below one domain.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// When the sums were last faded; they are of this moment.
    at: Mono,
    pub(super) fast: f32,
    /// Of `fast`, what was in long names; the same fading slowly.
    pub(super) long: f32,
    pub(super) slow: f32,
    /// Different names, fading fast and slowly.
    pub(super) names: f32,
    pub(super) names_slow: f32,
    /// Different short names; the same fading very fast and slowly.
    pub(super) short: f32,
    pub(super) burst: f32,
    pub(super) short_slow: f32,
    /// Bits, fading fast and slowly.
    pub(super) bits: f32,
    pub(super) bits_slow: f32,
    /// Odd names, fading fast.
    pub(super) odd: f32,
    /// The name before, for what the next one has in common with it.
    pub(super) before: Option<Name>,
}

impl Trail {
    pub(super) fn fade(&mut self, at: Mono) {
        let passed = at.since(self.at).as_secs_f32();
        self.at = at;
        if passed > 0.0 {
            let fast = (-passed / FAST.as_secs_f32()).exp2();
            let slow = (-passed / SLOW.as_secs_f32()).exp2();
            let sums = [
                &mut self.fast,
                &mut self.long,
                &mut self.names,
                &mut self.short,
                &mut self.bits,
                &mut self.odd,
            ];
            for sum in sums {
                *sum *= fast;
            }
            let sums =
                [&mut self.slow, &mut self.names_slow, &mut self.bits_slow, &mut self.short_slow];
            for sum in sums {
                *sum *= slow;
            }
            self.burst *= (-passed / BURST.as_secs_f32()).exp2();
        }
    }

    /// After [`Self::fade`].
    pub(super) fn add(&mut self, name: &Name, weight: Weight) {
        self.fast += weight.fast;
        self.slow += weight.long;
        self.long += weight.long;
        self.names += 1.0;
        self.bits += weight.bits;
        self.short += weight.short;
        self.short_slow += weight.short;
        self.burst += weight.burst;
        self.odd += f32::from(u8::from(weight.odd));
        if weight.long > 0.0 {
            self.names_slow += 1.0;
            self.bits_slow += weight.bits;
        }
        self.before = Some(name.clone());
    }
}

impl Kept for Trail {
    fn worth(&self, at: Mono) -> f32 {
        let passed = at.since(self.at).as_secs_f32();
        (self.slow + self.fast + self.short) * (-passed / SLOW.as_secs_f32()).exp2()
    }
}

/// From so many names on it says something that no connection followed.
const NEVER_NAMES: u32 = 20;

/// What speaks for a domain, from the whole network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    /// Devices that ask below it, as bits.
    devices: u64,
    /// Names new to the network.
    pub(super) names: u32,
    /// Names that a second device asked for too.
    pub(super) shared: u32,
    /// Connections to what it was resolved to.
    pub(super) connections: u32,
}

impl Use {
    pub(super) fn by(&mut self, device: u64) {
        self.devices |= 1 << (device & 63);
    }
    pub(super) const fn devices(&self) -> u32 {
        self.devices.count_ones()
    }
    /// Names that several ask for are no messages of one of them.
    pub(super) const fn is_shared(&self) -> bool {
        self.shared >= 3 && self.shared >= self.names / 10
    }
    /// Only one device asks below it, no name of it twice, and nobody connects: what software
    /// that many have asks for is asked for by several, sooner or later.
    pub(super) const fn is_alone(&self) -> bool {
        self.devices() == 1 && self.shared == 0 && self.connections == 0
    }
    /// Nobody who asks wants the address.
    pub(super) const fn is_never_connected(&self) -> bool {
        self.connections == 0 && self.names >= NEVER_NAMES
    }
    /// Whoever asks wants the address.
    pub(super) const fn is_connected(&self) -> bool {
        self.connections >= 3 && self.connections >= self.names / 4
    }
    /// How much more it takes to be suspicious. Bounded: each of these could be feigned.
    pub(super) fn trust(&self) -> f32 {
        let mut trust = 1.0;
        for (speaks, times) in
            [(self.is_shared(), 3.0), (self.is_connected(), 3.0), (self.devices() >= 5, 2.0)]
        {
            trust *= if speaks { times } else { 1.0 };
        }
        trust
    }
}
