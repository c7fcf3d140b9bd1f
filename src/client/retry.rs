//! [`RetryPolicy`]: which failed calls are made again (gRFC A6 of the gRPC project), and the tokens
//! that bound how many.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Code;

use crate::backoff::jittered;

/// The field that says how often the call was made before, in each attempt but the first.
pub(crate) const PREVIOUS_ATTEMPTS: HeaderName =
    HeaderName::from_static("grpc-previous-rpc-attempts");

/// The field by which a server says when to try again: milliseconds, as a signed 32-bit integer. A
/// negative value and any other text mean "never".
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// The maximum number of attempts (gRFC A6), whatever the caller asks for.
const MOST_ATTEMPTS: u8 = 5;

/// Which failed calls are made again, how often and when (gRFC A6); for
/// [`ChannelBuilder::retry`](crate::ChannelBuilder::retry).
///
/// A unary or server-streaming call is made again when it fails with one of the codes before the
/// server has sent a response's head. Calls whose requests are streams are not. The call's deadline
/// covers all attempts. Each attempt but the first tells the server how many came before it
/// (`grpc-previous-rpc-attempts`), and a server can say when to try again or that no attempt should
/// follow (`grpc-retry-pushback-ms`).
///
/// Set it only if the methods called may run twice, because a call that failed may have been
/// processed. Calls that no server has processed are sent again without a policy. See
/// [`Channel`](crate::Channel).
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use samehost::{Channel, RetryPolicy};
/// use tonic::Code;
///
/// let retry = RetryPolicy::new()
///     .max_attempts(4)
///     .backoff(Duration::from_millis(10), Duration::from_secs(1))
///     .codes([Code::Unavailable, Code::Aborted]);
/// let channel = Channel::builder("unix:/run/app/ping.sock").retry(retry).connect_lazy();
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    max_attempts: u8,
    first: Duration,
    longest: Duration,
    multiplier: f64,
    codes: Vec<Code>,
    max_buffered: usize,
    /// The number of tokens, in thousandths.
    pub(super) tokens: i64,
    /// What a success gives back, in thousandths of a token.
    refill: i64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl RetryPolicy {
    /// Returns the defaults: 3 attempts at UNAVAILABLE, 100 ms between the first two, twice as long
    /// each time up to 1 s, requests of up to 256 KiB, and gRPC's throttle of 10 tokens, of which a
    /// success gives back 0.1.
    pub fn new() -> Self {
        Self {
            max_attempts: 3,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(1),
            multiplier: 2.0,
            codes: vec![Code::Unavailable],
            max_buffered: 256 * 1024,
            tokens: 10_000,
            refill: 100,
        }
    }

    /// Sets how many attempts there are at most, the first one included: 1 to 5. Default 3.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = u8::try_from(attempts).unwrap_or(u8::MAX).clamp(1, MOST_ATTEMPTS);
        self
    }

    /// Sets the wait before the second attempt, and the longest wait before any. Each wait varies
    /// by up to 20 %. Default: 100 ms and 1 s.
    #[must_use]
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.first, self.longest) = (first, longest);
        self
    }

    /// Sets by what factor each wait is longer than the one before it: 1 or more. Default: 2.
    #[must_use]
    pub fn backoff_multiplier(mut self, multiplier: f64) -> Self {
        self.multiplier = if multiplier >= 1.0 { multiplier } else { 1.0 };
        self
    }

    /// Sets which status codes are tried again. Default: UNAVAILABLE.
    #[must_use]
    pub fn codes(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = codes.into_iter().collect();
        self
    }

    /// Sets the size of the largest request that is kept for another attempt, in bytes. A larger
    /// one is sent once. Default: 256 KiB.
    #[must_use]
    pub fn max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered = bytes;
        self
    }

    /// Sets when failures stop retries for a while, so that retries do not add to a server's
    /// trouble. All calls of a channel share `tokens`. A failure takes one token. A response that
    /// begins without a failure gives back `refill` of a token, from 0 to `tokens`: a larger number
    /// is taken for `tokens`, and a negative one or NaN for 0. No call is made again while half of
    /// the tokens or fewer are left. Default: 10 and 0.1.
    #[must_use]
    pub fn throttle(mut self, tokens: u32, refill: f32) -> Self {
        self.tokens = i64::from(tokens) * 1_000;
        // The cast makes 0 of NaN, and of infinity the largest number.
        self.refill = ((f64::from(refill) * 1_000.0) as i64).clamp(0, self.tokens);
        self
    }

    /// Returns how long to wait before the next attempt and counts it, or returns `None` if there is
    /// none. `headers` are those of a response without a body.
    pub(crate) fn next(
        &self,
        tokens: &Tokens,
        attempts: &mut PolicyAttempts,
        code: Code,
        headers: Option<&HeaderMap>,
        buffered: usize,
    ) -> Option<Duration> {
        let pushback = headers.and_then(|headers| headers.get(PUSHBACK)).map(milliseconds);
        if !self.codes.contains(&code) && pushback != Some(None) {
            return None;
        }
        let may = tokens.take(self);
        if !may
            || !self.codes.contains(&code)
            || attempts.made >= self.max_attempts
            || buffered > self.max_buffered
        {
            return None;
        }
        let wait = match pushback {
            Some(wait) => {
                attempts.backoffs = 0;
                wait?
            }
            None => {
                attempts.backoffs += 1;
                self.wait(attempts.backoffs)
            }
        };
        attempts.made += 1;
        Some(wait)
    }

    /// Returns the wait number `backoffs`, counted from 1.
    fn wait(&self, backoffs: u8) -> Duration {
        let grown = self.multiplier.powi(i32::from(backoffs) - 1);
        let wait = self.first.as_secs_f64() * grown;
        let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::MAX);
        jittered(wait.min(self.longest).min(Duration::from_secs(86_400)))
    }
}

