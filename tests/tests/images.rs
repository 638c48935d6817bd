//! Images without a registry: loaded on one desktop, run on any.

use anyhow::ensure;
use gaggle_tests::bench::{Image, on_bench, poll};
use gaggle_tests::kube::{SOON, pod_on};

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
        let id = |desktop: &gaggle_tests::bench::Desktop| {
            desktop.docker("image inspect -f '{{.Id}}' lab/special:1")?.ok()
        };
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
