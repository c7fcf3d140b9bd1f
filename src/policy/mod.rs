//! [`PeerPolicy`]: which peers are allowed. `socket` finds out the [`PeerIdentity`]; [`layer`]
//! decides which calls a peer may make.

mod layer;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(crate) use layer::PolicyGuard;
pub use layer::{PeerPolicyFuture, PeerPolicyLayer, PeerPolicyService};

use crate::socket::{PeerIdentity, is_known_group};

/// Allows peers of a Unix socket by user, by group or by anything else that a [`PeerIdentity`]
/// shows.
///
/// ```
/// use samehost::PeerPolicy;
///
/// // This server's user, root, and members of group 1200 other than the user 4000.
/// let policy = PeerPolicy::same_user()
///     .or(PeerPolicy::root())
///     .or(PeerPolicy::gids([1200]).and(PeerPolicy::predicate(|peer| peer.uid() != 4000)));
/// ```
///
/// A peer whose user is unknown in this process's user namespace shows as user 65534, as all
/// unknown users do. It matches no rule but [`anyone`](Self::anyone) and
/// [`predicate`](Self::predicate). The user "nobody" has the same number, so it matches no other
/// rule either, not even on a server that runs as "nobody". A user or group that cannot be found
/// out matches no rule.
///
/// It is used by [`Server::peer_policy`](crate::Server::peer_policy) for whole connections, by
/// [`PeerPolicyLayer`] for services and methods, and by
/// [`ChannelBuilder::require_server`](crate::ChannelBuilder::require_server) for the server itself.
#[derive(Clone)]
pub struct PeerPolicy(Arc<Rule>);

type Predicate = dyn Fn(&PeerIdentity) -> bool + Send + Sync;

enum Rule {
    Anyone,
    Uids(Vec<u32>),
    Gids(Vec<u32>),
    NotRoot,
    Predicate(Box<Predicate>),
    And(PeerPolicy, PeerPolicy),
    Or(PeerPolicy, PeerPolicy),
}

impl PeerPolicy {
    /// Allows processes of the effective user that this process has now (geteuid(2)). It does not
    /// allow root otherwise.
    pub fn same_user() -> Self {
        Self::uids([rustix::process::geteuid().as_raw()])
    }

    /// Allows processes of one of these users, by effective user id. The overflow id, usually 65534 and
    /// named "nobody", is never allowed: users that this process's namespace does not know show as it.
    pub fn uids(uids: impl IntoIterator<Item = u32>) -> Self {
        Self::of(Rule::Uids(uids.into_iter().collect()))
    }

    /// Allows processes in one of these groups, as their effective or a supplementary group, but for the
    /// overflow id, as with [`uids`](Self::uids).
    pub fn gids(gids: impl IntoIterator<Item = u32>) -> Self {
        Self::of(Rule::Gids(gids.into_iter().collect()))
    }

    /// Allows processes of user 0 in this process's user namespace.
    pub fn root() -> Self {
        Self::uids([0])
    }

    /// Allows processes of known users other than root.
    pub fn not_root() -> Self {
        Self::of(Rule::NotRoot)
    }

    /// Allows every process that can connect, also those of unknown users.
    pub fn anyone() -> Self {
        Self::of(Rule::Anyone)
    }

    /// Allows peers for which `predicate` returns true; a panic counts as false. It must not block,
    /// since connections or calls wait for it. See [`PeerIdentity::has_known_user`] for how far a
    /// user id can be trusted.
    pub fn predicate(predicate: impl Fn(&PeerIdentity) -> bool + Send + Sync + 'static) -> Self {
        Self::of(Rule::Predicate(Box::new(predicate)))
    }

    /// Allows peers that both policies allow.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::of(Rule::And(self, other))
    }

    /// Allows peers that at least one of the policies allows.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self::of(Rule::Or(self, other))
    }

    /// Returns whether the policy allows `peer`.
    pub fn allows(&self, peer: &PeerIdentity) -> bool {
        match &*self.0 {
            Rule::Anyone => true,
            Rule::Uids(uids) => peer.has_known_user() && uids.contains(&peer.uid()),
            Rule::Gids(gids) => peer.has_known_user() && is_member(peer, gids),
            Rule::NotRoot => peer.has_known_user() && peer.uid() != 0,
            // The predicate runs in the accept loop, which its panic must not end.
            Rule::Predicate(predicate) => {
                catch_unwind(AssertUnwindSafe(|| predicate(peer))).unwrap_or(false)
            }
            Rule::And(one, other) => one.allows(peer) && other.allows(peer),
            Rule::Or(one, other) => one.allows(peer) || other.allows(peer),
        }
    }

    fn of(rule: Rule) -> Self {
        Self(Arc::new(rule))
    }
}

