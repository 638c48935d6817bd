//! The daemon's life: open what is kept, wire the parts together, run, leave or stop.

mod addresses;
mod facts;
mod leave;
mod notes;
mod revocations;

use crate::agent::{Agent, AgentConfig, ApiPlace};
use crate::api::{self, ApiState};
use crate::control::{self, ControlState};
use crate::datadir::{DataDir, Remembered, write_atomically};
use crate::flock::{self, Flock, FlockConfig, FlockDocuments, FlockStatus};
use crate::guard::{Guard, GuardConfig, agent_dir};
use crate::kubeconfig;
use crate::options::{UpOptions, WeakPhrase, admin_kubeconfig};
use crate::owner::{self, OwnerState};
use crate::pki::{Authority, ServerCertificate};
use crate::remote::{self, FlockImages, FlockPods};
use crate::tokens::{AdminToken, Revocations, SigningKey, TokenKeeper};
use anyhow::Context;
use facts::Offer;
use gaggle_gossip::identity::{ClusterKey, Phrase, Strength};
use gaggle_gossip::intent::{Intent, KubernetesLists};
use gaggle_gossip::membership::{Membership, MembershipConfig};
use gaggle_gossip::transport::{Transport, TransportConfig};
use gaggle_sched::controller::Settings;
use gaggle_sched::controller::node::NodeConfig;
use gaggle_sched::controller::token::SignTokens;
use gaggle_sched::runner;
use gaggle_sched::state::View;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// No leader that acts for this long: then writes are kept as intent without looking for one.
const QUORUM_PATIENCE: Duration = Duration::from_millis(2500);
/// How often what helps a restart (peers' addresses) is written down.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);
/// Events about the electorate that wait to be stored; more are dropped, since the log has them too.
const NOTES_WAITING: usize = 64;
/// How long open requests may take when the daemon ends.
const DRAIN: Duration = Duration::from_secs(3);

/// What a person in front of `gaggle up` should see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// A phrase was made: the line to type on the other desktops.
    MadePhrase {
        phrase: String,
    },
    /// What is being done or waited for.
    Step(String),
    /// Something that a person should mend (Docker is absent, a phrase that others do not share).
    Problem(String),
    Ready {
        name: String,
        nodes: usize,
        data_dir: PathBuf,
        api: String,
    },
    Leaving(String),
    Stopped,
}

/// Runs the daemon until it is told to leave (`gaggle down`, SIGINT, SIGTERM).
pub async fn run(
    options: UpOptions,
    report: impl Fn(Milestone) + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let report = Arc::new(report);
    // A phrase that is refused leaves nothing behind.
    let phrase = given_phrase(&options)?;
    let dir = DataDir::open(&options.data_dir)?;
    let key = cluster_key(&dir, phrase, &*report)?;
    // Before anything that takes its time: containers of the daemon before this one may run on.
    let guard = Guard::start(GuardConfig {
        data_dir: options.data_dir.clone(),
        docker_host: options.docker_host.to_string(),
        cluster: key.cluster_id(),
        node: options.name.to_string(),
    });
    let daemon = Daemon::start(options, dir, key, guard, report.clone()).await?;
    let outcome = daemon.run(report.clone()).await;
    report(Milestone::Stopped);
    outcome
}

fn given_phrase(options: &UpOptions) -> anyhow::Result<Option<Phrase>> {
    let strength = match options.weak_phrase {
        WeakPhrase::Refuse => Strength::Checked,
        WeakPhrase::Allow => Strength::Forced,
    };
    options.phrase.as_ref().map(|phrase| Ok(Phrase::parse(phrase.expose(), strength)?)).transpose()
}

fn cluster_key(
    dir: &DataDir,
    phrase: Option<Phrase>,
    report: &dyn Fn(Milestone),
) -> anyhow::Result<ClusterKey> {
    let key = match phrase {
        // What the directory says is not asked: it may be what the phrase is to mend.
        Some(phrase) => ClusterKey::stretch(&phrase)?,
        None => match dir.cluster_key()? {
            Some(key) => key,
            None => {
                let phrase = Phrase::generate();
                report(Milestone::MadePhrase { phrase: phrase.as_str().to_owned() });
                ClusterKey::stretch(&phrase)?
            }
        },
    };
    dir.belong_to(&key)?;
    Ok(key)
}