/// The attempts that a policy has had made of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PolicyAttempts {
    /// How many there were, the first one included.
    made: u8,
    /// How many were made after a wait of the policy's since the server last said when to try again
    /// (`grpc-retry-pushback-ms`). After that the backoff begins anew (gRFC A6).
    backoffs: u8,
}

impl PolicyAttempts {
    /// The first attempt.
    pub(crate) const FIRST: Self = Self { made: 1, backoffs: 0 };

    /// Returns how many attempts there were, the first one included.
    pub(crate) fn made(self) -> u32 {
        self.made.into()
    }
}

/// Returns the wait, or `None` if the value means "never".
fn milliseconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?;
    // `parse` would take a sign, too.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let milliseconds: i32 = text.parse().ok()?;
    Some(Duration::from_millis(milliseconds.unsigned_abs().into()))
}

/// The tokens of a channel, in thousandths.
#[derive(Debug, Default)]
pub(crate) struct Tokens(AtomicI64);

impl Tokens {
    pub(crate) fn new(policy: Option<&RetryPolicy>) -> Self {
        Self(AtomicI64::new(policy.map_or(0, |policy| policy.tokens)))
    }

    /// Takes a token for a failure. Returns whether the call may be made again.
    fn take(&self, policy: &RetryPolicy) -> bool {
        let change = |tokens: i64| Some((tokens - 1_000).max(0));
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        before.is_ok_and(|before| (before - 1_000).max(0) > policy.tokens / 2)
    }

