//! The node's name servers, out of the text of resolv.conf: a pure function that leaves out whatever would lead
//! back to us.

use std::net::IpAddr;

/// As many as the C library would use.
const MAX_SERVERS: usize = 3;

/// The name servers to ask, in order.
pub(crate) fn name_servers(text: &str, is_own: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A scope (fe80::1%eth0) cannot be asked through; such servers are left out.
        let Some(ip) = words.next().and_then(|word| word.parse().ok()) else { continue };
        if !is_own(ip) && !found.contains(&ip) {
            found.push(ip);
        }
        if found.len() == MAX_SERVERS {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_found_and_loops_left_out() {
        let own: Vec<IpAddr> = ["10.96.0.10", "192.0.2.2"].map(|ip| ip.parse().expect("an address")).into();
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("# nameserver 1.1.1.1\nsearch example.com\nnameserver 8.8.8.8\n", &["8.8.8.8"]),
            ("nameserver\t9.9.9.9 # quad\nnameserver 2001:db8::53\n", &["9.9.9.9", "2001:db8::53"]),
            ("nameserver 10.96.0.10\nnameserver 192.0.2.2\nnameserver 192.0.2.3", &["192.0.2.3"]),
            ("nameserver fe80::1%eth0\nnameserver nonsense\nnameserver", &[]),
            ("nameserver 1.1.1.1\nnameserver 1.1.1.1\nnameserver 1.0.0.1", &["1.1.1.1", "1.0.0.1"]),
            (
                "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
                &["1.0.0.1", "1.0.0.2", "1.0.0.3"],
            ),
        ];
        for (text, want) in cases {
            let got: Vec<String> =
                name_servers(text, |ip| own.contains(&ip)).iter().map(ToString::to_string).collect();
            assert_eq!(got, *want, "{text:?}");
        }
    }
}
