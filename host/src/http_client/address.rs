//! Which addresses a name may not lead to, whoever granted the name.
//!
//! What is not of the public internet belongs to this machine or to the network it stands in: whoever runs a
//! name's server could point it there. IPv6 has many ways to write an IPv4 address; none of them is needed to reach
//! one, and all are refused. The kinds are those of the registries of special addresses (RFC 6890, and IANA's).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kind of an address that may not be reached, as it is told; `None` for one of the public internet.
pub(super) fn closed(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => closed_v4(address),
        IpAddr::V6(address) => closed_v6(address),
    }
}

fn closed_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an address of this network (0.0.0.0/8)",
        [127, ..] => "a loopback address",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [169, 254, ..] => "a link-local address",
        [100, 64..=127, ..] => "an address of a carrier's own network (100.64.0.0/10)",
        [198, 18..=19, ..] => "an address for benchmarks (198.18.0.0/15)",
        [192, 0, 0, _] => "an address of a protocol (192.0.0.0/24)",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for documentation",
        [192, 88, 99, _] => "a relay of 6to4 (192.88.99.0/24)",
        [224..=239, ..] => "a multicast address",
        [240..=255, ..] => "a reserved address (240.0.0.0/4)",
        _ => return None,
    })
}

fn closed_v6(address: Ipv6Addr) -> Option<&'static str> {
    Some(match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => "the unspecified address",
        [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
        [0, 0, 0, 0, 0, 0xffff, ..] => "an IPv4 address within IPv6 (::ffff:0:0/96)",
        [0, 0, 0, 0, 0xffff, 0, ..] => "an IPv4 address within IPv6 (::ffff:0:0:0/96)",
        [0, 0, 0, 0, 0, 0, ..] => "an IPv4 address within IPv6 (::/96)",
        [0x64, 0xff9b, ..] => "an IPv4 address within IPv6 (NAT64)",
        [0x2002, ..] => "an IPv4 address within IPv6 (6to4)",
        [0x2001, 0, ..] => "an IPv4 address within IPv6 (Teredo)",
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => "an IPv4 address within IPv6 (ISATAP)",
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => "an address for documentation",
        [0x2001, 1..=0x1ff, ..] => "an address of a protocol (2001::/23)",
        [0xfc00..=0xfdff, ..] => "a unique local address",
        [0xfe80..=0xfebf, ..] => "a link-local address",
        [0xfec0..=0xfeff, ..] => "a site-local address",
        [0xff00..=0xffff, ..] => "a multicast address",
        // All of the public internet is in 2000::/3.
        [0x2000..=0x3fff, ..] => return None,
        _ => "a reserved address",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_public_internet_is_closed_by_its_name() {
        for (kind, addresses) in [
            ("loopback", &["127.0.0.1", "127.255.255.255", "::1"][..]),
            ("private", &["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"]),
            ("link-local", &["169.254.0.1", "169.254.169.254", "fe80::1", "febf::1"]),
            ("this network", &["0.0.0.0", "0.1.2.3"]),
            ("unspecified", &["::"]),
            ("carrier", &["100.64.0.1", "100.127.255.255"]),
            ("benchmarks", &["198.18.0.1", "198.19.255.255"]),
            ("multicast", &["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"]),
            ("reserved", &["240.0.0.1", "255.255.255.255", "100::1", "4000::1", "5f00::1"]),
            ("unique local", &["fc00::1", "fd12:3456::1"]),
            ("site-local", &["fec0::1"]),
            ("documentation", &["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"]),
            ("protocol", &["192.0.0.1", "2001:2::1", "2001:20::1", "2001:1ff::1"]),
            ("6to4", &["192.88.99.1", "2002:7f00:1::", "2002:5db8:d822::1"]),
            (
                "IPv4 address within IPv6",
                &[
                    "::ffff:127.0.0.1",
                    "::ffff:93.184.216.34",
                    "::127.0.0.1",
                    "::93.184.216.34",
                    "::ffff:0:127.0.0.1",
                    "64:ff9b::7f00:1",
                    "64:ff9b:1::7f00:1",
                    "2001::1",
                    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
                    "2606:2800::5efe:7f00:1",
                    "2606:2800::200:5efe:7f00:1",
                ],
            ),
        ] {
            for address in addresses {
                let told = closed(address.parse().expect("an address"));
                assert!(told.is_some_and(|told| told.contains(kind)), "{address}: {told:?}");
            }
        }
    }

    #[test]
    fn addresses_of_the_public_internet_are_open() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:2800:220:1:248:1893:25c8:1946",
            "2001:200::1",
            "2a00:1450::1",
        ] {
            assert_eq!(closed(address.parse().expect("an address")), None, "{address}");
        }
    }
}
