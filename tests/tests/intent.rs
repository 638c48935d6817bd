//! What people wish for while they are cut off from each other.

use anyhow::{Result, ensure};
use gaggle_tests::bench::on_bench;
use gaggle_tests::kube::{SOON, deployment};
use serde_json::Value;

#[test]
fn two_edits_of_one_object_are_both_there_and_of_one_field_one_is_and_it_is_said() {
    on_bench(3, |bench| {
        bench.up()?;
        let (one, three) = (bench.desktop(1), bench.desktop(3));
        one.apply(&deployment("web", 1))?;
        one.replicas("web", 1, SOON)?;
        one.kubectl("create secret generic key --from-literal=word=first")?.ok()?;
        bench.cut(&[&[1, 2], &[3]])?;
        bench.wait_until(SOON, "the minority to notice", || Ok((!three.status()?.quorum).then_some(())))?;
        let merge = |patch: &str| format!("patch deployment web --type=merge -p '{patch}'");
        one.kubectl(&merge(r#"{"metadata":{"labels":{"side":"most"}},"spec":{"replicas":2}}"#))?.ok()?;
        one.kubectl(r#"patch secret key --type=merge -p '{"stringData":{"word":"hunter2"}}'"#)?.ok()?;
        let kept =
            three.kubectl(&merge(r#"{"metadata":{"annotations":{"few":"yes"}},"spec":{"replicas":3}}"#))?;
        ensure!(kept.success() && kept.stderr.contains("Warning:"), "{kept}");
        three.kubectl(r#"patch secret key --type=merge -p '{"stringData":{"word":"swordfish"}}'"#)?.ok()?;
        bench.heal()?;
        bench.assembled(&[1, 2, 3])?;
        let mut replicas = Vec::new();
        for desktop in bench.desktops() {
            let found = bench.wait_until(SOON, "both edits to be there", || {
                let object = desktop.get("deployment", "web")?;
                let (label, annotation) =
                    (&object["metadata"]["labels"]["side"], &object["metadata"]["annotations"]["few"]);
                ensure!(label == "most" && annotation == "yes", "{}", object["metadata"]);
                Ok(Some(object["spec"]["replicas"].clone()))
            })?;
            replicas.push(found);
        }
        ensure!(replicas.windows(2).all(|pair| pair[0] == pair[1]), "{replicas:?}");
        ensure!([2, 3].iter().any(|wished| replicas[0] == *wished), "{replicas:?}");
        let told = |about: &str, needle: &str| -> Result<String> {
            bench.wait_until(SOON, &format!("an event about {about}"), || {
                let events = one.list("events", "")?;
                let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
                let of = events.iter().filter(|event| {
                    event["reason"] == "ConflictingEdits" && event["involvedObject"]["name"] == about
                });
                let messages: Vec<String> = of.map(text).collect();
                ensure!(messages.iter().any(|message| message.contains(needle)), "{messages:?}");
                Ok(Some(messages.join("\n")))
            })
        };
        let message = told("web", "spec.replicas")?;
        let (kept, lost) = if replicas[0] == 2 { (2, 3) } else { (3, 2) };
        ensure!(message.contains(&format!("{kept} was kept, {lost} was lost")), "{message}");
        let message = told("key", "data.word")?;
        // Neither the words nor how they are stored.
        for word in ["hunter2", "swordfish", "aHVudGVyMg", "c3dvcmRmaXNo"] {
            ensure!(!message.contains(word), "an event tells a secret: {message}");
        }
        Ok(())
    });
}