/// Everything that runs, and what ends it.
struct Daemon {
    options: UpOptions,
    dir: DataDir,
    /// Until it is dismissed.
    guard: Option<Guard>,
    transport: Transport,
    membership: Membership,
    view: View,
    flock: Flock,
    agent: Agent,
    owner: watch::Receiver<OwnerState>,
    offer: watch::Sender<Offer>,
    certificate: Arc<ServerCertificate>,
    api_port: u16,
    leave: mpsc::Receiver<control::LeaveRequest>,
    stop_api: CancellationToken,
    api: tokio::task::JoinHandle<()>,
}

impl Daemon {
    async fn start(
        options: UpOptions,
        dir: DataDir,
        key: ClusterKey,
        guard: Guard,
        report: Arc<impl Fn(Milestone) + Send + Sync + 'static>,
    ) -> anyhow::Result<Self> {
        let name = options.name.as_str().to_owned();
        let started_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);

        // Bind what can fail before anything is told to others.
        let listener = std::net::TcpListener::bind(options.api_listen)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .and_then(tokio::net::TcpListener::from_std)
            .with_context(|| {
                format!("the API cannot listen on {} (choose another with --api-listen)", options.api_listen)
            })?;
        let api_port = listener.local_addr()?.port();
        let certificate = Arc::new(ServerCertificate::new(
            Authority::from_seed(&key.derive("api authority"))?,
            &name,
            &[],
        )?);
        let (admin, cluster) = (AdminToken::of(&key), key.cluster_id());

        let remembered = dir.remembered();
        let transport = Transport::start(
            TransportConfig {
                listen: vec![options.listen],
                peers: options.peers.iter().map(ToString::to_string).collect(),
                remembered: remembered.peers,
                mdns: true,
            },
            &key,
            dir.node_key()?,
        )
        .with_context(|| {
            format!("the desktops' network cannot start on {} (choose another with --listen)", options.listen)
        })?;
        report(Milestone::Step(format!("node {name} ({}), cluster {}", transport.local(), key.cluster_id())));
        let membership = Membership::start(transport.clone(), started_ms, MembershipConfig::lan()).await?;

        let me = transport.local().to_string();
        let (intent, damaged) = Intent::open_or_begin_anew(&dir.path("intent.redb"), &me, KubernetesLists)?;
        if let Some(aside) = damaged {
            let aside = aside.display();
            report(Milestone::Problem(format!(
                "the documents of what was asked for were damaged; they are set aside in {aside} and fetched anew from \
                 the other desktops (what was written on this one alone and reached no other is lost)"
            )));
        }
        let view = View::default();
        let (notes_tx, flock_notes) = mpsc::channel(NOTES_WAITING);
        let flock_config = FlockConfig {
            raft: dir.path("raft"),
            view: dir.path("view"),
            word: dir.path("word"),
            started_ms,
            autonomy: options.autonomy.map(|autonomy| autonomy.0),
            voters: options.voters.0,
            notes: notes_tx,
        };
        let (net, gossip) = (transport.clone(), membership.clone());
        let flock = Flock::start(flock_config, net, gossip, view.clone(), intent.clone()).await?;

        let revoked = Revocations::default();
        // Before the first request: what was revoked stays so over a restart, with or without a group.
        revocations::heed(&intent, &revoked).await;
        let signing = SigningKey::of(&key);
        let tokens = Arc::new(TokenKeeper::new(admin.known(), signing, view.clone(), revoked.clone()));
        let signer: Arc<dyn SignTokens> = tokens.clone();
        let authority_pem: Arc<str> = certificate.authority().certificate_pem().into();
        let images = Arc::new(FlockImages { transport: transport.clone(), membership: membership.clone() });
        let agent_config = AgentConfig {
            node: name.clone(),
            cluster: key.cluster_id(),
            docker_host: Some(options.docker_host.to_string()),
            dir: agent_dir(&options.data_dir),
            dns: Vec::new(),
            dns_search: Vec::new(),
            api: Some(ApiPlace { listens: listener.local_addr()?, authority_pem: authority_pem.clone() }),
        };
        let agent = Agent::start(
            agent_config,
            view.clone(),
            derived(flock.status.clone(), |status| status.current),
            guard.pass_on(flock.led.clone()).await,
            flock.propose.clone(),
            images,
            tokens.clone(),
        );

