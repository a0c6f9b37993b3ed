//! How often somebody may come with a token that isn't known: each address has a few tries, and gets one back every second.
//! A token that is known is never kept waiting by this, whatever else comes from its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many tries an address has at once.
const TRIES_MAX: u32 = 20;
/// How soon it gets one of them back.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The most addresses that are remembered. While as many have failed of late, no other has a try.
const ADDRESSES_MAX: usize = 10_000;

/// See the module.
#[derive(Default)]
pub struct Attempts {
    /// When each address has all of its tries again.
    full_at: Mutex<HashMap<IpAddr, Instant>>,
}

/// There is no try left: one comes back after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl Attempts {
    /// Takes one of the address's tries.
    pub fn take(&self, address: IpAddr, now: Instant) -> Result<(), TooMany> {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if all.len() >= ADDRESSES_MAX && !all.contains_key(&address) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= ADDRESSES_MAX {
                return Err(TooMany(TRY_AGAIN));
            }
        }
        let full_at = all.entry(address).or_insert(now);
        let spent = (*full_at).max(now) + TRY_AGAIN;
        let longest = TRY_AGAIN * TRIES_MAX;
        match spent.duration_since(now).checked_sub(longest) {
            Some(wait) if !wait.is_zero() => Err(TooMany(wait)),
            _ => {
                *full_at = spent;
                Ok(())
            }
        }
    }

    /// Gives a try back that went well.
    pub fn give_back(&self, address: IpAddr) {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = all.get_mut(&network(address)) {
            *full_at -= TRY_AGAIN;
        }
    }
}

/// What stands for an address: all of a network of IPv6 that one customer has, for it holds more addresses than anybody could
/// remember.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_tries_and_gets_them_back() {
        let (attempts, now) = (Attempts::default(), clock::instant());
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..TRIES_MAX {
            assert_eq!(attempts.take(here, now), Ok(()));
        }
        assert_eq!(attempts.take(here, now), Err(TooMany(TRY_AGAIN)));
        assert_eq!(attempts.take(there, now), Ok(()), "another address has its own");
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Ok(()));
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Err(TooMany(TRY_AGAIN)));
        attempts.give_back(here);
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Ok(()), "one that went well costs nothing");
        let later = now + TRY_AGAIN * (2 * TRIES_MAX);
        let tries = (0..2 * TRIES_MAX).filter(|_| attempts.take(here, later).is_ok()).count();
        assert_eq!(tries, TRIES_MAX as usize, "and no more than all of them");
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let (attempts, now) = (Attempts::default(), clock::instant());
        for n in 0..TRIES_MAX {
            assert_eq!(attempts.take(address(&format!("2001:db8:1:2::{n:x}")), now), Ok(()));
        }
        assert!(attempts.take(address("2001:db8:1:2:ffff::1"), now).is_err());
        assert_eq!(attempts.take(address("2001:db8:1:3::1"), now), Ok(()));
    }

    #[test]
    fn not_more_addresses_are_remembered_than_there_is_room_for() {
        let (attempts, now) = (Attempts::default(), clock::instant());
        let nth = |n: usize| IpAddr::from(u32::try_from(n).unwrap().to_be_bytes());
        for n in 0..ADDRESSES_MAX {
            assert_eq!(attempts.take(nth(n), now), Ok(()));
        }
        assert!(attempts.take(nth(ADDRESSES_MAX), now).is_err());
        assert_eq!(attempts.take(nth(0), now), Ok(()), "one that is known goes on");
        assert_eq!(
            attempts.take(nth(ADDRESSES_MAX), now + 2 * TRY_AGAIN),
            Ok(()),
            "those that are full again make room"
        );
    }
}
