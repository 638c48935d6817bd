//! Conditions and notes.

use super::*;

#[test]
fn conditions_of_others_stay_and_times_move_only_with_the_status() {
    let mut world = World::new(containers(&["a"], "Always"));
    let gate =
        json!([{"type": "PodScheduled", "status": "True"}, {"type": "example.com/gate", "status": "True"}]);
    world.pod.status.as_mut().unwrap().conditions = serde_json::from_value(gate).unwrap();
    world.rest();
    world.wait(50);
    let status = world.rest();
    assert_eq!(condition(&status, "example.com/gate"), "True");
    let ready = status.conditions.unwrap().into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.last_transition_time.unwrap().0, at(0));
}

#[test]
fn what_others_note_while_a_status_is_on_its_way_stays() {
    let mut world = World::new(containers(&["a"], "Always"));
    let composed = world.rest();
    let evicted = json!({"conditions": [
        {"type": "Ready", "status": "False"}, {"type": "DisruptionTarget", "status": "True"}
    ]});
    let status = with_others(composed.clone(), serde_json::from_value(evicted).ok().as_ref());
    assert_eq!(condition(&status, "DisruptionTarget"), "True");
    assert_eq!(condition(&status, "Ready"), condition(&composed, "Ready"), "that is the agent's to say");
    assert_eq!(with_others(status.clone(), Some(&status)), status);
}

#[test]
fn notes_tell_of_back_offs_once() {
    let mut world = World::new(containers(&["a"], "Always"));
    world.rest();
    world.exit("a", 1);
    let before = world.rest();
    world.exit("a", 1);
    let after = world.rest();
    let notes = notes_between(Some(&before), &after);
    assert_eq!(
        notes,
        [PodNote::warning("BackOff", "Back-off restarting failed container a in pod web_default(u1)")]
    );
    assert_eq!(notes_between(Some(&after), &after), []);
}
