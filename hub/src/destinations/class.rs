//! Kinds of networks, and the addresses that are in none.
//!
//! Sources: IANA's special-purpose registries (RFC 6890) and what RFC 1918, 4193, 6598 and
//! 5737/3849 set aside.

use std::net::IpAddr;

use ipnet::IpNet;

/// What kind of network an address is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// This network's own: private, link-local, multicast.
    Local,
    /// Nobody's: reserved, for documentation. Never announced.
    Reserved,
    /// No list knows it: an access network, as far as can be told.
    Residential,
    /// Machines for rent, by nobody in particular.
    Hosting,
    /// A large company's machines for rent.
    Cloud,
    /// A company's own service: a social network, a messenger.
    Service,
    /// A network that delivers what others publish.
    Cdn,
    /// The way out of a relay that hides people, run with the device's maker.
    Relay,
    /// The way in or out of a VPN.
    Vpn,
    /// Part of the Tor network.
    Tor,
}

impl Class {
    /// All; where networks overlap a later one counts more.
    pub const ALL: [Self; 10] = [
        Self::Local,
        Self::Reserved,
        Self::Residential,
        Self::Hosting,
        Self::Cloud,
        Self::Service,
        Self::Cdn,
        Self::Relay,
        Self::Vpn,
        Self::Tor,
    ];

    /// The word shown and typed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Reserved => "reserved",
            Self::Residential => "residential",
            Self::Hosting => "hosting",
            Self::Cloud => "cloud",
            Self::Service => "service",
            Self::Cdn => "cdn",
            Self::Relay => "relay",
            Self::Vpn => "vpn",
            Self::Tor => "tor",
        }
    }

    /// The class of a word.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str().eq_ignore_ascii_case(word))
    }

    /// Where machines stand, not people.
    #[must_use]
    pub const fn is_machines(self) -> bool {
        matches!(self, Self::Hosting | Self::Cloud | Self::Service | Self::Cdn)
    }

    /// It hides who talks to whom.
    #[must_use]
    pub const fn hides(self) -> bool {
        matches!(self, Self::Vpn | Self::Tor)
    }

    /// For a sentence: `a VPN`.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Local => "this network",
            Self::Reserved => "a reserved network",
            Self::Residential => "what seems to be a home's or an access provider's network",
            Self::Hosting => "a hosting provider",
            Self::Cloud => "a cloud provider",
            Self::Service => "a company's own network",
            Self::Cdn => "a delivery network",
            Self::Relay => "a privacy relay",
            Self::Vpn => "a VPN",
            Self::Tor => "the Tor network",
        }
    }
}

/// Networks outside the Internet, with what they are; the first that holds it counts.
const OUTSIDE: [(&str, Class); 27] = [
    ("10.0.0.0/8", Class::Local),
    ("192.168.0.0/16", Class::Local),
    ("172.16.0.0/12", Class::Local),
    ("127.0.0.0/8", Class::Local),
    ("169.254.0.0/16", Class::Local),
    // Between a provider and its customers, and within overlay networks.
    ("100.64.0.0/10", Class::Local),
    ("224.0.0.0/4", Class::Local),
    ("255.255.255.255/32", Class::Local),
    ("0.0.0.0/8", Class::Local),
    ("192.0.0.0/24", Class::Reserved),
    ("192.0.2.0/24", Class::Reserved),
    ("198.51.100.0/24", Class::Reserved),
    ("203.0.113.0/24", Class::Reserved),
    ("198.18.0.0/15", Class::Reserved),
    ("240.0.0.0/4", Class::Reserved),
    ("fe80::/10", Class::Local),
    ("fc00::/7", Class::Local),
    ("ff00::/8", Class::Local),
    ("::1/128", Class::Local),
    ("::/128", Class::Local),
    ("2001:db8::/32", Class::Reserved),
    ("3fff::/20", Class::Reserved),
    ("100::/64", Class::Reserved),
    ("2001:2::/48", Class::Reserved),
    ("5f00::/16", Class::Reserved),
    ("4000::/2", Class::Reserved),
    ("8000::/1", Class::Reserved),
];

static PARSED: std::sync::LazyLock<Vec<(IpNet, Class)>> = std::sync::LazyLock::new(|| {
    let parse = |(net, class): &(&str, Class)| (net.parse().expect("a network, tested"), *class);
    OUTSIDE.iter().map(parse).collect()
});

/// The class of an address outside the Internet.
pub(super) fn reserved(address: IpAddr) -> Option<Class> {
    PARSED.iter().find(|(net, _)| net.contains(&address)).map(|(_, class)| *class)
}
