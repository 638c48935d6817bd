use super::*;
use crate::controller::harness::World;
use crate::state::resource_of;
use k8s_openapi::api::core::v1::Pod;

fn stored(world: &World) -> Vec<Event> {
    let events = world.store.list(&resource_of::<Event>(), None);
    events.map(|(_, object)| (*object.typed::<Event>().unwrap()).clone()).collect()
}

fn tell(world: &mut World, notes: &[Note]) {
    let txns = record(&world.store, notes, &world.now, "desk-0");
    txns.into_iter().for_each(|txn| world.txn(txn));
}

#[test]
fn the_same_again_counts_up() {
    let mut world = World::new(1);
    let about = world.create::<Pod>("default", "web", json!({"metadata": {}, "spec": {"containers": []}}));
    let note = Note::warning(&about, "default-scheduler", "FailedScheduling", "no room");
    tell(&mut world, std::slice::from_ref(&note));
    world.advance(5);
    tell(&mut world, &[note.clone(), Note::normal(&about, "default-scheduler", "Scheduled", "here")]);
    let events = stored(&world);
    assert_eq!(events.len(), 2);
    let failed = events.iter().find(|event| event.reason.as_deref() == Some("FailedScheduling")).unwrap();
    assert_eq!(failed.count, Some(2));
    assert!(failed.last_timestamp > failed.first_timestamp);
    assert_eq!(failed.involved_object.kind.as_deref(), Some("Pod"));
    assert_eq!(failed.involved_object.uid.as_deref(), Some(world.store.get(&about).unwrap().uid()));
}

#[test]
fn something_that_spins_does_not_flood_the_state() {
    let mut world = World::new(2);
    let about = Key::of::<Pod>("default", "spinning");
    for round in 0..20 {
        let notes: Vec<Note> =
            (0..100).map(|turn| Note::normal(&about, "x", "Spin", format!("{round} {turn}"))).collect();
        tell(&mut world, &notes);
        world.advance(2);
        assert_eq!(stored(&world).len() as u64, PLACES, "in round {round}");
    }
    let before = world.store.revision();
    let again: Vec<Note> = (0..100).map(|_| Note::normal(&about, "x", "Spin", "at once")).collect();
    tell(&mut world, &again);
    tell(&mut world, &again);
    assert_eq!(world.store.revision(), before.next(), "counted at most once a second");
}

#[test]
fn events_go_after_an_hour() {
    let mut world = World::new(3);
    let about = Key::of::<Pod>("default", "web");
    tell(&mut world, &[Note::normal(&about, "x", "Early", "first")]);
    world.run();
    world.advance(1800);
    tell(&mut world, &[Note::normal(&about, "x", "Late", "second")]);
    world.advance(1801);
    world.run();
    let left: Vec<_> = stored(&world).into_iter().filter_map(|event| event.reason).collect();
    assert_eq!(left, ["Late"]);
}
