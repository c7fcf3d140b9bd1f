//! [`Limits`]: how many connections a server has, in all and of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections in all. An idle one takes some 10 KiB and a file descriptor.
pub(super) const MAX_CONNECTIONS: usize = 4096;

/// Connections of one user other than the server's own: sixteen such users fit.
pub(super) const MAX_CONNECTIONS_PER_UID: usize = 256;

/// Shared by all listeners of a server.
#[derive(Debug)]
pub(super) struct Limits {
    in_all: usize,
    per_uid: usize,
    own_uid: u32,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    in_all: usize,
    /// Of each user that has some, other than the server's own.
    by_uid: HashMap<u32, usize>,
}

/// A connection's place. Free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    limits: Arc<Limits>,
    /// The user, where connections of one are counted.
    uid: Option<u32>,
}

impl Limits {
    pub(super) fn new(in_all: usize, per_uid: usize) -> Arc<Self> {
        let own_uid = rustix::process::geteuid().as_raw();
        Arc::new(Self { in_all, per_uid, own_uid, open: Mutex::default() })
    }

    /// A place for a connection of user `uid`, which is unknown over TCP. The error says which limit
    /// is reached.
    pub(super) fn place(self: &Arc<Self>, uid: Option<u32>) -> Result<Place, &'static str> {
        let uid = uid.filter(|uid| *uid != self.own_uid);
        let mut open = self.open();
        if open.in_all >= self.in_all {
            return Err("too many connections");
        }
        if let Some(uid) = uid {
            let of_uid = open.by_uid.get(&uid).copied().unwrap_or(0);
            if of_uid >= self.per_uid {
                return Err("too many connections of this user");
            }
            open.by_uid.insert(uid, of_uid + 1);
        }
        open.in_all += 1;
        Ok(Place { limits: Arc::clone(self), uid })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
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
        let limits = Limits::new(5, 2);
        let mut places: Vec<_> =
            [own + 1, own + 1, own + 2].map(|uid| limits.place(Some(uid)).unwrap()).into();
        assert!(limits.place(Some(own + 1)).is_err());
        places.push(limits.place(Some(own)).unwrap());
        places.push(limits.place(None).unwrap());
        assert!(limits.place(Some(own + 2)).is_err(), "its second, but the sixth of all");
        assert!(limits.place(Some(own)).is_err());
        assert!(limits.place(None).is_err());

        places.remove(0);
        assert!(limits.place(Some(own + 2)).is_ok());
        places.push(limits.place(Some(own + 1)).unwrap());
        drop(places);
        let open = limits.open();
        assert_eq!((open.in_all, open.by_uid.len()), (0, 0));
    }

    #[test]
    fn the_servers_own_user_has_no_limit_of_its_own() {
        let own = rustix::process::geteuid().as_raw();
        let limits = Limits::new(10, 1);
        let places: Vec<_> = (0..10).map(|_| limits.place(Some(own)).unwrap()).collect();
        assert_eq!(places.len(), 10);
    }
}
