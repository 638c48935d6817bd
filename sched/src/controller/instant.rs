//! Arithmetic on Kubernetes' timestamps, which are kept in whole seconds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::SignedDuration;
use std::time::Duration;

/// How long ago `then` was; zero if it is in the future (clocks of desktops differ).
pub fn elapsed(now: &Time, then: &Time) -> Duration {
    now.0.duration_since(then.0).try_into().unwrap_or(Duration::ZERO)
}

/// What is left of `span` since `then`; `None` if it is over.
pub fn remaining(now: &Time, then: &Time, span: Duration) -> Option<Duration> {
    span.checked_sub(elapsed(now, then)).filter(|left| !left.is_zero())
}

/// A count of seconds from a manifest; negative ones count as none.
pub fn seconds(count: i64) -> Duration {
    Duration::from_secs(count.try_into().unwrap_or(0))
}

/// `seconds` after `now`, or `now` itself if the calendar ends before that.
pub fn after(now: &Time, seconds: i64) -> Time {
    now.0.checked_add(SignedDuration::from_secs(seconds)).map_or_else(|_| now.clone(), Time)
}