fn is_member(peer: &PeerIdentity, gids: &[u32]) -> bool {
    let is_one = |gid: &u32| is_known_group(*gid) && gids.contains(gid);
    if is_one(&peer.gid()) {
        return true;
    }
    match peer.groups() {
        Ok(groups) => groups.iter().any(is_one),
        Err(error) => {
            tracing::debug!(?peer, %error, "the peer's groups cannot be read");
            false
        }
    }
}

impl fmt::Debug for PeerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Rule::Anyone => f.write_str("Anyone"),
            Rule::Uids(uids) => f.debug_tuple("Uids").field(uids).finish(),
            Rule::Gids(gids) => f.debug_tuple("Gids").field(gids).finish(),
            Rule::NotRoot => f.write_str("NotRoot"),
            Rule::Predicate(_) => f.write_str("Predicate"),
            Rule::And(one, other) => f.debug_tuple("And").field(one).field(other).finish(),
            Rule::Or(one, other) => f.debug_tuple("Or").field(one).field(other).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> PeerIdentity {
        PeerIdentity::invented(uid, gid, groups)
    }

    #[test]
    fn users_and_groups_are_matched_by_number() {
        let user = peer(1000, 100, &[20, 30]);
        for (policy, allows) in [
            (PeerPolicy::uids([999, 1000]), true),
            (PeerPolicy::uids([999]), false),
            (PeerPolicy::uids([]), false),
            (PeerPolicy::uids([100, 20]), false),
            (PeerPolicy::gids([100]), true),
            (PeerPolicy::gids([7, 30]), true),
            (PeerPolicy::gids([1000]), false),
            (PeerPolicy::gids([]), false),
            (PeerPolicy::root(), false),
            (PeerPolicy::not_root(), true),
            (PeerPolicy::anyone(), true),
            (PeerPolicy::predicate(|peer| peer.gid() == 100), true),
            (PeerPolicy::predicate(|peer| peer.gid() == 20), false),
            (PeerPolicy::predicate(|_| panic!("a predicate that panics")), false),
        ] {
            assert_eq!(policy.allows(&user), allows, "{policy:?}");
        }
        let own = rustix::process::geteuid().as_raw();
        assert!(PeerPolicy::same_user().allows(&peer(own, 1, &[])));
        assert!(!PeerPolicy::same_user().allows(&peer(own + 1, 1, &[])));
        assert!(PeerPolicy::root().allows(&peer(0, 1, &[])));
        assert!(!PeerPolicy::not_root().allows(&peer(0, 1, &[])));
    }

    #[test]
    fn both_and_either() {
        let (yes, no) = (PeerPolicy::anyone(), PeerPolicy::uids([]));
        let user = peer(1000, 100, &[]);
        for (policy, allows) in [
            (yes.clone().and(yes.clone()), true),
            (yes.clone().and(no.clone()), false),
            (no.clone().and(yes.clone()), false),
            (yes.clone().or(no.clone()), true),
            (no.clone().or(yes.clone()), true),
            (no.clone().or(no.clone()), false),
            (no.clone().or(yes.clone()).and(no.clone()), false),
        ] {
            assert_eq!(policy.allows(&user), allows, "{policy:?}");
        }
    }

    #[test]
    fn an_unknown_user_matches_nothing_by_accident() {
        let unknown = peer(65_534, 65_534, &[65_534, 20]);
        for policy in [
            PeerPolicy::uids([65_534]),
            PeerPolicy::gids([65_534]),
            // A group may be known though the user is not.
            PeerPolicy::gids([20]),
            PeerPolicy::not_root(),
            PeerPolicy::root(),
            PeerPolicy::same_user(),
        ] {
            assert!(!policy.allows(&unknown), "{policy:?}");
        }
        assert!(PeerPolicy::anyone().allows(&unknown));
        assert!(PeerPolicy::predicate(|peer| peer.uid() == 65_534).allows(&unknown));
        // A known user may have an unknown group.
        assert!(!PeerPolicy::gids([65_534]).allows(&peer(1000, 65_534, &[65_534])));
    }

    #[test]
    fn groups_that_cannot_be_read_match_nothing() {
        let gone = PeerIdentity::invented_without_groups(1000, 100);
        assert!(PeerPolicy::gids([100]).allows(&gone));
        assert!(!PeerPolicy::gids([0, 20]).allows(&gone));
    }
}
