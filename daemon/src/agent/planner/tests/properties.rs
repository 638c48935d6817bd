//! Whatever happens to a pod.

use super::*;
use proptest::prelude::*;

/// Something that happens to a pod.
#[derive(Clone, Debug)]
enum Happening {
    Exit(usize, i32),
    Wait(i64),
    SandboxDies,
    EngineForgets(usize),
    DaemonRestarts,
    Delete,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        4 => (0..3usize, 0..2i32).prop_map(|(which, code)| Happening::Exit(which, code)),
        4 => (1..400i64).prop_map(Happening::Wait),
        1 => Just(Happening::SandboxDies),
        1 => (0..6usize).prop_map(Happening::EngineForgets),
        1 => Just(Happening::DaemonRestarts),
        1 => Just(Happening::Delete),
    ]
}

proptest! {
    /// Whatever happens: the planner comes to rest, says the same when asked twice, keeps to its own containers
    /// (checked in `perform`), never runs two of a kind, never starts what is over, and a deleted pod goes.
    #[test]
    fn whatever_happens_the_pod_comes_to_rest(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        with_init in any::<bool>(),
        happenings in proptest::collection::vec(happening(), 0..25),
    ) {
        let mut spec = containers(&["a", "b"], policy);
        if with_init {
            spec["initContainers"] = json!([{"name": "i", "image": "app:1"}]);
        }
        let mut world = World::new(spec);
        let mut over: Option<String> = None;
        let mut forgets = false;
        for happening in happenings {
            match happening {
                Happening::Exit(which, code) => world.exit(["a", "b", "i"][which], code),
                Happening::Wait(seconds) => world.wait(seconds),
                Happening::SandboxDies => world.end(|observed| observed.role == Role::Sandbox, 137),
                Happening::EngineForgets(which) if which < world.observed.len() => {
                    let lost = world.observed.remove(which);
                    world.memory.gone(&lost.id);
                    forgets = true;
                }
                Happening::EngineForgets(_) => {}
                Happening::DaemonRestarts => world.memory = Memory::new(world.now),
                Happening::Delete => world.delete(),
            }
            let starts = world.starts.len();
            prop_assert_eq!(world.plan(), world.plan());
            let status = world.rest();
            if world.forgotten {
                prop_assert!(world.observed.is_empty());
                break;
            }
            if let Some(over) = &over {
                prop_assert_eq!(status.phase.as_ref(), Some(over), "a finished pod stays finished");
                prop_assert_eq!(world.starts.len(), starts, "and starts nothing");
            }
            over = status.phase.filter(|phase| phase == "Succeeded" || phase == "Failed").or(over);
            if policy == "Never" && !forgets {
                for name in ["a", "b", "i"] {
                    let times = world.starts.iter().filter(|(started, _)| started == name).count();
                    prop_assert!(times <= 1, "{} was started {} times", name, times);
                }
            }
        }
        // A deletion ends it whatever came before.
        world.delete();
        world.rest();
        prop_assert!(world.forgotten && world.observed.is_empty());
    }

    /// A container that always fails is tried for ever, but not more often than the back-off allows.
    #[test]
    fn back_off_is_bounded(runs_s in proptest::collection::vec(0..30i64, 30)) {
        let mut world = World::new(containers(&["a"], "OnFailure"));
        world.rest();
        for (crash, run) in runs_s.into_iter().enumerate() {
            world.wait(run);
            world.exit("a", 1);
            let ended = world.now;
            world.rest();
            while world.starts.len() < crash + 2 {
                let wake = world.plan().wake_at.expect("it is tried again");
                prop_assert!(wake > world.now, "no busy waiting");
                world.now = wake;
                world.rest();
            }
            let waited = world.now.duration_since(ended).as_secs();
            prop_assert!(waited <= 300);
            prop_assert!(crash < 7 || waited == 300);
        }
    }
}