        let (keeper, exchange) = flock::exchange(transport.clone(), intent.clone());
        let hurry = Arc::new(Notify::new());
        let documents = Arc::new(FlockDocuments::new(
            intent.clone(),
            keeper,
            view.clone(),
            derived(flock.status.clone(), |status| status.quorum),
            hurry.clone(),
        ));
        let pods = Arc::new(FlockPods {
            node: name.clone(),
            agent: agent.clone(),
            transport: transport.clone(),
            membership: membership.clone(),
        });
        let (leave_tx, leave) = mpsc::channel(1);
        let own = control::routes(ControlState {
            cluster: key.cluster_id(),
            node: name.clone(),
            flock: flock.status.clone(),
            members: membership.members(),
            view: view.clone(),
            agent: agent.clone(),
            propose: flock.propose.clone(),
            leave: leave_tx,
            recover: flock.clone(),
        });
        let state = ApiState {
            view: view.clone(),
            kinds: api::kinds::Kinds::new(view.clone()),
            propose: flock.propose.clone(),
            documents,
            usages: pods.clone(),
            pods,
            tokens,
            node: name.clone(),
            quorum: lasting_quorum(flock.status.clone()),
        };
        let stop_api = CancellationToken::new();
        let router = api::router_with(state, own);
        tokio::task::spawn_blocking(api::schema::warm);
        let api = tokio::spawn(api::serve(listener, certificate.tls_config(), router, stop_api.clone()));

        let server = format!("https://127.0.0.1:{api_port}");
        let admin = kubeconfig::render(&certificate, &admin, &server, &cluster);
        write_atomically(&admin_kubeconfig(&options.data_dir), admin.as_bytes())?;

        tokio::spawn(remote::serve_logs(transport.clone(), agent.clone()));
        tokio::spawn(remote::serve_streams(transport.clone(), agent.clone()));
        tokio::spawn(remote::serve_images(transport.clone(), agent.clone()));
        tokio::spawn(remote::serve_usage(transport.clone(), agent.clone()));
        tokio::spawn(flock::refuse_forever(view.clone(), transport.clone(), flock.status.clone()));
        tokio::spawn(flock::bring_forever(
            view.clone(),
            flock.propose.clone(),
            membership.members(),
            flock.status.clone(),
            (name.clone(), dir.path("evicted.json")),
        ));
        tokio::spawn(exchange);
        tokio::spawn(flock::apply_forever(view.clone(), intent.clone(), hurry));
        tokio::spawn(flock::compact_forever(intent.clone()));
        tokio::spawn(revocations::heed_forever(intent.clone(), revoked));
        tokio::spawn(flock::adopt_forever(view.clone(), intent, flock.propose.clone(), flock.lead.clone()));
        for notes in agent.take_notes().into_iter().chain([flock_notes]) {
            tokio::spawn(notes::store_forever(view.clone(), flock.propose.clone(), notes, name.clone()));
        }
        tokio::spawn(runner::run(
            view.clone(),
            flock.propose.clone(),
            runner_inputs(&flock, &membership, Settings { authority_pem, signer: Some(signer) }),
        ));

