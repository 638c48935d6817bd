//! A pod that nothing may be started of now: its flock has not been heard.

use super::standing::{Current, PodStanding, Standing};
use super::{Draft, Input, Waiting, ending, running};
use crate::agent::hold::May;

/// Leaves what runs, or kills it where the pod may run elsewhere by now; starts nothing.
pub fn wait(input: &Input, pod: &PodStanding, draft: &mut Draft) {
    let why = match input.may {
        May::Stop => {
            // The sandbox runs nothing of the pod's, and keeps its address for when the pod goes on.
            ending::stop_all(input, pod, draft);
            "at most one of this pod may run, and no leader has been heard by this desktop for too long"
        }
        May::Keep | May::Run => "this desktop waits until the group tells whether the pod still belongs here",
    };
    let would_start = |standing: &&Standing| match &standing.current {
        Current::Running { .. } => false,
        Current::Absent | Current::Created(_) => true,
        Current::Ended(ended) => running::restarts(input, &standing.container, ended),
    };
    for standing in pod.all().filter(would_start) {
        draft.waiting.insert(standing.container.name.clone(), Waiting::new("WaitingForFlock", why));
    }
}