    /// Gives back a share of a token for a success.
    pub(crate) fn refill(&self, policy: &RetryPolicy) {
        let change = |tokens: i64| Some((tokens + policy.refill).min(policy.tokens));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(policy: &RetryPolicy) -> Tokens {
        Tokens::new(Some(policy))
    }

    fn pushback(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(PUSHBACK, HeaderValue::from_static(value))])
    }

    fn is_about(wait: Duration, middle: u128) -> bool {
        (middle * 8 / 10..=middle * 12 / 10).contains(&wait.as_millis())
    }

    #[test]
    fn waits_grow_to_the_longest_and_vary_by_a_fifth() {
        let policy = RetryPolicy::new()
            .max_attempts(9)
            .backoff(Duration::from_millis(100), Duration::from_millis(300))
            .throttle(1_000, 0.0);
        let tokens = tokens(&policy);
        let mut attempts = PolicyAttempts::FIRST;
        let mut wait = || policy.next(&tokens, &mut attempts, Code::Unavailable, None, 0);
        for middle in [100, 200, 300, 300] {
            let wait = wait().unwrap();
            assert!(is_about(wait, middle), "{middle}: {wait:?}");
        }
        assert_eq!(wait(), None, "five attempts are the most");
        assert_eq!(attempts.made(), 5);
    }

    #[test]
    fn only_what_is_asked_for_is_tried_again() {
        let policy = RetryPolicy::new().max_buffered_bytes(10);
        let next = |code, buffered| {
            let mut attempts = PolicyAttempts::FIRST;
            policy.next(&tokens(&policy), &mut attempts, code, None, buffered)
        };
        assert!(next(Code::Unavailable, 10).is_some());
        assert_eq!(next(Code::Unavailable, 11), None);
        assert_eq!(next(Code::Internal, 0), None);
    }

    #[test]
    fn a_server_says_when_or_never() {
        let policy = RetryPolicy::new();
        let next = |value| {
            let headers = pushback(value);
            let mut attempts = PolicyAttempts::FIRST;
            policy.next(&tokens(&policy), &mut attempts, Code::Unavailable, Some(&headers), 0)
        };
        assert_eq!(next("70"), Some(Duration::from_millis(70)));
        assert_eq!(next("0"), Some(Duration::ZERO));
        assert_eq!(next("2147483647"), Some(Duration::from_millis(2_147_483_647)));
        for never in ["-1", "soon", "", "+5", "2147483648", "99999999999"] {
            assert_eq!(next(never), None, "{never}");
        }
    }

    #[test]
    fn after_a_server_has_said_when_waits_begin_anew() {
        let policy = RetryPolicy::new().max_attempts(5).throttle(1_000, 0.0);
        let (tokens, mut attempts) = (tokens(&policy), PolicyAttempts::FIRST);
        let pushback = pushback("70");
        for (headers, middle) in [(None, 100), (None, 200), (Some(&pushback), 70), (None, 100)] {
            let wait = policy.next(&tokens, &mut attempts, Code::Unavailable, headers, 0).unwrap();
            assert!(is_about(wait, middle), "{middle}: {wait:?}");
        }
        assert_eq!(attempts.made(), 5);
    }

    #[test]
    fn failures_use_up_the_tokens_and_successes_bring_them_back() {
        let policy = RetryPolicy::new().throttle(4, 0.5);
        let tokens = tokens(&policy);
        let next = |code| {
            let mut attempts = PolicyAttempts::FIRST;
            policy.next(&tokens, &mut attempts, code, None, 0)
        };
        let may = || next(Code::Unavailable).is_some();
        assert!(may(), "three are left");
        assert!(!may(), "two are half of them");
        // A failure that is not tried again takes no token.
        assert_eq!(next(Code::Internal), None);
        for _ in 0..4 {
            tokens.refill(&policy);
        }
        assert!(may());
    }

    #[test]
    fn a_success_gives_back_no_less_than_nothing_and_no_more_than_all() {
        for (refill, left) in [
            (f32::INFINITY, 10_000),
            (f32::MAX, 10_000),
            (11.0, 10_000),
            (0.5, 5_500),
            (-1.0, 5_000),
            (f32::NEG_INFINITY, 5_000),
            (f32::NAN, 5_000),
        ] {
            let policy = RetryPolicy::new().throttle(10, refill);
            let tokens = tokens(&policy);
            for _ in 0..5 {
                tokens.take(&policy);
            }
            tokens.refill(&policy);
            assert_eq!(tokens.0.load(Ordering::Relaxed), left, "{refill}");
        }
    }
}
