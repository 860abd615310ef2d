//! Which addresses a request to a user-given URL may reach.
//!
//! Refused are all that lead into somebody's own network, by the registries of special addresses
//! (RFC 6890, and the RFC beside each). An IPv6 address that stands for an IPv4 one is judged as what it stands for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

macro_rules! v4 {
    ($($part:literal),* ; $len:literal) => { Ipv4Net::new_assert(Ipv4Addr::new($($part),*), $len) };
}

macro_rules! v6 {
    ($($part:literal),* ; $len:literal) => { Ipv6Net::new_assert(Ipv6Addr::new($($part),*), $len) };
}

const REFUSED_V4: &[(Ipv4Net, &str)] = &[
    (v4!(0, 0, 0, 0; 8), "this network (RFC 791)"),
    (v4!(10, 0, 0, 0; 8), "private (RFC 1918)"),
    (v4!(100, 64, 0, 0; 10), "shared by carriers (RFC 6598)"),
    (v4!(127, 0, 0, 0; 8), "this machine (RFC 1122)"),
    // holds 169.254.169.254, where clouds keep a machine's credentials
    (v4!(169, 254, 0, 0; 16), "link-local (RFC 3927)"),
    (v4!(172, 16, 0, 0; 12), "private (RFC 1918)"),
    (v4!(192, 0, 0, 0; 24), "protocol assignments (RFC 6890)"),
    (v4!(192, 0, 2, 0; 24), "documentation (RFC 5737)"),
    (v4!(192, 88, 99, 0; 24), "6to4 relays (RFC 7526)"),
    (v4!(192, 168, 0, 0; 16), "private (RFC 1918)"),
    (v4!(198, 18, 0, 0; 15), "benchmarks (RFC 2544)"),
    (v4!(198, 51, 100, 0; 24), "documentation (RFC 5737)"),
    (v4!(203, 0, 113, 0; 24), "documentation (RFC 5737)"),
    (v4!(224, 0, 0, 0; 4), "multicast (RFC 5771)"),
    (v4!(240, 0, 0, 0; 4), "reserved, and broadcast (RFC 1112, RFC 919)"),
    // a public address by its number; only machines of that cloud reach their metadata service under it
    (v4!(168, 63, 129, 16; 32), "a cloud's metadata service (Azure)"),
];

const REFUSED_V6: &[(Ipv6Net, &str)] = &[
    // `::`, `::1`, and IPv4-compatible addresses (RFC 4291, deprecated there)
    (v6!(0, 0, 0, 0, 0, 0, 0, 0; 96), "this machine (RFC 4291)"),
    (v6!(0x64, 0xff9b, 1, 0, 0, 0, 0, 0; 48), "local translation to IPv4 (RFC 8215)"),
    (v6!(0x100, 0, 0, 0, 0, 0, 0, 0; 64), "discard (RFC 6666)"),
    (v6!(0x2001, 0, 0, 0, 0, 0, 0, 0; 23), "protocol assignments, Teredo among them (RFC 2928, RFC 4380)"),
    (v6!(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0; 32), "documentation (RFC 3849)"),
    (v6!(0x2002, 0, 0, 0, 0, 0, 0, 0; 16), "6to4 (RFC 7526)"),
    (v6!(0x3fff, 0, 0, 0, 0, 0, 0, 0; 20), "documentation (RFC 9637)"),
    (v6!(0x5f00, 0, 0, 0, 0, 0, 0, 0; 16), "segment routing (RFC 9602)"),
    (v6!(0xfc00, 0, 0, 0, 0, 0, 0, 0; 7), "private (RFC 4193)"),
    (v6!(0xfe80, 0, 0, 0, 0, 0, 0, 0; 10), "link-local (RFC 4291)"),
    (v6!(0xfec0, 0, 0, 0, 0, 0, 0, 0; 10), "site-local (RFC 3879)"),
    (v6!(0xff00, 0, 0, 0, 0, 0, 0, 0; 8), "multicast (RFC 4291)"),
];

/// `::ffff:a.b.c.d` (RFC 4291) and `64:ff9b::a.b.c.d` (RFC 6052): another way to write an IPv4 address.
const STANDS_FOR_V4: &[Ipv6Net] = &[v6!(0, 0, 0, 0, 0, 0xffff, 0, 0; 96), v6!(0x64, 0xff9b, 0, 0, 0, 0, 0, 0; 96)];

/// Addresses that may be reached although they are refused by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Refuses every special address but these.
    pub fn allowing(allowed: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }

    /// Why the address may not be reached; `None` when it may.
    pub fn refusal(&self, address: IpAddr) -> Option<&'static str> {
        let meant = stands_for(address);
        if self.allowed.iter().any(|net| net.contains(&address) || net.contains(&meant)) {
            return None;
        }
        match meant {
            IpAddr::V4(v4) => REFUSED_V4.iter().find(|(net, _)| net.contains(&v4)).map(|(_, why)| *why),
            IpAddr::V6(v6) => REFUSED_V6.iter().find(|(net, _)| net.contains(&v6)).map(|(_, why)| *why),
        }
    }
}

/// The IPv4 address that an IPv6 address is another notation of, or the address itself.
fn stands_for(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if STANDS_FOR_V4.iter().any(|net| net.contains(&v6)) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        other => other,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn refused(address: &str) -> bool {
        AddressPolicy::default().refusal(address.parse().unwrap()).is_some()
    }

    #[test]
    fn addresses_of_ones_own_network_are_refused_and_public_ones_are_not() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::7f00:1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "64:ff9b:1::1",
            "100::1",
        ] {
            assert!(refused(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.169.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
        ] {
            assert!(!refused(address), "{address}");
        }
    }

    #[test]
    fn another_notation_of_an_ipv4_address_is_judged_as_that_address() {
        for (address, expected) in [
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::ffff:1.1.1.1", false),
            ("64:ff9b::10.0.0.1", true),
            ("64:ff9b::1.1.1.1", false),
        ] {
            assert_eq!(refused(address), expected, "{address}");
        }
    }

    #[test]
    fn what_the_configuration_allows_is_reached_and_nothing_beside_it() {
        let policy = AddressPolicy::allowing(["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        let refused = |address: &str| policy.refusal(address.parse().unwrap()).is_some();
        assert!(!refused("10.9.8.7") && !refused("::ffff:10.9.8.7") && !refused("::1"));
        assert!(refused("127.0.0.1") && refused("192.168.1.1") && refused("::"));
    }
}
