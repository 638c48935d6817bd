//! The Rust client `kube` against a desktop: what controllers that nobody here wrote are built on.

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt, TryStreamExt, pin_mut};
use gaggle_tests::bench::on_bench;
use gaggle_tests::client::inside;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    AttachParams, DeleteParams, GetParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchParams,
};
use kube::core::WatchEvent;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::future::Future;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What any single step may take on a busy machine.
const SOON: Duration = Duration::from_secs(60);
const OURS: &str = "of=rust";

#[test]
fn the_rust_client_lists_watches_informs_applies_and_streams() {
    on_bench(2, |bench| {
        bench.up()?;
        inside(bench, bench.desktop(2), program)
    });
}

async fn program(config: Config) -> Result<()> {
    let client = Client::try_from(config)?;
    let version = client.apiserver_version().await?;
    ensure!((version.major.as_str(), version.minor.as_str()) == ("1", "32"), "{version:?}");
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    lists(&maps).await.context("lists")?;
    watches(&maps).await.context("watches")?;
    informs(&maps).await.context("informs")?;
    applies(&Api::default_namespaced(client.clone())).await.context("applies")?;
    streams(&Api::default_namespaced(client)).await.context("streams")
}

fn config_map(name: &str, value: &str) -> Result<ConfigMap> {
    made(json!({"metadata": {"name": name, "labels": {"of": "rust"}}, "data": {"value": value}}))
}

fn made<T: DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

fn value_of(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("value").map(String::as_str)
}

async fn soon<T>(what: &str, happens: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(SOON, happens).await.with_context(|| format!("gave up waiting for {what}"))
}

/// Whether it was refused with this code.
fn is_refused<T>(answer: kube::Result<T>, code: u16) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == code => Ok(()),
        Err(error) => bail!("it was not refused with {code}: {error}"),
        Ok(_) => bail!("it was not refused"),
    }
}

async fn lists(maps: &Api<ConfigMap>) -> Result<()> {
    for index in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("page-{index}"), "0")?).await?;
    }
    let (mut names, mut params) = (Vec::new(), ListParams::default().labels(OURS).limit(2));
    loop {
        let page = maps.list(&params).await?;
        ensure!(page.items.len() <= 2, "a page is larger than its limit");
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    ensure!(names == (0..5).map(|index| format!("page-{index}")).collect::<Vec<_>>(), "{names:?}");
    let one = maps.list_metadata(&ListParams::default().fields("metadata.name=page-3")).await?;
    ensure!(one.items.len() == 1 && one.items[0].labels()["of"] == "rust", "{one:?}");
    is_refused(maps.create(&PostParams::default(), &config_map("page-0", "1")?).await, 409)?;
    ensure!(maps.get_opt("none").await?.is_none());
    let stale = maps.get("page-0").await?;
    let patched =
        maps.patch("page-0", &PatchParams::default(), &Patch::Merge(json!({"data": {"more": "1"}}))).await?;
    is_refused(maps.replace("page-0", &PostParams::default(), &stale).await, 409)?;
    let revision = patched.resource_version().context("no resourceVersion")?;
    let read = maps.get_with("page-0", &GetParams::at(&revision)).await?;
    ensure!(read == patched, "{read:?}");
    Ok(())
}

/// The next `count` changes after `revision`, and the revision after them.
async fn changes(maps: &Api<ConfigMap>, revision: &mut String, count: usize) -> Result<Vec<&'static str>> {
    let stream = maps.watch(&WatchParams::default().labels(OURS).timeout(60), revision).await?;
    pin_mut!(stream);
    let mut seen = Vec::new();
    while seen.len() < count {
        let event = soon("a change", stream.try_next()).await??.context("the watch ended")?;
        let (what, object) = match event {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            WatchEvent::Bookmark(bookmark) => {
                *revision = bookmark.metadata.resource_version;
                continue;
            }
            WatchEvent::Error(status) => bail!("{status:?}"),
        };
        *revision = object.resource_version().context("no resourceVersion")?;
        seen.push(what);
    }
    Ok(seen)
}

/// A watch that ended goes on from what it saw last, without a gap and without a repetition.
async fn watches(maps: &Api<ConfigMap>) -> Result<()> {
    let begun = maps.list(&ListParams::default().labels(OURS)).await?;
    let mut revision = begun.metadata.resource_version.context("no resourceVersion")?;
    maps.create(&PostParams::default(), &config_map("watched", "1")?).await?;
    let merge = Patch::Merge(json!({"data": {"value": "2"}}));
    maps.patch("watched", &PatchParams::default(), &merge).await?;
    ensure!(changes(maps, &mut revision, 2).await? == ["added", "modified"]);
    maps.delete("watched", &DeleteParams::default()).await?;
    maps.create(&PostParams::default(), &config_map("watched", "3")?).await?;
    ensure!(changes(maps, &mut revision, 2).await? == ["deleted", "added"]);
    // From before the beginning: the watch is told to list again.
    let stream = maps.watch(&WatchParams::default(), "1").await;
    let expired = match stream {
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => return Err(error.into()),
        Ok(stream) => {
            pin_mut!(stream);
            match soon("an error", stream.try_next()).await?? {
                Some(WatchEvent::Error(status)) => status.code,
                other => bail!("{other:?}"),
            }
        }
    };
    ensure!(expired == 410, "{expired}");
    Ok(())
}

/// Waits until a reflector's store is as it should be.
async fn follows(
    what: &str,
    stream: &mut (impl Stream<Item = watcher::Result<watcher::Event<ConfigMap>>> + Unpin),
    holds: impl Fn() -> bool,
) -> Result<()> {
    soon(what, async {
        while !holds() {
            stream.next().await.context("the informer ended")??;
        }
        Ok(())
    })
    .await?
}