        let offer = watch::Sender::new(Offer::new(&options, started_ms, api_port));
        Ok(Self {
            options,
            dir,
            guard: Some(guard),
            transport,
            membership,
            view,
            flock,
            agent,
            owner: owner::watch(owner::Sources::default()),
            offer,
            certificate,
            api_port,
            leave,
            stop_api,
            api,
        })
    }

    async fn run(mut self, report: Arc<impl Fn(Milestone) + Send + Sync + 'static>) -> anyhow::Result<()> {
        let mut status = self.flock.status.clone();
        let mut engine = self.agent.engine();
        let mut images = self.agent.images();
        let mut listening = self.transport.listening();
        let mut owner = self.owner.clone();
        let mut refusals = self.transport.refusals();
        let mut revisions = self.view.subscribe();
        let mut remember = tokio::time::interval(REMEMBER_EVERY);
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let mut ready = false;
        let mut last_step = String::new();
        // That Docker is being looked for is no news at the start.
        let mut last_problem = engine.borrow().problem.clone().unwrap_or_default();
        let (view, transport) = (self.view.clone(), self.transport.clone());
        let mut evicted = Box::pin(flock::until_evicted(view, transport, status.clone()));
        self.publish_facts();
        self.membership.publish_images(images.borrow_and_update().clone());
        let request = loop {
            tokio::select! {
                changed = status.changed() => changed.context("the flock's task ended")?,
                changed = engine.changed() => { changed.context("the agent's task ended")?; self.publish_facts(); }
                changed = images.changed() => {
                    changed.context("the agent's task ended")?;
                    self.membership.publish_images(images.borrow_and_update().clone());
                }
                changed = listening.changed() => { changed.context("the transport's task ended")?; self.publish_facts(); }
                changed = refusals.changed() => {
                    changed.context("the transport's task ended")?;
                    if let Some(refusal) = &*refusals.borrow_and_update() {
                        report(Milestone::Problem(refusal.to_string()));
                    }
                }
                changed = owner.changed() => { changed.context("the owner's watch ended")?; self.publish_facts(); }
                why = &mut evicted => return self.stop_evicted(why, &*report).await,
                _ = revisions.changed(), if !ready => {}
                _ = remember.tick() => self.remember(),
                Some(request) = self.leave.recv() => break Some(request),
                _ = tokio::signal::ctrl_c() => break None,
                _ = terminate.recv() => break None,
            }
            let now = status.borrow_and_update().clone();
            // Not marked as seen: that is for the branch above, which tells the others.
            let problem = engine.borrow().problem.clone().unwrap_or_default();
            if problem != last_problem && !problem.is_empty() {
                report(Milestone::Problem(problem.clone()));
            }
            last_problem = problem;
            if !now.why.is_empty() && now.why != last_step {
                last_step = now.why.clone();
                report(Milestone::Step(now.why.clone()));
            }
            if !ready && self.is_ready(&now) {
                ready = true;
                report(Milestone::Ready {
                    name: self.options.name.to_string(),
                    nodes: self.view.read(|store| store.list(&facts::nodes(), None).count()),
                    data_dir: self.options.data_dir.clone(),
                    api: format!("https://127.0.0.1:{}", self.api_port),
                });
            }
        };
        self.finish(request, report).await
    }

    /// The group is followed and has taken this node in.
    fn is_ready(&self, status: &FlockStatus) -> bool {
        status.current
            && status.quorum
            && self.view.read(|store| facts::node_is_ready(store, self.options.name.as_str()))
    }

    fn publish_facts(&self) {
        let addresses: Vec<_> =
            self.transport.listening().borrow().iter().map(|address| address.ip()).collect();
        // Pods look for the API where Docker's network has this desktop, also if other desktops are heard elsewhere.
        let gateway = self.agent.engine().borrow().gateway;
        let named: Vec<_> = addresses.iter().copied().chain(gateway).collect();
        if let Err(error) = self.certificate.set_addresses(&named) {
            tracing::error!(%error, "the API keeps its old certificate");
        }
        let reachable = addresses::reachable(&addresses);
        let facts =
            self.offer.borrow().facts(&reachable, &self.agent.engine().borrow(), &self.owner.borrow());
        self.membership.publish_node(facts);
    }

    fn remember(&self) {
        let remembered = Remembered {
            peers: self.transport.known().borrow().to_vec(),
            name: self.options.name.to_string(),
        };
        if let Err(error) = self.dir.remember(&remembered) {
            tracing::warn!(%error, "peers are not remembered");
        }
    }

    /// The flock goes on without this desktop, for good: what ran here for it is removed.
    async fn stop_evicted(mut self, why: String, report: &dyn Fn(Milestone)) -> anyhow::Result<()> {
        report(Milestone::Leaving(format!("{why}: removing its containers")));
        leave::clear(&self.agent, &|line| report(Milestone::Leaving(line))).await;
        self.flock.stop(true).await;
        self.end().await;
        anyhow::bail!(
            "{why}. Its key in {} is refused from now on; to come back as a new node, run `gaggle up` with another \
             --data-dir, or move that directory away first",
            self.options.data_dir.display()
        )
    }

    async fn finish(
        mut self,
        request: Option<control::LeaveRequest>,
        report: Arc<impl Fn(Milestone) + Send + Sync + 'static>,
    ) -> anyhow::Result<()> {
        let tell = {
            let (report, request) =
                (report.clone(), request.as_ref().map(|request| request.progress.clone()));
            move |line: String| {
                if let Some(progress) = &request {
                    // The reader may have gone; leaving goes on all the same.
                    let _ = progress.try_send(line.clone());
                }
                report(Milestone::Leaving(line));
            }
        };
        self.offer.send_modify(|offer| offer.leaving = true);
        self.publish_facts();
        let left = tokio::select! {
            left = leave::leave(&self.flock, &self.agent, &self.view, self.options.name.as_str(), &tell) => left,
            // A second Ctrl-C: stop at once, as a crash would, which loses nothing.
            _ = tokio::signal::ctrl_c() => leave::Left::Interrupted,
        };
        self.remember();
        self.flock.stop(left == leave::Left::Gone).await;
        match &request {
            // Whoever asked is to know that it did not go as they wanted.
            Some(request) if left == leave::Left::TimedOut => {
                let _ = request.progress.try_send(format!("{}{left}", control::LEAVE_FAILED));
                report(Milestone::Leaving(left.to_string()));
            }
            _ => tell(left.to_string()),
        }
        drop((request, tell));
        self.end().await;
        Ok(())
    }

    /// Ends all that runs.
    async fn end(&mut self) {
        self.stop_api.cancel();
        if tokio::time::timeout(DRAIN, &mut self.api).await.is_err() {
            self.api.abort();
        }
        self.agent.stop().await;
        if let Some(guard) = self.guard.take() {
            guard.dismiss().await;
        }
        self.membership.leave().await;
        self.transport.shutdown().await;
    }
}

