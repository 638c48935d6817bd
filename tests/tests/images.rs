//! Images: loaded on one desktop or pulled from a registry, run on any.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{Desktop, Image, on_bench, poll};
use gaggle_tests::kube::{SOON, pod_on};
use serde_json::Value;

#[test]
fn an_image_that_one_desktop_has_runs_on_all() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, two, three) = (bench.desktop(1), bench.desktop(2), bench.desktop(3));
        let special =
            Image { label: "special".to_owned(), ..Image::named(&["lab/special:1", "untagged:latest"]) };
        let file = bench.image(&special)?;
        let said = one.gaggle(&format!("image load '{}'", file.display()))?.ok()?;
        ensure!(said.contains("lab/special:1"), "it says what it has loaded: {said}");

        three.apply(&pod_on("first", Some("d2"), "lab/special:1", "echo ran"))?;
        two.pod_in("first", &["Succeeded"])?;
        let id = |desktop: &Desktop| desktop.docker("image inspect -f '{{.Id}}' lab/special:1")?.ok();
        ensure!(id(one)? == id(two)?, "another image of the same name");

        // Whoever has it can pass it on, under the names that it was asked for by.
        one.apply(&pod_on("other-name", Some("d2"), "untagged", "echo ran"))?;
        two.pod_in("other-name", &["Succeeded"])?;
        one.power_cut()?;
        three.apply(&pod_on("second", Some("d3"), "untagged", "echo ran"))?;
        three.pod_in("second", &["Succeeded"])?;
        Ok(())
    });
}

#[test]
fn a_registry_is_asked_first_and_the_flock_when_it_is_gone() {
    on_bench(3, |bench| {
        let registry = bench.registry()?;
        let name = format!("{}/tool:1", registry.address());
        let (one, two, three) = (bench.desktop(1), bench.desktop(2), bench.desktop(3));
        // Noise, which no compression makes quick to send.
        one.docker("run --name grow --network none busybox dd if=/dev/urandom of=/noise bs=1M count=8")?
            .ok()?;
        one.docker(&format!("commit grow {name}"))?.ok()?;
        one.docker("rm grow")?.ok()?;
        one.docker(&format!("push {name}"))?.ok()?;
        one.docker(&format!("image rm {name}"))?.ok()?;
        let id = |desktop: &Desktop| desktop.docker(&format!("image inspect -f '{{{{.Id}}}}' {name}"))?.ok();
        for desktop in bench.desktops() {
            ensure!(id(desktop).is_err(), "{} has {name} already", desktop.name());
        }
        bench.up()?;

        // 8 MB take 16 s so: somebody who waits for that long is told how it goes.
        bench.slow_gateway(4000)?;
        one.apply(&pod_on("first", Some("d2"), &name, "sleep 100000"))?;
        one.pod_in("first", &["Running"])?;
        let told = events(one, "first")?;
        let begins = |reason: &str, start: &str| {
            told.iter().any(|(told, message)| told == reason && message.starts_with(start))
        };
        ensure!(told.contains(&("Pulling".to_owned(), format!("Pulling image \"{name}\""))), "{told:?}");
        ensure!(begins("Pulling", &format!("Pulling image \"{name}\": ")), "no progress in {told:?}");
        ensure!(begins("Pulled", &format!("Successfully pulled image \"{name}\" in ")), "{told:?}");
        ensure!(told.iter().any(|(_, message)| message.contains("Image size: ")), "{told:?}");
        ensure!(!told.iter().any(|(reason, _)| reason == "Failed"), "{told:?}");

        drop(registry);
        one.apply(&pod_on("second", Some("d3"), &name, "sleep 100000"))?;
        one.pod_in("second", &["Running"])?;
        ensure!(id(two)? == id(three)?, "another image of the same name");
        let told = events(one, "second")?;
        ensure!(
            told.iter().any(|(reason, message)| reason == "Pulled" && message.contains("another desktop")),
            "{told:?}"
        );
        Ok(())
    });
}

/// The reasons and messages of a pod's events, once they tell that it has started.
fn events(desktop: &Desktop, pod: &str) -> Result<Vec<(String, String)>> {
    poll(SOON, &format!("the events of {pod}"), || {
        let events = desktop.list("events", &format!("--field-selector involvedObject.name={pod}"))?;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let told: Vec<_> =
            events.iter().map(|event| (text(event, "reason"), text(event, "message"))).collect();
        ensure!(told.iter().any(|(reason, _)| reason == "Started"), "{told:?}");
        Ok(Some(told))
    })
}

#[test]
fn an_image_that_nobody_has_is_said_so() {
    on_bench(2, |bench| {
        bench.up()?;
        let desktop = bench.desktop(1);
        desktop.apply(&pod_on("lost", None, "registry.invalid/none:1", "true"))?;
        poll(SOON, "the pod to say that it lacks its image", || {
            let pod = desktop.get("pod", "lost")?;
            let reason = pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone();
            ensure!(reason == "ErrImagePull" || reason == "ImagePullBackOff", "{}", pod["status"]);
            let described = desktop.kubectl("describe pod lost")?.ok()?;
            ensure!(
                described.contains("registry.invalid/none:1") && described.contains("Failed"),
                "{described}"
            );
            Ok(Some(()))
        })?;
        // Once somebody has it, the pod needs no further help.
        let file = bench.image(&Image::named(&["registry.invalid/none:1"]))?;
        bench.desktop(2).gaggle(&format!("image load '{}'", file.display()))?.ok()?;
        desktop.pod_in("lost", &["Succeeded"])?;
        Ok(())
    });
}

#[test]
fn what_is_no_image_is_refused() {
    on_bench(1, |bench| {
        bench.up()?;
        let desktop = bench.desktop(1);
        for file in ["/etc/passwd", "/no/such/file", "/etc"] {
            let said = desktop.gaggle(&format!("image load {file}"))?.refused()?;
            ensure!(said.contains(file) && !said.contains("panicked"), "the error must name {file}: {said}");
        }
        Ok(())
    });
}