/// Both ways that informers begin: with pages of a list, and with a watch that lists first.
async fn informs(maps: &Api<ConfigMap>) -> Result<()> {
    for config in [watcher::Config::default().page_size(2), watcher::Config::default().streaming_lists()] {
        let (store, writer) = reflector::store();
        let stream = watcher(maps.clone(), config.labels(OURS)).default_backoff().reflect(writer);
        pin_mut!(stream);
        let held = |name: &str| {
            let found = store.find(|map: &ConfigMap| map.name_any() == name);
            found.and_then(|map| value_of(&map).map(str::to_owned))
        };
        follows("the cache to be filled", &mut stream, || {
            held("page-3").is_some() && held("watched").as_deref() == Some("3")
        })
        .await?;
        maps.create(&PostParams::default(), &config_map("later", "1")?).await?;
        let merge = Patch::Merge(json!({"data": {"value": "4"}}));
        maps.patch("page-3", &PatchParams::default(), &merge).await?;
        follows("the cache to follow", &mut stream, || {
            held("later").is_some() && held("page-3").as_deref() == Some("4")
        })
        .await?;
        maps.delete("later", &DeleteParams::default()).await?;
        follows("the cache to forget", &mut stream, || held("later").is_none()).await?;
    }
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels(OURS)).await?;
    let left = maps.list(&ListParams::default().labels(OURS)).await?.items;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

/// Server-side apply: fields have managers, who are told when another one wants theirs.
async fn applies(deployments: &Api<Deployment>) -> Result<()> {
    let wish = |spec: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "rs"}, "spec": spec});
    let whole = |replicas: Option<i32>| {
        let mut spec = json!({
            "selector": {"matchLabels": {"app": "rs"}},
            "template": {"metadata": {"labels": {"app": "rs"}}, "spec": {"containers": [
                {"name": "main", "image": "busybox", "command": ["sleep", "1"]}]}},
        });
        if let Some(replicas) = replicas {
            spec["replicas"] = replicas.into();
        }
        Patch::Apply(wish(spec))
    };
    let replicas = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let (one, two) = (PatchParams::apply("one"), PatchParams::apply("two"));
    ensure!(replicas(&deployments.patch("rs", &one, &whole(Some(0))).await?) == Some(0));
    let more = Patch::Apply(wish(json!({"replicas": 1})));
    is_refused(deployments.patch("rs", &two, &more).await, 409)?;
    let taken = deployments.patch("rs", &two.clone().force(), &more).await?;
    ensure!(replicas(&taken) == Some(1), "{taken:?}");
    let kept = deployments.patch("rs", &one, &whole(None)).await?;
    ensure!(replicas(&kept) == Some(1), "{kept:?}");
    let managers: Vec<_> =
        kept.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    ensure!(managers.contains(&"one") && managers.contains(&"two"), "{managers:?}");
    let scale = deployments.patch_scale("rs", &one, &Patch::Merge(json!({"spec": {"replicas": 2}}))).await?;
    ensure!(scale.spec.and_then(|spec| spec.replicas) == Some(2));
    let uid = kept.uid().context("no uid")?;
    deployments.delete("rs", &DeleteParams::foreground()).await?;
    soon("the deletion", await_condition(deployments.clone(), "rs", conditions::is_deleted(&uid))).await??;
    Ok(())
}

async fn text(reader: Option<impl tokio::io::AsyncRead + Unpin>) -> Result<String> {
    let mut text = String::new();
    let mut reader = reader.context("no such stream")?;
    soon("the end of a stream", reader.read_to_string(&mut text)).await??;
    Ok(text)
}

/// exec, logs and port-forward.
async fn streams(pods: &Api<Pod>) -> Result<()> {
    let serve = "mkdir /www; echo page > /www/index.html; echo ready; httpd -f -p 8080 -h /www";
    let pod = json!({
        "metadata": {"name": "rs"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "busybox",
            "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", serve]}]},
    });
    pods.create(&PostParams::default(), &made(pod)?).await?;
    soon("the pod to run", await_condition(pods.clone(), "rs", conditions::is_pod_running())).await??;
    let follow = LogParams { follow: true, ..LogParams::default() };
    let mut lines = futures::AsyncBufReadExt::lines(pods.log_stream("rs", &follow).await?);
    ensure!(soon("its log", lines.next()).await?.context("the log ended")?? == "ready");
    ensure!(pods.logs("rs", &LogParams::default()).await? == "ready\n");

    let mut said =
        pods.exec("rs", ["sh", "-c", "echo out; echo err >&2; exit 3"], &AttachParams::default()).await?;
    let status = said.take_status().context("no status")?;
    ensure!(text(said.stdout()).await? == "out\n" && text(said.stderr()).await? == "err\n");
    let status = soon("its status", status).await?.context("no status")?;
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref()).into_iter().flatten();
    let exit = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_deref());
    ensure!(exit == Some("3"), "{status:?}");
    let mut talk = pods.exec("rs", ["cat"], &AttachParams::default().stdin(true).stderr(false)).await?;
    let mut stdin = talk.stdin().context("no stdin")?;
    stdin.write_all(b"typed\n").await?;
    stdin.shutdown().await?;
    drop(stdin);
    ensure!(text(talk.stdout()).await? == "typed\n");

    let mut forward = pods.portforward("rs", &[8080]).await?;
    let mut port = forward.take_stream(8080).context("no stream")?;
    port.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await?;
    let answer = text(Some(port)).await?;
    ensure!(answer.starts_with("HTTP/1.") && answer.ends_with("page\n"), "{answer:?}");
    forward.abort();
    pods.delete("rs", &DeleteParams::default()).await?;
    Ok(())
}