/// One truth about the flock, as a watch of its own.
fn derived(
    mut status: watch::Receiver<FlockStatus>,
    fact: fn(&FlockStatus) -> bool,
) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(fact(&status.borrow()));
    tokio::spawn(async move {
        while status.changed().await.is_ok() {
            let now = fact(&status.borrow_and_update());
            sender.send_if_modified(|last| std::mem::replace(last, now) != now);
        }
    });
    receiver
}

/// Whether writes are worth bringing to a leader: not once there has been none for a while. A moment without one (an
/// election, a desktop that is held up) is waited for by whoever brings a write.
fn lasting_quorum(mut status: watch::Receiver<FlockStatus>) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            if status.wait_for(|status| status.quorum).await.is_err() {
                return;
            }
            sender.send_if_modified(|there| !std::mem::replace(there, true));
            if status.wait_for(|status| !status.quorum).await.is_err() {
                return;
            }
            match tokio::time::timeout(QUORUM_PATIENCE, status.wait_for(|status| status.quorum)).await {
                Ok(Ok(_)) => continue,
                Ok(Err(_)) => return,
                Err(_) => _ = sender.send_replace(false),
            }
        }
    });
    receiver
}

fn runner_inputs(flock: &Flock, membership: &Membership, settings: Settings) -> runner::Inputs {
    let mut members = membership.members();
    let (status, whole) = (flock.status.clone(), flock.clone());
    let (nodes_tx, nodes) = watch::channel(Arc::default());
    let (images_tx, images) = watch::channel(Arc::default());
    tokio::spawn(async move {
        // Reports carry times ("dead for"), so they are made anew also when nothing else changes.
        let mut again = tokio::time::interval(Duration::from_millis(500));
        loop {
            let group = status.borrow().group.clone();
            let reports = flock::node_reports(&members.borrow_and_update(), &group, &whole.held());
            let held = Arc::new(flock::images_by_node(&members.borrow()));
            if nodes_tx.send(Arc::new(reports)).is_err() {
                return;
            }
            images_tx.send_if_modified(|last| std::mem::replace(last, held.clone()) != held);
            tokio::select! {
                changed = members.changed() => if changed.is_err() { return },
                _ = again.tick() => {}
            }
        }
    });
    let node_config = NodeConfig::default();
    runner::Inputs { lead: flock.lead.clone(), nodes, images, now, node_config, settings }
}

/// The present, as Kubernetes writes it.
pub fn now() -> Time {
    Time(k8s_openapi::jiff::Timestamp::now())
}

/// Waits until `deadline` for something to become true of a watched value.
async fn eventually<T>(
    watched: &mut watch::Receiver<T>,
    deadline: Instant,
    holds: impl FnMut(&T) -> bool,
) -> bool {
    matches!(tokio::time::timeout_at(deadline, watched.wait_for(holds)).await, Ok(Ok(_)))
}
