//! [`ConnectionLimits`]: how many connections a server may have, in total and of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::observer::RefusalReason;

/// Connections in total. An idle one takes about 10 KiB and one file descriptor.
pub(super) const MAX_CONNECTIONS: usize = 4096;

/// Connections of one user other than the server's own. [`MAX_CONNECTIONS`] has room for sixteen
/// such users.
pub(super) const MAX_CONNECTIONS_PER_UID: usize = 256;

/// All listeners of a server share one.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    in_all: usize,
    per_uid: usize,
    own_uid: u32,
    open: Mutex<OpenConnections>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    in_all: usize,
    /// The count of each user that has connections, except the server's own user.
    by_uid: HashMap<u32, usize>,
}

/// Permits one connection. Dropping it gives the permit back.
#[derive(Debug)]
pub(super) struct Permit {
    limits: Arc<ConnectionLimits>,
    /// The user whose count this permit is part of, if any.
    uid: Option<u32>,
    scarce: bool,
}

impl Permit {
    /// Returns whether half of all permits, or of the user's, were taken before this one.
    pub(super) fn is_scarce(&self) -> bool {
        self.scarce
    }
}

impl ConnectionLimits {
    pub(super) fn new(in_all: usize, per_uid: usize) -> Arc<Self> {
        let own_uid = rustix::process::geteuid().as_raw();
        Arc::new(Self { in_all, per_uid, own_uid, open: Mutex::default() })
    }

    /// Returns a permit for a connection of user `uid`, which is `None` over TCP. The error names
    /// the limit that is reached.
    pub(super) fn permit(self: &Arc<Self>, uid: Option<u32>) -> Result<Permit, RefusalReason> {
        let uid = uid.filter(|uid| *uid != self.own_uid);
        let mut open = self.open();
        let mut scarce = open.in_all >= self.in_all.div_ceil(2);
        if open.in_all >= self.in_all {
            return Err(RefusalReason::MaxConnections);
        }
        if let Some(uid) = uid {
            let of_uid = open.by_uid.get(&uid).copied().unwrap_or(0);
            if of_uid >= self.per_uid {
                return Err(RefusalReason::MaxConnectionsPerUid);
            }
            open.by_uid.insert(uid, of_uid + 1);
            scarce |= of_uid >= self.per_uid.div_ceil(2);
        }
        open.in_all += 1;
        Ok(Permit { limits: Arc::clone(self), uid, scarce })
    }

    fn open(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limits.open();
        open.in_all -= 1;
        if let Some(uid) = self.uid
            && let Some(of_uid) = open.by_uid.get_mut(&uid)
        {
            *of_uid -= 1;
            if *of_uid == 0 {
                open.by_uid.remove(&uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_and_all_together_so_many() {
        let own = rustix::process::geteuid().as_raw();
        let limits = ConnectionLimits::new(5, 2);
        let mut permits: Vec<_> =
            [own + 1, own + 1, own + 2].map(|uid| limits.permit(Some(uid)).unwrap()).into();
        assert!(limits.permit(Some(own + 1)).is_err());
        permits.push(limits.permit(Some(own)).unwrap());
        permits.push(limits.permit(None).unwrap());
        assert!(limits.permit(Some(own + 2)).is_err(), "its second, but the sixth of all");
        assert!(limits.permit(Some(own)).is_err());
        assert!(limits.permit(None).is_err());

        permits.remove(0);
        assert!(limits.permit(Some(own + 2)).is_ok());
        permits.push(limits.permit(Some(own + 1)).unwrap());
        drop(permits);
        let open = limits.open();
        assert_eq!((open.in_all, open.by_uid.len()), (0, 0));
    }

    #[test]
    fn the_second_half_of_the_permits_is_scarce() {
        let own = rustix::process::geteuid().as_raw();
        let limits = ConnectionLimits::new(20, 4);
        let mut permits = Vec::new();
        let mut scarce = |uid, count: usize| -> Vec<bool> {
            let new = (0..count).map(|_| limits.permit(Some(uid)).unwrap());
            permits.extend(new);
            permits[permits.len() - count..].iter().map(Permit::is_scarce).collect()
        };
        assert_eq!(scarce(own + 1, 4), [false, false, true, true], "the user's");
        assert_eq!(scarce(own, 6), [false; 6]);
        assert_eq!(scarce(own, 1), [true], "the eleventh of twenty");
        assert_eq!(scarce(own + 2, 1), [true]);
        permits.truncate(9);
        assert!(!limits.permit(Some(own)).unwrap().is_scarce(), "half of them are free again");
    }

    #[test]
    fn the_servers_own_user_has_no_limit_of_its_own() {
        let own = rustix::process::geteuid().as_raw();
        let limits = ConnectionLimits::new(10, 1);
        let permits: Vec<_> = (0..10).map(|_| limits.permit(Some(own)).unwrap()).collect();
        assert_eq!(permits.len(), 10);
    }
}
