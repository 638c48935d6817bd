//! The manifests of the Kubernetes documentation, applied as they are: what comes of each is what is expected of it.

use anyhow::{Result, ensure};
use gaggle_tests::bench::{BenchConfig, Up, with_bench};
use gaggle_tests::corpus::{self, Outcome, Row};
use std::collections::BTreeSet;

/// Of the files whose kinds are served, so many hundredths must come out as expected.
const EXPECTED_PERCENT: usize = 95;

/// What does not come out as expected, by rule, and why.
struct Known {
    why: &'static str,
    is: fn(&Row) -> bool,
}

/// An entry that holds for no file, or for one that does come out as expected, is an error too.
const KNOWN: [Known; 2] = [
    Known {
        why: "volumes are not bound to claims yet",
        is: |row| {
            row.says("Bound")
                || row.uses("vol.persistentVolumeClaim")
                || row.uses("StatefulSet.volumeClaimTemplates")
        },
    },
    Known { why: "there is no DNS yet", is: |row| row.says("nslookup") },
];

fn known(row: &Row) -> Option<usize> {
    KNOWN.iter().position(|known| (known.is)(row))
}

#[test]
fn manifests_that_nobody_here_wrote_come_out_as_expected() {
    let Some(dir) = corpus::find("k8s") else { return };
    with_bench(BenchConfig::desktops(3), |bench| {
        let rows = corpus::rows(&dir)?;
        corpus::complete(&rows)?;
        // More than the machine has: nobody here works, and nobody should wait for room.
        bench.each(|desktop| desktop.start_daemon(&Up::default().arg("--cpu=32").arg("--memory=64Gi")))?;
        bench.assembled(&[1, 2, 3])?;
        let kinds: BTreeSet<String> = rows.iter().flat_map(|row| row.kinds.iter().cloned()).collect();
        let outcomes = corpus::run(bench, corpus::units(rows), &|row| known(row).is_some())?;
        judge(&outcomes)?;
        let unserved: BTreeSet<&String> = outcomes
            .iter()
            .filter(|outcome| !outcome.is_alive)
            .flat_map(|outcome| &outcome.row.kinds)
            .collect();
        for kind in kinds.iter().filter(|kind| !unserved.contains(kind)) {
            let said = bench.desktop(2).kubectl(&format!("explain {kind}"))?.ok()?;
            ensure!(said.contains(&format!("KIND:       {kind}\n")), "{kind} is explained so: {said}");
        }
        Ok(())
    });
}

fn judge(outcomes: &[Outcome]) -> Result<()> {
    let (alive, dead): (Vec<&Outcome>, Vec<&Outcome>) = outcomes.iter().partition(|outcome| outcome.is_alive);
    let (well, ill): (Vec<&Outcome>, Vec<&Outcome>) =
        alive.iter().copied().partition(|outcome| outcome.result.is_ok());
    let mut wrong = Vec::new();
    for outcome in &ill {
        let Err(error) = &outcome.result else { continue };
        let (file, expected) = (&outcome.row.file, &outcome.row.expected);
        match known(&outcome.row) {
            Some(index) => println!("{file}: {}", KNOWN[index].why),
            None => wrong.push(format!("{file}\n    expected: {expected}\n    {error:#}")),
        }
    }
    for outcome in &well {
        if let Some(index) = known(&outcome.row) {
            wrong.push(format!("{}: is as expected, although {}", outcome.row.file, KNOWN[index].why));
        }
    }
    for (index, entry) in KNOWN.iter().enumerate() {
        if !ill.iter().any(|outcome| known(&outcome.row) == Some(index)) {
            wrong.push(format!("no file comes out otherwise because {}", entry.why));
        }
    }
    println!(
        "{} of {} files are as expected; the kinds of {} are not served",
        well.len(),
        alive.len(),
        dead.len()
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(well.len() * 100 >= alive.len() * EXPECTED_PERCENT, "fewer than {EXPECTED_PERCENT} in a hundred");
    Ok(())
}
